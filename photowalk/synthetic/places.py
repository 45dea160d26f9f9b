"""Where a synthetic walk leads through: rooms, corridors, halls, courtyards, streets, gardens, woods, hills.

World axes are the walk's: x right, y down, z forward, metres, the walker's eyes at the origin's height.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from photowalk.synthetic.chance import Chance
from photowalk.synthetic.solids import SHAPES, Solid, turn
from photowalk.synthetic.textures import Painter, Texture, mip_pyramid
from photowalk.synthetic.things import (
    INDOORS,
    OUTDOORS,
    Scenery,
    Thing,
    bench,
    bush,
    car,
    floor_lamp,
    house,
    pillar,
    rock,
    sign,
    street_lamp,
    tree,
)

Kind = Literal["room", "corridor", "hall", "courtyard", "street", "garden", "wood", "hills"]
VARIANTS = {"picture": 5, "facade": 4, "fabric": 3, "painted": 4, "wood": 2, "foliage": 3, "drawers": 2, "window": 2}
CONTACT_SIDE = 384


@dataclass(frozen=True)
class Place:
    kind: Kind
    caption: str
    eye: float  # height of the eyes above the floor
    free: tuple[float, float, float]  # half width, rear end and front end of where to walk
    shapes: Tensor  # [N] index into SHAPES
    centres: Tensor  # [N, 3] y down, eyes at 0
    halves: Tensor  # [N, 3]
    yaws: Tensor  # [N]
    texels: Tensor  # all textures and mip levels, [texels, 3]
    levels: Tensor  # where each mip level begins
    textures: Tensor  # [N + 1, 3] per solid and axis of its faces; the last row is the floor's
    metres: Tensor  # [N + 1, 3, 2] width and height of one texture tile (radians around cylinders)
    offsets: Tensor  # [N + 1, 3, 2]
    glow: Tensor  # [N + 1] light that a thing has of itself
    clouds: int  # texture
    contact: Tensor  # [S, S] how much of the light from above the solids keep off the floor, z by x
    contact_reach: float  # metres from the origin to the sides of that map
    walls: tuple[float, float, float] | None  # half width, half length and height of a room
    sun: Tensor  # [3] unit, towards the light
    lamp: Tensor | None  # [3] indoors
    light: Tensor  # [3] colour of sun or lamp
    ambient: Tensor  # [3] colour of the light from all sides
    tint: Tensor  # [3] exposure and white balance
    zenith: Tensor  # [3] sky colours
    horizon: Tensor
    fog: float  # share of light lost per metre
    fov_deg: float


@dataclass(frozen=True)
class _Plan:
    floor: str  # material
    free: tuple[float, float, float]
    what: str
    walls: tuple[float, float, float] | None = None


def sample_place(seed: int, kind: Kind | None = None) -> Place:
    """The place of a seed; without a kind the seed chooses one."""
    chance = Chance(seed)
    chosen = chance.choice(list(BUILDERS))
    kind = kind or chosen
    scenery = Scenery(chance)
    plan = BUILDERS[kind](scenery)
    indoors = plan.walls is not None
    eye = chance.between(0.9, min(1.9, plan.walls[2] - 0.5) if plan.walls else 1.9)
    solids = scenery.solids
    centres = torch.tensor([solid.centre for solid in solids])
    centres[:, 1] = eye - centres[:, 1]
    halves, yaws = torch.tensor([solid.half for solid in solids]), torch.tensor([solid.yaw for solid in solids])
    reach = 14.0 if indoors else 24.0
    mood, air = _air(chance, indoors)
    return Place(
        kind=kind,
        caption=_caption(plan.what, scenery.names, mood),
        eye=eye,
        free=plan.free,
        shapes=torch.tensor([SHAPES.index(solid.shape) for solid in solids]),
        centres=centres,
        halves=halves,
        yaws=yaws,
        **_surfaces(chance, solids, plan.floor),
        contact=_contact(centres, halves, yaws, eye, reach),
        contact_reach=reach,
        walls=plan.walls,
        lamp=_lamp(chance, plan, eye) if indoors else None,
        **air,
        fov_deg=chance.between(50, 85),
    )


def _caption(what: str, names: list[str], mood: str) -> str:
    if not names:
        return f"{what}, {mood}"
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return f"{what} with {listed}, {mood}"


def _lamp(chance: Chance, plan: _Plan, eye: float) -> Tensor:
    assert plan.walls is not None
    width, _, height = plan.walls
    _, rear, front = plan.free
    middle = (rear + front) / 2
    spread = 0.3 * (front - rear)
    return torch.tensor(
        [0.5 * width * chance.between(-1, 1), eye - height + 0.25, middle + spread * chance.between(-1, 1)]
    )


def _air(chance: Chance, indoors: bool) -> tuple[str, dict]:
    """A name for the light, and everything in a Place that says how it is."""
    sun = torch.tensor([chance.between(-1, 1), -chance.between(0.35, 1.3), chance.between(-1, 1)])
    mood = chance.choice(["sunshine", "sunshine", "morning light", "evening light", "an overcast day"])
    warm = {"morning light": (1.1, 0.98, 0.85), "evening light": (1.15, 0.9, 0.68)}.get(mood, (1.03, 1.0, 0.95))
    strength = chance.between(0.1, 0.25) if mood == "an overcast day" else chance.between(0.7, 1.2)
    zenith = {
        "an overcast day": chance.choice([(0.75, 0.78, 0.82), (0.6, 0.63, 0.67)]),
        "evening light": (0.45, 0.5, 0.72),
    }.get(mood, chance.choice([(0.3, 0.5, 0.85), (0.4, 0.6, 0.9), (0.5, 0.66, 0.88)]))
    horizon = (0.95, 0.8, 0.66) if mood == "evening light" else (0.86, 0.88, 0.9)
    ambient = torch.tensor([0.38, 0.41, 0.46]) if mood != "an overcast day" else torch.tensor([0.75, 0.77, 0.8])
    fog = chance.choice([0.0, 0.002, 0.004, 0.008, 0.02])
    if indoors:
        mood = chance.choice(["warm lamp light", "bright light", "soft light", "cool light"])
        warm = {"warm lamp light": (1.1, 0.95, 0.75), "cool light": (0.92, 1.0, 1.1)}.get(mood, (1.03, 1.0, 0.96))
        strength = chance.between(0.2, 0.4) if mood == "soft light" else chance.between(0.4, 0.85)
        ambient, fog = torch.tensor(warm) ** 0.5 * chance.between(0.4, 0.65), 0.0
    white = (1 + (chance.rand(3) - 0.5) * 0.12) * chance.between(0.9, 1.35)
    return mood, {
        "sun": torch.nn.functional.normalize(sun, dim=0),
        "light": torch.tensor(warm) * strength,
        "ambient": ambient,
        "tint": white,
        "zenith": torch.tensor(zenith),
        "horizon": torch.tensor(horizon),
        "fog": fog,
    }


def _surfaces(chance: Chance, solids: list[Solid], floor: str) -> dict:
    """Paints what the solids and the floor are made of: everything in a Place that says how surfaces look."""
    painter = Painter(chance)
    paints: list[Texture] = [painter.paint("clouds")]
    drawn: dict[str, list[int]] = {}
    for material in dict.fromkeys([*(solid.material for solid in solids), floor]):
        drawn[material] = list(range(len(paints), len(paints) + VARIANTS.get(material, 1)))
        paints += [painter.paint(material) for _ in drawn[material]]
    count = len(solids) + 1
    chosen = [chance.choice(drawn[solid.material]) for solid in solids] + [drawn[floor][0]]
    # hills are seen from afar, so their tiles are larger
    grown = [max(1.0, min(solid.half) / 3) for solid in solids] + [1.0]
    tile = torch.tensor([(paints[i].metres or 0.0) * scale for i, scale in zip(chosen, grown)])
    metres, offsets = tile[:, None, None].repeat(1, 3, 2), chance.rand(count, 3, 2)
    for i, solid in enumerate(solids):
        x, y, z = (2 * half for half in solid.half)
        if paints[chosen[i]].metres is None:  # drawn once across each face
            metres[i], offsets[i] = torch.tensor([[z, y], [x, z], [x, y]]), 0.5
        if solid.shape == "cylinder":  # a whole number of tiles around it
            tiles = max(1, round(math.pi * (x + z) / 2 / float(metres[i, 0, 0])))
            metres[i, 0, 0] = 2 * math.pi / tiles
    texels, levels = mip_pyramid(torch.stack([paint.image.expand(3, *paint.image.shape[1:]) for paint in paints]))
    return {
        "texels": texels,
        "levels": levels,
        "textures": torch.tensor(chosen)[:, None].repeat(1, 3),
        "metres": metres,
        "offsets": offsets,
        "glow": torch.tensor([1.3 * (solid.material == "glow") for solid in solids] + [0.0]),
        "clouds": 0,
    }


def _contact(centres: Tensor, halves: Tensor, yaws: Tensor, eye: float, reach: float) -> Tensor:
    line = ((torch.arange(CONTACT_SIDE) + 0.5) / CONTACT_SIDE * 2 - 1) * reach
    z, x = torch.meshgrid(line, line, indexing="ij")
    kept = torch.zeros(CONTACT_SIDE, CONTACT_SIDE)
    for centre, half, yaw in zip(centres, halves, yaws):
        gap = eye - float(centre[1] + half[1])  # between the floor and the solid
        if gap > 1.5:
            continue
        local = turn(yaw, torch.stack([x - centre[0], torch.zeros_like(x), z - centre[2]], dim=-1)).abs() - half
        away = local[..., [0, 2]].clamp_min(0).norm(dim=-1)
        kept = torch.maximum(kept, 0.55 * torch.exp(-away / 0.18 - max(gap, 0) / 0.4))
    return kept


def _shell(scenery: Scenery, width: float, length: float, height: float, material: str, ceiling: bool) -> None:
    """Four walls around the origin, with skirting, and mostly a ceiling; `width` and `length` are halves."""
    spot, thick, middle = scenery.at(0, 0), 0.3, height / 2
    for side in (-1, 1):
        spot.put("box", (side * (width + thick), middle, 0), (thick, middle, length + 0.5), material)
        spot.put("box", (0, middle, side * (length + thick)), (width, middle, thick), material)
        if ceiling:
            spot.put("box", (side * width, 0.05, 0), (0.015, 0.05, length), "trim")
            spot.put("box", (0, 0.05, side * length), (width, 0.05, 0.015), "trim")
    if ceiling:
        spot.put("box", (0, height + thick, 0), (width + 0.5, thick, length + 0.5), "ceiling")


def _hang(scenery: Scenery, width: float, length: float, height: float, count: int, materials: list[str]) -> None:
    """Flat things on the four walls: pictures, windows, doors."""
    chance = scenery.chance
    taken: list[tuple[int, float]] = []
    for _ in range(count):
        wall, material = chance.integer(0, 3), chance.choice(materials)
        run = (length if wall < 2 else width) - 0.7
        along = run * chance.between(-1, 1)
        if run <= 0 or any(other == wall and abs(along - at) < 1.3 for other, at in taken):
            continue
        taken.append((wall, along))
        yaw = (math.pi / 2, -math.pi / 2, 0.0, math.pi)[wall]
        sign_x, sign_z = (1, -1, 0, 0)[wall], (0, 0, 1, -1)[wall]
        spot = scenery.at(sign_x * width + abs(sign_z) * along, sign_z * length + abs(sign_x) * along, yaw)
        if material == "door":
            spot.put("box", (0, 1.02, 0), (0.45, 1.02, 0.03), "door")
            for x in (-0.5, 0.5):
                spot.put("box", (x, 1.05, 0), (0.05, 1.05, 0.05), "trim")
            spot.put("box", (0, 2.1, 0), (0.55, 0.06, 0.05), "trim")
            continue
        tall = min(chance.between(0.25, 0.6), (height - 1.3) / 2)
        wide = chance.between(0.25, 0.6)
        spot.put("box", (0, 1.55, 0), (wide, tall, 0.03), material)
        if material == "window":
            spot.put("box", (0, 1.55 - tall, 0), (wide + 0.08, 0.03, 0.12), "trim")


def _furnish(
    scenery: Scenery,
    things: dict[str, tuple[Thing, float]],
    width: float,
    length: float,
    count: int,
    path: float,
    *,
    to_walls: bool,
) -> None:
    """Things that leave a way of half width `path` along the middle free and do not stand in each other."""
    chance = scenery.chance
    taken: list[tuple[float, float, float]] = []
    for _ in range(4 * count):
        name = chance.choice(list(things))
        thing, reach = things[name]
        side = chance.choice([-1, 1])
        nearest, farthest = path + reach, width - reach * 0.6
        if farthest <= nearest or len(taken) == count:
            continue
        x = side * (farthest if to_walls and chance.happens(0.7) else chance.between(nearest, farthest))
        z = chance.between(-length + reach, length - reach)
        if any(math.hypot(x - other[0], z - other[1]) < 0.8 * (reach + other[2]) for other in taken):
            continue
        taken.append((x, z, reach))
        yaw = side * math.pi / 2 + (0.0 if to_walls else chance.between(-0.5, 0.5))
        if chance.happens(0.2):
            yaw = chance.between(-3, 3)
        thing(scenery.at(x, z, yaw, name))


def _room(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    width, length, height = chance.between(1.9, 3.6), chance.between(2.4, 5), chance.between(2.3, 3.2)
    _shell(scenery, width, length, height, "wall", ceiling=True)
    _hang(scenery, width, length, height, chance.integer(4, 12), ["picture", "picture", "window", "door"])
    _furnish(scenery, INDOORS, width, length, chance.integer(4, 12), 0.45, to_walls=True)
    name, (thing, _) = chance.choice(list(INDOORS.items()))
    thing(scenery.at(chance.between(-0.5, 0.5), length - 0.7, 0.0, name))
    if chance.happens(0.5):
        scenery.at(0, chance.between(-1, 1), name="a rug").put("box", (0, 0.006, 0), (1.1, 0.006, 1.5), "rug")
    if chance.happens(0.6):
        scenery.at(0, 0).put("box", (chance.between(-1, 1), height, chance.between(-1, 1)), (0.3, 0.04, 0.3), "glow")
    return _Plan("floor", (0.4, -length + 0.6, length - 1.6), "a room", (width, length, height))


def _corridor(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    width, length, height = chance.between(0.85, 1.5), chance.between(6, 13), chance.between(2.2, 3)
    _shell(scenery, width, length, height, "wall", ceiling=True)
    scenery.names.append("doors")
    _hang(scenery, width, length, height, int(3 * length), ["door", "door", "picture", "picture", "window"])
    for z in range(-int(length) + 1, int(length), 3):  # lights along the ceiling, sometimes beams
        scenery.at(0, z).put("box", (0, height, 0), (0.15, 0.03, 0.5), "glow")
    if chance.happens(0.4):
        for z in range(-int(length) + 2, int(length), 3):
            for side in (-1, 1):
                scenery.at(side * width, z).stand("box", (0.12, height / 2, 0.15), "trim")
    end = chance.choice(["a plant", "a cupboard", "a chair"])
    INDOORS[end][0](scenery.at(0, length - 0.4, 0.0, end))
    return _Plan("floor", (0.25, -length + 1, length - 2), "a corridor", (width, length, height))


def _hall(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    width, length, height = chance.between(3.5, 6), chance.between(6, 11), chance.between(3.2, 5)
    _shell(scenery, width, length, height, "wall", ceiling=True)
    _hang(scenery, width, length, height, chance.integer(8, 22), ["picture", "window", "door"])
    spacing, aisle = chance.between(2, 3.2), chance.between(1.3, 2.2)
    scenery.names.append("pillars")
    for z in range(-int(length / spacing), int(length / spacing) + 1):
        for side in (-1, 1):
            pillar(scenery.at(side * aisle, z * spacing), height)
    _furnish(scenery, INDOORS, width, length, chance.integer(4, 12), aisle + 0.2, to_walls=False)
    floor_lamp(scenery.at(chance.choice([-1, 1]) * 0.9, length - 1.5))
    return _Plan("floor", (0.6, -length + 1, length - 2.5), "a hall", (width, length, height))


def _courtyard(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    width, length, height = chance.between(4, 8), chance.between(5, 10), chance.between(2.8, 7)
    _shell(scenery, width, length, height, "facade", ceiling=False)
    for floor in range(max(1, int(height / 2.7))):
        _hang(
            scenery,
            width,
            length,
            height,
            chance.integer(10, 30),
            ["window", "window", "door"] if not floor else ["window"],
        )
    if chance.happens(0.5):
        scenery.names.append("an arcade")
        for side in (-1, 1):
            for z in range(-int(length) + 1, int(length), 2):
                pillar(scenery.at(side * (width - 1.2), z), 2.6)
            scenery.at(side * (width - 0.6), 0).put("box", (0, 2.75, 0), (0.8, 0.15, length), "stone")
    if chance.happens(0.4):
        well = scenery.at(chance.choice([-1, 1]) * 1.9, chance.between(0, 3), name="a well")
        well.stand("cylinder", (0.8, 0.35, 0.8), "stone")
        well.stand("cylinder", (0.2, 0.7, 0.2), "stone")
    _furnish(scenery, OUTDOORS, width, length, chance.integer(5, 14), 0.8, to_walls=False)
    return _Plan("ground", (0.6, -length + 1, length - 2.5), "a courtyard")


def _street(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    road, length = chance.between(2, 3.5), chance.between(16, 32)
    walk = chance.between(0.8, 2)
    for side in (-1, 1):
        scenery.at(side * (road + walk / 2), 0).stand("box", (walk / 2, 0.06, length), "pavement")
        z = -length
        while z < length:
            half = (chance.between(1.8, 4), chance.between(1.4, 4.5), 2.5)
            if chance.happens(0.88):
                x = side * (road + walk + half[2] + chance.choice([0, 0, 0.4, 1]))
                house(scenery.at(x, z + half[0], side * math.pi / 2), half)
            else:
                tree(scenery.at(side * (road + walk + 1.5), z + half[0], 0, "trees"))
            z += 2 * half[0] + chance.choice([0.0, 0.0, 0.5, 1.5])
        for z in range(-int(length), int(length), 7):
            street_lamp(scenery.at(side * (road + 0.3), z + chance.between(-1, 1), side * math.pi / 2))
    for _ in range(chance.integer(0, 5)):
        side = chance.choice([-1, 1])
        car(scenery.at(side * (road - 0.95), chance.between(-length / 2, length), 0, "parked cars"))
    _furnish(scenery, OUTDOORS, road + walk, length / 2, chance.integer(2, 8), road + 0.1, to_walls=False)
    for z in (-length - 3, length + 3):
        tree(scenery.at(chance.between(-2, 2), z, 0, "trees"))
    _backdrop(scenery, length + 6)
    return _Plan("road", (0.7, -8, 8), "a street between houses")


def _backdrop(scenery: Scenery, nearest: float) -> None:
    """Woods and hills far off, which hide where the floor ends."""
    chance = scenery.chance
    for _ in range(chance.integer(5, 10)):
        angle, far = chance.between(0, 2 * math.pi), chance.between(nearest + 40, nearest + 110)
        half = (chance.between(25, 60), chance.between(4, 22), chance.between(20, 40))
        spot = scenery.at(far * math.sin(angle), far * math.cos(angle), angle)
        spot.put("ball", (0, 0, 0), half, chance.choice(["meadow", "rock", "foliage"]))
    for i in range(chance.integer(12, 28)):
        angle = i * 2.4 + chance.between(-0.2, 0.2)
        far, half = chance.between(nearest, nearest + 12), chance.between(2, 4)
        spot = scenery.at(far * math.sin(angle), far * math.cos(angle), chance.between(0, 3))
        spot.put("foliage", (0, half * 0.8, 0), (half, half * chance.between(0.8, 1.3), half), "foliage")


def _garden(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    length = chance.between(7, 12)
    scenery.at(0, 0, name="a path").put("box", (0, 0.005, 0), (0.7, 0.01, length), "pavement")
    house(
        scenery.at(chance.between(-4, 4), length + 3.5, chance.between(-0.2, 0.2), "a house"),
        (chance.between(3, 5), 2.4, 2.5),
    )
    for side in (-1, 1):
        for z in range(-int(length), int(length), 2):
            bush(scenery.at(side * chance.between(5, 6.5), z, 0))
    _furnish(scenery, OUTDOORS, 5.5, length, chance.integer(8, 18), 0.8, to_walls=False)
    _backdrop(scenery, 22)
    return _Plan("meadow", (0.7, -length + 1, length - 2.5), "a garden")


def _wood(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    scenery.names.append("tall trees")
    for _ in range(chance.integer(30, 55)):
        x = chance.choice([-1, 1]) * chance.between(1.3, 14)
        tree(scenery.at(x, chance.between(-14, 20), chance.between(0, 3)))
    for _ in range(chance.integer(4, 12)):
        thing = chance.choice([bush, rock, rock])
        thing(scenery.at(chance.choice([-1, 1]) * chance.between(1.6, 6), chance.between(-10, 12)))
    _backdrop(scenery, 20)
    return _Plan(chance.choice(["ground", "meadow"]), (0.6, -8, 9), "a wood")


def _hills(scenery: Scenery) -> _Plan:
    chance = scenery.chance
    _backdrop(scenery, chance.between(15, 30))
    for _ in range(chance.integer(2, 6)):  # mounds near by
        half = (chance.between(2, 7), chance.between(0.4, 1.6), chance.between(2, 7))
        x = chance.choice([-1, 1]) * (half[0] + chance.between(1.5, 9))
        scenery.at(x, chance.between(-10, 22)).put("ball", (0, -0.1, 0), half, "meadow")
    if chance.happens(0.6):
        spot = scenery.at(
            chance.choice([-1, 1]) * chance.between(6, 9), chance.between(6, 16), chance.between(-1, 1), "a house"
        )
        house(spot, (chance.between(1.8, 3.5), 1.5, 2))
    if chance.happens(0.5):
        scenery.at(0, 0, name="a path").put("box", (0, 0.005, 0), (0.8, 0.01, 30), "ground")
    _furnish(scenery, OUTDOORS, 9, 14, chance.integer(8, 20), 0.9, to_walls=False)
    for thing in (bench, sign):
        if chance.happens(0.3):
            thing(scenery.at(1.6, chance.between(-3, 6), chance.between(-1, 1)))
    return _Plan("meadow", (0.9, -8, 9), "open land with hills")


BUILDERS: dict[Kind, Callable[[Scenery], _Plan]] = {
    "room": _room,
    "corridor": _corridor,
    "hall": _hall,
    "courtyard": _courtyard,
    "street": _street,
    "garden": _garden,
    "wood": _wood,
    "hills": _hills,
}
