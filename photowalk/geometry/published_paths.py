"""The camera presets of the published programs, slips included, for those who want a walk exactly as theirs.

Our own paths are in `paths.py`. Here a motion may stop one step before its end (i / n where i / (n - 1) is meant), turn
the other way than its name says (`rotate_spot`), forget a sign (`dolly_zoom`), or return more frames than were asked
for (`back`). The preset `spiral_outwards` fails in the published programs and is made here as it was meant. Distances
are multiples of the centre depth, the 25 % quantile of the photo's known depth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.geometry import motions, path_files
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import PathError

DIRECTIONS = ("left", "right", "up", "down")
ZOOM_IN, ZOOM_OUT = ("right", 0.5, 81), ("left", 1.5, 241)  # of horizontal_zoom: direction, strength, frames
RISE = 0.15  # how much zooming out rises, as a share of the way back
GROUND_RISE = 0.05  # how far zooming out rises along the ground's normal at the end


@dataclass(frozen=True)
class _Order:
    """What a preset is asked for."""

    frames: int
    depth: float
    strength: float
    direction: str
    random: torch.Generator | None

    @property
    def sign(self) -> float:
        return 1.0 if self.direction == "right" else -1.0

    @property
    def reach(self) -> float:
        return self.strength * self.depth

    @property
    def short(self) -> Tensor:
        """Shares i / n of the way: the end is never reached."""
        return torch.arange(self.frames, dtype=torch.float64) / self.frames

    @property
    def full(self) -> Tensor:
        """Shares i / (n - 1)."""
        return torch.arange(self.frames, dtype=torch.float64) / max(self.frames - 1, 1)

    @property
    def target(self) -> Tensor:
        return _vector(0, 0, self.depth)


def published_path(
    name: str,
    start: Cameras,  # []
    frames: int,
    *,
    centre_depth: float,
    strength: float = 0.2,
    direction: str = "left",
    random: torch.Generator | None = None,  # of the presets with noise; None: torch's global one
) -> Cameras:
    """Cameras [frames] from `start` on ([2 frames - 1] of `back` and `back_simple`). Most presets know the direction
    "right" only and take every other one for its opposite. Raises PathError."""
    if name not in PUBLISHED_PATHS:
        raise PathError(f"'{name}' is no published preset; known are {', '.join(PUBLISHED_PATHS)}")
    if direction not in DIRECTIONS or frames < 2:
        raise PathError(f"a preset wants a direction of {DIRECTIONS} and 2 frames, got '{direction}' and {frames}")
    order = _Order(frames, centre_depth, strength, direction, random)
    views = PUBLISHED_PATHS[name](order)
    path = _seen_from(start, views)
    if name != "dolly_zoom":
        return path
    nearest = 0.185 * centre_depth
    intrinsics = path.intrinsics.clone()
    focal = (nearest / (nearest + 3 * order.full)).to(intrinsics)[:, None]
    intrinsics[:, [0, 1], [0, 1]] = intrinsics[:, [0, 1], [0, 1]] * focal
    return replace(path, intrinsics=intrinsics)


def published_zoom(
    start: Cameras, way: str, *, centre_depth: float, ground_normal: Tensor | None = None, frames: int | None = None
) -> Cameras:
    """The path of the published zoom program, `way` "in" (81 cameras) or "out" (241).

    With the ground's normal [3] (in the frame of `start`, pointing up), steps are laid into the ground's plane and keep
    their length; without it, zooming out rises by a share of the way back.
    """
    direction, strength, usual = ZOOM_IN if way == "in" else ZOOM_OUT
    path = published_path(
        "horizontal_zoom", start, frames or usual, centre_depth=centre_depth, strength=strength, direction=direction
    )
    poses = path.camera_from_world.double()
    if way == "out":
        poses = _risen(poses)
    if ground_normal is not None:
        poses = _along_ground(poses, ground_normal.double(), GROUND_RISE if way == "out" else 0.0)
    return replace(path, camera_from_world=poses.to(path.camera_from_world))


def published_file_path(poses: Cameras, frames: int, height: int, width: int, *, pose_scale: float = 1.1) -> Cameras:
    """The first `frames` cameras of a file as the published loader gives them: translations of camera_from_world times
    `pose_scale` (whose published default is no slip of ours), the lens stretched to the size. They stay in the file's
    own world. Raises PathError."""
    if len(poses) < frames:
        raise PathError(f"the path has {len(poses)} poses, {frames} are wanted; make it longer or ask for fewer frames")
    path = poses[:frames].resized(height, width)
    scaled = path.camera_from_world.clone()
    scaled[:, :3, 3] *= pose_scale
    return replace(path, camera_from_world=scaled)


def follows_ground(path: str) -> bool:
    """Whether `plan_published` wants the ground's normal for it."""
    return path.replace("-", "_").split()[1:] == ["ground"]


def plan_published(
    path: str, start: Cameras, *, centre_depth: float, chunk: int, ground_normal: Tensor | None = None
) -> Cameras:
    """A path as the published programs take it -> cameras [1 + k * chunk].

    `path` is "zoom_in" or "zoom_out", the zoom program's, "zoom_in ground" with steps laid into the ground of
    `ground_normal` [3], pointing up in the frame of `start`; a preset with, in any order, a direction, a strength and a
    number of frames ("horizontal_zoom right 0.5 241"; 161 frames unless said otherwise): a whole number is always one
    of frames, a strength wants its point ("rotate_spot right 30.0"); or a file, whose poses are
    taken as they are, in the world of the file, `start` being ignored but for its image size. Raises PathError.
    """
    if path_files.is_path_file(path):
        poses = path_files.read(path, lens=start)
        frames = (len(poses) - 1) // chunk * chunk + 1
        if frames == 1:
            raise PathError(f"{path}: holds {len(poses)} poses, a published path wants at least {chunk + 1}")
        return published_file_path(poses, frames, start.height, start.width).to(start.camera_from_world)
    name, *words = path.replace("-", "_").split() or [""]
    if not name:
        raise PathError(
            f"the path is empty; give zoom_in, zoom_out, a path file or a preset: {', '.join(PUBLISHED_PATHS)}"
        )
    if name in ("zoom_in", "zoom_out") and (not words or follows_ground(path)):
        way, (_, _, usual) = name.removeprefix("zoom_"), ZOOM_IN if name == "zoom_in" else ZOOM_OUT
        if words and ground_normal is None:
            raise PathError(f"'{path}' wants a ground to follow, and the photo shows none; leave the word 'ground' out")
        normal = ground_normal if words else None
        return published_zoom(start, way, centre_depth=centre_depth, ground_normal=normal, frames=_whole(usual, chunk))
    direction, strength, frames = _understood(path)
    return published_path(
        name, start, _whole(frames, chunk), centre_depth=centre_depth, strength=strength, direction=direction
    )


def reading_note(path: str, chunk: int) -> str | None:
    """How the numbers of a published preset are read, where it has any; `path` is one that `plan_published` takes."""
    if path_files.is_path_file(path) or not re.search(r"\d", path):
        return None
    direction, strength, frames = _understood(path)
    return f"'{path}' is read as direction {direction}, strength {strength:g}, {_whole(frames, chunk)} frames"


def _understood(path: str) -> tuple[str, float, int]:
    """Direction, strength and number of frames of a preset with its words."""
    direction, strength, frames = "left", 0.2, 161
    for word in path.replace("-", "_").split()[1:]:
        if word in DIRECTIONS:
            direction = word
        elif word.isdecimal():
            frames = int(word)
        elif word.replace(".", "", 1).isdecimal():
            strength = float(word)
        else:
            raise PathError(
                f"'{word}' of '{path}' is no direction ({', '.join(DIRECTIONS)}), strength (such as 0.5, with a point) "
                f"or frame count (such as 241)"
            )
    return direction, strength, frames


def _whole(frames: int, chunk: int) -> int:
    """At least `frames`, the first and then whole chunks."""
    return 1 + chunk * max(1, math.ceil((frames - 1) / chunk))


def _looking(centres: Tensor, targets: Tensor) -> Tensor:
    """Camera from start [F, 4, 4] at `centres`, gaze on `targets`, both [F, 3] in the start's frame."""
    return motions.look_at(*torch.broadcast_tensors(centres, targets))


def _original(order: _Order) -> Tensor:
    return torch.eye(4, dtype=torch.float64).expand(order.frames, 4, 4)


def _spiral(order: _Order) -> Tensor:
    angle = 4 * math.pi * order.full
    x = 0.15 * order.strength * order.sign * (angle.cos() - 1)
    y = 0.10 * order.strength * angle.sin()
    return _looking(order.depth * _columns(x, y, 0 * x), order.target)


def _spiral_center(order: _Order) -> Tensor:
    """Begins beside the start."""
    angle = 2 * math.pi * order.full
    return _looking(order.depth * _columns(0.03 * angle.cos(), 0.02 * angle.sin(), 0 * angle), order.target)


def _spiral_outwards(order: _Order) -> Tensor:
    angle = 2 * math.pi * order.full
    offset = order.reach * _columns(0.3 * angle.cos(), 0.2 * angle.sin(), 0 * angle)
    return _looking(torch.zeros(order.frames, 3, dtype=torch.float64), order.target + offset)


