"""Turns recordings into clip folders. What is trained on them is not known here."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from photowalk.data.clips import write_clip
from photowalk.data.footage import extract_frames
from photowalk.data.recordings import Recording, RecordingError, open_recording, read_colmap
from photowalk.data.reference_dataset import count_video_frames, is_video, read_video_clip
from photowalk.data.rgbd_walk import count_frames, read_rgbd_walk
from photowalk.data.solve import PICTURES, solve_cameras
from photowalk.geometry.cameras import Cameras
from photowalk.perception.captions import TemplateCaptioner, motion_of
from photowalk.perception.depth import DepthEstimator
from photowalk.scene.types import Clip

_JUDGED = 8  # frames by which the metre is found
_ENDLESS = range(sys.maxsize)


@dataclass(frozen=True)
class Cut:
    """Which frames of a recording become clips, and how."""

    size: tuple[int, int]  # height, width of the clips
    frames: slice  # of the recording
    clip_frames: int | None = None  # per clip; None: one clip of all


@dataclass(frozen=True)
class Finding:
    """How what a recording lacks is found."""

    depth: Callable[[], DepthEstimator]  # only called where depth is missing
    fov_x_deg: float = 65.0  # first guess of the lens of footage


def prepare(
    source: Path, folder: Path, cut: Cut, finding: Finding, *, prompt: str = "", licence: str = "not stated"
) -> Iterator[Path]:
    """Write a recording as clips under `folder`, and yield each as it is complete.

    An RGB-D walk (data.rgbd_walk), a video with what ViPE found for it (data.reference_dataset), pictures with cameras
    (data.recordings), or footage without any: a video or a folder of pictures, whose cameras COLMAP finds. Where there
    are landmarks and no depth, depth is estimated, and lengths become metres as the estimator sees them. Raises
    ValueError for what cannot be read, and for frames that are not there.
    """
    if (source / "poses_c2w.txt").is_file():
        yield from prepare_rgbd_walk(source, folder, cut, prompt=prompt, licence=licence)
    elif is_video(source) and (source.parent.parent / "pose" / f"{source.stem}.npz").is_file():
        parts = _parts(source, count_video_frames(source), cut)
        clips = (read_video_clip(source, slice(part.start, part.stop, part.step), cut.size) for part in parts)
        yield from _write(folder, source.stem, parts, clips, prompt, licence)
    else:
        with tempfile.TemporaryDirectory() as work:
            frames = cut.frames
            recording = open_recording(source)
            if recording is None:
                recording, frames = _solved(source, Path(work), cut.frames, finding.fov_x_deg), slice(None)
            parts = _parts(source, len(recording), replace(cut, frames=frames))
            yield from _write(
                folder, source.resolve().stem, parts, _clips(recording, parts, cut.size, finding), prompt, licence
            )


def prepare_rgbd_walk(
    recording: Path, folder: Path, cut: Cut, *, prompt: str = "", licence: str = "not stated"
) -> Iterator[Path]:
    """Write the RGB-D walk as clips under `folder`, and yield each as it is complete.

    Raises ValueError for a recording that cannot be read, and for frames that it does not have.
    """
    parts = _parts(recording, count_frames(recording), cut)
    for number, part in enumerate(parts):
        clip = read_rgbd_walk(recording, *cut.size, frames=slice(part.start, part.stop, part.step), prompt=prompt)
        yield _write_part(folder, recording.resolve().name, number, part, clip, licence)


def _parts(source: Path, count: int, cut: Cut) -> list[range]:
    """The frames of each clip."""
    chosen = range(count)[cut.frames]
    length = cut.clip_frames or len(chosen)
    if not chosen or length < 1:
        raise ValueError(
            f"{source} has {count} frames; the cut {cut.frames} into clips of {cut.clip_frames} "
            "frames leaves none. Give frames as FIRST:END and clips of 1 frame or more"
        )
    return [chosen[first : first + length] for first in range(0, len(chosen), length)]


def _write(
    folder: Path, name: str, parts: list[range], clips: Iterator[Clip], prompt: str, licence: str
) -> Iterator[Path]:
    """Clips with captions by template, unless they have their own."""
    for number, (part, clip) in enumerate(zip(parts, clips, strict=True)):
        words = clip.prompt or f"{prompt or TemplateCaptioner().place}. {motion_of(clip)}"
        yield _write_part(folder, name, number, part, replace(clip, prompt=words), licence)


def _write_part(folder: Path, name: str, number: int, part: range, clip: Clip, licence: str) -> Path:
    target = folder / f"{name}_{number:04d}"
    write_clip(target, clip, source=f"{name}, frames {part.start} to {part[-1]}", licence=licence)
    return target


def _solved(source: Path, work: Path, frames: slice, fov_x_deg: float) -> Recording:
    """Footage with cameras found by COLMAP."""
    pictures, models = source, work / "solved"
    models.mkdir()
    if source.is_file():
        pictures = work / "frames"
        pictures.mkdir()
        extract_frames(source, pictures, _ENDLESS[frames])
    elif not source.is_dir():
        raise RecordingError(f"there is no {source}; give a video, a folder of pictures or a recording")
    names = sorted(file.name for file in pictures.iterdir() if file.suffix.lower() in PICTURES)
    names = names if source.is_file() else names[frames]
    return read_colmap(solve_cameras(pictures, names, models, fov_x_deg=fov_x_deg), pictures)


def _clips(recording: Recording, parts: list[range], size: tuple[int, int], finding: Finding) -> Iterator[Clip]:
    if recording.depth is not None or not recording.landmarks:
        yield from (recording.clip(part, *size) for part in parts)
        return
    estimator = finding.depth()
    recording = recording.scaled(_metres(recording, size, estimator))
    for part in parts:
        clip = recording.clip(part, *size)
        known = torch.stack([_landmark_depth(recording, f, camera) for f, camera in zip(part, clip.cameras)])
        yield replace(clip, depth=estimator.estimate_frames(clip.video, clip.cameras, known))


def _metres(recording: Recording, size: tuple[int, int], estimator: DepthEstimator) -> float:
    """How many metres the unit of a recording is, by what the estimator says of a few of its frames."""
    ratios = []
    count = min(_JUDGED, len(recording))
    for frame in (index * len(recording) // count for index in range(count)):
        clip = recording.clip(range(frame, frame + 1), *size)
        known = _landmark_depth(recording, frame, clip.cameras[0])
        guess = estimator.estimate_photo(clip.video[0], float(clip.cameras.intrinsics[0, 0, 0])).depth
        both = (known > 0) & torch.isfinite(guess) & (guess > 0)
        if both.any():
            ratios.append(float((guess[both] / known[both]).median()))
    if not ratios:
        raise RecordingError(f"no landmark of {recording.name} lies in its pictures; its model fits others")
    return statistics.median(ratios)


def _landmark_depth(recording: Recording, frame: int, camera: Cameras) -> Tensor:
    """[H, W] depth of the landmarks of a frame at their pixels, the nearest where several meet; 0 elsewhere."""
    position, depth = camera.project(recording.landmarks[frame].to(camera.intrinsics))
    column, row = position.floor().nan_to_num(-1).clamp(-1, 1e6).long().unbind(-1)
    inside = (depth > 0) & (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    nearest = torch.full((camera.height * camera.width,), torch.inf)
    pixel = (row * camera.width + column)[inside]
    nearest.scatter_reduce_(0, pixel, depth[inside], "amin")
    return nearest.nan_to_num(posinf=0).reshape(camera.height, camera.width)
