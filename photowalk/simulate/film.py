"""A film of the simulation: the world's own mesh, and on it the robot and the balls, seen from behind the robot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import look_at
from photowalk.kernels.mesh_rays import RayCaster
from photowalk.scene.types import Mesh
from photowalk.simulate.robot import BALL, BREADTH, CHASSIS, WHEEL, Moment

BEHIND, ABOVE = 1.1, 0.6  # metres
_SKY = (0.82, 0.88, 0.95)
_BODY, _TYRE, _BALL = (0.9, 0.35, 0.1), (0.12, 0.12, 0.13), (0.15, 0.45, 0.85)


def film(mesh: Mesh, moments: Iterable[Moment], size: tuple[int, int]) -> Iterator[Tensor]:
    """Frames [3, H, W] of height x width `size`; mesh in metres, z up."""
    world = RayCaster(mesh.vertices, mesh.faces)
    eye = None
    for moment in moments:
        robot = torch.from_numpy(moment.robot)
        wanted = robot[:3, 3] - BEHIND * normalize(robot[:2, 0], dim=0) @ torch.eye(2, 3).double()
        wanted = wanted + torch.tensor([0.0, 0, ABOVE])
        eye = wanted if eye is None else 0.9 * eye + 0.1 * wanted
        pose = look_at(eye, robot[:3, 3] + torch.tensor([0, 0, 0.1]), torch.tensor([0.0, 0, -1]).double())
        yield _picture(mesh, world, moment, Cameras.from_fov(pose.float(), 70.0, *size))


def _picture(mesh: Mesh, world: RayCaster, moment: Moment, camera: Cameras) -> Tensor:
    origin, directions = camera.rays()
    rays = directions.flatten(0, 1)
    origins = origin.expand_as(rays)
    hits = world.cast(origins, rays)
    face = hits.face.clamp_min(0).long()
    colour = _surface_colour(mesh, face, hits.weights)
    colour = torch.where((hits.face < 0)[:, None], torch.tensor(_SKY), colour)
    vertices, faces, paint = _things(moment)
    there = RayCaster(vertices, faces).cast(origins, rays)
    corners = vertices[faces[there.face.clamp_min(0).long()]]
    normal = normalize(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=-1)
    light = 0.55 + 0.45 * (normal @ normalize(torch.tensor([0.3, 0.4, 1.0]), dim=0)).abs()
    nearer = there.distance < hits.distance
    colour = torch.where(nearer[:, None], paint[there.face.clamp_min(0).long()] * light[:, None], colour)
    return colour.T.unflatten(1, (camera.height, camera.width)).clamp(0, 1)


def _surface_colour(mesh: Mesh, face: Tensor, weights: Tensor) -> Tensor:
    corners = mesh.faces[face]
    if mesh.uv is None or mesh.texture is None:
        return (mesh.colours[corners] * weights[..., None]).sum(1)
    uv = (mesh.uv[corners] * weights[..., None]).sum(1)
    return grid_sample(mesh.texture[None], 2 * uv[None, None] - 1, align_corners=False)[0, :, 0].T


def _things(moment: Moment) -> tuple[Tensor, Tensor, Tensor]:
    """Robot and balls as triangles: vertices [V, 3], faces [T, 3], colours [T, 3]."""
    import trimesh

    parts = [(trimesh.creation.box(2 * np.array(CHASSIS)), moment.robot, _BODY)]
    upright = trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0])
    parts += [
        (trimesh.creation.cylinder(WHEEL, BREADTH, sections=20), wheel @ upright, _TYRE) for wheel in moment.wheels
    ]
    parts += [(trimesh.creation.icosphere(2, BALL), _shift(*ball), _BALL) for ball in moment.balls]
    vertices, faces, paint, count = [], [], [], 0
    for part, pose, colour in parts:
        vertices.append(part.vertices @ pose[:3, :3].T + pose[:3, 3])
        faces.append(part.faces + count)
        paint.append(np.tile(colour, (len(part.faces), 1)))
        count += len(part.vertices)
    return (
        torch.from_numpy(np.concatenate(vertices)).float(),
        torch.from_numpy(np.concatenate(faces)).long(),
        torch.from_numpy(np.concatenate(paint)).float(),
    )


def _shift(x: float, y: float, z: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose
