"""Depth where there is none, continued from around it: smooth in inverse depth, and no more than a guess."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
