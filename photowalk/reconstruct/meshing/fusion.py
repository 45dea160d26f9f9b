"""What all views say together, on a sparse grid: signed distance, weight and colour in every cell near a surface.

It decides how fine cells are (by what a pixel covers and by how far the views disagree) and which exist. It trusts the
views' cameras; their depths it weighs against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.tsdf import SeenSurfaces, fuse_places
from photowalk.reconstruct.meshing.grid import Grid, Sizing, grid_of_keys, keys_at, sides_at, widened
from photowalk.scene.surfaces import Surface, surface_of
from photowalk.scene.types import View

PIXELS = 1.5  # side of a cell, in pixels of the camera nearest to it
BAND = 3.0  # truncation distance, in cells
NOISE_BAND = 2.5  # truncation distance, in standard deviations between views
FARTHEST = 80.0  # times the near depth: beyond it everything is backdrop
_GRAZING = 0.08  # cosine below which a surface is seen too flat to say where it is
_STRETCH = 4  # how many cells a pixel of a slanted surface covers at most
_CHUNK = 100_000
_GUESSED_BY, _SIZED_BY = 8, 40  # looks, at most
_ABOUT = 1.05  # times as many cells as were asked for are no reason to count them again
_CELLS_BY_SIDE = 1.7  # minus the power of the side with which cells grow in number; 2 for planes seen from everywhere
_BORDER = 2  # pixels at the image's rim that say nothing


@dataclass(frozen=True)
class Field:
    """The fused walk: one value per cell of the grid."""

    grid: Grid
    distance: Tensor  # [N] signed, in world units, positive before the surface; meaningless where weight is 0
    weight: Tensor  # [N] 0 where nobody saw anything
    colour: Tensor  # [N, 3] in [0, 1]
    invented: Tensor  # [N] bool: a guess that closes a hole


@dataclass(frozen=True)
class Look:
    """A view and the surface that it saw."""

    view: View
    surface: Surface
    valid: Tensor  # [H, W] bool


def looks_of(views: Sequence[View]) -> list[Look]:
    """What is worth fusing: finite depth, not at the rim, not grazing, not too far."""
    near = near_depth(views)
    looks = []
    for view in views:
        surface = surface_of(view.depth, view.camera)
        valid = surface.valid & (surface.slant > _GRAZING) & (view.depth < FARTHEST * near)
        inner = torch.zeros_like(valid)
        inner[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
        looks.append(Look(view, surface, valid & inner))
    return looks


def near_depth(views: Sequence[View]) -> float:
    """The depth that a third of what the views see is nearer than."""
    samples = [view.depth[(view.depth > 0) & view.depth.isfinite()].flatten()[::37] for view in views]
    return float(torch.cat(samples).quantile(1 / 3)) if samples and len(torch.cat(samples)) else 1.0


def disagreement(looks: Sequence[Look]) -> float:
    """Standard deviation between views' depths of the same place, relative to depth (robust; 0 for a single view)."""
    differences = []
    for one, other in [*pairwise(looks), *zip(looks, looks[len(looks) // 2 :])]:
        points = one.surface.points[one.valid][::17]
        pixels, depth = other.view.camera.project(points)
        camera = other.view.camera
        column, row = pixels.floor().nan_to_num(-1).clamp(-1, 1e6).long().unbind(-1)
        inside = (depth > 0) & (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
        pixel = (row * camera.width + column)[inside]
        there = other.view.depth.flatten()[pixel]
        facing = (other.surface.slant.flatten()[pixel] > 0.3) & other.valid.flatten()[pixel]
        relative = (depth[inside] / there - 1)[facing]
        differences.append(relative[relative.abs() < 0.3])  # more than that is another surface
    every = torch.cat(differences) if differences else torch.zeros(0)
    return 1.4826 * float(every.abs().median()) / math.sqrt(2) if len(every) else 0.0


def sizing_for(looks: Sequence[Look], *, finest: float | None, cells: int) -> tuple[Sizing, float]:
    """Sizes of cells, and the disagreement between views that they allow for.

    Without `finest`, the finest cells are as large as near pixels are, or larger so that about `cells` suffice.
    """
    noise = disagreement(looks)
    focal = float(torch.stack([look.view.camera.intrinsics[0, 0] for look in looks]).median())
    centres = torch.stack([look.view.camera.centres for look in looks])
    growth = max(PIXELS / focal, noise)
    if finest is not None:
        if not finest > 0:
            raise ValueError(f"the finest cells want a positive side, got {finest}")
        return Sizing(finest, growth, centres), noise
    side = near_depth([look.view for look in looks]) * growth
    for most in (_GUESSED_BY, _SIZED_BY):  # a first guess by few looks saves most of the work
        sample = looks[:: math.ceil(len(looks) / most)]
        for _ in range(8):
            sizing = Sizing(side, growth, centres)
            on_surface = len(torch.unique(torch.cat([_surface_cells(look, sizing)[0] for look in sample])))
            needed = on_surface * (1 + 2 * _layers(sizing, noise))
            if needed <= _ABOUT * cells:
                break
            side *= (needed / cells) ** (1 / _CELLS_BY_SIDE)
    return Sizing(side, growth, centres), noise


def fuse(
    looks: Sequence[Look], sizing: Sizing, noise: float, on_step: Callable[[int, int], None] | None = None
) -> Field:
    """Signed distance, weight and colour in every cell within a truncation distance of what a view saw."""
    keys, normals = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3)
    more: list[tuple[Tensor, Tensor]] = []
    for done, look in enumerate(looks, 1):
        more.append(_surface_cells(look, sizing))
        if done == len(looks) or sum(len(part) for part, _ in more) > len(keys):  # to sort each time would cost most
            keys, normals = _first_of_each(*(torch.cat(parts) for parts in zip((keys, normals), *more)))
            more = []
        if on_step is not None:
            on_step(done, len(looks))
    return fuse_grid(grid_of_keys(_band(keys, normals, sizing, _layers(sizing, noise)), sizing), looks, sizing, noise)


def fuse_grid(grid: Grid, looks: Sequence[Look], sizing: Sizing, noise: float) -> Field:
    """What the views say of the cells of a grid."""
    reach = _reach(grid.sides, sizing, noise)
    fused = fuse_places(grid.middles, reach, seen_surfaces(looks))
    nothing = torch.zeros(len(grid), dtype=torch.bool)
    return Field(grid, fused.distance * reach, fused.weight, fused.colour, nothing)


def seen_surfaces(looks: Sequence[Look]) -> SeenSurfaces:
    cameras: list[Cameras] = [look.view.camera for look in looks]
    sky = [torch.isinf(look.view.depth) for look in looks]
    return SeenSurfaces(
        depth=torch.stack(
            [torch.where(look.valid | far, look.view.depth, 0.0).float() for look, far in zip(looks, sky)]
        ),
        normals=torch.stack([look.surface.normals.half() for look in looks]),
        images=torch.stack([(look.view.image.clamp(0, 1) * 255).round().to(torch.uint8) for look in looks]),
        camera_from_world=torch.stack([camera.camera_from_world.float() for camera in cameras]),
        intrinsics=torch.stack([camera.intrinsics.float() for camera in cameras]),
    )


def _reach(sides: Tensor, sizing: Sizing, noise: float) -> Tensor:
    """Truncation distance of cells: BAND of their sides, or what the views' disagreement asks for."""
    return sides * max(BAND, NOISE_BAND * noise / sizing.growth)


def _layers(sizing: Sizing, noise: float) -> int:
    """How many cells on either side of a surface are worth having."""
    return math.ceil(max(BAND, NOISE_BAND * noise / sizing.growth)) - 1


def _surface_cells(look: Look, sizing: Sizing) -> tuple[Tensor, Tensor]:
    """Keys [M] of the cells in which a view saw a surface, and a normal [M, 3] in each, towards the camera."""
    surface, width = look.surface, look.valid.shape[1]
    pixels = torch.nonzero(look.valid.flatten()).squeeze(1)
    points, footprint = surface.points.flatten(0, 1)[pixels], surface.footprint.flatten()[pixels]
    side = sides_at(points, sizing)
    skip = (0.6 * side / footprint.clamp_min(1e-9)).clamp(1, 16).log2().floor().exp2().long()  # a power of two
    kept = torch.nonzero(((pixels // width) | (pixels % width)) & (skip - 1) == 0).squeeze(1)
    pixels, points, side, footprint = pixels[kept], points[kept], side[kept, None], footprint[kept]
    normals = -surface.normals.flatten(0, 1)[pixels]
    rays = normalize(points - look.view.camera.centres, dim=-1)
    slope = side * normalize(rays - (rays * normals).sum(-1, keepdim=True) * normals, dim=-1)
    spacing = footprint / surface.slant.flatten()[pixels]
    stretch = (0.5 * spacing / side[:, 0]).clamp(0, _STRETCH).ceil()
    reached = [torch.nonzero(stretch >= along).squeeze(1) for along in range(_STRETCH + 1)]
    places = [points]
    for along in range(1, _STRETCH + 1):
        here, step = points[reached[along]], along * slope[reached[along]]
        places += [here + step, here - step]
    of_pixel = torch.cat([reached[0], *(part for part in reached[1:] for _ in range(2))])
    keys, of_pixel = _first_of_each(keys_at(torch.cat(places), sizing), of_pixel)
    return keys, normals[of_pixel]


def _first_of_each(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending keys without repetition, each with the value of its first occurrence."""
    numbers = keys.numpy()
    order = np.argsort(numbers)  # numpy's is some times as fast as torch's; it mixes equal keys
    ordered = numbers[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    first = torch.from_numpy(np.minimum.reduceat(order, starts)) if len(starts) else torch.zeros(0, dtype=torch.int64)
    return keys[first], values[first]


def _band(keys: Tensor, normals: Tensor, sizing: Sizing, layers: int) -> Tensor:
    """Keys of all cells around those of a surface, and farther along its normals."""
    grid = grid_of_keys(keys, sizing)
    middles, sides = grid.middles, grid.sides[:, None]
    parts = [widened(part, sizing) for part in keys.split(_CHUNK)]
    for layer in range(2, layers + 1):
        parts += [keys_at(middles + sign * layer * sides * normals, sizing) for sign in (-1, 1)]
    return torch.unique(torch.cat([keys, *parts]))
