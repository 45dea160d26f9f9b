"""Robust fusion of depth maps into signed distances at given places, one thread for each place and all its views.

Distances are to the plane that a view saw in the pixel, so that slanted surfaces come out as sharp as frontal ones.
Places between a camera and its surface count as free. Means are reweighted towards what most views agree on (Cauchy
weights), so that a wrong view is outvoted rather than averaged in. It knows nothing of grids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

_REWEIGHTED = wp.constant(2)  # passes after the first
_SCATTER = wp.constant(0.4)  # of a truncation distance: views that differ by more from the mean lose their say
_FREE = wp.constant(0.3)  # weight of having seen through a place far in front of a surface, against having seen one


@dataclass(frozen=True)
class SeenSurfaces:
    """Posed depth maps and the planes in their pixels."""

    depth: Tensor  # [V, H, W] float32 along +Z, 0 = says nothing, inf = sky
    normals: Tensor  # [V, H, W, 3] float16, unit, world, facing away from the camera
    images: Tensor  # [V, 3, H, W] uint8
    camera_from_world: Tensor  # [V, 4, 4]
    intrinsics: Tensor  # [V, 3, 3]


@dataclass(frozen=True)
class Fused:
    distance: Tensor  # [N] signed, in truncation distances, in [-1, 1]; positive before the surface
    weight: Tensor  # [N] 0 where no view says anything
    colour: Tensor  # [N, 3] in [0, 1], of the views that saw a surface within a truncation distance


@wp.struct
class _Seen:
    kind: int  # 0 says nothing, 1 free, 2 near a surface
    distance: float
    weight: float
    view: int
    row: int
    column: int


@wp.func
def _look(
    place: wp.vec3,
    reach: float,
    v: int,
    poses: wp.array(dtype=wp.mat44),
    intrinsics: wp.array(dtype=wp.mat33),
    depth: wp.array3d(dtype=wp.float32),
    normals: wp.array3d(dtype=wp.vec3h),
) -> _Seen:
    seen = _Seen()
    lens = intrinsics[v]
    pose = poses[v]
    there = pose * wp.vec4(place[0], place[1], place[2], 1.0)
    z = there[2]
    if z < 1.0e-4:
        return seen
    column = int(wp.floor(there[0] / z * lens[0, 0] + lens[0, 2]))
    row = int(wp.floor(there[1] / z * lens[1, 1] + lens[1, 2]))
    if column < 0 or row < 0 or column >= depth.shape[2] or row >= depth.shape[1]:
        return seen
    surface = depth[v, row, column]
    if not (surface > 0.0):
        return seen
    seen.view = v
    seen.row = row
    seen.column = column
    nearness = 1.0 / wp.max(z * z, 1.0e-6)
    if surface > 1.0e30:
        seen.kind = 1
        seen.distance = 1.0
        seen.weight = _FREE * nearness
        return seen
    half = normals[v, row, column]
    normal = wp.vec3(float(half[0]), float(half[1]), float(half[2]))
    x = (float(column) + 0.5 - lens[0, 2]) / lens[0, 0]
    y = (float(row) + 0.5 - lens[1, 2]) / lens[1, 1]
    ray = wp.vec3(
        pose[0, 0] * x + pose[1, 0] * y + pose[2, 0],
        pose[0, 1] * x + pose[1, 1] * y + pose[2, 1],
        pose[0, 2] * x + pose[1, 2] * y + pose[2, 2],
    )
    across = wp.vec3(
        pose[0, 0] * there[0] + pose[1, 0] * there[1] + pose[2, 0] * there[2],
        pose[0, 1] * there[0] + pose[1, 1] * there[1] + pose[2, 1] * there[2],
        pose[0, 2] * there[0] + pose[1, 2] * there[1] + pose[2, 2] * there[2],
    )
    distance = wp.dot(normal, ray * surface - across) / reach
    if distance < -1.0:
        return seen
    slant = wp.dot(normal, ray) / wp.length(ray)
    seen.weight = wp.max(slant, 0.05) * nearness
    seen.distance = wp.min(distance, 1.0)
    seen.kind = 2
    if distance > 1.0:
        seen.kind = 1
        seen.weight = seen.weight * _FREE
    return seen


@wp.kernel
def _fuse_kernel(
    places: wp.array(dtype=wp.vec3),  # [N]
    reach: wp.array(dtype=wp.float32),  # [N]
    views: wp.array(dtype=wp.int32),  # [K] the views that can see these places
    poses: wp.array(dtype=wp.mat44),  # [V]
    intrinsics: wp.array(dtype=wp.mat33),  # [V]
    depth: wp.array3d(dtype=wp.float32),  # [V, H, W]
    normals: wp.array3d(dtype=wp.vec3h),  # [V, H, W]
    images: wp.array4d(dtype=wp.uint8),  # [V, 3, H, W]
    first: int,
    run: int,  # places per thread
    last: int,
    looks: wp.array2d(dtype=_Seen),  # [threads, K] to remember what was seen of a place
    distances: wp.array(dtype=wp.float32),  # [N]
    weights: wp.array(dtype=wp.float32),  # [N]
    colours: wp.array(dtype=wp.vec3),  # [N]
):
    block = wp.tid()
    for n in range(first + block * run, wp.min(first + block * run + run, last)):
        used = int(0)
        mean = float(0.0)
        total = float(0.0)
        for k in range(views.shape[0]):
            seen = _look(places[n], reach[n], views[k], poses, intrinsics, depth, normals)
            if seen.kind > 0:
                looks[block, used] = seen
                used = used + 1
                mean = mean + seen.weight * seen.distance
                total = total + seen.weight
        light = wp.vec3(0.0, 0.0, 0.0)
        lit = float(0.0)
        for turn in range(_REWEIGHTED):
            previous = mean / wp.max(total, 1.0e-30)
            mean = float(0.0)
            total = float(0.0)
            for k in range(used):
                seen = looks[block, k]
                off = (seen.distance - previous) / _SCATTER
                weight = seen.weight / (1.0 + off * off)
                mean = mean + weight * seen.distance
                total = total + weight
                if seen.kind == 2 and turn == _REWEIGHTED - 1:
                    close = weight * (1.0 - 0.9 * wp.abs(seen.distance))
                    lit = lit + close
                    light = light + close * wp.vec3(
                        float(images[seen.view, 0, seen.row, seen.column]),
                        float(images[seen.view, 1, seen.row, seen.column]),
                        float(images[seen.view, 2, seen.row, seen.column]),
                    )
        if total > 0.0:
            mean = mean / total
        distances[n] = mean
        weights[n] = total
        if lit > 0.0:
            colours[n] = light / (255.0 * lit)


def fuse_places(places: Tensor, reach: Tensor, seen: SeenSurfaces, *, together: int = 4096) -> Fused:
    """Places [N, 3] with truncation distances `reach` [N] > 0 -> what all views say of them.

    Places are looked at `together` at a time by the views that can see them, so neighbours should follow each other.
    """
    count = len(places)
    places, reach = places.float().contiguous(), reach.float().contiguous()
    distance, weight = torch.zeros(2, count, device=places.device)
    colour = torch.zeros(count, 3, device=places.device)
    device = device_of(places)
    poses = wp.from_torch(seen.camera_from_world.float().contiguous(), dtype=wp.mat44)
    lenses = wp.from_torch(seen.intrinsics.float().contiguous(), dtype=wp.mat33)
    maps = (
        wp.from_torch(seen.depth.float().contiguous()),
        wp.from_torch(seen.normals.half().contiguous(), dtype=wp.vec3h),
        wp.from_torch(seen.images.contiguous()),
    )
    starts = range(0, count, together)
    in_view = _views_of_pieces(places, reach, starts, together, seen)
    load_kernel(_fuse_kernel, device)

    def launch(first: int, pieces: int) -> None:
        for piece in range(first, first + pieces):
            views = in_view[piece].nonzero()[:, 0].int()
            if len(views) == 0:
                continue
            start, last = starts[piece], min(starts[piece] + together, count)
            run = last - start if device.is_cpu else 1
            inputs = [wp.from_torch(places, dtype=wp.vec3), wp.from_torch(reach), wp.from_torch(views)]
            outputs = [wp.from_torch(distance), wp.from_torch(weight), wp.from_torch(colour, dtype=wp.vec3)]
            threads = -(-(last - start) // run)
            looks = wp.empty((threads, len(views)), dtype=_Seen, device=device)
            whole = [*inputs, poses, lenses, *maps, start, run, last, looks, *outputs]
            wp.launch(_fuse_kernel, threads, whole, device=device)

    parallel_over_first_axis(launch, len(starts), places.device)
    return Fused(distance, weight, colour)


def _views_of_pieces(places: Tensor, reach: Tensor, starts: range, together: int, seen: SeenSurfaces) -> Tensor:
    """bool [pieces, V]: may a view see anything of a piece's bounding ball, and is it not too far behind surfaces?"""
    height, width = seen.depth.shape[1:]
    lens, pose = seen.intrinsics.float(), seen.camera_from_world.float()
    known = torch.where(seen.depth.isfinite(), seen.depth, 1e30)
    farthest = known.flatten(1).amax(1)
    corners = torch.tensor([[0.0, 0], [width, 0], [0, height], [width, height]], device=places.device)
    homogeneous = torch.cat([corners, torch.ones(4, 1, device=places.device)], dim=1)
    rays = homogeneous @ torch.linalg.inv(lens).mT  # [V, 4, 3]
    sides = [(0, 1), (1, 3), (3, 2), (2, 0)]
    planes = torch.stack([torch.linalg.cross(rays[:, a], rays[:, b], dim=-1) for a, b in sides], dim=1)
    planes = torch.nn.functional.normalize(planes, dim=-1)  # [V, 4, 3]
    middle_ray = rays.mean(1, keepdim=True)
    planes = planes * (planes * middle_ray).sum(-1, keepdim=True).sign()
    answers = []
    for start in starts:
        piece = places[start : start + together]
        low, high = piece.amin(0), piece.amax(0)
        middle, radius = (low + high) / 2, (high - low).norm() / 2
        there = (pose[:, :3, :3] @ middle) + pose[:, :3, 3]  # [V, 3]
        inside = (planes * there[:, None]).sum(-1).amin(1) > -radius
        near = there[:, 2] - radius < farthest + reach[start : start + together].max()
        answers.append(inside & near & (there[:, 2] + radius > 0))
    return torch.stack(answers) if answers else torch.zeros(0, len(pose), dtype=torch.bool)
