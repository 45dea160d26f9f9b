"""Clips to learn from, wherever they lie: clip folders, shards of them, and the published dataset layout.

A clip is named by a path. A clip folder is a posed video with depth as two files that are quick to read in part: it
holds `clip.safetensors` (video uint8 [F, 3, H, W], depth float16 [F, H, W] with 0 = unknown and inf = sky,
camera_from_world [F, 4, 4], intrinsics [F, 3, 3] in pixels) and `clip.json` (version, prompt, source, licence, and
captions by the frame that they begin at, if they change on the way).
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from photowalk.data.captions import caption_at
from photowalk.data.reference_dataset import (
    DatasetError,
    count_video_frames,
    find_videos,
    is_video,
    read_video_clip,
    video_faults,
)
from photowalk.data.shards import PARTS, find_in_shards, in_shard, read_part
from photowalk.geometry.cameras import Cameras
from photowalk.scene.images import from_bytes, to_bytes, write_atomically
from photowalk.scene.types import Clip

VERSION = 1
CAMERAS = ("camera_from_world", "intrinsics")
NUMBERS = {  # as safetensors calls them; which each tensor may be kept in, the one that we write first
    "video": ("U8",),
    "depth": ("F16", "BF16", "F32", "F64"),
    "camera_from_world": ("F32", "F64"),
    "intrinsics": ("F32", "F64"),
}


class ClipError(ValueError):
    """A clip that cannot be used; the text lists its faults."""


def write_clip(folder: Path, clip: Clip, *, source: str, licence: str) -> None:
    """Write a clip; the description comes last, so a folder with `clip.json` is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    depth = clip.video.new_zeros(len(clip), *clip.video.shape[-2:]) if clip.depth is None else clip.depth
    tensors = {
        "video": to_bytes(clip.video),
        "depth": depth.half(),
        "camera_from_world": clip.cameras.camera_from_world.float(),
        "intrinsics": clip.cameras.intrinsics.float(),
    }
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    about = {"version": VERSION, "prompt": clip.prompt, "source": source, "licence": licence}
    if clip.captions:
        begun = [i for i in range(len(clip)) if i == 0 or clip.captions[i] != clip.captions[i - 1]]
        about["captions"] = {str(i): clip.captions[i] for i in begun}
    write_atomically(folder / "clip.safetensors", lambda temporary: save_file(tensors, temporary))
    write_atomically(folder / "clip.json", lambda temporary: temporary.write_text(json.dumps(about, indent=1)))


def read_clip(path: Path, frames: slice = slice(None), size: tuple[int, int] | None = None) -> Clip:
    """The clip, or a part of it, of a path that `find_clips` gives. Raises ClipError, naming every fault.

    `size` (height, width) is what the frames shall have: videos are cropped and resized, kept clips must have it.
    """
    if faults := validate(path):
        raise ClipError(f"{path} is no usable clip: " + "; ".join(faults))
    if is_video(path):
        try:
            return read_video_clip(path, frames, size)
        except DatasetError as error:
            raise ClipError(str(error)) from error
    about, (video, depth, pose, intrinsics) = _stored(path, frames)
    if size not in (None, tuple(video.shape[-2:])):
        raise ClipError(f"{path} has frames of {tuple(video.shape[-2:])}, wanted are {size}; prepare it in that size")
    cameras = Cameras(pose.float(), intrinsics.float(), *video.shape[-2:])
    begun = {int(first): text for first, text in about.get("captions", {}).items()}
    captions = tuple(caption_at(begun, frame) for frame in range(count_frames(path))[frames]) if begun else ()
    return Clip(from_bytes(video), cameras, depth.float(), about["prompt"], captions)


def count_frames(path: Path) -> int:
    """Of a clip without faults."""
    return count_video_frames(path) if is_video(path) else len(_stored(path, slice(None), ("intrinsics",))[1][0])


def find_clips(folder: Path) -> list[Path]:
    """All clips under `folder`, sorted: complete clip folders, clips in shards, videos of the published layout. The
    path of one clip gives that clip."""
    if is_video(folder) or in_shard(folder):
        return [folder]
    kept = [path.parent for path in folder.rglob("clip.json")]
    return sorted([*kept, *find_in_shards(folder), *find_videos(folder)])


def check_folder(folder: Path) -> int:
    """How many clips lie under `folder`. Raises ClipError, naming every fault, and when there are none."""
    clips = sorted({*(path.parent for path in folder.rglob("clip.safetensors")), *find_clips(folder)})
    faults = [f"{clip}: {fault}" for clip in clips for fault in validate(clip)]
    if faults:
        raise ClipError("\n  ".join([f"{len(faults)} faults in {len(clips)} clips:", *faults]))
    if not clips:
        raise ClipError(f"there are no clips under {folder}")
    return len(clips)


