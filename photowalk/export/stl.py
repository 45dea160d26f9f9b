"""The collision mesh alone as binary .stl, for simulators that read nothing newer (MuJoCo). Z-up metres, no colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from photowalk.export.contents import Contents, in_metres, sound
from photowalk.export.conventions import ExportError, array
from photowalk.scene.images import write_atomically

_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])


def write_stl(path: Path, contents: Contents) -> None:
    """Raises ExportError where there is no collision mesh, or none of its faces is sound."""
    if contents.collision is None:
        raise ExportError(f"{path}: {contents.name} has no collision mesh yet; make one with: photowalk reconstruct")
    mesh = in_metres(sound(contents.collision, path), contents.level_from_world)
    corners = array(mesh.vertices)[mesh.faces.cpu().numpy()]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    faces = np.rec.array(np.zeros(len(mesh), dtype=_FACE))
    faces.normal = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    faces.corners = corners
    content = b"photowalk, metres, z up".ljust(80) + np.uint32(len(mesh)).tobytes() + faces.tobytes()
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
