"""What a world hands to those who write files of it, and where its floor is. It reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.export.conventions import ExportError, SplatFileError, check_splats
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import motion
from photowalk.scene.types import Mesh, Splats

EYE_HEIGHT = 1.6  # metres above the floor at which the photo is taken to be where nothing says more


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


def level(first: Cameras, up: Tensor | None = None, eye_height: float = EYE_HEIGHT, metres: float = 1.0) -> Tensor:
    """The similarity [4, 4] of `Contents.level_from_world`.

    first: the camera above the spawn point; up [3]: away from the ground in world axes (default: the image's up, -y);
    eye_height: of that camera above the floor in world units; metres: in one world unit.
    """
    world = first.to("cpu", torch.float64)
    upward = torch.tensor([0.0, -1, 0], dtype=torch.float64) if up is None else up.detach().cpu().double()
    upward = upward / upward.norm()
    gaze = world.camera_from_world[2, :3]  # the camera's z axis in the world
    ahead = gaze - (gaze @ upward) * upward
    if float(ahead.norm()) < 1e-6:  # it looks straight up or down: what its picture has on top is ahead
        ahead = -world.camera_from_world[1, :3] - (-world.camera_from_world[1, :3] @ upward) * upward
    ahead = ahead / ahead.norm()
    rotation = torch.stack([torch.linalg.cross(ahead, upward), ahead, upward])
    spawn = world.centres - eye_height * upward
    return motion(metres * rotation, -metres * (rotation @ spawn))


def sound(mesh: Mesh) -> Mesh:
    """The mesh without faces that have no area or a corner that is not finite, and without vertices of no face."""
    corners = mesh.vertices.double()[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    faces = mesh.faces[area.isfinite() & (area > 0)]
    used, renumbered = torch.unique(faces, return_inverse=True)
    return Mesh(
        mesh.vertices[used],
        renumbered.view(-1, 3),
        mesh.colours[used],
        mesh.invented[area.isfinite() & (area > 0)],
        None if mesh.uv is None else mesh.uv[used],
        mesh.texture,
    )


def in_metres(mesh: Mesh, level_from_world: Tensor) -> Mesh:
    """The sound part of a mesh in Z-up metres."""
    kept = sound(mesh)
    vertices = kept.vertices.detach().cpu().double() @ level_from_world[:3, :3].T + level_from_world[:3, 3]
    return replace(kept, vertices=vertices.float())