def _horizontal(order: _Order) -> Tensor:
    return _looking(_along(0, order), order.target)


def _horizontal_lift(order: _Order) -> Tensor:
    return _looking(_along(1, order), order.target)


def _horizontal_zoom(order: _Order) -> Tensor:
    return _looking(_along(2, order), _beyond(order))


def _noisy(axis: int, bend: bool = False) -> Callable[[_Order], Tensor]:
    """Along an axis with a trembling hand, so that estimated poses are not degenerate."""

    def views(order: _Order) -> Tensor:
        centres = _along(axis, order)
        draws = torch.cat([torch.randn(1, generator=order.random) for _ in range(2 * order.frames)])
        others = [other for other in range(3) if other != axis]
        centres[:, others] += draws.double().view(-1, 2) * 1e-4 * order.reach
        if bend:
            centres[:, 1] += _bend(order)
        return _looking(centres, _beyond(order) if axis == 2 else order.target)

    return views


def _horizontal_zoom_bend(order: _Order) -> Tensor:
    centres = _along(2, order)
    centres[:, 1] += _bend(order)
    return _looking(centres, _beyond(order))


def _bend(order: _Order) -> Tensor:
    """Down a little on the way ahead, up on the way back."""
    return (0.04 if order.sign > 0 else -0.12) * order.reach * order.short


def _still(axis: int) -> Callable[[_Order], Tensor]:
    """Moves for half of the frames, then stands."""

    def views(order: _Order) -> Tensor:
        half = order.frames // 2
        moving = replace(order, frames=half)
        centres = _along(axis, moving)
        centres = torch.cat([centres, centres[-1:].expand(order.frames - half, 3)])
        return _looking(centres, _beyond(order) if axis == 2 else order.target)

    return views


def _horizontal_simple(order: _Order) -> Tensor:
    return _shifted(_columns(order.sign * order.reach * order.full, 0, 0))


def _vertical_simple(order: _Order) -> Tensor:
    return _shifted(_columns(0, (-1.0 if order.direction == "up" else 1.0) * order.reach * order.full, 0))


def _horizontal_outward(order: _Order) -> Tensor:
    offset = _along(0, order)
    return _looking(offset, order.target + 2 * offset)


def _horizontal_spiral(order: _Order) -> Tensor:
    angle = 4 * math.pi * order.full
    x = 0.01875 * order.reach * (angle.cos() - 1) * order.sign
    y = 0.0125 * order.reach * angle.sin()
    return _looking(_columns(x, y, order.sign * order.full * order.reach), _beyond(order))


def _back(radius_x: float, radius_y: float, slip: bool) -> Callable[[_Order], Tensor]:
    """Stands, then a turn of a spiral whose size does not follow the scene. The slip: the centre is written where the
    translation of camera_from_world belongs."""

    def views(order: _Order) -> Tensor:
        angle = 2 * math.pi * replace(order, frames=order.frames - 1).full
        x = radius_x * order.sign * (angle.cos() - 1)
        centres = _columns(x, radius_y * angle.sin(), 0 * x)
        moving = _looking(centres, order.target)
        if slip:
            moving[:, :3, 3] = centres
        return torch.cat([_original(order), moving])

    return views


def _dolly_zoom(order: _Order) -> Tensor:
    """Three units ahead while the lens widens; the sign of one of the two is wrong."""
    return _looking(_columns(0, 0, 3 * order.full), _vector(0, 0, 0.185 * order.depth))


def _orbit_horizontal(order: _Order) -> Tensor:
    angle = math.pi - order.sign * order.strength * order.full
    return _looking(order.depth * _columns(angle.sin(), 0, 1 + angle.cos()), order.target)


def _orbit_vertical(order: _Order) -> Tensor:
    sign = 1.0 if order.direction == "up" else -1.0
    angle = math.pi + sign * order.strength * order.full
    return _looking(order.depth * _columns(0, angle.sin(), 1 + angle.cos()), order.target)


def _rotate_zoom(sign: float) -> Callable[[_Order], Tensor]:
    """Turns by 20 degrees to the other side, then leaves at about three times that angle: the translation is made
    with the inverse rotation."""

    def views(order: _Order) -> Tensor:
        half = order.frames // 2
        turning = replace(order, frames=half).full
        moving = replace(order, frames=order.frames - half).full
        angle = order.sign * math.radians(20) * torch.cat([turning, torch.ones_like(moving)])
        rotation = _about_y(angle)
        distance = sign * order.reach * torch.cat([torch.zeros_like(turning), moving])
        centres = distance[:, None] * rotation[:, 2]
        return motions.motion(rotation, -(rotation.mT @ centres[..., None])[..., 0])

    return views


