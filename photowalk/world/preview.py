"""The picture that geometry alone makes of a chunk: earlier views warped into the new cameras, holes filled smoothly.

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
from photowalk.scene.filling import fill_along_rows, fill_smoothly
from photowalk.scene.types import View
from photowalk.scene.warping import composite, warp


@dataclass(frozen=True)
class PreviewConfig:
    warp_from: Literal["latest", "latest and recalled"]  # published: "latest"
    fill_holes: bool  # published: False, holes are black; True: holes take the smooth surroundings
    pixel_centre: float  # published: 0.0, warps at integer pixels although rays go through pixel centres
    reliable_ratio: float = 0.05  # published; depth that varies more than this around a pixel is not warped
    warp_group: int = 16  # published; frames that share one softness of occlusion
    invalid_at_origin: bool = False  # published: True, pixels without depth count as points at the world's origin
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
    fused: bool = True,
) -> Preview:
    """Warp what was seen into the new cameras; `fused` as in `scene.warping.warp`."""
    if config.warp_from == "latest":
        return _published(latest, targets, config, fused=fused)
    views = {view.frame: view for view in (*recalled, latest)}
    # Earlier frames first: each generation blurs a little, so the oldest picture of a surface is the best one.
    seen = composite([views[frame] for frame in sorted(views)], targets, pixel_centre=config.pixel_centre)
    known = seen.known[:, None].float()
    video = _filled(seen.video, known, config)
    return Preview(video.clamp(0, 1), seen.known.float(), seen.depth)


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
