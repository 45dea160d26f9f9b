"""What a reconstruction looks like: a smooth flight along the walk, and one picture of it for the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.reconstruct.ahead import ahead
from photowalk.scene.images import write_png
from photowalk.scene.render import render_picture
from photowalk.scene.types import Scene
from photowalk.scene.videos import write_mp4

SHEET_ROWS, SHEET_COLUMNS = 2, 3


def write_preview(
    scene: Scene,
    cameras: Cameras,
    *,
    video: str | Path | None = None,
    picture: str | Path | None = None,
    every: int = 1,
    fps: float = 16,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Fly along `cameras` [F], rendering each `every`-th frame: `video` becomes an .mp4 that lasts as long as the walk,
    `picture` a contact sheet of six moments."""
    chosen = cameras[::every]
    splats = scene.everything
    moments = torch.linspace(0, len(chosen) - 1, SHEET_ROWS * SHEET_COLUMNS).round().long().tolist()
    if video is None:
        if picture is not None:
            write_png(picture, contact_sheet([render_picture(splats, chosen[moment]) for moment in moments]))
        return
    stills: dict[int, Tensor] = {}

    def frames() -> Iterator[Tensor]:
        rendered = ahead(render_picture(splats, camera).clamp(0, 1) for camera in chosen)
        for index, image in enumerate(rendered):
            if index in moments:
                stills[index] = image
            if on_step is not None:
                on_step(index + 1, len(chosen))
            yield image

    write_mp4(video, frames(), fps=fps / every)
    if picture is not None:
        write_png(picture, contact_sheet([stills[moment] for moment in moments]))


def contact_sheet(images: list[Tensor]) -> Tensor:
    """Six pictures [3, H, W] as one [3, 2 H, 3 W], in reading order."""
    rows = [torch.cat(images[row * SHEET_COLUMNS : (row + 1) * SHEET_COLUMNS], dim=2) for row in range(SHEET_ROWS)]
    return torch.cat(rows, dim=1).clamp(0, 1)
