"""Things that stand in places: furniture, trees, houses, cars. Each is a few solids around a spot on the floor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from photowalk.synthetic.chance import Chance
from photowalk.synthetic.solids import Shape, Solid

Triple = tuple[float, float, float]


@dataclass
class Scenery:
    """Solids as they are put up, and the names of what stands there."""

    chance: Chance
    solids: list[Solid] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def at(self, x: float, z: float, yaw: float = 0.0, name: str = "") -> Spot:
        if name and name not in self.names:
            self.names.append(name)
        return Spot(self, x, z, yaw)


@dataclass(frozen=True)
class Spot:
    """A place on the floor with axes of its own: x right, z away, turned by `yaw`."""

    scenery: Scenery
    x: float
    z: float
    yaw: float

    @property
    def chance(self) -> Chance:
        return self.scenery.chance

    def put(self, shape: Shape, at: Triple, half: Triple, material: str, yaw: float = 0.0) -> None:
        """A solid whose centre lies at (right, up, away) of the spot, metres."""
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, z = self.x + cosine * at[0] + sine * at[2], self.z - sine * at[0] + cosine * at[2]
        self.scenery.solids.append(Solid(shape, (x, at[1], z), half, self.yaw + yaw, material))

    def stand(self, shape: Shape, half: Triple, material: str, x: float = 0, z: float = 0, on: float = 0) -> float:
        """A solid on the floor, or on something `on` metres high; returns the height of its top."""
        self.put(shape, (x, on + half[1], z), half, material)
        return on + 2 * half[1]


def table(spot: Spot) -> None:
    chance = spot.chance
    width, depth, height = chance.between(0.4, 0.9), chance.between(0.3, 0.5), chance.between(0.45, 0.75)
    leg = chance.between(0.02, 0.05)
    material = chance.choice(["wood", "wood", "painted", "metal"])
    for x in (-1, 1):
        for z in (-1, 1):
            spot.stand(
                chance.choice(["box", "cylinder"]),
                (leg, height / 2, leg),
                material,
                x * (width - 0.08),
                z * (depth - 0.08),
            )
    top = spot.stand("box", (width, 0.025, depth), material, on=height)
    for _ in range(chance.integer(0, 4)):
        small_thing(spot, chance.between(-0.7, 0.7) * width, top, chance.between(-0.6, 0.6) * depth)


def small_thing(spot: Spot, x: float, on: float, z: float) -> None:
    chance = spot.chance
    size = chance.between(0.05, 0.16)
    kind = chance.integer(0, 3)
    if kind == 0:
        spot.stand("ball", (size, size, size), "painted", x, z, on)
    elif kind == 1:
        spot.stand("cylinder", (size * 0.6, size, size * 0.6), chance.choice(["painted", "metal"]), x, z, on)
    elif kind == 2:
        half = (size, size * chance.between(0.2, 1.4), size * 0.8)
        spot.put(
            "box", (x, on + half[1], z), half, chance.choice(["painted", "fabric", "books"]), chance.between(-1, 1)
        )
    else:
        spot.stand("cylinder", (0.07, 0.08, 0.07), "painted", x, z, on)
        spot.put("foliage", (x, on + 0.3, z), (0.17, 0.2, 0.17), "foliage")


def chair(spot: Spot) -> None:
    chance = spot.chance
    seat, half, material = (
        chance.between(0.4, 0.5),
        chance.between(0.19, 0.25),
        chance.choice(["wood", "painted", "metal"]),
    )
    for x in (-1, 1):
        for z in (-1, 1):
            spot.stand("cylinder", (0.02, seat / 2, 0.02), material, x * (half - 0.03), z * (half - 0.03))
    spot.stand("box", (half, 0.03, half), chance.choice([material, "fabric"]), on=seat)
    spot.put("box", (0, seat + 0.3, half - 0.02), (half, 0.25, 0.02), material)


def sofa(spot: Spot) -> None:
    chance = spot.chance
    width, depth = chance.between(0.5, 1.1), chance.between(0.4, 0.5)
    spot.stand("box", (width, 0.21, depth), "fabric")
    spot.stand("box", (width, chance.between(0.35, 0.5), 0.12), "fabric", z=depth)
    for x in (-1, 1):
        spot.stand("box", (0.1, 0.3, depth), "fabric", x=x * width)
    for _ in range(chance.integer(0, 3)):
        x = chance.between(-0.7, 0.7) * width
        spot.put("ball", (x, 0.55, depth - 0.22), (0.2, 0.18, 0.1), "fabric")


def bed(spot: Spot) -> None:
    spot.stand("box", (0.8, 0.15, 1.0), "wood")
    top = spot.stand("box", (0.78, 0.12, 0.97), "fabric", on=0.3)
    spot.stand("box", (0.8, 0.5, 0.04), "wood", z=1.0)
    for x in (-0.38, 0.38):
        spot.put("ball", (x, top + 0.04, 0.7), (0.3, 0.1, 0.2), "trim")


def cupboard(spot: Spot) -> None:
    chance = spot.chance
    half = (chance.between(0.3, 0.8), chance.between(0.35, 1.05), chance.between(0.18, 0.3))
    top = spot.stand("box", half, chance.choice(["drawers", "drawers", "books", "books", "door"]))
    if top < 1.5:
        for _ in range(chance.integer(0, 3)):
            small_thing(spot, chance.between(-0.8, 0.8) * half[0], top, 0)
        if chance.happens(0.3):
            spot.put("box", (0, top + 0.32, 0.05), (0.4, 0.3, 0.02), "picture")


def floor_lamp(spot: Spot) -> None:
    spot.stand("cylinder", (0.14, 0.015, 0.14), "metal")
    spot.stand("cylinder", (0.015, 0.75, 0.015), "metal")
    spot.put("cylinder", (0, 1.6, 0), (0.2, 0.16, 0.2), "glow")


def plant(spot: Spot) -> None:
    chance = spot.chance
    radius, height = chance.between(0.12, 0.25), chance.between(0.12, 0.22)
    spot.stand("cylinder", (radius, height, radius), chance.choice(["painted", "stone", "wood"]))
    for _ in range(chance.integer(1, 3)):
        size = chance.between(0.2, 0.45)
        at = (chance.between(-0.15, 0.15), 2 * height + chance.between(0.2, 0.9), chance.between(-0.15, 0.15))
        spot.put("foliage", at, (size, size * chance.between(0.7, 1.3), size), "foliage", chance.between(0, 3))


def crate(spot: Spot) -> None:
    chance = spot.chance
    half = chance.between(0.15, 0.4)
    top = spot.stand("box", (half, half, half), chance.choice(["wood", "painted", "metal", "picture"]))
    if chance.happens(0.5):
        small_thing(spot, 0, top, 0)


def pillar(spot: Spot, height: float = 3.0) -> None:
    radius = spot.chance.between(0.12, 0.28)
    shape: Shape = spot.chance.choice(["box", "cylinder", "cylinder"])
    spot.stand(shape, (radius, height / 2, radius), "stone")
    spot.stand("box", (radius * 1.35, 0.12, radius * 1.35), "stone")
    spot.put("box", (0, height - 0.1, 0), (radius * 1.35, 0.1, radius * 1.35), "stone")


def steps(spot: Spot) -> None:
    chance = spot.chance
    width, rise = chance.between(0.5, 1.1), chance.between(0.13, 0.18)
    for step in range(chance.integer(2, 5)):
        height = rise * (step + 1)
        spot.stand("box", (width, height / 2, 0.15), "stone", z=0.3 * step)


def bench(spot: Spot) -> None:
    width = spot.chance.between(0.5, 0.9)
    for x in (-1, 1):
        spot.stand("box", (0.05, 0.21, 0.2), "stone", x=x * (width - 0.1))
    spot.stand("box", (width, 0.03, 0.22), "wood", on=0.42)
    if spot.chance.happens(0.6):
        spot.put("box", (0, 0.72, 0.2), (width, 0.16, 0.02), "wood")


def tree(spot: Spot) -> None:
    chance = spot.chance
    height, girth = chance.between(1.6, 4.0), chance.between(0.07, 0.2)
    spot.stand("cylinder", (girth, height / 2, girth), "bark")
    if chance.happens(0.25):  # a fir: tiers that grow narrower
        for tier in range(4):
            half = height * (0.32 - 0.06 * tier)
            spot.put("foliage", (0, height * (0.5 + 0.3 * tier), 0), (half, height * 0.24, half), "foliage", tier)
        return
    for _ in range(chance.integer(2, 5)):
        half = height * chance.between(0.22, 0.42)
        at = (
            chance.between(-0.3, 0.3) * height,
            height * chance.between(0.95, 1.35),
            chance.between(-0.3, 0.3) * height,
        )
        spot.put("foliage", at, (half, half * chance.between(0.6, 1), half), "foliage", chance.between(0, 6))


def bush(spot: Spot) -> None:
    chance = spot.chance
    for _ in range(chance.integer(1, 4)):
        half = chance.between(0.25, 0.7)
        at = (chance.between(-0.5, 0.5), half * 0.6, chance.between(-0.5, 0.5))
        spot.put("foliage", at, (half, half * 0.85, half), "foliage", chance.between(0, 6))


def rock(spot: Spot) -> None:
    chance = spot.chance
    for _ in range(chance.integer(1, 3)):
        half = chance.between(0.1, 0.6)
        at = (chance.between(-0.6, 0.6), half * 0.3, chance.between(-0.6, 0.6))
        half_extents = (half * chance.between(0.8, 1.4), half * chance.between(0.5, 1), half)
        spot.put(chance.choice(["ball", "ball", "box"]), at, half_extents, "rock", chance.between(0, 3))


def street_lamp(spot: Spot) -> None:
    height = spot.chance.between(2.8, 4.5)
    spot.stand("cylinder", (0.05, height / 2, 0.05), "metal")
    spot.put("box", (0, height, -0.3), (0.08, 0.05, 0.35), "metal")


def sign(spot: Spot) -> None:
    spot.stand("cylinder", (0.03, 1.1, 0.03), "metal")
    spot.put("box", (0, 1.9, -0.05), (spot.chance.between(0.2, 0.6), spot.chance.between(0.2, 0.45), 0.02), "picture")


def car(spot: Spot) -> None:
    """Its length lies along z."""
    length, width = spot.chance.between(1.7, 2.3), spot.chance.between(0.75, 0.9)
    spot.put("box", (0, 0.55, 0), (width, 0.3, length), "painted")
    spot.put("box", (0, 1.05, 0.1), (width * 0.88, 0.22, length * 0.5), "window")
    spot.put("box", (0, 1.29, 0.1), (width * 0.85, 0.03, length * 0.46), "painted")
    for x in (-1, 1):
        for z in (-0.62, 0.62):
            spot.put("ball", (x * width, 0.32, z * length), (0.1, 0.32, 0.32), "asphalt")


def fence(spot: Spot) -> None:
    half, height = spot.chance.between(1, 2.5), spot.chance.between(0.6, 1.2)
    posts = int(half / 0.25)
    for i in range(-posts, posts + 1):
        spot.stand("box", (0.04, height / 2, 0.02), "wood", x=i * half / posts)
    for level in (0.3, 0.8):
        spot.put("box", (0, level * height, 0.03), (half, 0.03, 0.015), "wood")


def house(spot: Spot, half: Triple) -> None:
    """A house that faces along -z with windows, a door and mostly a roof."""
    chance = spot.chance
    spot.stand("box", half, "facade")
    top = 2 * half[1]
    if chance.happens(0.7):
        rise = chance.between(0.5, 1.4)
        spot.put("roof", (0, top + rise, 0), (half[2] + 0.3, rise, half[0] + 0.2), "roof", math.pi / 2)
    else:
        spot.put("box", (0, top, 0), (half[0] + 0.15, 0.12, half[2] + 0.15), "trim")
    columns, floors = max(1, int(half[0] / 0.9)), max(1, int(top / 2.6))
    door = chance.integer(0, columns - 1)
    size = (chance.between(0.3, 0.5), chance.between(0.45, 0.75))
    for column in range(columns):
        x = (2 * (column + 0.5) / columns - 1) * half[0]
        for floor in range(floors):
            if floor == 0 and column == door:
                spot.put("box", (x, 1.02, -half[2]), (0.48, 1.02, 0.04), "door")
                continue
            at = (x, 1.5 + 2.6 * floor, -half[2])
            spot.put("box", at, (*size, 0.04), "window")
            spot.put("box", (x, at[1] - size[1] - 0.05, -half[2] - 0.05), (size[0] + 0.08, 0.04, 0.1), "trim")
    for x in (-1, 1):  # windows on the sides
        spot.put("box", (x * half[0], 1.5, 0), (0.04, size[1], size[0]), "window")


Thing = Callable[[Spot], None]
INDOORS: dict[str, tuple[Thing, float]] = {  # and how far each reaches
    "a table": (table, 0.85),
    "a chair": (chair, 0.35),
    "a sofa": (sofa, 0.9),
    "a bed": (bed, 1.2),
    "a cupboard": (cupboard, 0.6),
    "a lamp": (floor_lamp, 0.2),
    "a plant": (plant, 0.4),
    "crates": (crate, 0.4),
}
OUTDOORS: dict[str, tuple[Thing, float]] = {
    "trees": (tree, 0.6),
    "bushes": (bush, 0.9),
    "rocks": (rock, 0.8),
    "a bench": (bench, 0.9),
    "crates": (crate, 0.4),
    "steps": (steps, 1.0),
    "a fence": (fence, 1.8),
    "plants in pots": (plant, 0.4),
    "a sign": (sign, 0.6),
}
