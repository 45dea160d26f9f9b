"""Reads an RGB-D walk as depth cameras leave it: pictures, depth pictures, poses, one lens.

A folder holds `rgb/` and `depth/` (16-bit millimetres, 0 = unknown) with one picture of each a frame, in order of
name; `poses_c2w.txt` (a line a frame, 16 numbers, row-major 4x4, world from camera, OpenCV axes, metres) and
`intrinsics.json` (width, height, fx, fy, cx, cy in pixels whose centres lie at integers).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.geometry.motions import inverse
from photowalk.scene.depth_files import read_depth
from photowalk.scene.images import read_photo
from photowalk.scene.types import Clip


class WalkError(ValueError):
    """An RGB-D walk that cannot be read; the text says which file and why."""


def read_rgbd_walk(
    folder: str | Path, height: int, width: int, *, frames: slice = slice(None), prompt: str = ""
) -> Clip:
    """The walk, or a part of it, cropped about the middle to the proportions of height x width and resized.

    Depth takes nearest pixels. The world is that of the poses; intrinsics come out with pixel centres at 0.5.
    Raises WalkError.
    """
    folder = Path(folder)
    pictures, depths, poses = _parts(folder)
    chosen = range(len(pictures))[frames]
    if not chosen:
        raise WalkError(f"{folder} has {len(pictures)} frames, none of them in {frames}")
    lens, size = _lens(folder / "intrinsics.json", height, width)
    video = torch.stack([read_photo(pictures[i], height, width).image for i in chosen])
    depth = torch.stack([read_depth(depths[i], height, width, photo_size=size) for i in chosen])
    poses = inverse(poses[list(chosen)]).float()
    return Clip(video, Cameras(poses, lens.expand(len(poses), 3, 3), height, width), depth, prompt)


def count_frames(folder: Path) -> int:
    """How many frames the walk has. Raises WalkError."""
    return len(_parts(folder)[0])


def _parts(folder: Path) -> tuple[list[Path], list[Path], torch.Tensor]:
    """The pictures, the depth pictures and the poses [F, 4, 4]: one of each a frame."""
    pictures, depths = sorted((folder / "rgb").glob("*.*")), sorted((folder / "depth").glob("*.*"))
    poses = _poses(folder / "poses_c2w.txt")
    if not len(pictures) == len(depths) == len(poses) or not pictures:
        raise WalkError(
            f"{folder} holds {len(pictures)} pictures, {len(depths)} depth pictures and {len(poses)} poses; "
            f"give one of each a frame"
        )
    return pictures, depths, poses


def _poses(file: Path) -> torch.Tensor:
    """[F, 4, 4] world from camera."""
    try:
        return torch.from_numpy(np.loadtxt(file, ndmin=2).reshape(-1, 4, 4))
    except (OSError, ValueError) as error:
        raise WalkError(f"{file} wants 16 numbers a line: {error}") from error


def _lens(file: Path, height: int, width: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Intrinsics [3, 3] of the cropped and resized pictures, and (height, width) of the stored ones."""
    try:
        stored = json.loads(file.read_text())
        columns, rows, fx, fy, cx, cy = (float(stored[key]) for key in ("width", "height", "fx", "fy", "cx", "cy"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WalkError(f"{file} wants the numbers width, height, fx, fy, cx and cy: {error!r}") from error
    scale = max(height / rows, width / columns)
    x = (cx + PIXEL_CENTRE - columns / 2) * scale + width / 2
    y = (cy + PIXEL_CENTRE - rows / 2) * scale + height / 2
    return torch.tensor([[fx * scale, 0, x], [0, fy * scale, y], [0, 0, 1]]), (int(rows), int(columns))
