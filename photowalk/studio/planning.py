"""From what a person asks for, words or keyframes, to the cameras of whole chunks; and what has to be said about them.

Nothing that a client sends is taken for the name of a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.geometry import motions, path_files, paths
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.path_language import SPEED, TURN_SPEED_DEG, plan
from photowalk.scene.collision import blocked, shorten
from photowalk.studio import schemas
from photowalk.studio.errors import StudioError
from photowalk.studio.scenery import Scenery
from photowalk.world.chunk_files import FRAMES_PER_SECOND

MAX_CHUNKS = 25  # in one order


@dataclass(frozen=True)
class Planned:
    cameras: Cameras  # [1 + k * chunk], the first is where the walk stands
    notes: tuple[str, ...]
    blocked: Tensor  # bool, of each camera before anything was shortened
    shortened: bool
    unit: float  # a metre in world units

    def answer(self, chunk: int) -> schemas.Plan:
        cameras = self.cameras
        frames = len(cameras) - 1
        return schemas.Plan(
            frames=frames,
            chunks=frames // chunk,
            seconds=frames / FRAMES_PER_SECOND,
            length=float(cameras.centres.double().diff(dim=0).norm(dim=-1).sum()) / self.unit,
            notes=list(self.notes),
            poses=poses_of(cameras),
            blocked=self.blocked.tolist(),
            shortened=self.shortened,
        )


def plan_walk(scenery: Scenery, request: schemas.PathRequest) -> Planned:
    """Where `request` leads from the last frame of the world. Raises StudioError, PathError."""
    if (request.path is None) == (not request.keyframes):
        raise StudioError("give either a path, in words, or keyframes")
    cameras, chunk = scenery.cameras, scenery.manifest.chunk_frames
    unit = 1 / (scenery.manifest.metres_per_unit or 1.0)  # a metre in world units
    start = cameras[-1]
    if request.path is not None:
        check_words(request.path)
        planned = plan(
            request.path,
            start,
            start_of_walk=cameras[0],
            reference_depth=scenery.manifest.reference_depth,
            chunk=chunk,
            unit=unit,
            up=scenery.vertical,
        )
        path, notes = planned.cameras, list(planned.notes)
    else:
        path, notes = _through(start, request, chunk, unit)
    _check_length(len(path) - 1, chunk)
    hits = blocked(path, scenery.surfaces)
    kept, word = shorten(path, scenery.surfaces, unit=unit) if request.avoid else (path, None)
    if word is not None:
        notes.append(word)
    elif bool(hits[1:].any()):
        notes.append(f"{int(hits[1:].sum())} of the frames lie too close to something")
    return Planned(kept, tuple(notes), hits, word is not None, unit)


def check_words(path: str) -> None:
    """Raise StudioError where the text would be taken for a file."""
    text = path.strip()
    if path_files.is_path_file(text) or "\0" in text:
        raise StudioError(
            f"{text[:60]!r} looks like the name of a file; give a preset or a sentence, and send a file to "
            f"/api/worlds/ID/paths"
        )


def camera_at(pose: schemas.Pose, lens: Cameras) -> Cameras:
    """One camera [] at a pose, with the lens of another. Raises StudioError."""
    return cameras_at([pose], lens)[0]


def cameras_at(poses: list[schemas.Pose], lens: Cameras) -> Cameras:
    quaternions = torch.tensor([pose.wxyz for pose in poses], dtype=torch.float64)
    lengths = quaternions.norm(dim=-1, keepdim=True)
    if bool((lengths < 1e-6).any()):
        raise StudioError("a quaternion wants a length above zero; give wxyz of unit length")
    rotation = motions.rotation_from_quaternion(quaternions / lengths)
    centres = torch.tensor([pose.position for pose in poses], dtype=torch.float64)
    placed = motions.inverse(motions.motion(rotation, centres)).to(lens.camera_from_world)
    zooms = [1.0 if pose.fov_deg is None else half_width(lens) / half_tangent(pose.fov_deg) for pose in poses]
    intrinsics = lens.intrinsics.repeat(len(poses), 1, 1)
    intrinsics[:, [0, 1], [0, 1]] *= torch.tensor(zooms).to(intrinsics)[:, None]
    return replace(lens, camera_from_world=placed, intrinsics=intrinsics)


def half_width(lens: Cameras) -> float:
    """Half of what a camera [] sees sideways at distance 1."""
    return lens.width / 2 / float(lens.intrinsics[0, 0])


def half_tangent(fov_deg: float) -> float:
    return math.tan(math.radians(fov_deg) / 2)


def poses_of(cameras: Cameras) -> list[schemas.Pose]:
    placed = cameras.world_from_camera.double().cpu()
    quaternions = motions.quaternion_from_rotation(placed[:, :3, :3])
    widths = fov_deg(cameras).clamp(schemas.NARROWEST_DEG, schemas.WIDEST_DEG)
    return [
        schemas.Pose(position=tuple(position), wxyz=tuple(wxyz), fov_deg=width)
        for position, wxyz, width in zip(placed[:, :3, 3].tolist(), quaternions.tolist(), widths.tolist())
    ]


def fov_deg(cameras: Cameras) -> Tensor:
    """How wide cameras [F] see, float64 [F]."""
    focal = cameras.intrinsics[..., 0, 0].double().cpu()
    return torch.rad2deg(2 * torch.atan(cameras.width / 2 / focal))


def _through(start: Cameras, request: schemas.PathRequest, chunk: int, unit: float) -> tuple[Cameras, list[str]]:
    """The way from `start` through the keyframes, in whole chunks."""
    keys = cameras_at([*request.keyframes, *(poses_of(start[None]) if request.loop else [])], start)
    stops = Cameras.cat([start[None], keys])
    legs = natural_frames(stops, unit) / request.speed
    natural = request.frames or max(1, round(float(legs.sum())))
    count = math.ceil(natural / chunk) * chunk
    _check_length(count, chunk)
    if request.spline == "straight":
        path = _straight(stops, legs, count + 1)
    else:
        path = paths.keyframes(start, count + 1, keys=keys, constant_speed=request.constant_speed)
    notes = [] if count == natural else [f"a motion of {natural} frames is spread evenly over {count}, whole chunks"]
    return path, notes


def _straight(stops: Cameras, legs: Tensor, frames: int) -> Cameras:
    """[frames] from stop to stop [K], each leg [K - 1] lasting as long as it is in `legs`."""
    ends = torch.cat([torch.zeros(1).double(), legs.cumsum(0)])
    times = torch.linspace(0, float(ends[-1]), frames, dtype=torch.float64)
    leg = (torch.searchsorted(ends, times, right=True) - 1).clamp(0, len(legs) - 1)
    share = (times - ends[leg]) / legs[leg].clamp_min(1e-9)
    poses = stops.camera_from_world.double()
    share = share.clamp(0, 1)
    walked = motions.interpolate(poses[leg], poses[leg + 1], share).to(stops.camera_from_world)
    walked[0] = stops.camera_from_world[0]
    intrinsics = torch.lerp(stops.intrinsics[leg], stops.intrinsics[leg + 1], share.to(walked)[:, None, None])
    return replace(stops, camera_from_world=walked, intrinsics=intrinsics)


def _check_length(frames: int, chunk: int) -> None:
    if frames > MAX_CHUNKS * chunk:
        raise StudioError(
            f"this walk takes {frames // chunk} chunks, at most {MAX_CHUNKS} are made at once; go a part of it first"
        )


def natural_frames(stops: Cameras, unit: float = 1.0) -> Tensor:
    """[K - 1]: how long a person would take from stop to stop [K], in frames: the slowest of walking, turning, zooming.

    unit: a metre in world units."""
    placed = stops.world_from_camera.double()
    steps = placed[:, :3, 3].diff(dim=0).norm(dim=-1) / unit
    turns = placed[:-1, :3, :3].mT @ placed[1:, :3, :3]
    cosine = ((turns.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    angles = torch.rad2deg(torch.arccos(cosine))
    angles = torch.maximum(angles, fov_deg(stops).diff().abs())
    return torch.maximum(steps / SPEED, angles / TURN_SPEED_DEG)
