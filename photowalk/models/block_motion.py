"""Estimates how one picture moved into the next, a vector per block, and draws the pictures between the two.

Coarse-to-fine block matching with sub-pixel fitting: nothing is learnt and nothing is sent, so whoever holds the two
pictures finds the same motion. It knows nothing of codes or cameras.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_LEVELS = ((8, 4), (4, 2), (2, 2), (1, 1))  # (pixels per sample, samples searched each way): up to 43 pixels in all
_STILLNESS = 0.006  # cost of leaving the coarser level's motion by its whole reach, in units of the [-1, 1] picture


def block_motion(before: Tensor, after: Tensor, block: int) -> Tensor:
    """before, after [B, 3, H, W] in [-1, 1] -> motion [B, 2, H/block, W/block] in pixels (x, y).

    after(p) looks like before(p + motion). `block` must be a multiple of 8.
    """
    before, after = _luma(before), _luma(after)
    grid = (before.shape[-2] // block, before.shape[-1] // block)
    motion = before.new_zeros(len(before), 2, *grid)
    for stride, reach in _LEVELS:
        costs = _costs(F.avg_pool2d(before, stride), F.avg_pool2d(after, stride), motion / stride, reach)
        motion = _median3(motion + stride * _best_shift(costs, reach))
    return motion


def pictures_between(before: Tensor, after: Tensor, motion: Tensor, count: int) -> Tensor:
    """`count` evenly spaced pictures between before and after [B, C, H, W] -> [B, C, count, H, W].

    Both ends are moved towards each other along `motion` and mixed by their nearness in time.
    """
    size = before.shape[-2:]
    dense = _resize(motion, size)
    pictures = []
    for i in range(1, count + 1):
        time = i / (count + 1)
        forward, backward = sample(before, dense * time), sample(after, -dense * (1 - time))
        pictures.append(forward * (1 - time) + backward * time)
    return torch.stack(pictures, dim=2)


def sample(picture: Tensor, motion: Tensor) -> Tensor:
    """picture [B, C, H, W] read at p + motion [B, 2, H, W], bilinear, clamped at the border."""
    height, width = picture.shape[-2:]
    rows = torch.arange(height, dtype=motion.dtype, device=motion.device) + 0.5
    columns = torch.arange(width, dtype=motion.dtype, device=motion.device) + 0.5
    x = (columns + motion[:, 0]) * (2 / width) - 1
    y = (rows[:, None] + motion[:, 1]) * (2 / height) - 1
    where = torch.stack([x, y], dim=-1)
    return F.grid_sample(picture, where, mode="bilinear", padding_mode="border", align_corners=False)


def _luma(picture: Tensor) -> Tensor:
    return (picture * picture.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def _resize(field: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    return F.interpolate(field, size=size, mode="bilinear", align_corners=False)


def _costs(before: Tensor, after: Tensor, motion: Tensor, reach: int) -> Tensor:
    """Mean difference of every block after each shift [B, (2 reach + 1)^2, h, w], neighbours counted half."""
    batch, (h, w) = len(before), motion.shape[-2:]
    steps = torch.arange(-reach, reach + 1, dtype=before.dtype, device=before.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    shifts = torch.stack([x, y], dim=-1).flatten(0, 1)  # [n, 2]
    base = _resize(motion, before.shape[-2:])
    moved = (base[:, None] + shifts[:, :, None, None]).flatten(0, 1)  # [B * n, 2, H', W']
    difference = (
        sample(before.repeat_interleave(len(shifts), dim=0), moved).unflatten(0, (batch, -1)) - after[:, None]
    ).abs()
    size = (difference.shape[-2] // h, difference.shape[-1] // w)
    per_block = F.avg_pool2d(difference.flatten(0, 2)[:, None], size)
    around = F.avg_pool2d(F.pad(per_block, (1, 1, 1, 1), mode="replicate"), 3, 1)
    costs = ((per_block + around) / 2).view(batch, len(shifts), h, w)
    return costs + (_STILLNESS / reach * shifts.norm(dim=1))[:, None, None]


def _best_shift(costs: Tensor, reach: int) -> Tensor:
    """[B, (2 reach + 1)^2, h, w] -> [B, 2, h, w]: the cheapest shift, refined by a parabola through its neighbours."""
    side = 2 * reach + 1
    best = costs.argmin(1, keepdim=True)
    column, row = best % side, best // side

    def cost_at(dx: int, dy: int) -> Tensor:
        return costs.gather(1, (row + dy).clamp(0, side - 1) * side + (column + dx).clamp(0, side - 1))

    middle = cost_at(0, 0)
    x = column - reach + _parabola(cost_at(-1, 0), middle, cost_at(1, 0)) * ((column > 0) & (column < side - 1))
    y = row - reach + _parabola(cost_at(0, -1), middle, cost_at(0, 1)) * ((row > 0) & (row < side - 1))
    return torch.cat([x, y], dim=1)


def _parabola(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """Where the parabola through three costs has its minimum, in [-0.5, 0.5]."""
    curvature = (left - 2 * middle + right).clamp_min(1e-4)
    return ((left - right) / (2 * curvature)).clamp(-0.5, 0.5)


def _median3(field: Tensor) -> Tensor:
    """3x3 median of each channel: a lone wrong block follows its neighbours."""
    padded = F.pad(field, (1, 1, 1, 1), mode="replicate")
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(-1).values
