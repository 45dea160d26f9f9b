"""The photo in more pixels than the walk's frames have, for where the walk comes nearer than the photo was taken."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.lookup import SEEN_BY_NONE, look_up
from photowalk.scene.types import View
from photowalk.scene.warping import SAME_SURFACE, Composite

FROM, ALTOGETHER = 0.55, 0.7  # of what a close-up magnifies: where it begins to be looked at, and where it alone is


def with_close_up(
    seen: Composite,
    photo: View,
    index: int,  # of the photo among the views that `seen` was made of
    close_up: Tensor,  # [3, s H, s W] in [0, 1], s a power of two
    targets: Cameras,  # [F]
    *,
    pixel_centre: float = PIXEL_CENTRE,
) -> Tensor:
    """The video [F, 3, H, W] of `seen`, in the colours of the close-up where it shows the photo larger than it is.

    The close-up is halved until it fits, as textures are: of more pixels than are asked for, some would be passed over.
    """
    larger = _magnification(seen.depth, photo.camera, targets, pixel_centre) * (seen.source == index)
    video, scale = seen.video, close_up.shape[-1] // photo.image.shape[-1]
    for times in (2**level for level in range(1, scale.bit_length())):
        share = ((larger / times - FROM) / (ALTOGETHER - FROM)).clamp(0, 1)
        frames = torch.nonzero(share.flatten(1).any(1)).squeeze(1)
        if len(frames) == 0:
            break
        colours, known = _looked_up(
            photo, F.avg_pool2d(close_up[None], scale // times)[0], seen.depth[frames], targets[frames], pixel_centre
        )
        video = video.clone() if video is seen.video else video
        video[frames] = torch.lerp(video[frames], colours, (share[frames] * known)[:, None])
    return video


def _looked_up(
    photo: View, picture: Tensor, depth: Tensor, targets: Cameras, pixel_centre: float
) -> tuple[Tensor, Tensor]:
    """What targets [F] with depth [F, H, W] see of the photo, in the pixels of `picture`; and where they do."""
    times = picture.shape[-1] // photo.image.shape[-1]
    camera = photo.camera.resized(*picture.shape[-2:])
    colours, source = look_up(
        depth,
        targets.camera_from_world,
        targets.intrinsics,
        picture[None],
        photo.depth.repeat_interleave(times, 0).repeat_interleave(times, 1)[None],
        camera.camera_from_world[None],
        camera.intrinsics[None],
        pixel_centre=pixel_centre,
        tolerance=SAME_SURFACE,
    )
    return colours, source != SEEN_BY_NONE


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
