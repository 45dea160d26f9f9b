"""What the spatial memory sees from a camera, as a picture: known points in their colours, the rest hatched."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.studio.scenery import Scenery


def seen_from(scenery: Scenery, camera: Cameras) -> np.ndarray:
    """What all remembered points show from a camera [], uint8 [h, w, 3]; the part never seen is hatched."""
    stride = SpatialMemory().point_stride
    small = camera.resized(camera.height // stride, camera.width // stride)
    points, colours = scenery.cloud()
    pixels, depth = small.project(points)
    column, row = pixels.floor().nan_to_num(-1).clamp(-1, 1e6).long().unbind(-1)
    inside = (depth > 0) & (column >= 0) & (row >= 0) & (column < small.width) & (row < small.height)
    order = depth[inside].argsort(descending=True)  # the nearest is drawn last
    cells = (row * small.width + column)[inside][order]
    picture = _hatched(small.height, small.width).reshape(-1, 3)
    picture[cells] = colours[inside][order]
    grown = picture.reshape(small.height, small.width, 3)
    return grown.repeat_interleave(stride, 0).repeat_interleave(stride, 1).numpy()


def _hatched(height: int, width: int) -> Tensor:
    stripes = (torch.arange(height)[:, None] + torch.arange(width)) // 3 % 2
    light, dark = torch.tensor([96, 62, 140]), torch.tensor([62, 40, 96])
    return torch.where(stripes[..., None].bool(), light, dark).to(torch.uint8)
