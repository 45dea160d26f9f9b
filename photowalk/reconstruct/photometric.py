"""How alike two pictures of the same place are, and by how much one of them is brighter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DARK = 0.05  # colours this close to black or white say nothing about exposure
_FEWEST, _LEAST_SHARE = 500, 0.05  # pixels without which an exposure is not to be told
_LARGEST_GAIN = 2.0
_WINDOW = 7  # pixels along each side of a neighbourhood


def exposure_gain(target: Tensor, source: Tensor) -> Tensor:
    """Gain [3] for the colours `source` [N, 3] of an image such that they are as bright as `target` [N, 3]: the median
    ratio, channel by channel, which is exposure and white balance; 1 where too little is there to tell."""
    usable = ((target > DARK) & (source > DARK) & (target < 1 - DARK) & (source < 1 - DARK)).all(dim=-1)
    if usable.sum() < _FEWEST or usable.float().mean() < _LEAST_SHARE:
        return torch.ones(3).to(target)
    ratio = (target[usable] / source[usable]).median(dim=0).values
    return ratio.clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity [*] of pictures [*, 3, H, W] in [0, 1]; 1 for equal ones. Differentiable.

    Wang et al. 2004, with square neighbourhoods of equal weight and the constants of that paper.
    """
    leading = a.shape[:-3]
    a, b = a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:])
    # Apart, since often only one of the pictures wants a gradient.
    mean_b, bb = F.avg_pool2d(torch.cat([b, b * b], dim=1), _WINDOW, stride=1).chunk(2, dim=1)
    mean_a, aa, ab = F.avg_pool2d(torch.cat([a, a * a, a * b], dim=1), _WINDOW, stride=1).chunk(3, dim=1)
    variance_a, variance_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    first, second = 0.01**2, 0.03**2
    alike = (2 * mean_a * mean_b + first) * (2 * covariance + second)
    alike = alike / ((mean_a**2 + mean_b**2 + first) * (variance_a + variance_b + second))
    return alike.mean((-3, -2, -1)).reshape(leading)
