"""Marching cubes over a sparse grid of several levels, without cracks where levels meet.

Values are known in the middle of cells. Around every corner of a cell lie eight cells (the same one several times where
a coarse cell meets fine ones), whose middles span a cube of the dual grid; dual cubes fill space without gaps or
overlaps, whatever the levels (Schaefer and Warren, Dual marching cubes: primal contouring of dual grids, 2004).
A vertex belongs to the pair of cells between which the sign changes, so neighbouring cubes share it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import warp as wp
from torch import Tensor
from warp.geometry import IsoSurfaceMarchingCubes

from photowalk.reconstruct.meshing.fusion import Field
from photowalk.reconstruct.meshing.grid import distinct
from photowalk.scene.types import Mesh

_CHUNK = 1_000_000


def extract(field: Field) -> Mesh:
    """The surface where distance changes sign, between cells that are known; it faces where distance is positive.

    A face is invented if any of its vertices lies between cells of which one is a guess.
    """
    cubes = _dual_cubes(field)
    inside = field.distance < 0
    corner_bit = 1 << torch.arange(8)
    case = (inside[cubes] * corner_bit).sum(1)
    start, triangles, ends = _table()
    counts = start[case + 1] - start[case]
    cube = torch.arange(len(cubes)).repeat_interleave(counts)
    position = torch.arange(len(cube)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    edge = triangles[start[case[cube]] + position]
    pair = torch.stack([cubes[cube, ends[edge, 0]], cubes[cube, ends[edge, 1]]], dim=1).sort(dim=1).values
    code, corner = torch.unique(pair[:, 0] * len(field.grid) + pair[:, 1], return_inverse=True)
    faces = corner.view(-1, 3)
    one, other = code // max(len(field.grid), 1), code % max(len(field.grid), 1)
    faces = faces[(faces != faces.roll(1, dims=1)).all(1)].flip(
        1
    )  # where a coarse cell fills several corners, some collapse
    share = (field.distance[one] / (field.distance[one] - field.distance[other]))[:, None]
    middles = field.grid.middles
    vertices = middles[one] + share * (middles[other] - middles[one])
    colours = field.colour[one] + share * (field.colour[other] - field.colour[one])
    guessed = field.invented[one] | field.invented[other]
    return Mesh(vertices, faces, colours.clamp(0, 1), guessed[faces].any(1))


def _dual_cubes(field: Field) -> Tensor:
    """[M, 8] cells around every corner at which known cells of both signs meet."""
    grid = field.grid
    known = field.weight > 0
    if len(grid) == 0:
        return torch.zeros(0, 8, dtype=torch.int64)
    offsets = _corner_offsets()
    # every cube that a surface crosses has a cell behind it; where levels meet, its corner may belong to others only
    chosen = (known & ((field.distance < 0) | grid.beside_coarser())).nonzero()[:, 0]
    cubes, levels, lower = [], grid.levels, grid.corners
    for part in chosen.split(_CHUNK):
        side = (1 << levels[part])[:, None, None]
        cubes.append((lower[part, None] + side * offsets).flatten(0, 1))
    found = []
    for part in distinct(torch.cat(cubes) if cubes else lower).split(_CHUNK):
        around = torch.stack([grid.find(part + offset - 1) for offset in offsets], dim=1)
        complete = (around >= 0).all(1)
        around = around[complete]
        signs = (field.distance[around] < 0).sum(1)
        found.append(around[known[around].all(1) & (signs > 0) & (signs < 8)])
    return torch.cat(found) if found else torch.zeros(0, 8, dtype=torch.int64)


@cache
def _corner_offsets() -> Tensor:
    return torch.tensor(IsoSurfaceMarchingCubes.CUBE_CORNER_OFFSETS, dtype=torch.int64)


@cache
def _table() -> tuple[Tensor, Tensor, Tensor]:
    """Warp's table: where a case's triangles begin [257], the edges of their corners, the corners of edges [12, 2]."""

    def tensor(table) -> Tensor:
        return torch.from_numpy(np.asarray(table.numpy() if isinstance(table, wp.array) else table).astype(np.int64))

    tables = IsoSurfaceMarchingCubes
    return tensor(tables.CASE_TO_TRI_RANGE), tensor(tables.TRI_LOCAL_INDICES), tensor(tables.EDGE_TO_CORNERS)
