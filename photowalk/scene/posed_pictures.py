"""Further pictures of a place with known cameras, named by a transforms.json (nerfstudio, Blender).

Every frame has a `file_path` and its pose; `depth_file_path` is optional. Pictures are stretched to the size that is
wanted, their lenses with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import PathError
from photowalk.scene.depth_files import read_depth
from photowalk.scene.images import PhotoError, read_photo


@dataclass(frozen=True)
class PosedPicture:
    image: Tensor  # [3, H, W] in [0, 1]
    camera: Cameras  # [] seen from the photo's camera
    depth: Tensor | None  # [H, W] as in `View`; None where the file names none


def read_posed_pictures(file: str | Path, height: int, width: int, *, photo: str | Path) -> list[PosedPicture]:
    """All frames but the photo itself. If one of them is named like the photo, poses are relative to it; else they are
    relative to the photo already. Raises PathError, PhotoError, DepthError."""
    file = Path(file)
    cameras = path_files.read(file, lens=Cameras.from_fov(torch.eye(4), 60.0, height, width), fewest=1)
    try:
        frames = path_files.in_order(json.loads(file.read_text(encoding="utf-8"))["frames"])
        names = [Path(frame["file_path"]) for frame in frames]
    except (KeyError, TypeError, ValueError) as error:
        raise PathError(f"{file}: wants a list 'frames', each with a 'file_path' of its picture ({error})") from error
    own = [index for index, name in enumerate(names) if name.name == Path(photo).name]
    reference = cameras[own[0]] if own else None
    seen = cameras if reference is None else cameras.relative_to(reference)
    seen = seen.resized(height, width).to(torch.float32)
    pictures = []
    for index, (name, frame) in enumerate(zip(names, frames)):
        if index in own:
            continue
        if not (file.parent / name).is_file():
            raise PhotoError(f"{file} names {name}, which is not there; put it beside {file.name}")
        picture = read_photo(file.parent / name, height, width, fit="squash")
        size = (picture.original_height, picture.original_width)
        stored = frame.get("depth_file_path")
        depth = read_depth(file.parent / stored, height, width, photo_size=size, fit="squash") if stored else None
        pictures.append(PosedPicture(picture.image, seen[index], depth))
    return pictures
