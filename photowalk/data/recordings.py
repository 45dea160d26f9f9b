"""Pictures that other tools have posed: the pictures, their cameras, and depth or landmarks if there are any.

* COLMAP: `images/` beside `sparse/0/`, `sparse/` or the model's own files (.txt or .bin); landmarks are its points.
* nerfstudio, Blender: a `transforms.json` whose frames name their pictures, and perhaps their depth.

Cameras of pictures that have none are `data.solve`'s business. Lenses are pinholes: of a model with distortion that
part is taken, so pictures want to be without it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from photowalk.data.landmarks import read_landmarks
from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.scene.depth_files import read_depth
from photowalk.scene.images import read_photo
from photowalk.scene.types import Clip

_MODELS = ("sparse/0", "sparse", "colmap/sparse/0", ".")
_USUAL_FOV_DEG = 60.0  # where a file has poses but no lens


class RecordingError(ValueError):
    """A recording that cannot be read; the text says what is missing and where."""


@dataclass(frozen=True)
class Recording:
    name: str
    pictures: list[Path]  # [F]
    cameras: Cameras  # [F] of the stored pictures
    depth: Callable[[int, int, int], Tensor] | None = None  # frame, height, width -> [height, width], fitted
    landmarks: list[Tensor] = field(default_factory=list)  # [F] of [P, 3]: points of the world that each frame sees

    def __len__(self) -> int:
        return len(self.pictures)

    def clip(self, frames: range, height: int, width: int) -> Clip:
        """Some frames, cropped about the middle to the proportions of height x width and resized; depth as it is
        stored, 0 where there is none."""
        video = torch.stack([read_photo(self.pictures[frame], height, width).image for frame in frames])
        depth = torch.zeros(len(frames), height, width)
        if self.depth is not None:
            depth = torch.stack([self.depth(frame, height, width) for frame in frames])
        return Clip(video, fitted(self.cameras[list(frames)], height, width), depth)

    def scaled(self, factor: float) -> Recording:
        """The same with all lengths times `factor`; for recordings without depth."""
        pose = self.cameras.camera_from_world.clone()
        pose[..., :3, 3] *= factor
        cameras = replace(self.cameras, camera_from_world=pose)
        return replace(self, cameras=cameras, landmarks=[points * factor for points in self.landmarks])


def open_recording(source: Path) -> Recording | None:
    """What `source`, a folder or a transforms.json, holds; None if there are no cameras with it. Raises RecordingError,
    PathError."""
    if source.suffix.lower() == ".json":
        return read_transforms(source)
    if (source / "transforms.json").is_file():
        return read_transforms(source / "transforms.json")
    model = find_model(source)
    if model is None:
        return None
    return read_colmap(model, source / "images" if (source / "images").is_dir() else source)


def find_model(folder: Path) -> Path | None:
    """The folder of a COLMAP model in or at `folder`."""
    for place in _MODELS:
        for ending in (".bin", ".txt"):
            if all((folder / place / f"{name}{ending}").is_file() for name in ("images", "cameras")):
                return folder / place
    return None


def read_colmap(model: Path, pictures: Path) -> Recording:
    """The pictures of a COLMAP model in the order of their names, whose numbers count as numbers."""
    try:
        names, cameras = path_files.read_colmap(model)
        landmarks = read_landmarks(model, list(names))
    except (ValueError, struct.error, IndexError, KeyError, OSError) as error:
        raise RecordingError(f"{model} is no COLMAP model that can be read ({error})") from error
    files = [_beside(pictures, name, model) for name in names.values()]
    name = (pictures.parent if pictures.name == "images" else pictures).resolve().name
    return Recording(name, files, cameras.check(str(model)), None, landmarks)


def read_transforms(file: Path) -> Recording:
    """The pictures that a transforms.json names, in the order of their names."""
    try:
        frames = path_files.in_order(json.loads(file.read_text(encoding="utf-8"))["frames"])
        names = [str(frame["file_path"]) for frame in frames]
        depths = [frame.get("depth_file_path") for frame in frames]
    except (OSError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise RecordingError(f"{file} wants a 'file_path' for each of its frames ({error!r})") from error
    pictures = [_beside(file.parent, name, file) for name in names]
    with Image.open(pictures[0]) as first:
        lens = Cameras.from_fov(torch.eye(4), _USUAL_FOV_DEG, first.height, first.width)
    cameras = path_files.read(file, lens=lens)
    stored = (cameras.height, cameras.width)

    def depth(frame: int, height: int, width: int) -> Tensor:
        name = depths[frame]
        if name is None:
            return torch.zeros(height, width)
        return read_depth(_beside(file.parent, str(name), file), height, width, photo_size=stored)

    return Recording(file.resolve().parent.name, pictures, cameras, depth if any(depths) else None)


def fitted(cameras: Cameras, height: int, width: int) -> Cameras:
    """The lenses of pictures cropped about the middle to the proportions of height x width and resized."""
    scale = max(height / cameras.height, width / cameras.width)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., 0, 2] -= cameras.width / 2
    intrinsics[..., 1, 2] -= cameras.height / 2
    intrinsics[..., :2, :] *= scale
    intrinsics[..., 0, 2] += width / 2
    intrinsics[..., 1, 2] += height / 2
    return Cameras(cameras.camera_from_world.float(), intrinsics.float(), height, width)


def _beside(folder: Path, name: str, said_by: Path) -> Path:
    """A file that `said_by` names, which must lie in `folder`. Blender leaves out the ending of pictures."""
    for file in (folder / name, folder / f"{name}.png"):
        if file.is_file():
            if folder.resolve() not in file.resolve().parents:
                raise RecordingError(f"{said_by} names {name}, which lies outside of {folder}; move it there")
            return file
    raise RecordingError(f"{said_by} names {name}, which is not in {folder}")
