"""Camera paths: functions from the photo's camera to F cameras, and ways to join, mirror and resample paths.

Every path `f(start, frames, ...)` takes one camera `start` [] and gives cameras [frames] on t = i / (frames - 1):
frame 0 is `start`, bit for bit, and the end is reached. Distances are world units, `depth` is the distance of the point
that the path turns around or goes towards, angles carry `deg`. Motions are meant in the frame of `start` (x right, y
down, z forward), whose lens the whole path keeps. Moves are eased: they start and stop smoothly, with the ramps of
`ease`. Nothing here knows the scene; `scene.collision` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor

from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras


class PathError(ValueError):
    """A path that cannot be understood, read or walked."""


PathFunction = Callable[[Cameras, int, float], Cameras]  # (start, frames, reference depth)


def ease(share: Tensor, ramp: float = 0.25) -> Tensor:
    """Time share [*] in [0, 1] -> share of the motion: speed rises linearly during the first `ramp` of the time and
    falls during the last, so the top speed is 1 / (1 - ramp) of the mean."""
    top = 1 / (1 - ramp)
    late = share > 0.5
    s = torch.where(late, 1 - share, share)
    half = torch.where(s < ramp, top * s * s / (2 * ramp), top * (s - ramp / 2))
    return torch.where(late, 1 - half, half)


def forward(start: Cameras, frames: int, *, distance: float) -> Cameras:
    """Dolly along the gaze; a negative distance goes backward."""
    return _moved(start, ease(_times(frames))[:, None] * _vector(0, 0, distance))


def backward(start: Cameras, frames: int, *, distance: float) -> Cameras:
    """Dolly away from what the camera looks at."""
    return forward(start, frames, distance=-distance)


def forward_back(start: Cameras, frames: int, *, distance: float) -> Cameras:
    """Forward, and back to the start."""
    return there_and_back(forward(start, frames, distance=distance))[::2]


def strafe(start: Cameras, frames: int, *, distance: float) -> Cameras:
    """To the right (negative: left), gaze unchanged."""
    return _moved(start, ease(_times(frames))[:, None] * _vector(distance, 0, 0))


def crane(start: Cameras, frames: int, *, distance: float) -> Cameras:
    """Up (negative: down), gaze unchanged."""
    return _moved(start, ease(_times(frames))[:, None] * _vector(0, -distance, 0))


def up_down(start: Cameras, frames: int, *, distance: float) -> Cameras:
    """Up and back down to the start."""
    return there_and_back(crane(start, frames, distance=distance))[::2]


def zoom_in(start: Cameras, frames: int, *, depth: float, strength: float = 0.5) -> Cameras:
    """Dolly towards the point at `depth` by the share `strength` of the way."""
    return forward(start, frames, distance=strength * depth)


def zoom_out(start: Cameras, frames: int, *, depth: float, strength: float = 1.5, rise: float = 0.15) -> Cameras:
    """Dolly away by strength * depth, rising by `rise` of the distance, as a drone leaves."""
    distance = ease(_times(frames)) * strength * depth
    return _moved(start, distance[:, None] * _vector(0, -rise, -1))


def orbit(start: Cameras, frames: int, *, depth: float, sweep_deg: float) -> Cameras:
    """Around the point straight ahead at `depth`, which stays in the middle of the image; positive goes right."""
    angle = -math.radians(sweep_deg) * ease(_times(frames))
    zero = torch.zeros_like(angle)
    rotation = motions.rotation_from_euler(angle, zero, zero)
    pivot = _vector(0, 0, depth)
    return _placed(start, motions.motion(rotation, pivot - rotation @ pivot))


def turn(start: Cameras, frames: int, *, yaw_deg: float) -> Cameras:
    """In place to the right (negative: left)."""
    return _turned(start, math.radians(yaw_deg) * ease(_times(frames)))


def look_around(start: Cameras, frames: int, *, sweep_deg: float = 35.0) -> Cameras:
    """In place: to the left by sweep_deg, across to the right by the same, and back."""
    phase = 2 * math.pi * ease(_times(frames), ramp=0.1)
    return _closed(_turned(start, -math.radians(sweep_deg) * torch.sin(phase)))


def spiral(start: Cameras, frames: int, *, depth: float, radius: float, turns: int = 2) -> Cameras:
    """Ovals around a centre `radius` to the left, 2/3 as high, gaze on the point at `depth`; ends at the start."""
    angle = 2 * math.pi * turns * ease(_times(frames))
    zero = torch.zeros_like(angle)
    centres = radius * torch.stack([torch.cos(angle) - 1, torch.sin(angle) * 2 / 3, zero], dim=-1)
    return _closed(_placed(start, motions.inverse(motions.look_at(centres, _vector(0, 0, depth)))))


def walk(start: Cameras, frames: int, *, length: float, depth: float) -> Cameras:
    """A stroll that returns: an oval `length` long and half as wide, with glances to the side walked to."""
    phase = 2 * math.pi * ease(_times(frames))
    sideways = 0.25 * length * torch.sin(phase)
    ahead = 0.5 * length * (1 - torch.cos(phase))
    centres = torch.stack([sideways, torch.zeros_like(phase), ahead], dim=-1)
    yaw = torch.atan2(0.5 * sideways, torch.full_like(sideways, depth))
    zero = torch.zeros_like(yaw)
    rotation = motions.rotation_from_euler(yaw, zero, zero)
    return _closed(_placed(start, motions.motion(rotation, centres)))


def keyframes(
    start: Cameras, frames: int, *, keys: Cameras, times: Tensor | None = None, constant_speed: bool = False
) -> Cameras:
    """From `start` through the cameras `keys` [K] at `times` [K], increasing in (0, 1] and ending with 1.

    Positions and lenses follow a natural cubic spline, rotations a rotation spline, both with continuous
    acceleration, and the path passes through its keys. Without times, keys are spaced by the square root of their
    distance (centripetal: no loops at close keys). `constant_speed` re-times the same curve to equal steps.
    """
    if len(keys) < 1:
        raise PathError("a keyframe path wants at least one camera besides the start, got none")
    stops = Cameras.cat([_single(start), keys.resized(start.height, start.width).to(start.camera_from_world)])
    knots = _centripetal(stops) if times is None else torch.cat([torch.zeros(1).double(), times.double().cpu()])
    if len(knots) != len(stops) or not bool((knots.diff() > 0).all()) or abs(float(knots[-1]) - 1) > 1e-9:
        raise PathError(
            f"keyframe times want {len(keys)} numbers that increase in (0, 1] and end with 1, got {knots[1:].tolist()}"
        )
    at = _times(frames)
    if constant_speed:
        dense = torch.linspace(0, 1, 20 * frames + 1, dtype=torch.float64)
        at = _equal_steps(_spline(stops, knots, dense).centres.double().cpu(), dense, frames)
    return _begin(start, _spline(stops, knots, at))


def tilted(path: Cameras, start: Cameras) -> Cameras:
    """A `path` [F] of a level camera, walked by one that stands in the same place and is held as `start` [] is: its
    gaze keeps its angle to the path's. Cameras that equal the path's first become `start`, bit for bit."""
    poses = path.camera_from_world.double().cpu()
    turned = start.camera_from_world.double().cpu() @ motions.inverse(poses[0]) @ poses
    there = (path.camera_from_world == path.camera_from_world[0]).all(-1).all(-1)
    turned = turned.to(start.camera_from_world)
    turned[there.to(turned.device)] = start.camera_from_world
    return replace(start, camera_from_world=turned, intrinsics=start.intrinsics.expand(len(path), 3, 3))


def there_and_back(path: Cameras) -> Cameras:
    """[F] -> [2 F - 1]: the path, then the same cameras in reverse, so the end is the start bit for bit."""
    return Cameras.cat([path, path[torch.arange(len(path) - 2, -1, -1)]])


def reanchor(path: Cameras, start: Cameras, *, scale: float = 1.0) -> Cameras:
    """The same relative motion, distances times `scale`, begun at `start` exactly and seen through its lens.

    Where the path's focal lengths change, they change by the same factors.
    """
    poses = path.to("cpu", torch.float64)
    first = poses[0]
    relative = motions.inverse(poses.relative_to(first).camera_from_world)
    relative[..., :3, 3] *= scale
    zoom = poses.intrinsics / first.intrinsics
    placed = _placed(start, relative)
    intrinsics = placed.intrinsics.clone()
    for axis in (0, 1):
        intrinsics[:, axis, axis] *= zoom[:, axis, axis].to(intrinsics)
    return replace(placed, intrinsics=intrinsics)


def concatenate(paths: list[Cameras]) -> Cameras:
    """Paths one after the other, each moved to begin where the one before ended; the camera they share is kept once."""
    if not paths:
        raise PathError("concatenate wants at least one path, got none")
    joined = paths[0]
    for path in paths[1:]:
        joined = Cameras.cat([joined, reanchor(path, joined[-1])[1:]])
    return joined


def resample(path: Cameras, frames: int) -> Cameras:
    """[F] -> [frames] evenly in time, by linear motion and slerp between neighbours; the ends are kept exactly."""
    if len(path) == 1:
        return path[torch.zeros(frames, dtype=torch.long)]
    position = _times(frames) * (len(path) - 1)
    lower = position.floor().long().clamp(max=len(path) - 2)
    share = position - lower
    wide = path.to("cpu", torch.float64)
    poses = motions.interpolate(wide.camera_from_world[lower], wide.camera_from_world[lower + 1], share)
    lens = torch.lerp(wide.intrinsics[lower], wide.intrinsics[lower + 1], share[:, None, None])
    mixed = replace(path, camera_from_world=poses, intrinsics=lens).to(path.camera_from_world)
    nearest = position.round().long()
    exact = ((position - nearest).abs() < 1e-9)[:, None, None].to(path.camera_from_world.device)
    return replace(
        path,
        camera_from_world=torch.where(exact, path.camera_from_world[nearest], mixed.camera_from_world),
        intrinsics=torch.where(exact, path.intrinsics[nearest], mixed.intrinsics),
    )


# Distances in multiples of the reference depth (what the photo shows nearby), small enough for any photo.
PRESETS: dict[str, PathFunction] = {
    "forward": lambda start, frames, depth: forward(start, frames, distance=0.4 * depth),
    "backward": lambda start, frames, depth: backward(start, frames, distance=0.4 * depth),
    "forward_back": lambda start, frames, depth: forward_back(start, frames, distance=0.4 * depth),
    "look_around": lambda start, frames, depth: look_around(start, frames),
    "orbit_left": lambda start, frames, depth: orbit(start, frames, depth=1.25 * depth, sweep_deg=-25),
    "orbit_right": lambda start, frames, depth: orbit(start, frames, depth=1.25 * depth, sweep_deg=25),
    "spiral": lambda start, frames, depth: spiral(start, frames, depth=1.25 * depth, radius=0.1 * depth),
    "strafe_left": lambda start, frames, depth: strafe(start, frames, distance=-0.3 * depth),
    "strafe_right": lambda start, frames, depth: strafe(start, frames, distance=0.3 * depth),
    "up_down": lambda start, frames, depth: up_down(start, frames, distance=0.2 * depth),
    "walk": lambda start, frames, depth: walk(start, frames, length=0.4 * depth, depth=depth),
    "zoom_in": lambda start, frames, depth: zoom_in(start, frames, depth=depth),
    "zoom_out": lambda start, frames, depth: zoom_out(start, frames, depth=depth, strength=0.6),
}
ALONG_GAZE = {"spiral", "zoom_in", "zoom_out"}  # presets that go by what the photo shows; the others go level


def _times(frames: int) -> Tensor:
    if frames < 1:
        raise PathError(f"a path wants at least 1 frame, got {frames}")
    return torch.linspace(0, 1, frames, dtype=torch.float64)


def _vector(x: float, y: float, z: float) -> Tensor:
    return torch.tensor([x, y, z], dtype=torch.float64)


def _moved(start: Cameras, centres: Tensor) -> Cameras:
    return _placed(start, motions.motion(torch.eye(3, dtype=torch.float64), centres))


def _turned(start: Cameras, yaw: Tensor) -> Cameras:
    zero = torch.zeros_like(yaw)
    return _placed(start, motions.motion(motions.rotation_from_euler(yaw, zero, zero), torch.zeros_like(yaw)[:, None]))


def _placed(start: Cameras, start_from_camera: Tensor) -> Cameras:
    """Cameras at `start_from_camera` [F, 4, 4], computed in float64, with the first one replaced by `start` itself."""
    poses = motions.inverse(start_from_camera) @ start.camera_from_world.double().cpu()
    intrinsics = start.intrinsics.expand(len(poses), 3, 3)
    return _begin(start, replace(start, camera_from_world=poses.to(start.camera_from_world), intrinsics=intrinsics))


def _single(camera: Cameras) -> Cameras:
    return replace(camera, camera_from_world=camera.camera_from_world[None], intrinsics=camera.intrinsics[None])


def _begin(start: Cameras, path: Cameras) -> Cameras:
    return Cameras.cat([_single(start), path[1:]])


def _closed(path: Cameras) -> Cameras:
    """The path with its last camera replaced by its first, which it equals but for rounding."""
    return Cameras.cat([path[:-1], path[:1]]) if len(path) > 1 else path


def _centripetal(stops: Cameras) -> Tensor:
    """Knots [K] from 0 to 1; a turn in place counts as if one radian were the mean distance between keys."""
    stops = stops.to("cpu", torch.float64)
    poses = stops.camera_from_world
    steps = stops.centres.diff(dim=0).norm(dim=-1)
    unit = steps.mean() if float(steps.mean()) > 0 else 1.0
    steps = torch.hypot(steps, unit * motions.geodesic_angle(poses[:-1], poses[1:]))
    steps = steps.sqrt().clamp(min=1e-3 * float(steps.max().sqrt()) or 1.0)
    knots = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return knots / knots[-1]


def _spline(stops: Cameras, knots: Tensor, at: Tensor) -> Cameras:
    """Cameras on the splines through `stops` [K] at the times `at` [F]; at a knot, that stop bit for bit."""
    poses, times, queries = stops.to("cpu", torch.float64), knots.numpy(), at.numpy()
    placed = poses.world_from_camera
    centres = CubicSpline(times, placed[:, :3, 3].numpy(), bc_type="natural")(queries)
    lenses = CubicSpline(times, poses.intrinsics.numpy(), bc_type="natural")(queries)
    rotations = RotationSpline(times, Rotation.from_matrix(placed[:, :3, :3].numpy()))(queries).as_matrix()
    path = motions.inverse(motions.motion(torch.from_numpy(rotations), torch.from_numpy(centres)))
    path, lenses = path.to(stops.camera_from_world), torch.from_numpy(np.ascontiguousarray(lenses)).to(stops.intrinsics)
    nearest = (at[:, None] - knots).abs().argmin(1)
    exact = ((at - knots[nearest]).abs() < 1e-12)[:, None, None].to(path.device)
    return replace(
        stops,
        camera_from_world=torch.where(exact, stops.camera_from_world[nearest], path),
        intrinsics=torch.where(exact, stops.intrinsics[nearest], lenses),
    )


def _equal_steps(centres: Tensor, times: Tensor, frames: int) -> Tensor:
    """Times [frames] at which the curve `centres` [M, 3] sampled at `times` [M] has gone equal lengths."""
    length = torch.cat([centres.new_zeros(1), centres.diff(dim=0).norm(dim=-1).cumsum(0)])
    if float(length[-1]) == 0:
        return _times(frames)
    return torch.from_numpy(np.interp(_times(frames).numpy() * float(length[-1]), length.numpy(), times.numpy()))
