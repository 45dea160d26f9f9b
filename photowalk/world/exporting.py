"""Files for other programs, from what a world folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from photowalk.export.contents import Contents
from photowalk.export.formats import format_of
from photowalk.export.ply import read_splats
from photowalk.scene.ground import EYE_HEIGHT, level, read_ground
from photowalk.scene.mesh_files import read_mesh
from photowalk.world.disk import WorldError
from photowalk.world.store import WorldStore

_FILES = ("world.json", "photo.png", "preview.png", "walk.mp4")  # of a world's folder, besides its folders


def export_files(store: WorldStore, files: Sequence[str | Path]) -> None:
    """Write each file in the format of its ending, or the walk as .mp4. A file that is there is replaced when its
    successor is whole. Raises WorldError, ExportError."""
    targets = [Path(file) for file in files]
    formats = {file: None if file.suffix.lower() == ".mp4" else format_of(file) for file in targets}
    for file in targets:
        if not file.absolute().parent.is_dir():
            raise WorldError(f"{file}: there is no folder {file.absolute().parent}; make it first")
        if _is_part_of_world(store.folder, file):
            raise WorldError(f"{file} is a part of the world; choose another name")
    shown = any(known is not None and known.scene for known in formats.values())
    contents = _contents(store, with_scene=shown)
    for file, known in formats.items():
        if known is None:
            store.write_video(file)
        else:
            known.write(file, contents)


def _is_part_of_world(folder: Path, file: Path) -> bool:
    """Whether an export of that name would destroy what the program needs."""
    file, folder = file.absolute().resolve(), folder.absolute().resolve()
    return folder in file.parents and (file.parent != folder or file.name in _FILES)


def _contents(store: WorldStore, *, with_scene: bool) -> Contents:
    """What there is to export."""
    cameras, file = store.cameras(), store.folder / "scene" / "splats.ply"
    if with_scene and not file.is_file():
        raise WorldError(f"{store.folder} has no splats yet; make them with: photowalk reconstruct {store.folder}")
    splats, name = read_splats(file) if with_scene else None, store.folder.absolute().name
    manifest = store.manifest
    up = None if manifest.up is None else torch.tensor(manifest.up, dtype=torch.float64)
    if not (with_scene and (file.parent / "scene.json").is_file()):  # made before there were meshes
        metres = manifest.metres_per_unit or 1.0
        return Contents(name, cameras, level(cameras[0], up, EYE_HEIGHT / metres, metres), splats)
    ground = read_ground(file.parent / "scene.json").corrected(cameras[0], up, manifest.metres_per_unit)
    eye_height = float(ground.height(cameras[0].centres.double()))
    return Contents(
        name,
        cameras,
        level(cameras[0], ground.up, eye_height, ground.metres_per_unit),
        splats,
        read_mesh(file.parent / "mesh.glb"),
        read_mesh(file.parent / "collision.ply"),
    )
