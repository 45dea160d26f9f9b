"""Shapes that rays meet: boxes, balls, cylinders, gable roofs and clumps of foliage, each inside [-1, 1]^3.

Shapes are met in their own axes, x right, y down, z forward, scaled so that their half extents are 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = Literal["box", "ball", "cylinder", "roof", "foliage"]
SHAPES: tuple[Shape, ...] = ("box", "ball", "cylinder", "roof", "foliage")
# the half spaces n . p <= d of a gable roof: ridge along z, eaves at y = 1
_ROOF_NORMALS = torch.tensor([[2.0, -1, 0], [-2, -1, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]])
_ROOF_BOUNDS = torch.ones(5)
_SHELLS = ((1.0, 0.5), (0.86, 0.1), (0.7, -0.3))  # radius, and how much noise makes a leaf there
_LEAF_SIDE = 128  # cells of the noise that foliage is cut from


@dataclass(frozen=True)
class Solid:
    shape: Shape
    centre: tuple[float, float, float]  # metres; y counted upwards from the floor
    half: tuple[float, float, float]  # half extents, metres
    yaw: float  # radians about the vertical
    material: str


def turn(yaw: Tensor, points: Tensor) -> Tensor:
    """World [..., 3] to the axes of solids that stand turned by `yaw` [...] about the vertical."""
    cosine, sine = yaw.cos(), yaw.sin()
    x, y, z = points.unbind(-1)
    return torch.stack([cosine * x - sine * z, y.expand_as(x), sine * x + cosine * z], dim=-1)


def meet(shape: Shape, origin: Tensor, directions: Tensor) -> Tensor:
    """How far [P], in lengths of `directions` [P, 3], rays from `origin` [3] go before they enter; inf = never."""
    return _MEET[shape](origin, directions)


def _meet_box(origin: Tensor, directions: Tensor) -> Tensor:
    inverse = 1 / torch.where(directions.abs() < 1e-7, 1e-7, directions)
    one, other = (-1 - origin) * inverse, (1 - origin) * inverse
    enter, leave = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
    return torch.where((enter < leave) & (enter > 0), enter, math.inf)


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Both solutions of a t^2 + 2 b t + c = 0 in order; inf where there is none."""
    a = a.clamp_min(1e-10)
    root = b * b - a * c
    half = root.clamp_min(0).sqrt()
    return torch.where(root > 0, (-b - half) / a, math.inf), torch.where(root > 0, (-b + half) / a, math.inf)


def _meet_ball(origin: Tensor, directions: Tensor) -> Tensor:
    enter, _ = _roots(directions.square().sum(-1), directions @ origin, origin.square().sum() - 1)
    return torch.where(enter > 0, enter, math.inf)


def _meet_cylinder(origin: Tensor, directions: Tensor) -> Tensor:
    flat, at = directions[:, [0, 2]], origin[[0, 2]]
    enter, leave = _roots(flat.square().sum(-1), flat @ at, at.square().sum() - 1)
    inverse = 1 / torch.where(directions[:, 1].abs() < 1e-7, 1e-7, directions[:, 1])
    one, other = (-1 - origin[1]) * inverse, (1 - origin[1]) * inverse
    enter, leave = torch.maximum(enter, torch.minimum(one, other)), torch.minimum(leave, torch.maximum(one, other))
    return torch.where((enter < leave) & (enter > 0), enter, math.inf)


def _meet_roof(origin: Tensor, directions: Tensor) -> Tensor:
    speed, room = directions @ _ROOF_NORMALS.to(directions).T, (_ROOF_BOUNDS - _ROOF_NORMALS @ origin).to(directions)
    at = room / torch.where(speed.abs() < 1e-7, 1e-7, speed)
    enter = torch.where(speed < 0, at, -math.inf).amax(-1)
    leave = torch.where(speed > 0, at, math.inf).amin(-1)
    return torch.where((enter < leave) & (enter > 0), enter, math.inf)


