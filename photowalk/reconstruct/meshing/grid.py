"""A sparse grid of cubic cells, fine near the walked path and coarser with distance, from the start.

Space is cut into blocks of 2^(LEVELS - 1) finest cells along each side. Every block has a level by its distance to the
nearest camera, and its cells are 2^level times the finest ones; only cells near a seen surface exist. A cell is named
by its level and its place along a Z-order curve, so that neighbours in the list are neighbours in space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.spatial import KDTree
from torch import Tensor

from photowalk.kernels.morton import AXIS_BITS, cells_of, codes_of

LEVELS = 5
_BLOCK_BITS = LEVELS - 1
BLOCK = 2**_BLOCK_BITS  # finest cells along a block
_HALF = 2 ** (AXIS_BITS - 1)


@dataclass(frozen=True)
class Sizing:
    """How large cells are: `finest` at the cameras, growing in proportion to the distance from the nearest one."""

    finest: float  # side of the finest cell, world units
    growth: float  # side of a cell per distance
    centres: Tensor  # [P, 3] of the cameras
    detailed: Tensor | None = None  # [B] ascending keys of blocks; cells in all others are no finer than `plain`
    plain: int = 0  # a level

    def plain_beyond(self, keys: Tensor, side: float) -> Sizing:
        """With cells of about `side` in the blocks that hold none of the cells `keys`."""
        level = math.floor(math.log2(max(side / self.finest, 1)))
        blocks = torch.unique(codes_of(_level_and_corner(keys)[1] >> _BLOCK_BITS))
        return replace(self, detailed=blocks, plain=min(level, LEVELS - 1))

    def block_levels(self, blocks: Tensor) -> Tensor:
        """[N] of blocks [N, 3], counted in blocks from the world's origin."""
        if len(blocks) == 0:
            return torch.zeros(0, dtype=torch.int64, device=blocks.device)
        side = self.finest * BLOCK
        middles = (blocks.double() + 0.5) * side
        distance, _ = KDTree(self.centres.double().cpu().numpy()).query(middles.cpu().numpy())
        nearest = torch.from_numpy(distance).to(blocks.device) - side * math.sqrt(3) / 2
        ratio = (nearest * self.growth / self.finest).clamp_min(1)
        level = ratio.log2().floor().long().clamp(0, LEVELS - 1)
        if self.detailed is None:
            return level
        return torch.where(_search(self.detailed, codes_of(blocks)) >= 0, level, level.clamp_min(self.plain))


@dataclass(frozen=True)
class Grid:
    """The cells that exist, in the order of their keys."""

    finest: float
    keys: Tensor  # [N] int64, ascending
    block_keys: Tensor  # [B] int64, ascending: every block with a cell in it or beside it
    block_levels: Tensor  # [B] int64

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def corners(self) -> Tensor:
        """[N, 3] int64 lower corner of each cell, in finest cells."""
        return _level_and_corner(self.keys)[1]

    @property
    def levels(self) -> Tensor:
        """[N] int64."""
        return self.keys >> (3 * AXIS_BITS)

    @property
    def sides(self) -> Tensor:
        """[N] side of each cell in world units."""
        return self.finest * 2.0 ** self.levels.float()

    @property
    def middles(self) -> Tensor:
        """[N, 3] float32 where each cell's value is sampled."""
        return ((self.corners.double() + 0.5 * 2.0 ** self.levels[:, None].double()) * self.finest).float()

    def find(self, places: Tensor) -> Tensor:
        """Index [M] of the cell that holds each finest cell [M, 3]; -1 where there is none."""
        block = _search(self.block_keys, codes_of(places >> _BLOCK_BITS))
        level = self.block_levels[block.clamp_min(0)]
        cell = _search(self.keys, _key(places >> level[:, None], level))
        return torch.where(block >= 0, cell, -1)

    def beside_coarser(self) -> Tensor:
        """[N] bool: cells in blocks that touch a block of coarser cells."""
        blocks = cells_of(self.block_keys)
        coarsest = self.block_levels.clone()
        for step in torch.cartesian_prod(*[torch.arange(-1, 2, device=blocks.device)] * 3):
            beside = _search(self.block_keys, codes_of(blocks + step))
            coarsest = torch.maximum(coarsest, torch.where(beside >= 0, self.block_levels[beside.clamp_min(0)], 0))
        of_cell = _search(self.block_keys, codes_of(self.corners >> _BLOCK_BITS))
        return (coarsest > self.block_levels)[of_cell]


