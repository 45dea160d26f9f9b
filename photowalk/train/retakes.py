"""Other recordings of a place out of one: mirrored, filmed backwards, in other light. Geometry stays exact."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.perception.captions import with_motion_of
from photowalk.scene.types import Clip
from photowalk.train.chance import uniform

STRONGEST_TINT = 0.15  # largest relative change of a colour channel
STRONGEST_GAMMA = 1.4  # largest power that brightness is raised to, and one over the smallest


def retake(clip: Clip, random: torch.Generator) -> Clip:
    """Mirrored and backwards half of the time each, always in other light, the same for all of its frames. A prompt
    that ends with how the camera moves tells of the new way."""
    if uniform(0, 1, random) < 0.5:
        clip = mirrored(clip)
    if uniform(0, 1, random) < 0.5:
        clip = clip[list(range(len(clip) - 1, -1, -1))]
    prompt, *captions = (with_motion_of(clip, told) for told in (clip.prompt, *clip.captions))
    return replace(clip, video=_relit(clip.video, random), prompt=prompt, captions=tuple(captions))


def mirrored(clip: Clip) -> Clip:
    """Left and right exchanged, in pictures and world: x of every point of the world is negated."""
    turned = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    pose, intrinsics = clip.cameras.camera_from_world, clip.cameras.intrinsics.clone()
    intrinsics[..., 0, 2] = clip.cameras.width - intrinsics[..., 0, 2]
    intrinsics[..., 0, 1] *= -1
    pose = pose * (turned[:, None] * turned).to(pose)
    cameras = Cameras(pose, intrinsics, clip.cameras.height, clip.cameras.width)
    return replace(
        clip, video=clip.video.flip(-1), cameras=cameras, depth=None if clip.depth is None else clip.depth.flip(-1)
    )


def _relit(video: Tensor, random: torch.Generator) -> Tensor:
    """[F, 3, H, W] in [0, 1]."""
    tint = 1 + STRONGEST_TINT * (torch.rand(3, 1, 1, generator=random) * 2 - 1)
    gamma = STRONGEST_GAMMA ** uniform(-1, 1, random)
    return (video.clamp(0, 1).pow(gamma) * tint).clamp(0, 1)
