"""Reads the dataset layout of the published system as it is: one video, poses, lenses, depth and captions per clip.

    <any folder>/rgb/<id>.mp4          pose/<id>.npz         inds [T], data [T, 4, 4] world from camera, OpenCV, metres
    depth/<id>.zip of 00000.exr ...    intrinsics/<id>.npz   inds [T], data [T, 4 or more] fx, fy, cx, cy in pixels
      (channel Z) or depth/<id>.npz    framepack-caption-.../<id>.pkl
    all_filter.lst                     ids to use, a line each, in `<any folder>` or above it (optional)

ViPE writes all but the captions. A clip is named by the path of its video.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.data.captions import caption_at, read_captions
from photowalk.data.exr import ExrError, read_exr
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import inverse
from photowalk.scene.types import Clip

FILTER = "all_filter.lst"


class DatasetError(ValueError):
    """A clip of the layout that cannot be used; the text says which file and why."""


def find_videos(folder: Path) -> list[Path]:
    """The videos of all clips under `folder`, sorted, those alone that a filter list names where there is one."""
    videos = sorted(path for path in folder.rglob("rgb/*.mp4") if (path.parent.parent / "pose").is_dir())
    return [video for video in videos if _wanted(video, folder)]


def is_video(path: Path) -> bool:
    """Whether the path names a clip of this layout."""
    return path.suffix == ".mp4" and path.parent.name == "rgb"


def read_video_clip(video: Path, frames: slice = slice(None), size: tuple[int, int] | None = None) -> Clip:
    """The clip or a part of it, in its own size or cropped about the middle to the proportions of `size` (height,
    width) and resized; depth takes nearest pixels. Every frame has its caption; the prompt is that of the first frame
    read. Raises DatasetError."""
    chosen = range(count_video_frames(video))[frames]
    if not chosen:
        raise DatasetError(f"{video} has {count_video_frames(video)} frames, none of them in {frames}")
    pictures = torch.stack(list(_pictures(video, chosen)))
    height, width = pictures.shape[-2:]
    cameras = _cameras(video, chosen, (height, width))
    depths = _depths(video, chosen, (height, width))
    depth = torch.stack([torch.from_numpy(layer.astype(np.float32)) for layer in depths])
    known = _captions(video)
    captions = tuple(caption_at(known, frame) for frame in chosen)
    clip = Clip(pictures, cameras, torch.where(depth > 0, depth, 0.0), captions[0], captions if known else ())
    return clip if size is None else _fitted(clip, *size)


def count_video_frames(video: Path) -> int:
    """How many frames have a pose. Raises DatasetError."""
    return len(_arrays(video, "pose")[0])


def video_faults(video: Path) -> list[str]:
    """What is wrong with the clip, in words, every file tried; empty if nothing is."""
    faults: list[str] = []

    def attempt(try_it) -> None:
        try:
            try_it()
        except ValueError as error:
            faults.append(str(error))

    attempt(lambda: next(_pictures(video, range(1))))
    attempt(lambda: _arrays(video, "intrinsics"))
    attempt(lambda: _captions(video))
    attempt(lambda: _arrays(video, "pose"))
    if not faults:
        frames = range(count_video_frames(video))
        height, width = next(_pictures(video, range(1))).shape[-2:]
        attempt(lambda: list(_depths(video, frames, (height, width), read=frames[:: max(len(frames) - 1, 1)])))
        attempt(lambda: list(_pictures(video, frames[-1:])))
        attempt(lambda: _cameras(video, frames, (height, width)).check(f"{video}: cameras"))
    return faults


def _wanted(video: Path, root: Path) -> bool:
    for folder in (video.parent.parent, *video.parent.parent.parents):
        if (folder / FILTER).exists():
            names = (folder / FILTER).read_text().split()
            return video.stem in names or video.name in names
        if folder == root:
            return True
    return True


def _arrays(video: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers [T] and their rows [T, ...] of pose/ or intrinsics/."""
    file = video.parent.parent / kind / f"{video.stem}.npz"
    wanted = {"pose": "data [T, 4, 4]", "intrinsics": "data [T, 4 or more]"}[kind]
    try:
        with np.load(file, allow_pickle=False) as arrays:
            indices, rows = arrays["inds"], arrays["data"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{file} wants inds [T] and {wanted}: {error}") from error
    fits = rows.shape[1:] == (4, 4) if kind == "pose" else rows.ndim == 2 and rows.shape[1] >= 4
    if indices.ndim != 1 or len(indices) != len(rows) or not len(rows) or not fits:
        raise DatasetError(f"{file} wants inds [T] and {wanted}, got {indices.shape} and {rows.shape}")
    if indices.dtype.kind not in "iuf" or rows.dtype.kind not in "iuf":
        raise DatasetError(f"{file} wants numbers as inds and data, got {indices.dtype} and {rows.dtype}")
    if not np.isfinite(rows).all():
        raise DatasetError(f"{file} holds numbers that are not finite")
    return indices, rows.astype(np.float64)


def _rows(video: Path, kind: str, frames: range) -> Tensor:
    indices, rows = _arrays(video, kind)
    places = {int(index): place for place, index in enumerate(indices)}
    _require(frames, places, video.parent.parent / kind / f"{video.stem}.npz")
    return torch.from_numpy(rows[[places[frame] for frame in frames]])


def _require(frames: range, present: Container[int], file: Path) -> None:
    if missing := [frame for frame in frames if frame not in present]:
        raise DatasetError(
            f"{file} lacks frame {missing[0]} ({len(missing)} in all); wanted are all from {frames[0]} to {frames[-1]}"
        )


def _cameras(video: Path, frames: range, size: Sequence[int]) -> Cameras:
    poses, lenses = _rows(video, "pose", frames), _rows(video, "intrinsics", frames)
    matrices = torch.eye(3).repeat(len(lenses), 1, 1)
    matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2] = lenses[:, :4].float().T
    return Cameras(inverse(poses).float(), matrices, *size)


