"""The photo in more pixels than the walk's frames have, for where the walk comes nearer than the photo was taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.lookup import SEEN_BY_NONE, look_up
from photowalk.scene.images import Fit, Photo, read_photo
from photowalk.scene.types import View
from photowalk.scene.warping import SAME_SURFACE, Composite

FROM, ALTOGETHER = 0.55, 0.7  # of what a close-up magnifies: where it begins to be looked at, and where it alone is


@dataclass(frozen=True)
class CloseUp:
    photo: View  # of H x W pixels
    picture: Tensor  # [3, s H, s W] in [0, 1], the same photo; s = 2, 4, ...

    def __post_init__(self) -> None:
        (height, width), (rows, columns) = self.photo.image.shape[-2:], self.picture.shape[-2:]
        times = self.times
        if (rows, columns) != (times * height, times * width) or times < 2 or times.bit_count() != 1:
            raise ValueError(
                f"a close-up of a photo of {height}x{width} wants 2, 4, ... times as many pixels along each side, "
                f"got {rows}x{columns}"
            )

    @property
    def times(self) -> int:
        return self.picture.shape[-1] // self.photo.image.shape[-1]


def read_close_up(path: str | Path, photo: Photo, most: int, *, fit: Fit) -> Tensor | None:
    """The picture [3, s H, s W] of a close-up of the photo that was read from `path` and fitted to H x W by `fit`.

    s is the least power of two, up to `most`, with which none of the file's pixels are lost; None where that is 1.
    Raises PhotoError.
    """
    height, width = photo.image.shape[-2:]
    held = min(photo.original_height / height, photo.original_width / width)
    times = most
    while times > 1 and 2 * held <= times:
        times //= 2
    return read_photo(path, times * height, times * width, fit=fit).image if times > 1 else None


def with_close_up(
    seen: Composite,
    close_up: CloseUp,
    index: int,  # of the photo among the views that `seen` was made of
    targets: Cameras,  # [F]
    *,
    pixel_centre: float = PIXEL_CENTRE,
) -> Tensor:
    """The video [F, 3, H, W] of `seen`, in the colours of the close-up where it shows the photo larger than it is.

    The close-up is halved until it fits, as textures are: of more pixels than are asked for, some would be passed over.
    """
    photo, video = close_up.photo, seen.video
    larger = _magnification(seen.depth, photo.camera, targets, pixel_centre) * (seen.source == index)
    for times in (2**level for level in range(1, close_up.times.bit_length())):
        share = ((larger / times - FROM) / (ALTOGETHER - FROM)).clamp(0, 1)
        frames = torch.nonzero(share.flatten(1).any(1)).squeeze(1)
        if len(frames) == 0:
            break
        fitting = CloseUp(photo, F.avg_pool2d(close_up.picture[None], close_up.times // times)[0])
        colours, known = _looked_up(fitting, seen.depth[frames], targets[frames], pixel_centre)
        video = video.clone() if video is seen.video else video
        video[frames] = torch.lerp(video[frames], colours, (share[frames] * known)[:, None])
    return video


def _looked_up(close_up: CloseUp, depth: Tensor, targets: Cameras, pixel_centre: float) -> tuple[Tensor, Tensor]:
    """What targets [F] with depth [F, H, W] see of the photo, in the close-up's pixels; and where they do."""
    photo, picture, times = close_up.photo, close_up.picture, close_up.times
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
