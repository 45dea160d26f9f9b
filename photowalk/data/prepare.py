"""Turns recordings into clip folders. What is trained on them is not known here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from photowalk.data.clips import write_clip
from photowalk.data.rgbd_walk import count_frames, read_rgbd_walk


@dataclass(frozen=True)
class Cut:
    """Which frames of a recording become clips, and how."""

    size: tuple[int, int]  # height, width of the clips
    frames: slice  # of the recording
    clip_frames: int | None = None  # per clip; None: one clip of all


def prepare_rgbd_walk(
    recording: Path, folder: Path, cut: Cut, *, prompt: str = "", licence: str = "not stated"
) -> Iterator[Path]:
    """Write the RGB-D walk as clips under `folder`, and yield each as it is complete.

    Raises ValueError for a recording that cannot be read, and for frames that it does not have.
    """
    chosen = range(count_frames(recording))[cut.frames]
    length = cut.clip_frames or len(chosen)
    if not chosen or length < 1:
        raise ValueError(
            f"{recording} has {count_frames(recording)} frames; the cut {cut.frames} into clips of {cut.clip_frames} "
            "frames leaves none. Give frames as FIRST:END and clips of 1 frame or more"
        )
    for number, first in enumerate(range(0, len(chosen), length)):
        part = chosen[first : first + length]
        clip = read_rgbd_walk(recording, *cut.size, frames=slice(part.start, part.stop, part.step), prompt=prompt)
        target = folder / f"{recording.resolve().name}_{number:04d}"
        write_clip(
            target, clip, source=f"{recording.resolve().name}, frames {part.start} to {part[-1]}", licence=licence
        )
        yield target
