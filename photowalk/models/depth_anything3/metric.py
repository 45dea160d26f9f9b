"""Metres and sky: what the branch that knows both says about the depth of the branch that sees all views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SKY, SURE_SKY = 0.3, 0.5  # scores from which a pixel counts as sky, and from which the published answer calls it so
FOCAL = 300.0  # pixels, of which raw depth is in metres
FARTHEST_SKY = 200.0
FEWEST = 10  # pixels that say anything
FAR_SHARE = 0.99


@dataclass(frozen=True)
class MetricDepth:
    depth: Tensor  # [S, H, W] metres, sky far away
    confidence: Tensor  # [S, H, W]
    scale: Tensor  # [] metres per unit of the network


def own_sky(raw: Tensor, sky: Tensor) -> Tensor:
    """Raw depth [S, H, W] of sky is that of the farthest surfaces, where there are enough of both."""
    is_sky = sky >= SKY
    if min(int(is_sky.sum()), int((~is_sky).sum())) <= FEWEST:
        return raw
    return torch.where(is_sky, quantile(raw[~is_sky], FAR_SHARE), raw)


def in_metres(depth: Tensor, confidence: Tensor, raw: Tensor, sky: Tensor, intrinsics: Tensor) -> MetricDepth:
    """All [S, H, W], raw after `own_sky`; intrinsics [S, 3, 3] as predicted. Raises ValueError where all is sky."""
    surface = sky < SKY
    if int(surface.sum()) <= FEWEST:
        raise ValueError("the scale of a picture of nothing but sky cannot be found: give pictures that show a surface")
    scale = metric_scale(depth, confidence, focal_metres(raw, intrinsics), surface)
    scaled = depth * scale.to(depth.dtype)
    if bool(surface.all()):
        return MetricDepth(scaled, confidence, scale)
    far = quantile(scaled[surface], FAR_SHARE).clamp(max=FARTHEST_SKY)
    return MetricDepth(torch.where(surface, scaled, far), torch.where(surface, confidence, 1.0), scale)


def focal_metres(raw: Tensor, intrinsics: Tensor) -> Tensor:
    focal = (intrinsics[:, 0, 0] + intrinsics[:, 1, 1]) / 2
    return raw * (focal / FOCAL)[:, None, None]


def metric_scale(depth: Tensor, confidence: Tensor, metres: Tensor, surface: Tensor) -> Tensor:
    """Least squares over the surer half of the surfaces."""
    used = scale_pixels(depth, confidence, metres, surface)
    return (metres[used] * depth[used]).double().sum() / depth[used].square().double().sum()


def scale_pixels(depth: Tensor, confidence: Tensor, metres: Tensor, surface: Tensor) -> Tensor:
    return surface & (confidence >= quantile(confidence[surface], 0.5)) & (metres > 0.01) & (depth > 0.001)


def quantile(values: Tensor, share: float) -> Tensor:
    """As torch.quantile, for any number of values."""
    ordered = values.flatten().sort().values
    place = torch.tensor(share, dtype=torch.float32) * (len(ordered) - 1)
    low = int(place)
    return torch.lerp(ordered[low], ordered[min(low + 1, len(ordered) - 1)], (place - low).to(ordered))