def _rotate_spot(order: _Order) -> Tensor:
    """By `strength` degrees, to the other side."""
    rotation = _about_y(order.sign * math.radians(order.strength) * order.full)
    return motions.motion(rotation, torch.zeros(order.frames, 3, dtype=torch.float64))


def _rotate_spot_noise(order: _Order) -> Tensor:
    angle = 2 * math.pi * torch.arange(order.frames, dtype=torch.float64) / 1000
    centres = 1e-5 * order.depth * _columns(angle.cos(), angle.sin(), 0)
    return _rotate_spot(order) @ _looking(centres, order.target)


PUBLISHED_PATHS: dict[str, Callable[[_Order], Tensor]] = {
    "original": _original,
    "spiral": _spiral,
    "spiral_center": _spiral_center,
    "spiral_outwards": _spiral_outwards,
    "horizontal": _horizontal,
    "horizontal_noise": _noisy(0),
    "horizontal_lift": _horizontal_lift,
    "horizontal_lift_noise": _noisy(1),
    "horizontal_zoom": _horizontal_zoom,
    "horizontal_zoom_noise": _noisy(2),
    "horizontal_zoom_bend": _horizontal_zoom_bend,
    "horizontal_zoom_noise_bend": _noisy(2, bend=True),
    "horizontal_zoom_still": _still(2),
    "horizontal_still": _still(0),
    "horizontal_simple": _horizontal_simple,
    "vertical_simple": _vertical_simple,
    "horizontal_outward": _horizontal_outward,
    "back": _back(0.3, 0.2, slip=True),
    "back_simple": _back(0.15, 0.1, slip=False),
    "dolly_zoom": _dolly_zoom,
    "horizontal_spiral": _horizontal_spiral,
    "orbit_horizontal": _orbit_horizontal,
    "orbit_vertical": _orbit_vertical,
    "rotate_zoom_in": _rotate_zoom(1.0),
    "rotate_zoom_out": _rotate_zoom(-1.0),
    "rotate_spot": _rotate_spot,
    "rotate_spot_noise": _rotate_spot_noise,
}


def _along(axis: int, order: _Order) -> Tensor:
    centres = torch.zeros(order.frames, 3, dtype=torch.float64)
    centres[:, axis] = order.sign * order.reach * order.short
    return centres


def _beyond(order: _Order) -> Tensor:
    return _vector(0, 0, order.depth * (1 + order.strength))


def _shifted(centres: Tensor) -> Tensor:
    return motions.motion(torch.eye(3, dtype=torch.float64), -centres)


def _about_y(angle: Tensor) -> Tensor:
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [angle.cos(), zero, angle.sin(), zero, one, zero, -angle.sin(), zero, angle.cos()]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _columns(x: Tensor | float, y: Tensor | float, z: Tensor | float) -> Tensor:
    parts = [torch.as_tensor(part, dtype=torch.float64) for part in (x, y, z)]
    return torch.stack(torch.broadcast_tensors(*parts), dim=-1)


def _vector(x: float, y: float, z: float) -> Tensor:
    return torch.tensor([x, y, z], dtype=torch.float64)


def _seen_from(start: Cameras, views: Tensor) -> Cameras:
    poses = (views @ start.camera_from_world.double().cpu()).to(start.camera_from_world)
    return replace(start, camera_from_world=poses, intrinsics=start.intrinsics.repeat(len(poses), 1, 1))


def _risen(poses: Tensor) -> Tensor:
    """camera_from_world [F, 4, 4], moved up by a share of how far each is behind the first."""
    rotation = poses[:, :3, :3]
    centres = -(rotation.mT @ poses[:, :3, 3:])[..., 0]
    centres[:, 1] -= RISE * (centres[0, 2] - centres[:, 2]).clamp_min(0)
    return motions.motion(rotation, -(rotation @ centres[..., None])[..., 0])


def _along_ground(poses: Tensor, normal: Tensor, rise: float) -> Tensor:
    """Translations (of camera_from_world, as published) laid into the ground's plane, with their length, and raised."""
    first = poses[:1, :3, 3]
    step = poses[:, :3, 3] - first
    flat = step - (step @ normal)[:, None] * normal
    length, kept = step.norm(dim=-1, keepdim=True), flat.norm(dim=-1, keepdim=True)
    flat = torch.where(kept > 1e-8, flat * length / kept.clamp_min(1e-8), flat)
    raised = -normal * torch.linspace(0, rise, len(poses), dtype=torch.float64)[:, None]
    return motions.motion(poses[:, :3, :3], first + flat + raised)