def _pictures(video: Path, frames: range) -> Iterator[Tensor]:
    """[3, H, W] in [0, 1], decoded from the beginning, since only that is exact for every file."""
    import av  # training on clip folders does without it

    wanted, last, given = set(frames), frames[-1], 0
    try:
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    given += 1
                    yield torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1) / 255
                if number >= last:
                    break
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DatasetError(f"{video} cannot be read: {error}") from error
    if given < len(wanted):
        raise DatasetError(f"{video} ends before frame {last}, which has a pose")


def _depth_file(video: Path) -> Path:
    folder = video.parent.parent / "depth"
    return next((folder / f"{video.stem}{end}" for end in (".zip", ".npz") if (folder / f"{video.stem}{end}").exists()),
                folder / f"{video.stem}.zip")  # fmt: skip


def _depths(
    video: Path, frames: range, size: tuple[int, int], read: Sequence[int] | None = None
) -> Iterator[np.ndarray]:
    """[H, W] along +Z of every frame, or of those in `read` alone, though all have to be there."""
    file = _depth_file(video)
    try:
        for frame, layer in _layers(file, frames, frames if read is None else read):
            if layer.shape != size:
                raise DatasetError(
                    f"{file} has depth of {layer.shape} in frame {frame}, the video {size}; give both one size"
                )
            if layer.dtype.kind != "f":
                raise DatasetError(f"{file} has depth in {layer.dtype}, wanted are metres in floating point")
            yield layer
    except DatasetError:
        raise
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{file} wants depth of frames {frames[0]} to {frames[-1]}: {error}") from error


def _layers(file: Path, frames: range, read: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            places = {int(index): place for place, index in enumerate(np.atleast_1d(arrays["inds"]))}
            layers = arrays["data"]
        if layers.ndim != 3 or len(layers) != len(places):
            raise DatasetError(f"{file} wants inds [T] and data [T, H, W], got {len(places)} and {layers.shape}")
        _require(frames, places, file)
        yield from ((frame, layers[places[frame]]) for frame in read)
        return
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        _require(frames, {frame for frame in frames if f"{frame:05d}.exr" in names}, file)
        for frame in read:
            try:
                yield frame, read_exr(archive.read(f"{frame:05d}.exr"), "Z")
            except ExrError as error:
                raise DatasetError(f"{file}, {frame:05d}.exr {error}") from error


def _captions(video: Path) -> dict[int, str]:
    files = sorted(video.parent.parent.glob(f"framepack-caption*/{video.stem}.pkl"))
    return read_captions(files[0]) if files else {}


def _fitted(clip: Clip, height: int, width: int) -> Clip:
    assert clip.depth is not None
    scale = max(height / clip.cameras.height, width / clip.cameras.width)
    rows, columns = min(round(height / scale), clip.cameras.height), min(round(width / scale), clip.cameras.width)
    top, left = (clip.cameras.height - rows) // 2, (clip.cameras.width - columns) // 2
    part = (..., slice(top, top + rows), slice(left, left + columns))
    intrinsics = clip.cameras.intrinsics.clone()
    intrinsics[:, 0, 2] -= left
    intrinsics[:, 1, 2] -= top
    cameras = Cameras(clip.cameras.camera_from_world, intrinsics, rows, columns).resized(height, width)
    pictures = F.interpolate(clip.video[part], size=(height, width), mode="bilinear", antialias=True)
    depth = F.interpolate(clip.depth[part][:, None], size=(height, width), mode="nearest-exact")[:, 0]
    return Clip(pictures.clamp(0, 1), cameras, depth, clip.prompt, clip.captions)
