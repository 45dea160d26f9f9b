"""Fits the nano codec: principal components of patches, then of what the drawn pictures between lack.

Closed form, no gradient steps: minutes on a CPU, and the same pictures give the same codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.models.nano_codec import NanoCodec
from photowalk.train.moving_pictures import moving_picture, read_pictures


@dataclass(frozen=True)
class CodecRecipe:
    folders: tuple[Path, ...]  # pictures of any kind; each is moved about
    height: int = 256
    width: int = 448
    videos_per_picture: int = 3
    groups: int = 2  # of frames, after the first frame of a video
    seed: int = 0


@torch.no_grad()
def train_codec(recipe: CodecRecipe, config: NanoCodec.Config | None = None) -> NanoCodec:
    """A codec whose bases and normalisation fit the recipe's pictures. Raises ValueError if there are none."""
    codec = NanoCodec(config or NanoCodec.Config())
    pictures = read_pictures(recipe.folders, 2 * recipe.height, 2 * recipe.width)
    random = torch.Generator().manual_seed(recipe.seed)
    frames = 1 + recipe.groups * codec.temporal_factor
    videos = [
        moving_picture(picture, frames, (recipe.height, recipe.width), random)
        for picture in pictures
        for _ in range(recipe.videos_per_picture)
    ]
    patches = (F.pixel_unshuffle(video[:: codec.temporal_factor], codec.spatial_factor) for video in videos)
    codec.picture_basis.copy_(_principal(patches, codec.config.picture_channels))
    codec.between_basis.copy_(_principal((_lacking(codec, video) for video in videos), codec.config.between_channels))
    _normalise(codec, videos)
    return codec


def _lacking(codec: NanoCodec, video: Tensor) -> Tensor:
    """Codes of what each group's drawn pictures lack, [groups, D, h, w]."""
    video, group = video.transpose(0, 1)[None], codec.temporal_factor
    ends = [codec.picture(codec.picture_code(video[:, :, i])) for i in range(0, video.shape[2], group)]
    starts = range(1, video.shape[2], group)
    return torch.cat(
        [codec.between_codes(video[:, :, i : i + group], ends[j], ends[j + 1]) for j, i in enumerate(starts)]
    )


def _principal(samples, count: int) -> Tensor:
    """The `count` strongest directions of samples [*, D, h, w] about zero, orthonormal rows, strongest first.

    About zero, not the mean, so that the projection is linear and grey needs no constant. The sign makes each row's
    largest entry positive.
    """
    scatter = 0
    for sample in samples:
        flat = sample.transpose(0, 1).flatten(1).double()
        scatter = scatter + flat @ flat.T
    directions = torch.linalg.eigh(scatter).eigenvectors.flip(1).T[:count]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return (directions * largest.sign()).float()


def _normalise(codec: NanoCodec, videos: list[Tensor]) -> None:
    """Mean and deviation per channel over all latents but, for the corrections, those of first frames."""
    codec.mean.zero_()
    codec.deviation.fill_(1)
    latents = torch.cat([codec.encode(video.transpose(0, 1)[None], {})[0] for video in videos])
    moving = latents[:, :, 1:].transpose(0, 1).flatten(1)
    codec.mean[: codec.config.picture_channels] = moving.mean(1)[: codec.config.picture_channels]
    codec.deviation.copy_(moving.std(1))
