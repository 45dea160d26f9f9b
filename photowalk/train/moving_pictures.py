"""Turns still pictures into short videos: pans and zooms with a little parallax, for parts that need motion alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.scene.images import read_photo

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_SLOWEST, _FASTEST = 0.15, 5.0  # pixels a frame, drawn evenly on a logarithmic scale
_STILL = 0.1  # share of videos that do not move
_ZOOM = 0.002  # per frame and pixel of speed


def read_pictures(folders: Sequence[Path], height: int, width: int) -> list[Tensor]:
    """All pictures under the folders in the order of their names, each [3, height, width] in [0, 1]."""
    paths = sorted(
        path for folder in folders for path in Path(folder).rglob("*") if path.suffix.lower() in PICTURE_ENDINGS
    )
    if not paths:
        raise ValueError(f"no pictures ({', '.join(PICTURE_ENDINGS)}) under {', '.join(map(str, folders))}")
    return [read_photo(path, height, width).image for path in paths]


def moving_picture(
    picture: Tensor, frames: int, size: tuple[int, int], random: torch.Generator, speed: float | None = None
) -> Tensor:
    """picture [3, h, w] in [0, 1] -> video [frames, 3, *size] in [-1, 1]; `speed` in pixels a frame, drawn if None.

    The window covers 0.6 to 0.95 of the picture; where it leaves the picture, the picture is mirrored.
    """

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=random))

    if speed is None:
        speed = 0.0 if draw(0, 1) < _STILL else math.exp(draw(math.log(_SLOWEST), math.log(_FASTEST)))
    height, width = size
    fit = min(picture.shape[1] / height, picture.shape[2] / width)
    scale = fit * draw(0.6 if fit > 1 else 0.75, 0.95)
    angle = draw(0, 2 * math.pi)
    step_x, step_y, zoom = math.cos(angle) * speed, math.sin(angle) * speed, draw(-1, 1) * speed * _ZOOM
    nearness = F.interpolate(torch.rand(1, 1, 4, 6, generator=random), size, mode="bicubic", align_corners=True)[0, 0]
    nearness = 1 + draw(0, 1) * (nearness - 0.5)
    room_x, room_y = picture.shape[2] - scale * width, picture.shape[1] - scale * height
    middle_x, middle_y = scale * width / 2 + draw(0, 1) * room_x, scale * height / 2 + draw(0, 1) * room_y
    x, y = torch.arange(width) + 0.5 - width / 2, torch.arange(height)[:, None] + 0.5 - height / 2
    grids = []
    for time in range(frames):
        growth = 1 + (math.exp(zoom * time) - 1) * nearness
        column = (x * growth + step_x * time * nearness) * scale + middle_x
        row = (y * growth + step_y * time * nearness) * scale + middle_y
        grids.append(torch.stack([column / picture.shape[2] * 2 - 1, row / picture.shape[1] * 2 - 1], dim=-1))
    source = picture[None] * 2 - 1
    if scale > 1.3:  # as much smaller as the window shows it, lest it aliases
        source = F.interpolate(source, scale_factor=1.1 / scale, mode="area")
    source = source.expand(frames, -1, -1, -1)
    return F.grid_sample(
        source, torch.stack(grids), mode="bicubic", padding_mode="reflection", align_corners=False
    ).clamp(-1, 1)
