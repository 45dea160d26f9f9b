"""Frames of a video as pictures on disk, so that solvers and readers of pictures need to know no videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

LARGEST_SIDE = 1280  # pixels; more detail than any clip has


class FootageError(ValueError):
    """A video that cannot be used; the text says why."""


@dataclass(frozen=True)
class Pictures:
    files: list[Path]
    size: tuple[int, int]  # height, width of the video; the pictures may be smaller


def extract_frames(video: Path, folder: Path, frames: Sequence[int]) -> Pictures:
    """Write those of the `frames` (ascending numbers) that a video has into `folder` as .png, at most LARGEST_SIDE
    pixels wide or high. Raises FootageError if there are none."""
    files: list[Path] = []
    wanted = frames if isinstance(frames, range) else frozenset(frames)
    last, size = frames[-1] if frames else -1, (0, 0)
    try:
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number > last:
                    break
                if number in wanted:
                    picture = frame.to_image()
                    size = (picture.height, picture.width)
                    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
                    files.append(folder / f"{number:06d}.png")
                    picture.save(files[-1])
    except (OSError, ValueError, IndexError) as error:
        raise FootageError(f"{video} is not a readable video ({error})") from error
    if not files:
        raise FootageError(f"{video} has none of the frames that are wanted")
    return Pictures(files, size)
