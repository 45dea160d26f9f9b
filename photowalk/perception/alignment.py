"""One factor that brings estimated depth to the scale of depth that is known, from the pixels that both see.

Ratios of depth settle it, never distances between cameras, which say nothing on straight paths and turns in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST_PIXELS = 64
SMALLEST_SHARE = 0.005  # of the picture
INLIER = 0.1  # largest distance from the median log-ratio of a pixel that counts


@dataclass(frozen=True)
class Alignment:
    scale: float  # known = scale * estimated; 1 where that could not be told
    share: float  # of the picture's pixels that both see
    agreement: float  # share of those within INLIER of the scale, in [0, 1]
    reliable: bool  # false: too few pixels in common, the scale is a guess


def align_scale(estimated: Tensor, known: Tensor) -> Alignment:
    """estimated and known [H, W] along +Z, 0 = unknown, inf = sky -> the robust factor between them: the median of the
    log-ratios, then the mean of those near it."""
    if estimated.shape != known.shape:
        raise ValueError(f"alignment wants depths of one shape, got {tuple(estimated.shape)} and {tuple(known.shape)}")
    both = is_surface(estimated) & is_surface(known)
    count, share = int(both.sum()), float(both.float().mean())
    if count < FEWEST_PIXELS or share < SMALLEST_SHARE:
        return Alignment(1.0, share, 0.0, False)
    ratio = (known[both].double() / estimated[both].double()).log()
    near = ratio[(ratio - ratio.median()).abs() <= INLIER]
    return Alignment(float(near.mean().exp()), share, len(near) / count, True)


def is_surface(depth: Tensor) -> Tensor:
    """Where depth is known and not sky."""
    return (depth > 0) & torch.isfinite(depth)


def inverse_depth_scale(estimated: Tensor, reference: Tensor) -> float:
    """The factor that brings estimated depth to the scale of another estimate of the same picture, both [H, W]: least
    squares between inverse depths, which lets near surfaces decide, as the published program does; 1 where fewer than
    11 pixels are known in both."""
    both = is_surface(estimated) & is_surface(reference)
    if int(both.sum()) <= 10:
        return 1.0
    ours, theirs = (1 / (depth[both].double() + 1e-6) for depth in (estimated, reference))
    slope = float((ours * theirs).sum() / (ours * ours).sum())
    return 1 / slope if slope > 1e-6 else 1.0
