"""Clip folders: a posed video with depth as two files that are quick to read in part.

A folder holds `clip.safetensors` (video uint8 [F, 3, H, W], depth float16 [F, H, W] with 0 = unknown and inf = sky,
camera_from_world [F, 4, 4], intrinsics [F, 3, 3] in pixels) and `clip.json` (version, prompt, source, licence).
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.scene.images import from_bytes, to_bytes, write_atomically
from photowalk.scene.types import Clip

VERSION = 1


class ClipError(ValueError):
    """A clip folder that cannot be used; the text lists its faults."""


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
    write_atomically(folder / "clip.safetensors", lambda temporary: save_file(tensors, temporary))
    write_atomically(folder / "clip.json", lambda temporary: temporary.write_text(json.dumps(about, indent=1)))


def read_clip(folder: Path, frames: slice = slice(None)) -> Clip:
    """The clip or a part of it. Raises ClipError, naming every fault."""
    if faults := validate(folder):
        raise ClipError(f"{folder} is no usable clip: " + "; ".join(faults))
    with safe_open(folder / "clip.safetensors", "pt") as file:
        video, depth, pose, intrinsics = (
            file.get_slice(name)[frames] for name in ("video", "depth", "camera_from_world", "intrinsics")
        )
    cameras = Cameras(pose, intrinsics, *video.shape[-2:])
    prompt = json.loads((folder / "clip.json").read_text())["prompt"]
    return Clip(from_bytes(video), cameras, depth.float(), prompt)


def count_frames(folder: Path) -> int:
    """Of a complete clip folder."""
    with safe_open(folder / "clip.safetensors", "pt") as file:
        return file.get_slice("intrinsics").get_shape()[0]


def find_clips(folder: Path) -> list[Path]:
    """All complete clip folders under `folder`, sorted."""
    return sorted(path.parent for path in folder.rglob("clip.json"))


def check_folder(folder: Path) -> int:
    """How many clips lie under `folder`. Raises ClipError, naming every fault, and when there are none."""
    clips = sorted({path.parent for name in ("clip.json", "clip.safetensors") for path in folder.rglob(name)})
    faults = [f"{clip}: {fault}" for clip in clips for fault in validate(clip)]
    if faults:
        raise ClipError("\n  ".join([f"{len(faults)} faults in {len(clips)} clips:", *faults]))
    if not clips:
        raise ClipError(f"there are no clip folders under {folder}")
    return len(clips)


def validate(folder: Path) -> list[str]:
    """What is wrong with a clip folder, in words; empty if nothing is."""
    for name in ("clip.json", "clip.safetensors"):
        if not (folder / name).exists():
            return [f"{name} is missing"]
    try:
        about = json.loads((folder / "clip.json").read_text())
        with safe_open(folder / "clip.safetensors", "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            cameras = {name: file.get_tensor(name) for name in ("camera_from_world", "intrinsics") if name in shapes}
    except (json.JSONDecodeError, SafetensorError) as error:
        return [f"cannot be read: {error}"]
    faults = [f"{name} is missing in clip.json" for name in ("prompt", "source", "licence") if name not in about]
    if about.get("version") != VERSION:
        faults.append(f"version {about.get('version')!r} instead of {VERSION}")
    frames, _, height, width = (*shapes.get("video", ()), 0, 0, 0, 0)[:4]
    wanted = {
        "video": (frames, 3, height, width),
        "depth": (frames, height, width),
        "camera_from_world": (frames, 4, 4),
        "intrinsics": (frames, 3, 3),
    }
    faults += [
        f"{name} has shape {shapes.get(name)} instead of {shape}"
        for name, shape in wanted.items()
        if shapes.get(name) != shape
    ]
    return faults or _camera_faults(cameras, height, width)


def _camera_faults(cameras: dict[str, Tensor], height: int, width: int) -> list[str]:
    try:
        Cameras(**cameras, height=height, width=width).check()
    except ValueError as error:
        return [str(error)]
    return []
