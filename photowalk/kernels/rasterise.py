"""Rendering of 3D Gaussians: EWA projection and compositing in kernels, both differentiable, on CPU and CUDA.

Zwicker et al. 2001 (EWA splatting) and Kerbl et al. 2023 (3D Gaussian splatting). It takes plain tensors of one camera;
it knows nothing of worlds or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from photowalk.kernels import rasterise_lanes
from photowalk.kernels.project_gaussians import project
from photowalk.kernels.rasterise_tiles import ALPHA_MINIMUM, Tiles, composite, share_out
from photowalk.kernels.tile_lists import list_by_counting, nearest_first, touched_tiles

SH_DC = 0.28209479177387814  # the constant harmonic, 1 / (2 sqrt(pi))
_GPU_TILE = 16  # pixels


@dataclass(frozen=True)
class Footprints:
    """Gaussians as one camera sees them, ready to be blended in any colours."""

    centres: Tensor  # [N, 2] pixels
    conics: Tensor  # [N, 3] of the inverse covariance, 1/pixel^2
    opacities: Tensor  # [N]
    depths: Tensor  # [N] along +Z
    tiles: Tiles

    def blend(self, colours: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """colours [N, 3] -> colour [H, W, 3] over black, alpha [H, W], expected depth [H, W] (0 where alpha is 0) and
        median depth [H, W] (0 where alpha never reached one half; not differentiable)."""
        features = torch.cat([colours, self.depths[:, None]], dim=1)
        blended, transmittance, median = composite(self.centres, self.conics, self.opacities, features, self.tiles)
        alpha = 1 - transmittance
        return blended[..., :3], alpha, blended[..., 3] / alpha.clamp_min(1e-6), median

    def gather(self, values: Tensor) -> Tensor:
        """values [H, W, 4] -> [N, 4] their sums over each Gaussian's pixels, by its share in them: the adjoint of
        `blend`. Not differentiable."""
        return share_out(self.centres, self.conics, self.opacities, values, self.tiles)


def rasterise(
    means: Tensor,
    rotations: Tensor,
    scales: Tensor,
    opacities: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
) -> Footprints:
    """Find what Gaussians cover of one camera's picture.

    means [N, 3]; rotations [N, 4] wxyz; scales [N, 3] standard deviations; opacities [N] in [0, 1]. All of them lie
    where `in_view` has them.
    """
    centres, conics, depths, extents = project(
        means, rotations, scales, opacities, camera_from_world, intrinsics, height, width, ALPHA_MINIMUM
    )
    side = rasterise_lanes.SIDE if means.device.type == "cpu" else _GPU_TILE
    tiles = assign_tiles(centres.detach(), extents, depths.detach(), height, width, side)
    return Footprints(centres, conics, opacities, depths, tiles)


def assign_tiles(centres: Tensor, extents: Tensor, depths: Tensor, height: int, width: int, side: int) -> Tiles:
    """List for every tile of `side` x `side` pixels the Gaussians whose box touches it, nearest first (equal depths in
    order of index)."""
    columns, rows = -(-width // side), -(-height // side)
    low, high, touching = touched_tiles(centres, extents, columns, rows, side)
    order = nearest_first(depths, torch.nonzero(touching).squeeze(1))
    listed = list_by_counting if centres.device.type == "cpu" else list_by_sorting
    splats, first = listed(order.int(), low.index_select(0, order), high.index_select(0, order), columns, rows)
    return Tiles(splats, first, side, columns, height, width)


def list_by_sorting(order: Tensor, low: Tensor, high: Tensor, columns: int, rows: int) -> tuple[Tensor, Tensor]:
    """What `list_by_counting` gives, by a stable sort of all pairs, as suits a GPU."""
    counts = high - low
    pairs = counts.prod(dim=-1)
    owner = torch.repeat_interleave(pairs)
    within = torch.arange(len(owner), device=order.device) - (pairs.cumsum(0) - pairs)[owner]
    wide = counts[owner, 0]
    tile = (low[owner, 1] + within // wide) * columns + low[owner, 0] + within % wide
    tile, place = torch.sort(tile.int(), stable=True)
    numbers = torch.arange(columns * rows + 1, device=order.device, dtype=torch.int32)
    return order[owner[place]], torch.searchsorted(tile, numbers, out_int32=True)


def evaluate_harmonics(coefficients: Tensor, directions: Tensor) -> Tensor:
    """Colours [N, 3] >= 0 of spherical harmonics [N, K, 3] (K = 1, 4, 9, 16) seen along directions [N, 3], of any
    length.

    The real basis of 3DGS with its signs; a constant 0.5 is added and negative light is cut off, as its viewers do.
    """
    count = coefficients.shape[1]
    if count not in (1, 4, 9, 16):
        raise ValueError(f"spherical harmonics want 1, 4, 9 or 16 coefficients per colour, got {count}")
    if count == 1:
        return (SH_DC * coefficients[:, 0] + 0.5).clamp_min(0)
    basis = harmonics_basis(normalize(directions, dim=-1), count)
    return (torch.einsum("nk,nkc->nc", basis, coefficients) + 0.5).clamp_min(0)


def harmonics_basis(directions: Tensor, count: int) -> Tensor:
    """[N, count] values of the first real spherical harmonics (up to 16) along unit directions [N, 3]."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
    terms = [torch.full_like(x, SH_DC), -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if count > 4:
        terms += [
            1.0925484305920792 * xy,
            -1.0925484305920792 * yz,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * xz,
            0.5462742152960396 * (xx - yy),
        ]
    if count > 9:
        terms += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * xy * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(terms, dim=-1)
