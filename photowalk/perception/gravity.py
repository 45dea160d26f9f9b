"""Up and the floor, found from what the walk saw: the lowest wide plane below the cameras that is roughly level.

It trusts the photographer to have held the camera less than TILT askew, and hardly rolled, and the depths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from photowalk.perception.upright_lines import camera_tilt
from photowalk.scene.ground import Ground
from photowalk.scene.surfaces import surface_of
from photowalk.scene.types import View

TILT = 35.0  # degrees that the floor may lean against the cameras' mean up
ROLL = 7.0  # degrees to which a photo is level as a rule; a slope that wants more must be twice as wide, and so on
EYE_HEIGHT = 1.6  # world units that the first camera is taken to be above a floor that nobody saw
_MOST_ROLL = 5.0  # degrees by which one photo may seem rolled; what says more is hardly its floor
_POINTS = 6000
_TRIES = 400
_TOLERANCE = 0.02  # of the distance to the camera: how far a point of the plane may lie off it
_SHARE = 0.03  # of all that was seen, by area, that must lie on a floor


def find_ground(views: Sequence[View], *, up: Tensor | None = None, seed: int = 0) -> Ground:
    """The floor of the views; where none was seen, the cameras' mean up and EYE_HEIGHT below the first one.

    up [3]: what a person says that it is; then only the floor's height is found."""
    if not views:
        raise ValueError("no frame of this walk has depth, so its floor cannot be found")
    upward = _mean_up(views) if up is None else up.double() / up.double().norm()
    points, _, distances, areas, behind = _candidates(views, upward, seed)
    first = views[0].camera.centres.double()
    if len(points) >= 50:
        plane = (
            _lowest_plane(points, distances, areas, upward, views[0].camera.camera_from_world[0, :3].double(), seed)
            if up is None
            else _lowest_level(points, distances, areas, upward)
        )
        if plane is not None:
            normal, floor, share = plane
            below_all = min(float(view.camera.centres.double() @ normal) for view in views) > floor
            if share * float(areas.sum()) > _SHARE * behind and below_all:
                whose = "" if up is None else "up as it was corrected by hand; "
                what = f"{whose}the floor that was seen ({100 * share:.0f} % of what faces up lies on it)"
                return Ground(normal, floor, what)
    floor = float(first @ upward) - EYE_HEIGHT
    whose = "the cameras' own up" if up is None else "up as it was corrected by hand"
    where = f"{whose}; no floor was seen, it is taken to be {EYE_HEIGHT} below"
    return Ground(upward, floor, where, floor_seen=False)


def photo_up(view: View) -> Tensor | None:
    """Up [3] in world axes as what stands upright in a photo tells how far it was tilted, or else its floor, whose
    depth is a guess; that it was not rolled is taken for granted. None where it shows neither."""
    tilt = camera_tilt(view.image, float(view.camera.intrinsics[1, 1]))
    if tilt is not None:
        down, ahead = view.camera.camera_from_world[1:3, :3].double()
        return -math.cos(math.radians(tilt)) * down - math.sin(math.radians(tilt)) * ahead
    if not bool(((view.depth > 0) & view.depth.isfinite()).any()):
        return None
    ground = find_ground([view])
    right = view.camera.camera_from_world[0, :3].to(ground.up)
    across = float(ground.up @ right)
    if not ground.floor_seen or abs(across) > math.sin(math.radians(_MOST_ROLL)):
        return None
    return torch.nn.functional.normalize(ground.up - across * right, dim=0)


def find_ceiling(views: Sequence[View], ground: Ground, *, seed: int = 0) -> float | None:
    """Height over the floor, in world units, of the widest level that faces down above all cameras; None: there is
    none."""
    downward = Ground(-ground.up, -ground.floor, ground.up_from)
    points, _, distances, areas, behind = _candidates(views, downward.up, seed)
    if len(points) < 50:
        return None
    found = _lowest_level(points, distances, areas, downward.up)
    if found is None:
        return None
    _, level, share = found
    above_all = min(float(view.camera.centres.double() @ downward.up) for view in views) > level
    return -level - ground.floor if share * float(areas.sum()) > _SHARE * behind and above_all else None


def _mean_up(views: Sequence[View]) -> Tensor:
    rows = torch.stack([-view.camera.camera_from_world[1, :3].double() for view in views])
    mean = rows.mean(0)
    return rows[0] if float(mean.norm()) < 1e-3 else mean / mean.norm()


