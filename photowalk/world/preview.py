"""The picture that geometry alone makes of a chunk: earlier views warped into the new cameras, holes filled.

It is what the denoiser starts from, the floor that it must beat, and what the studio can show before generating.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.splatting import reliable_depth
from photowalk.scene.close_up import CloseUp, composite_with
from photowalk.scene.filling import fill_along_rows, fill_smoothly
from photowalk.scene.synthesis import synthesise
from photowalk.scene.types import View
from photowalk.scene.warping import Composite, composite, warp

_MUCH = 0.01  # of a frame's pixels; smaller holes are filled smoothly
_TOO_MUCH = 0.45  # of a frame's pixels; what is left would be repeated all over it
_MOST_CONTINUED = 4  # frames of a chunk
_FARTHEST = 500.0  # metres


@dataclass(frozen=True)
class PreviewConfig:
    warp_from: Literal["latest", "latest and recalled"]  # published: "latest"
    fill_holes: bool  # published: False, holes are black; True: holes take the smooth surroundings
    pixel_centre: float  # published: 0.0, warps at integer pixels although rays go through pixel centres
    reliable_ratio: float = 0.05  # published; depth that varies more than this around a pixel is not warped
    warp_group: int = 16  # published; frames that share one softness of occlusion
    invalid_at_origin: bool = False  # published: True, pixels without depth count as points at the world's origin
    continued: bool = False  # True: wide holes are filled with pieces of the picture, which move as one place would
    fill_wide: int = 1  # how many times farther to the sides than up and down holes look for their surroundings


@dataclass(frozen=True)
class Preview:
    video: Tensor  # [F, 3, H, W] in [0, 1]
    known: Tensor  # [F, H, W] in [0, 1], how much of the pixel was seen before
    depth: Tensor  # [F, H, W] along +Z as memory knows it, 0 = unknown, inf = sky


def preview_chunk(
    latest: View,
    recalled: Sequence[View],
    targets: Cameras,  # [F]
    config: PreviewConfig,
    *,
    close_up: CloseUp | None = None,  # the photo is then always looked at
    fused: bool = True,
) -> Preview:
    """Warp what was seen into the new cameras; `fused` as in `scene.warping.warp`."""
    if config.warp_from == "latest":
        return _published(latest, targets, config, fused=fused)
    always = () if close_up is None else (close_up.photo,)
    views = {view.frame: view for view in (*recalled, latest, *always)}
    # Earlier frames first: each generation blurs a little, so the oldest picture of a surface is the best one.
    ordered = [views[frame] for frame in sorted(views)]
    if close_up is None:
        seen = composite(ordered, targets, pixel_centre=config.pixel_centre)
    else:
        seen = composite_with(close_up, ordered, targets, pixel_centre=config.pixel_centre)
    video, drawn = _continued(seen, targets, config) if config.continued else (seen.video, seen.known)
    video = _filled(video, drawn[:, None].float(), config)
    if config.fill_holes:
        for frame in (~drawn.any(-1).any(-1)).nonzero()[:, 0].tolist():  # behind a wall, say: rather that than black
            video[frame] = video[frame - 1] if frame > 0 else latest.image
    return Preview(video.clamp(0, 1), seen.known.float(), seen.depth)


def _continued(seen: Composite, targets: Cameras, config: PreviewConfig) -> tuple[Tensor, Tensor]:
    """What is seen [F, 3, H, W] and drawn beside it, and where there is either [F, H, W] bool.

    A frame is continued out of its own pieces, at the depths that these have; it becomes a view of its own, which
    the other frames see. Of the frames that know enough to be continued it is the one that lacks most; then the next,
    as long as one lacks much.
    """
    video, drawn, depth, views = seen.video, seen.known, seen.depth, []
    while len(views) < _MOST_CONTINUED:
        lacking = 1 - drawn.float().mean((-2, -1))
        worth = torch.where(lacking <= _TOO_MUCH, lacking, -lacking)
        frame = torch.where(lacking > _MUCH, worth, -1).argmax()
        if not _MUCH < lacking[frame] < 1:
            break
        guess = fill_along_rows(video[frame, None], drawn[frame, None, None].float(), config.fill_wide)[0]
        picture, taken = synthesise(video[frame], drawn[frame], guess)
        here = _continued_depth(depth[frame], drawn[frame], config.fill_wide)[taken[..., 0], taken[..., 1]]
        here = torch.where(drawn[frame], 0, here)
        views.append(View(picture, here, targets[int(frame)], frame=len(views)))
        beside = composite(views, targets, pixel_centre=config.pixel_centre)
        video = torch.where(seen.known[:, None], seen.video, beside.video)
        depth = torch.where(seen.known, seen.depth, beside.depth)
        drawn = seen.known | beside.known
    return video, drawn


def _continued_depth(depth: Tensor, known: Tensor, wide: int) -> Tensor:
    """depth [H, W] along +Z (inf = sky) where it is `known` [H, W] bool, and elsewhere continued along rows; what
    comes out farther than _FARTHEST is sky."""
    near = torch.where(known & (depth > 0), 1 / depth.clamp_min(1e-6), 0)  # the sky's is 0
    filled = fill_along_rows(near[None, None], (known & (depth > 0))[None, None].float(), wide)[0, 0]
    return torch.where(filled > 1 / _FARTHEST, 1 / filled.clamp_min(1e-12), torch.inf)


def _published(latest: View, targets: Cameras, config: PreviewConfig, *, fused: bool) -> Preview:
    """The latest frame alone, softly splatted, holes black."""
    depth = torch.where(reliable_depth(latest.depth, ratio=config.reliable_ratio), latest.depth, 0.0)
    warped = warp(
        latest.image[None],
        depth[None],
        latest.camera[None],
        targets,
        mode="soft",
        pixel_centre=config.pixel_centre,
        group=config.warp_group,
        invalid_at_origin=config.invalid_at_origin,
        fused=fused,
    )
    known = warped.known[:, None].float()
    video = _filled(warped.values, known, config)
    return Preview(video.clamp(0, 1), warped.known.float(), warped.depth)


def _filled(video: Tensor, known: Tensor, config: PreviewConfig) -> Tensor:
    """video [F, 3, H, W], known [F, 1, H, W]."""
    if not config.fill_holes:
        return video
    return fill_smoothly(video, known) if config.fill_wide == 1 else fill_along_rows(video, known, config.fill_wide)
