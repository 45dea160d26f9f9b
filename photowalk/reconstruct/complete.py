"""Depth where there is none, continued from around it: smooth in inverse depth, and no more than a guess."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDEST = 2  # pixels of a gap that is closed
_SAME_SURFACE = 0.05  # relative difference of depth between a gap's two sides, at most


def close_gaps(depth: Tensor) -> Tensor:
    """depth [H, W] (0 = unknown, inf = sky) with unknown lines and specks no wider than two pixels closed, where both
    of their sides are of one surface: such are left where a depth camera's picture was moved into another camera."""
    known = (depth > 0) & torch.isfinite(depth)
    inverse = torch.where(known, 1 / torch.where(known, depth, 1), 0)
    total, count = torch.zeros_like(depth), torch.zeros_like(depth)
    for before, after in ((1, 1), (1, _WIDEST), (_WIDEST, 1)):
        for axis in (0, 1):
            a, b = _shifted(inverse, before, axis), _shifted(inverse, -after, axis)
            both = (a > 0) & (b > 0) & ((a - b).abs() < _SAME_SURFACE * torch.maximum(a, b))
            total += both * (after * a + before * b) / (before + after)  # linear: exact on a plane
            count += both
    close = (depth == 0) & (count > 0)
    return torch.where(close, count / total.clamp_min(1e-12), depth)


def _shifted(values: Tensor, by: int, axis: int) -> Tensor:
    """What lies `by` pixels before each pixel along `axis`, 0 beyond the edge."""
    moved = torch.roll(values, by, axis)
    moved.narrow(axis, 0 if by > 0 else values.shape[axis] + by, abs(by)).zero_()
    return moved


def complete(depth: Tensor, known: Tensor) -> Tensor:
    """depth [H, W], of which `known` [H, W] holds -> as it is there, and elsewhere continued from the pixels around.

    Pull and push (Gortler et al. 1996): means of what is known at ever coarser scales, taken back where the finer ones
    know nothing. All 0 where nothing is known.
    """
    inverse = torch.where(known, 1 / torch.where(known, depth, 1), 0)
    filled = _pull_push(inverse[None, None], known.to(depth)[None, None])[0, 0]
    return torch.where(filled > 0, 1 / filled.clamp_min(1e-12), 0)


def _pull_push(values: Tensor, weights: Tensor) -> Tensor:
    if bool((weights > 0).all()) or max(values.shape[-2:]) == 1:
        return values
    share = F.avg_pool2d(weights, 2, ceil_mode=True)
    mean = F.avg_pool2d(values * weights, 2, ceil_mode=True) / share.clamp_min(1e-6)
    coarse = _pull_push(mean, (share > 0).to(values))
    pushed = F.interpolate(coarse, values.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weights > 0, values, pushed)
