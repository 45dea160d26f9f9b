"""Fills what is unknown in pictures and maps from what is around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fill_smoothly(values: Tensor, known: Tensor) -> Tensor:
    """Fill the unknown pixels of values [F, C, H, W] with their surroundings, known [F, 1, H, W] in [0, 1].

    A pyramid of weighted averages: every hole takes the finest level at which something is known
    ("pull-push", Gortler et al., The Lumigraph, 1996).
    """
    if min(values.shape[-2:]) <= 2 or bool((known > 0.99).all()):
        total = known.sum((-2, -1), keepdim=True)
        mean = (values * known).sum((-2, -1), keepdim=True) / total.clamp_min(1e-6)
        return torch.where(known > 0, values, mean)
    weight = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
    coarse = F.avg_pool2d(values * known, 2, ceil_mode=True, count_include_pad=False) / weight.clamp_min(1e-6)
    coarse = fill_smoothly(coarse, (4 * weight).clamp_max(1))
    surroundings = F.interpolate(coarse, size=values.shape[-2:], mode="bilinear", align_corners=False)
    return values * known + surroundings * (1 - known)


def fill_along_rows(values: Tensor, known: Tensor, wide: int) -> Tensor:
    """As `fill_smoothly`, but what lies beside a hole counts more than what lies above and below it: averages are taken
    over cells that are up to `wide` times as wide as high, a power of two. In a picture that stands upright sky
    continues as sky and ground as ground."""
    rows, columns = values.shape[-2:]
    if rows == columns == 1 or bool((known > 0.99).all()):
        return values
    cell = (1 if wide > 1 and columns > 1 else min(rows, 2), min(columns, 2))
    weight = F.avg_pool2d(known, cell, ceil_mode=True, count_include_pad=False)
    coarse = F.avg_pool2d(values * known, cell, ceil_mode=True, count_include_pad=False) / weight.clamp_min(1e-6)
    coarse = fill_along_rows(coarse, (cell[0] * cell[1] * weight).clamp_max(1), wide // 2)
    surroundings = F.interpolate(coarse, size=(rows, columns), mode="bilinear", align_corners=False)
    return values * known + surroundings * (1 - known)
