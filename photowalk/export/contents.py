"""What a world hands to those who write files of it. It reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.export.conventions import ExportError, SplatFileError, check_splats
from photowalk.geometry.cameras import Cameras
from photowalk.scene.types import Mesh, Splats


@dataclass(frozen=True)
class Contents:
    """One world. Splats, meshes and cameras are in its own axes and unit; `level_from_world` says where up is."""

    name: str  # what files call it
    cameras: Cameras  # [F] the walk
    level_from_world: Tensor  # [4, 4] float64 similarity to metres, z up, y the first gaze, the floor below it at 0
    splats: Splats | None = None
    mesh: Mesh | None = None  # to be seen
    collision: Mesh | None = None  # to be stood on

    def need_splats(self, file: object) -> Splats:
        """Raises SplatFileError where there are none, or where one of their numbers is not finite."""
        if self.splats is None:
            raise SplatFileError(f"{file}: {self.name} has no splats yet; make them with: photowalk reconstruct")
        return check_splats(self.splats, file)

    def need_mesh(self, file: object) -> Mesh:
        """Raises ExportError where there is none."""
        if self.mesh is None:
            raise ExportError(f"{file}: {self.name} has no mesh yet; make one with: photowalk reconstruct")
        return self.mesh

    def with_sound_meshes(self, file: object) -> Contents:
        """With the sound parts of its meshes alone. Raises ExportError where one has none."""
        mesh, collision = (None if one is None else sound(one, file) for one in (self.mesh, self.collision))
        return replace(self, mesh=mesh, collision=collision)


def sound(mesh: Mesh, where: object) -> Mesh:
    """The mesh without faces that have no area or a corner that is not finite, and without vertices of no face. Raises
    ExportError that begins with `where` if no face is left."""
    corners = mesh.vertices.double()[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    good = area.isfinite() & (area > 0)
    if not bool(good.any()):
        raise ExportError(
            f"{where}: none of the mesh's {len(mesh)} faces has an area and finite corners; reconstruct the world again"
        )
    faces = mesh.faces[good]
    used, renumbered = torch.unique(faces, return_inverse=True)
    return Mesh(
        mesh.vertices[used],
        renumbered.view(-1, 3),
        mesh.colours[used],
        mesh.invented[good],
        None if mesh.uv is None else mesh.uv[used],
        mesh.texture,
    )


def in_metres(mesh: Mesh, level_from_world: Tensor) -> Mesh:
    """The mesh in Z-up metres."""
    vertices = mesh.vertices.detach().cpu().double() @ level_from_world[:3, :3].T + level_from_world[:3, 3]
    return replace(mesh, vertices=vertices.float())
