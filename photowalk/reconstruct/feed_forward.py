"""A walk to splats by the network: windows of frames, each seen at once, in the walk's own cameras.

Cameras are known and stay what they are: the network is told them, and only its unit of length is found, from the depth
that the walk knows. Whether splats of several views describe the same surface is not known here (fuse.py, simplify.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.models.depth_anything3 import metric
from photowalk.models.depth_anything3.network import DepthAnything3, normalise
from photowalk.models.depth_anything3.pose_tokens import rigid_inverse
from photowalk.models.depth_anything3.splats import PlacedSplats, place_splats
from photowalk.perception.pose_alignment import align_cameras
from photowalk.scene.types import Clip, Splats

WINDOW, OVERLAP = 128, 10  # frames that the network sees at once, and of these those that it saw before
FAINTEST = 1 / 255  # opacity that can be seen


@torch.inference_mode()
def splats_of_walk(
    network: DepthAnything3, walk: Clip, *, down_ratio: int = 2, window: int = WINDOW, overlap: int = OVERLAP
) -> Splats:
    """One splat for every `down_ratio`-th pixel of every frame that shows a surface, in the walk's world. Raises
    ValueError where no frame does. Memory is that of one window and of the splats."""
    if not 0 <= overlap < window:
        raise ValueError(f"windows of {window} frames cannot share {overlap}: give 0 <= overlap < window")
    walk.cameras.check("the walk's cameras")
    parts, scale, end = [], 1.0, 0
    for frames in windows(len(walk), window, overlap):
        splats, scale = _splats_of_window(network, walk[frames], end - frames.start, down_ratio, scale)
        parts.append(splats)
        end = frames.stop
    joined = Splats(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Splats)))
    if not len(joined):
        raise ValueError("the network sees nothing but sky in this walk: give frames that show a surface")
    return joined


def windows(frames: int, window: int, overlap: int) -> Iterator[slice]:
    """Slices that cover all frames, each but the first starting with `overlap` frames of the one before."""
    start = 0
    while True:
        yield slice(start, min(start + window, frames))
        if start + window >= frames:
            return
        start += window - overlap


def _splats_of_window(
    network: DepthAnything3, walk: Clip, seen: int, down_ratio: int, previous_scale: float
) -> tuple[Splats, float]:
    """Splats of the frames from number `seen` on, and the length of one metre of the walk in the network's unit."""
    step = network.config.backbone.patch * (down_ratio if network.config.backbone.patch % down_ratio else 1)
    size = tuple(max(round(side / step), 1) * step for side in walk.video.shape[-2:])
    cameras = walk.cameras.resized(*size)
    images = normalise(F.interpolate(walk.video, size, mode="bilinear", antialias=True))
    predicted = network(images, cameras.camera_from_world, cameras.intrinsics, down_ratio=down_ratio)
    assert predicted.splats is not None
    known_depth = None
    if walk.depth is not None:
        sane = torch.where(walk.depth.isnan(), 0.0, walk.depth)
        known_depth = F.interpolate(sane[:, None], size, mode="nearest-exact")[:, 0]
    alignment = align_cameras(
        rigid_inverse(predicted.camera_from_world),
        cameras.world_from_camera,
        predicted_depth=predicted.depth,
        known_depth=known_depth,
        confidence=predicted.confidence,
        previous_scale=previous_scale,
    )
    placed = place_splats(
        predicted.splats[seen:],
        predicted.depth[seen:],
        cameras.world_from_camera[seen:],
        cameras.intrinsics[seen:],
        unit=alignment.scale,
    )
    surface = _surfaces(network, images[seen:], known_depth, seen, down_ratio)
    return _sane(placed, surface), alignment.scale


def _surfaces(
    network: DepthAnything3, images: Tensor, known_depth: Tensor | None, seen: int, down_ratio: int
) -> Tensor:
    """[N] which splats are no sky, as the walk knows and as the metric branch sees it."""
    surface = torch.ones_like(images[:, 0], dtype=torch.bool)
    if known_depth is not None:
        surface &= ~known_depth[seen:].isinf()
    if network.config.metric_backbone is not None:
        surface &= network.metric(images)[1] < metric.SKY
    return surface[:, ::down_ratio, ::down_ratio].flatten()


def _sane(placed: PlacedSplats, surface: Tensor) -> Splats:
    """Without splats behind their cameras, without a rotation, or too faint to be seen."""
    finite = placed.means.isfinite().all(-1) & placed.rotations.isfinite().all(-1)
    kept = surface & finite & (placed.scales > 0).all(-1) & (placed.opacities > FAINTEST)
    return Splats(
        placed.means[kept],
        placed.scales[kept],
        placed.rotations[kept],
        placed.opacities[kept],
        placed.harmonics[kept],
    )