def _candidates(views: Sequence[View], upward: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Points [N, 3] below their cameras that face up, their normals, distances and areas; and the area of all."""
    random = torch.Generator().manual_seed(seed)
    parts, everything = [], 0.0
    each = max(50, 4 * _POINTS // len(views))
    for view in views:
        surface = surface_of(view.depth, view.camera)
        pixels = surface.valid.flatten().nonzero()[:, 0]
        if len(pixels) == 0:
            continue
        pixels = pixels[torch.randint(len(pixels), (each,), generator=random)]
        points, normals = surface.points.flatten(0, 1)[pixels].double(), -surface.normals.flatten(0, 1)[pixels].double()
        distance = (points - view.camera.centres.double()).norm(dim=1)
        # what is far fills few pixels for its size, and is worth no more: areas are as seen from the camera
        area = 1 / surface.slant.flatten()[pixels].double().clamp_min(0.1)
        everything += float(area.sum())
        keep = (normals @ upward > math.cos(math.radians(TILT))) & (
            (points - view.camera.centres.double()) @ upward < 0
        )
        parts.append((points[keep], normals[keep], distance[keep], area[keep]))
    if not parts:
        nowhere, nothing = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        return nowhere, nowhere, nothing, nothing, 0.0
    points, normals, distances, areas = (torch.cat(kind) for kind in zip(*parts))
    if len(points) > _POINTS:
        kept = torch.randperm(len(points), generator=random)[:_POINTS]
        everything *= _POINTS / len(points)
        points, normals, distances, areas = points[kept], normals[kept], distances[kept], areas[kept]
    return points, normals, distances, areas, everything


def _lowest_level(points: Tensor, distances: Tensor, areas: Tensor, up: Tensor) -> tuple[Tensor, float, float] | None:
    """As `_lowest_plane` where up is known: the height with most area on it; points below it speak against it."""
    heights, tolerance = points @ up, _TOLERANCE * distances
    tried = heights[:: max(1, len(heights) // _TRIES)]
    off = heights[None] - tried[:, None]  # [tries, N]
    on = off.abs() < tolerance
    score = (on * areas).sum(1) - ((off < -2 * tolerance) * areas).sum(1)
    best = int(score.argmax())
    if float(score[best]) <= 0:
        return None
    weight = (areas / distances.square())[on[best]]
    level = float((weight * heights[on[best]]).sum() / weight.sum())
    inliers = (heights - level).abs() < tolerance
    return up, level, float(areas[inliers].sum() / areas.sum())


def _lowest_plane(
    points: Tensor, distances: Tensor, areas: Tensor, upward: Tensor, right: Tensor, seed: int
) -> tuple[Tensor, float, float] | None:
    """RANSAC over planes of three points; points below a plane speak against it, and so does a roll of the photo, whose
    right is `right`. -> up, floor, share of the area."""
    random = torch.Generator().manual_seed(seed + 1)
    tolerance = _TOLERANCE * distances
    best, most = None, 0.0
    for trial in torch.randint(len(points), (_TRIES, 3), generator=random):
        a, b, c = points[trial]
        normal = torch.linalg.cross(b - a, c - a)
        if float(normal.norm()) < 1e-9:
            continue
        normal = normal / normal.norm()
        normal = normal * torch.sign(normal @ upward)
        if float(normal @ upward) < math.cos(math.radians(TILT)):
            continue
        height = (points - a) @ normal
        score = float((areas * (height.abs() < tolerance)).sum() - areas[height < -2 * tolerance].sum())
        roll = math.degrees(math.asin(max(-1.0, min(1.0, float(normal @ right)))))
        score /= 1 + (roll / ROLL) ** 2
        if score > most:
            best, most = (normal, a), score
    if best is None:
        return None
    normal, on = best
    for shrink in (2.0, 1.0, 1.0):
        inliers = ((points - on) @ normal).abs() < shrink * tolerance
        if int(inliers.sum()) < 10:
            return None
        weight = (areas / distances.square())[inliers]
        chosen = points[inliers]
        on = (weight[:, None] * chosen).sum(0) / weight.sum()
        spread = ((chosen - on) * weight[:, None]).T @ (chosen - on)
        fitted = torch.linalg.eigh(spread).eigenvectors[:, 0]
        fitted = fitted * torch.sign(fitted @ upward)
        if float(fitted @ upward) < math.cos(math.radians(TILT)):
            break
        normal = fitted
    inliers = ((points - on) @ normal).abs() < tolerance
    return normal, float(on @ normal), float(areas[inliers].sum() / areas.sum())
