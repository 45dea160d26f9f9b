"""What a synthetic place is made of: a floor, solids, light, air. Rooms, corridors, courtyards, streets, hills.

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
from photowalk.synthetic.textures import mip_pyramid, sample_texture

Kind = Literal["room", "corridor", "courtyard", "street", "hills"]
TEXTURES = 14


@dataclass(frozen=True)
class Solid:
    shape: Literal["box", "ellipsoid"]
    centre: tuple[float, float, float]  # metres; y counted upwards from the floor
    half: tuple[float, float, float]  # half extents, metres
    yaw: float = 0.0  # radians about the vertical


@dataclass(frozen=True)
class Place:
    kind: Kind
    caption: str
    eye: float  # height of the eyes above the floor
    free: tuple[float, float, float]  # half width, rear end and front end of the space that is free to walk in
    boxes: Tensor  # [N] bool, else ellipsoids
    centres: Tensor  # [N, 3] y down, eyes at 0
    halves: Tensor  # [N, 3]
    yaws: Tensor  # [N]
    texels: Tensor  # all textures and mip levels, [texels, 3]
    levels: Tensor  # where each mip level begins
    textures: Tensor  # [N + 1, 3] per solid and axis of its faces; the last row is the floor's
    metres: Tensor  # [N + 1, 3] side of one texture tile
    offsets: Tensor  # [N + 1, 3, 2]
    sun: Tensor  # [3] unit, towards the light
    lamp: Tensor | None  # [3] indoors
    ambient: float
    tint: Tensor  # [3] exposure and white balance
    zenith: Tensor  # [3] sky colours
    horizon: Tensor
    fog: float  # share of light lost per metre
    fov_deg: float


def sample_place(seed: int, kind: Kind | None = None) -> Place:
    """The place of a seed; without a kind the seed chooses one."""
    chance = Chance(seed)
    chosen = chance.choice(list(_BUILDERS))
    kind = kind or chosen
    eye = chance.between(1.1, 1.8)
    solids, free, what = _BUILDERS[kind](chance)
    indoors = kind in ("room", "corridor")
    texels, levels = mip_pyramid(torch.stack([sample_texture(chance) for _ in range(TEXTURES)]))
    count = len(solids) + 1
    centres = torch.tensor([solid.centre for solid in solids])
    centres[:, 1] = eye - centres[:, 1]
    sun = torch.tensor([chance.between(-1, 1), -chance.between(0.4, 1.5), chance.between(-1, 1)])
    lamp = torch.tensor([chance.between(-1, 1), eye - 2.2, chance.between(0, 3)]) if indoors else None
    grey = chance.between(0.8, 1.1)
    return Place(
        kind=kind,
        caption=f"{what}, {chance.choice(['morning light', 'soft light', 'hard light', 'an overcast day'])}",
        eye=eye,
        free=free,
        boxes=torch.tensor([solid.shape == "box" for solid in solids]),
        centres=centres,
        halves=torch.tensor([solid.half for solid in solids]),
        yaws=torch.tensor([solid.yaw for solid in solids]),
        texels=texels,
        levels=levels,
        textures=(chance.rand(count, 3) * TEXTURES).long(),
        metres=0.5 + 2.2 * chance.rand(count, 3),
        offsets=chance.rand(count, 3, 2),
        sun=torch.nn.functional.normalize(sun, dim=0),
        lamp=lamp,
        ambient=chance.between(0.4, 0.75),
        tint=(1 + (chance.rand(3) - 0.5) * 0.2) * chance.between(0.8, 1.3),
        zenith=torch.tensor(chance.choice([[0.35, 0.55, 0.85], [0.8, 0.85, 0.92], [0.55, 0.6, 0.65]])) * grey,
        horizon=torch.tensor([0.85, 0.87, 0.9]) * grey,
        fog=0.0 if indoors else chance.between(0, 0.02),
        fov_deg=chance.between(50, 85),
    )


def _walls(half_width: float, half_length: float, height: float, ceiling: bool) -> list[Solid]:
    thick, middle = 0.3, height / 2
    walls = [
        Solid("box", (side * (half_width + thick), middle, 0), (thick, middle, half_length + 1)) for side in (-1, 1)
    ]
    walls += [
        Solid("box", (0, middle, side * (half_length + thick)), (half_width + 1, middle, thick)) for side in (-1, 1)
    ]
    if ceiling:
        walls.append(Solid("box", (0, height + thick, 0), (half_width + 1, thick, half_length + 1)))
    return walls


def _furniture(chance: Chance, half_width: float, half_length: float, count: int, path: float = 0.75) -> list[Solid]:
    """Boxes, pillars and balls that leave a way of half width `path` along the middle free."""
    solids: list[Solid] = []
    for _ in range(count):
        half = (chance.between(0.15, 0.8), chance.between(0.15, 1.1), chance.between(0.15, 0.8))
        if chance.happens(0.2):  # a pillar
            half = (chance.between(0.08, 0.2), 1.6, chance.between(0.08, 0.2))
        nearest = path + math.hypot(half[0], half[2])
        x = math.copysign(nearest + chance.between(0, max(half_width - nearest, 0.3)), chance.between(-1, 1))
        z = chance.between(-half_length, half_length)
        yaw = chance.between(-0.8, 0.8) if chance.happens(0.4) else 0.0
        shape: Literal["box", "ellipsoid"] = "ellipsoid" if chance.happens(0.15) else "box"
        solids.append(Solid(shape, (x, half[1], z), half, yaw))
        if chance.happens(0.4):  # something on top
            top = (half[0] * chance.between(0.2, 0.7), chance.between(0.05, 0.3), half[2] * chance.between(0.2, 0.7))
            solids.append(Solid("box", (x, 2 * half[1] + top[1], z), top, chance.between(-1, 1)))
        if chance.happens(0.15):  # steps
            for step in range(3):
                solids.append(
                    Solid("box", (x, 0.09 * (step + 1), z + 0.9 - 0.28 * step), (0.5, 0.09 * (step + 1), 0.14))
                )
    return solids


Built = tuple[list[Solid], tuple[float, float, float], str]


def _room(chance: Chance) -> Built:
    half_width, half_length = chance.between(1.8, 4), chance.between(2.5, 6)
    solids = _walls(half_width, half_length, chance.between(2.4, 3.6), ceiling=True)
    solids += _furniture(chance, half_width, half_length, chance.integer(4, 12))
    return solids, (0.5, -half_length + 0.6, half_length - 1), "a room with furniture"


def _corridor(chance: Chance) -> Built:
    half_width, half_length, height = chance.between(0.9, 1.6), chance.between(7, 15), chance.between(2.3, 3.2)
    solids = _walls(half_width, half_length, height, ceiling=True)
    for side in (-1, 1):  # doors and boards on the walls
        for z in range(-int(half_length) + 1, int(half_length)):
            if chance.happens(0.4):
                tall, low = (1.0, 1.0) if chance.happens(0.6) else (chance.between(0.2, 0.5), 1.5)
                solids.append(Solid("box", (side * half_width, low, z), (0.04, tall, chance.between(0.2, 0.48))))
    return solids, (0.3, -half_length + 1, half_length - 1), "a corridor with doors"


def _courtyard(chance: Chance) -> Built:
    half_width, half_length = chance.between(4, 9), chance.between(5, 11)
    solids = _walls(half_width, half_length, chance.between(3, 8), ceiling=False)
    solids += _furniture(chance, half_width, half_length, chance.integer(5, 14), path=1.0)
    solids += _trees(chance, half_width, half_length, chance.integer(0, 4))
    return solids, (0.7, -half_length + 1, half_length - 1.5), "a courtyard under the sky"


def _street(chance: Chance) -> Built:
    half_width, half_length = chance.between(3.5, 7), chance.between(18, 40)
    solids: list[Solid] = []
    for side in (-1, 1):
        z = -half_length
        while z < half_length:
            length, height = chance.between(3, 9), chance.between(3, 10)
            if chance.happens(0.85):
                x = side * (half_width + 2 + chance.between(0, 1.5))
                solids.append(Solid("box", (x, height / 2, z + length / 2), (2, height / 2, length / 2)))
                for floor in range(int(height / 2.6)):  # windows
                    at = (side * (abs(x) - 2), 1.5 + 2.6 * floor, z + length / 2)
                    solids.append(Solid("box", at, (0.05, 0.6, min(0.8, length / 4))))
            z += length
    solids += _furniture(chance, half_width, half_length / 2, chance.integer(4, 10), path=1.2)
    solids += _trees(chance, half_width, half_length, chance.integer(0, 6))
    return solids, (0.8, -8, 10), "a street between houses"


def _hills(chance: Chance) -> Built:
    solids = [
        Solid(
            "ellipsoid",
            (chance.between(-60, 60), -1.0, chance.choice([-1, 1, 1]) * chance.between(25, 90)),
            (chance.between(12, 40), chance.between(3, 16), chance.between(12, 30)),
        )
        for _ in range(chance.integer(3, 8))
    ]
    solids += _trees(chance, 14, 22, chance.integer(4, 14))
    solids += _furniture(chance, 9, 12, chance.integer(2, 7), path=1.5)
    return solids, (1.0, -8, 9), "open land with trees and hills"


def _trees(chance: Chance, half_width: float, half_length: float, count: int) -> list[Solid]:
    solids = []
    for _ in range(count):
        x = math.copysign(chance.between(1.8, max(half_width, 2.2)), chance.between(-1, 1))
        z, height = chance.between(-half_length, half_length), chance.between(1.5, 3.5)
        solids.append(Solid("box", (x, height / 2, z), (0.12, height / 2, 0.12), chance.between(0, 1)))
        for _ in range(chance.integer(1, 3)):
            crown = (chance.between(0.5, 1.3), chance.between(0.5, 1.2), chance.between(0.5, 1.3))
            at = (x + chance.between(-0.5, 0.5), height + chance.between(0, 0.8), z + chance.between(-0.5, 0.5))
            solids.append(Solid("ellipsoid", at, crown))
    return solids


_BUILDERS: dict[Kind, Callable[[Chance], Built]] = {
    "room": _room,
    "corridor": _corridor,
    "courtyard": _courtyard,
    "street": _street,
    "hills": _hills,
}
