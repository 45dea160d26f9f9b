"""The photo in more pixels than the walk's frames have, for where the walk comes nearer than the photo was taken."""

from __future__ import annotations

import torch
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.lookup import SEEN_BY_NONE, look_up
from photowalk.scene.types import View
from photowalk.scene.warping import SAME_SURFACE, Composite

NEARER, MUCH_NEARER = 1.1, 1.4  # times as large as in the photo: from here on, and here altogether, by the close-up


def with_close_up(
    seen: Composite,
    photo: View,
    index: int,  # of the photo among the views that `seen` was made of
    close_up: Tensor,  # [3, s H, s W] in [0, 1], s a whole number
    targets: Cameras,  # [F]
    *,
    pixel_centre: float = PIXEL_CENTRE,
) -> Tensor:
    """The video [F, 3, H, W] of `seen`, in the colours of the close-up where it shows the photo larger than it is."""
    larger = _magnification(seen.depth, photo.camera, targets, pixel_centre)
    share = ((larger - NEARER) / (MUCH_NEARER - NEARER)).clamp(0, 1) * (seen.source == index)
    frames = torch.nonzero(share.flatten(1).any(1)).squeeze(1)
    if len(frames) == 0:
        return seen.video
    scale = close_up.shape[-1] // photo.image.shape[-1]
    camera, chosen = photo.camera.resized(*close_up.shape[-2:]), targets[frames]
    colours, source = look_up(
        seen.depth[frames],
        chosen.camera_from_world,
        chosen.intrinsics,
        close_up[None],
        photo.depth.repeat_interleave(scale, 0).repeat_interleave(scale, 1)[None],
        camera.camera_from_world[None],
        camera.intrinsics[None],
        pixel_centre=pixel_centre,
        tolerance=SAME_SURFACE,
    )
    share = share[frames] * (source != SEEN_BY_NONE)
    video = seen.video.clone()
    video[frames] = torch.lerp(video[frames], colours, share[:, None])
    return video


def _magnification(depth: Tensor, photo: Cameras, targets: Cameras, pixel_centre: float) -> Tensor:
    """How many times larger targets [F] see what the photo saw, given its depth [F, H, W] in them (0 = unknown: 0)."""
    photo_from_target = targets.relative_to(photo).world_from_camera
    # A pixel's depth in the photo is linear in its depth in the target: slope * depth + offset.
    of_pixel = (photo_from_target[:, 2, None, :3] @ targets.intrinsics.inverse())[:, 0]
    rows = torch.arange(targets.height, device=depth.device) + pixel_centre
    columns = torch.arange(targets.width, device=depth.device) + pixel_centre
    slope = of_pixel[:, 0, None, None] * columns + of_pixel[:, 1, None, None] * rows[:, None]
    slope = slope + of_pixel[:, 2, None, None]
    nearer = slope + photo_from_target[:, 2, 3, None, None] / depth
    lens = targets.intrinsics[:, 0, 0] / photo.intrinsics[0, 0]
    return torch.where(depth > 0, nearer * lens[:, None, None], 0).to(depth)
