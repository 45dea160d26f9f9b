"""Where the sky is, without the specks that a network leaves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clean_sky(logit: Tensor, *, reach: int = 2) -> Tensor:
    """Sky logits [H, W] -> bool [H, W]: without islands of sky, or of anything else in it, that are narrower than
    2 * reach + 1 pixels in both directions, whose neighbourhood says otherwise."""
    smooth = F.avg_pool2d(logit.float()[None, None].clamp(-4, 4), 2 * reach + 1, 1, reach, count_include_pad=False)
    sky = smooth > 0
    grown = _widened(~_widened(~sky, reach), reach)  # opening: islands of sky go
    return (~_widened(~_widened(grown, reach), reach) | grown)[0, 0]  # closing: holes go


def _widened(mask: Tensor, reach: int) -> Tensor:
    return F.max_pool2d(mask.to(torch.float32), 2 * reach + 1, 1, reach) > 0
