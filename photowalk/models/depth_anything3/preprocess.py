"""Pictures as the published weights saw them: resized in two steps of 8-bit pictures, to sides that patches divide.

Areas are averaged where a picture shrinks and cubic curves are laid through pixels where it grows, as OpenCV does both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.models.depth_anything3.network import normalise

Size = tuple[int, int]


def preprocess(images: Tensor, patch: int = 14, *, longest: int | None = None, shortest: int | None = None) -> Tensor:
    """[*, 3, H, W] in [0, 1] -> normalised for the network, its longest or shortest side first brought to a length, if
    one is given, and then each side to the nearest multiple of the patch."""
    size = (images.shape[-2], images.shape[-1])
    bounded = bounded_size(size, longest=longest, shortest=shortest)
    flat = images.reshape(-1, 3, *size)
    flat = _resized(_resized(flat, bounded), patched_size(bounded, patch))
    return normalise(flat).reshape(*images.shape[:-2], *flat.shape[-2:])


def bounded_size(size: Size, *, longest: int | None = None, shortest: int | None = None) -> Size:
    if longest is None and shortest is None:
        return size
    scale = longest / max(size) if longest is not None else (shortest or min(size)) / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def patched_size(size: Size, patch: int) -> Size:
    """The nearest multiples, ties up, at least one patch."""
    height, width = (max((side + patch // 2) // patch, 1) * patch for side in size)
    return height, width


def _resized(images: Tensor, size: Size) -> Tensor:
    old = (images.shape[-2], images.shape[-1])
    if old == size:
        return images
    if any(new > side for new, side in zip(size, old, strict=True)):
        made = F.interpolate(images, size, mode="bicubic", align_corners=False)
    else:
        rows, columns = (_areas(side, new, images.device).to(images) for side, new in zip(old, size, strict=True))
        with torch.autocast(images.device.type, enabled=False):
            made = rows @ images @ columns.mT
    return (made.clamp(0, 1) * 255).round() / 255


def _areas(old: int, new: int, device: torch.device) -> Tensor:
    """[new, old] the share that each of `old` pixels has in each of fewer, larger ones."""
    edges = torch.arange(new + 1, dtype=torch.float64, device=device) * old / new
    pixels = torch.arange(old, dtype=torch.float64, device=device)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp_min(0) * new / old