def _meet_foliage(origin: Tensor, directions: Tensor) -> Tensor:
    """Ragged shells within each other, met from outside or, through their gaps, from within."""
    nearest = torch.full(directions.shape[:1], math.inf, dtype=directions.dtype)
    squared, along = directions.square().sum(-1), directions @ origin
    shells = [_roots(squared, along, origin.square().sum() - radius**2) for radius, _ in _SHELLS]
    in_order = [(enter, i) for i, (enter, _) in enumerate(shells)]
    in_order += [(leave, i) for i, (_, leave) in reversed(list(enumerate(shells)))]
    searching = shells[0][1].isfinite().nonzero()[:, 0]
    for distances, i in in_order:
        distance = distances[searching]
        points = origin + distance.nan_to_num(posinf=0)[:, None] * directions[searching]
        met = (distance > 0) & distance.isfinite() & _is_leaf(points, i)
        nearest[searching[met]] = distance[met]
        searching = searching[~met]
    return nearest


def _is_leaf(points: Tensor, shell: int) -> Tensor:
    """[P] whether points of a shell lie on a leaf."""
    x, y, z = ((points + 1) * (_LEAF_SIDE / 2) + 37 * shell).long().unbind(-1)
    cell = ((x % _LEAF_SIDE) * _LEAF_SIDE + y % _LEAF_SIDE) * _LEAF_SIDE + z % _LEAF_SIDE
    return _leaf_noise()[cell] > _SHELLS[shell][1]


@cache
def _leaf_noise() -> Tensor:
    """Clumps and leaves in a cube that wraps around, of unit deviation, flat."""
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(1, 1, *[_LEAF_SIDE] * 3)
    for cells, weight in ((6, 0.8), (14, 0.6), (32, 0.8)):
        lattice = F.pad(torch.rand(1, 1, *[cells] * 3, generator=random), (1,) * 6, mode="circular") - 0.5
        side = _LEAF_SIDE + 2 * _LEAF_SIDE // cells
        smooth = F.interpolate(lattice, size=[side] * 3, mode="trilinear", align_corners=False)
        first = _LEAF_SIDE // cells
        total += weight * smooth[..., first:, first:, first:][..., :_LEAF_SIDE, :_LEAF_SIDE, :_LEAF_SIDE] / smooth.std()
    return (total / total.std()).flatten()


_MEET: dict[Shape, Callable[[Tensor, Tensor], Tensor]] = {
    "box": _meet_box,
    "ball": _meet_ball,
    "cylinder": _meet_cylinder,
    "roof": _meet_roof,
    "foliage": _meet_foliage,
}


def normals(shape: Tensor, local: Tensor, halves: Tensor) -> tuple[Tensor, Tensor]:
    """Outward unit normals [P, 3] of the surface points `local` [P, 3] (metres, the solids' axes) and the axis [P]
    across which each is textured; `shape` [P] counts in SHAPES."""
    unit = local / halves
    most = unit.abs().argmax(1)
    flat = F.one_hot(most, 3) * unit.gather(1, most[:, None]).sign()
    is_roof, is_cylinder = shape == SHAPES.index("roof"), shape == SHAPES.index("cylinder")
    is_round = (shape == SHAPES.index("ball")) | (shape == SHAPES.index("foliage"))
    normal = torch.where(is_round[:, None], F.normalize(unit / halves, dim=1), flat)
    side = F.normalize(unit * torch.tensor([1.0, 0, 1]) / halves, dim=1)
    cap = unit[:, 1].abs() > unit[:, [0, 2]].norm(dim=1)
    normal = torch.where((is_cylinder & ~cap)[:, None], side, normal)
    nearest_plane = (unit @ _ROOF_NORMALS.T - _ROOF_BOUNDS).argmax(1)
    gable = F.normalize(_ROOF_NORMALS[nearest_plane] / halves, dim=1)
    normal = torch.where(is_roof[:, None], gable, normal)
    axis = torch.where(is_roof, torch.tensor([0, 0, 1, 2, 2])[nearest_plane], normal.abs().argmax(1))
    return normal, torch.where(is_cylinder, torch.where(cap, 1, 0), axis)


def clearance(points: Tensor, centres: Tensor, halves: Tensor, yaws: Tensor) -> Tensor:
    """Metres [P] from points [P, 3] to the nearest of the boxes around solids [N]; negative inside."""
    local = turn(yaws, points[:, None] - centres).abs() - halves
    outside, inside = local.clamp_min(0).norm(dim=-1), local.amax(-1).clamp_max(0)
    return (outside + inside).amin(1)