def _stored(
    path: Path, frames: slice, names: Sequence[str] = ("video", "depth", "camera_from_world", "intrinsics")
) -> tuple[dict, list[Tensor]]:
    """The description and the tensors of a clip folder or of a clip in a shard."""
    if in_shard(path):
        about, content = (read_part(path, part) for part in PARTS)
        tensors = load(content)
        return json.loads(about), [tensors[name][frames] for name in names]
    with safe_open(path / "clip.safetensors", "pt") as file:
        return json.loads((path / "clip.json").read_text()), [file.get_slice(name)[frames] for name in names]


def validate(path: Path) -> list[str]:
    """What is wrong with a clip, in words; empty if nothing is."""
    if is_video(path):
        return video_faults(path)
    try:
        about, kinds, cameras = _outline(path)
    except FileNotFoundError as error:
        return [f"{error.filename} is missing"]
    except (OSError, ValueError, SafetensorError) as error:  # of JSON, of text that is none, of shards
        return [f"cannot be read: {error}"]
    if not isinstance(about, dict):
        return [f"clip.json wants an object, got {type(about).__name__}"]
    faults = [f"{name} is missing in clip.json" for name in ("prompt", "source", "licence") if name not in about]
    if not isinstance(about.get("prompt", ""), str):
        faults.append(f"the prompt in clip.json wants to be text, got {about['prompt']!r}")
    captions = about.get("captions", {})
    if not isinstance(captions, dict) or not all(
        first.isdecimal() and isinstance(text, str) for first, text in captions.items()
    ):
        faults.append(f'captions in clip.json want to be texts by frame, like {{"0": "a hall"}}, got {captions!r}')
    if about.get("version") != VERSION:
        faults.append(f"version {about.get('version')!r} instead of {VERSION}")
    faults += _tensor_faults(kinds)
    return faults or _camera_faults(cameras, *kinds["video"].shape[-2:])


@dataclass(frozen=True)
class _Kind:
    """Of a tensor in a file."""

    shape: tuple[int, ...]
    numbers: str


def _tensor_faults(kinds: Mapping[str, _Kind]) -> list[str]:
    lacking = [f"{name} is missing in clip.safetensors" for name in NUMBERS if name not in kinds]
    if lacking:
        return lacking
    frames, _, height, width = (*kinds["video"].shape, 0, 0, 0, 0)[:4]
    if not frames or not height or not width:
        return [
            f"video in clip.safetensors has shape {kinds['video'].shape}, wanted is [F, 3, H, W] with a frame and a "
            "pixel at least"
        ]
    wanted = {
        "video": (frames, 3, height, width),
        "depth": (frames, height, width),
        "camera_from_world": (frames, 4, 4),
        "intrinsics": (frames, 3, 3),
    }
    shapes = [
        f"{name} has shape {kinds[name].shape} instead of {shape}"
        for name, shape in wanted.items()
        if kinds[name].shape != shape
    ]
    return shapes + [
        f"{name} in clip.safetensors is kept in {kinds[name].numbers}, wanted is {' or '.join(numbers)}"
        for name, numbers in NUMBERS.items()
        if kinds[name].numbers not in numbers
    ]


def _outline(path: Path) -> tuple[object, dict[str, _Kind], dict[str, Tensor]]:
    """The description, the kinds of all tensors, and the tensors of the cameras, without reading pictures."""
    if in_shard(path):
        about, content = (read_part(path, part) for part in PARTS)
        kinds = {name: _Kind(tuple(part["shape"]), part["dtype"]) for name, part in deserialize(content)}
        tensors = load(content)
        return json.loads(about), kinds, {name: tensors[name] for name in CAMERAS if name in tensors}
    for part in PARTS:
        if not (path / part).exists():
            raise FileNotFoundError(errno.ENOENT, "is not in the folder", part)
    with safe_open(path / "clip.safetensors", "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {name: _Kind(tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
        cameras = {name: file.get_tensor(name) for name in CAMERAS if name in kinds}
    return json.loads((path / "clip.json").read_text()), kinds, cameras


def _camera_faults(cameras: dict[str, Tensor], height: int, width: int) -> list[str]:
    try:
        Cameras(**cameras, height=height, width=width).check()
    except ValueError as error:
        return [str(error)]
    return []