def keys_at(points: Tensor, sizing: Sizing) -> Tensor:
    """The keys [M] of the cells that hold the points [M, 3]. Raises ValueError for points beyond the grid's reach."""
    places, level = _places(points, sizing)
    return _key(places >> level[:, None], level)


def sides_at(points: Tensor, sizing: Sizing) -> Tensor:
    """Sides [M] of the cells that hold the points [M, 3]."""
    return sizing.finest * 2.0 ** _places(points, sizing)[1].float()


def widened(keys: Tensor, sizing: Sizing) -> Tensor:
    """The cells of `keys` and all that touch them, whatever their levels; ascending."""
    level, corners = _level_and_corner(keys)
    middles = corners.double() + 0.5 * 2.0 ** level[:, None].double()
    around = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64, device=keys.device)] * 3)
    eighths = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25], dtype=torch.float64, device=keys.device)] * 3)
    cubes = (middles[:, None] + 2.0 ** level.double()[:, None, None] * around).flatten(0, 1)
    size = level.repeat_interleave(len(around))
    found = [keys]
    while len(cubes):
        touched = torch.unique(keys_at(cubes * sizing.finest, sizing), return_inverse=True)
        found.append(touched[0])
        finer = (touched[0] >> (3 * AXIS_BITS))[touched[1]] < size  # a cube of finer cells is cut until it fits them
        cubes = (cubes[finer][:, None] + 2.0 ** size[finer].double()[:, None, None] * eighths).flatten(0, 1)
        size = size[finer].repeat_interleave(len(eighths)) - 1
    return torch.unique(torch.cat(found))


def grid_of_keys(keys: Tensor, sizing: Sizing) -> Grid:
    """The grid of ascending keys; blocks beside its cells are known by level too, so that lookups end."""
    _, corners = _level_and_corner(keys)
    blocks = cells_of(torch.unique(codes_of(corners >> _BLOCK_BITS)))
    around = torch.cartesian_prod(*[torch.arange(-1, 2, device=keys.device)] * 3)
    block_keys = torch.unique(codes_of((blocks[:, None] + around).flatten(0, 1)))
    return Grid(sizing.finest, keys, block_keys, sizing.block_levels(cells_of(block_keys)))


def distinct(cells: Tensor) -> Tensor:
    """Finest cells [M, 3] without repetition, in the order of the curve."""
    return cells_of(torch.unique(codes_of(cells)))


def _places(points: Tensor, sizing: Sizing) -> tuple[Tensor, Tensor]:
    """The finest cells [M, 3] that hold the points, and the levels [M] of the cells that exist there."""
    places = (points.double() / sizing.finest).floor().long()
    if len(places) and int(places.abs().max()) >= _HALF:
        raise ValueError(
            f"a surface {float(points.abs().max()):.0f} units away is beyond what cells of {sizing.finest:.3g} "
            f"can reach; give coarser cells"
        )
    # Points are mostly neighbours in a picture, and in one block with the one before.
    runs, of_place = torch.unique_consecutive(codes_of(places >> _BLOCK_BITS), return_inverse=True)
    blocks, of_run = torch.unique(runs, return_inverse=True)
    return places, sizing.block_levels(cells_of(blocks))[of_run][of_place]


def _level_and_corner(keys: Tensor) -> tuple[Tensor, Tensor]:
    level = keys >> (3 * AXIS_BITS)
    return level, cells_of(keys & (2 ** (3 * AXIS_BITS) - 1)) << level[:, None]


def _key(cells: Tensor, level: Tensor) -> Tensor:
    return (level << (3 * AXIS_BITS)) | codes_of(cells)


def _search(keys: Tensor, wanted: Tensor) -> Tensor:
    if len(keys) == 0:
        return torch.full_like(wanted, -1)
    at = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return torch.where(keys[at] == wanted, at, -1)
