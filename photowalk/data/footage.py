"""Frames of a video as pictures on disk, so that solvers and readers of pictures need to know no videos."""

from __future__ import annotations

from pathlib import Path

import av

LARGEST_SIDE = 1280  # pixels; more detail than any clip has


class FootageError(ValueError):
    """A video that cannot be used; the text says why."""


def extract_frames(video: Path, folder: Path, frames: range) -> None:
    """Write those of the `frames` (ascending numbers) that a video has into `folder` as .png, at most LARGEST_SIDE
    pixels wide or high. Raises FootageError if there are none."""
    last, found = frames[-1] if frames else -1, False
    try:
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number > last:
                    break
                if number in frames:
                    picture, found = frame.to_image(), True
                    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
                    picture.save(folder / f"{number:06d}.png")
    except (OSError, ValueError, IndexError) as error:
        raise FootageError(f"{video} is not a readable video ({error})") from error
    if not found:
        raise FootageError(f"{video} has none of the frames that are wanted")
