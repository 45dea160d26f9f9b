"""The photo in more pixels than the walk's frames have, for where the walk comes nearer than the photo was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.lookup import SEEN_BY_NONE, look_up
from photowalk.kernels.sliding import highest_around
from photowalk.scene.edges import finer_depth, jumps
from photowalk.scene.images import Fit, Photo, read_photo
from photowalk.scene.types import View
from photowalk.scene.warping import SAME_SURFACE, Composite, composite

FROM, ALTOGETHER = 0.55, 0.7  # of what a close-up magnifies: where it begins to be looked at, and where it alone is
OUTLINE = 0.05  # least relative jump of inverse depth that is an outline
LOOK_EVERY = 4  # pixels of the photo along each side, to see whether anything is shown larger


@dataclass(frozen=True)
class CloseUp:
    """A photo as the walk has it, and the same photo in more pixels. Raises ValueError if the sizes do not fit."""

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

    def twice(self) -> View:
        """The photo in 2 H x 2 W pixels, with depth whose edges follow them."""
        picture = _shrunk(self.picture, self.times // 2)
        return _photo_as(self.photo, picture, finer_depth(self.photo.depth, picture))


def read_close_up(path: str | Path, photo: Photo, most: int, *, fit: Fit) -> Tensor | None:
    """The picture [3, s H, s W] of a close-up of the photo that was read from `path` and fitted to H x W by `fit`.

    s is the least power of two that holds as many pixels as the file has, but `most` at most; None where that is 1.
    Raises PhotoError.
    """
    height, width = photo.image.shape[-2:]
    held = min(photo.original_height / height, photo.original_width / width)
    times = most
    while times > 1 and 2 * held <= times:
        times //= 2
    return read_photo(path, times * height, times * width, fit=fit).image if times > 1 else None


def composite_with(
    close_up: CloseUp, views: Sequence[View], targets: Cameras, *, pixel_centre: float = PIXEL_CENTRE
) -> Composite:
    """`composite` of views, one of which is the close-up's photo (by its frame), drawn from the close-up where it shows
    the photo larger than it is.

    In frames where it does anywhere, the photo's surface is that of twice as many pixels, whose edges follow the finer
    picture, or they would be stairs. Frames where it does not are as without a close-up.
    """
    larger = _shows_larger(close_up.photo, targets)
    if not larger.any():
        return composite(views, targets, pixel_centre=pixel_centre)
    closer = _from_nearer(close_up, views, targets[larger], pixel_centre)
    if larger.all():
        return closer
    plain = composite(views, targets[~larger], pixel_centre=pixel_centre)
    return Composite(*(_interleaved(*parts, larger) for parts in zip(vars(plain).values(), vars(closer).values())))


def _from_nearer(close_up: CloseUp, views: Sequence[View], targets: Cameras, pixel_centre: float) -> Composite:
    photo, most = close_up.photo, close_up.times
    twice = close_up.twice()
    index = [view.frame for view in views].index(photo.frame)
    seen = composite([*views[:index], twice, *views[index + 1 :]], targets, pixel_centre=pixel_centre)
    # The close-up is halved until it fits, as textures are: of more pixels than are asked for, some would be passed
    # over. Twice the pixels are there already.
    magnified, is_photo = _magnification(seen.depth, photo.camera, targets, pixel_centre), seen.source == index
    levels = [(photo, is_photo * (1 - _share(magnified, 2)))]
    for times in (2**level for level in range(2, most.bit_length())):
        level = _photo_as(photo, _shrunk(close_up.picture, most // times), twice.depth)
        levels.append((level, is_photo * _share(magnified, times)))
    video = seen.video.clone()
    for level, share in levels:
        frames = torch.nonzero((share > 0).flatten(1).any(1)).squeeze(1)
        if len(frames) > 0:
            colours, known = _looked_up(level, seen.depth[frames], targets[frames], pixel_centre)
            video[frames] = torch.lerp(video[frames], colours, (share[frames] * known)[:, None])
    return replace(seen, video=_with_soft_outlines(video, seen, is_photo * _share(magnified, 2)))


def _share(larger: Tensor, times: int) -> Tensor:
    """How much of what is seen so many times `larger` comes from a picture of `times` the pixels."""
    return ((larger / times - FROM) / (ALTOGETHER - FROM)).clamp(0, 1)


def _with_soft_outlines(video: Tensor, seen: Composite, share: Tensor) -> Tensor:
    """The video, smoothed by a pixel where depth jumps beside what comes from a close-up to a `share` [F, H, W]: a
    z-buffer takes each pixel for one surface or the other, and a camera sees a little of both."""
    outline = jumps(torch.where(seen.depth > 0, 1 / seen.depth, 0), OUTLINE) & ~highest_around(~seen.known, 1)
    smooth = F.pad(video, (1,) * 4, mode="replicate")
    for _ in range(2):  # weights of 1, 2 and 1 along each axis
        smooth = F.avg_pool2d(smooth, 2, stride=1)
    return torch.lerp(video, smooth, (outline * highest_around(share, 1))[:, None])


def _shrunk(picture: Tensor, by: int) -> Tensor:
    return F.avg_pool2d(picture[None], by)[0]


def _photo_as(photo: View, picture: Tensor, depth: Tensor) -> View:
    """The photo with another picture of it, and depth of as many pixels or fewer."""
    times = picture.shape[-1] // depth.shape[-1]
    depth = depth.repeat_interleave(times, 0).repeat_interleave(times, 1)
    return View(picture, depth, photo.camera.resized(*picture.shape[-2:]), photo.frame)


def _looked_up(view: View, depth: Tensor, targets: Cameras, pixel_centre: float) -> tuple[Tensor, Tensor]:
    """The view's colours in targets [F] of depth [F, H, W], and where it has seen them."""
    colours, source = look_up(
        depth,
        targets.camera_from_world,
        targets.intrinsics,
        view.image[None],
        view.depth[None],
        view.camera.camera_from_world[None],
        view.camera.intrinsics[None],
        pixel_centre=pixel_centre,
        tolerance=SAME_SURFACE,
    )
    return colours, source != SEEN_BY_NONE


def _interleaved(plain: Tensor, closer: Tensor, larger: Tensor) -> Tensor:
    """The frames of both in the order of `larger` [F] bool, which says whose turn it is."""
    frames = plain.new_empty(len(larger), *plain.shape[1:])
    frames[~larger], frames[larger] = plain, closer
    return frames


def _shows_larger(photo: View, targets: Cameras) -> Tensor:
    """[F] bool: whether targets show anything of the photo large enough to be drawn from a close-up."""
    depth = photo.depth[::LOOK_EVERY, ::LOOK_EVERY]
    surface = (depth > 0) & torch.isfinite(depth)
    pixels, distance = targets.project(photo.camera.unproject(photo.depth)[::LOOK_EVERY, ::LOOK_EVERY][surface])
    size = pixels.new_tensor([targets.width, targets.height])
    inside = (distance > 0) & ((pixels >= 0) & (pixels < size)).all(-1)
    lens = targets.intrinsics[:, 0, 0] / photo.camera.intrinsics[0, 0]
    nearer = torch.where(inside, depth[surface] / distance.clamp_min(1e-6), 0) * lens[:, None]
    return (nearer > 2 * FROM).any(1) | ((lens > 2 * FROM) & depth.isinf().any())


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
