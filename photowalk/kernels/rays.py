"""Ray images of posed pinhole cameras, laid out in blocks as the denoiser reads them.

Rays go through pixel centres at +0.5 for every model, the published one included, although that one warps at integer
pixels. A ray is its origin and unit direction, not a Pluecker moment.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ray_blocks(world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Poses [T, 4, 4] and intrinsics [T, 3, 3] of an H x W image -> [6 * side * side, T, H / side, W / side] float32.

    Channel = c * side^2 + row * side + column within a block; c = origin x y z, direction x y z.
    """
    height, width = size
    pose, intrinsics = world_from_camera.float(), intrinsics.float()
    columns = torch.arange(width, device=intrinsics.device) + 0.5
    rows = torch.arange(height, device=intrinsics.device) + 0.5
    columns = (columns - intrinsics[:, 0, 2:]) / intrinsics[:, 0, :1]  # [T, W]
    rows = (rows - intrinsics[:, 1, 2:]) / intrinsics[:, 1, 1:2]  # [T, H]
    x, y = torch.broadcast_tensors(columns[:, None, :], rows[:, :, None])
    directions = F.normalize(torch.stack([x, y, torch.ones_like(x)], dim=1), dim=1)
    directions = (pose[:, :3, :3] @ directions.flatten(2)).unflatten(2, size)
    origins = pose[:, :3, 3, None, None].expand_as(directions)
    return F.pixel_unshuffle(torch.cat([origins, directions], dim=1), side).transpose(0, 1).contiguous()
