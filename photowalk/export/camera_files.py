"""The walk's cameras: as path files that the program reads again, and as a COLMAP text model.

Splat trainers and photogrammetry tools read COLMAP's three small files in one folder. Their world is ours: COLMAP's
cameras look along +z with y down too.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from photowalk.export.contents import Contents
from photowalk.export.conventions import ExportError
from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import quaternion_from_rotation


def write_cameras(path: Path, contents: Contents) -> None:
    """.npz or transforms.json, by the ending. Raises PathError."""
    path_files.write(path, contents.cameras)


def write_colmap(folder: Path, contents: Contents) -> None:
    """As `write_colmap_model`, of the walk's cameras. Raises ExportError."""
    write_colmap_model(folder, contents.cameras)


def write_colmap_model(folder: Path, cameras: Cameras) -> None:
    """cameras.txt, images.txt and an empty points3D.txt. Camera i of `cameras` [F] has the image frame_%05d.png.

    Raises ExportError if the folder holds anything else than such a model.
    """
    model = {"cameras.txt": _lenses(cameras), "images.txt": _images(cameras), "points3D.txt": "# no points\n"}
    if folder.exists() and not (folder.is_dir() and {file.name for file in folder.iterdir()} <= model.keys()):
        raise ExportError(f"{folder} is there already and is no camera model; name another, or delete it")
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, text in model.items():
            (partial / name).write_text(text, encoding="ascii")
        partial.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lenses(cameras: Cameras) -> str:
    """One PINHOLE camera for each frame, so that a walk may zoom."""
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy"]
    for number, intrinsics in enumerate(cameras.intrinsics.double().tolist(), start=1):
        (fx, _, cx), (_, fy, cy), _ = intrinsics
        lines.append(f"{number} PINHOLE {cameras.width} {cameras.height} {fx:.9g} {fy:.9g} {cx:.9g} {cy:.9g}")
    return "\n".join(lines) + "\n"


def _images(cameras: Cameras) -> str:
    poses = cameras.camera_from_world.to("cpu", torch.float64)
    rotations, translations = quaternion_from_rotation(poses[:, :3, :3]), poses[:, :3, 3]
    lines = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of points, which is empty"]
    for index, values in enumerate(torch.cat([rotations, translations], dim=1).tolist()):
        numbers = " ".join(f"{value:.12g}" for value in values)
        lines += [f"{index + 1} {numbers} {index + 1} {path_files.FRAME_NAME.format(index)}", ""]
    return "\n".join(lines) + "\n"
