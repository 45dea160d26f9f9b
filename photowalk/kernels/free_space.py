"""Depth that stands where an earlier view looked through moves back until it stands nowhere in the way.

A surface that was invented, or guessed too near, would hide what that view saw when a walk returns to it.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis
from photowalk.kernels.sliding import lowest_around

wp.set_module_options({"enable_backward": False})

STEP = 1.05  # times as far with each try
TRIES = 140  # up to 900 times as far; what is in the way even there is sky
HALVINGS = 5  # of the last step


@wp.func
def _in_the_way(
    point: wp.vec3,
    free: wp.array3d(dtype=wp.float32),
    pixels_from_world: wp.array(dtype=wp.mat44),
    pixel_centre: float,
) -> bool:
    for v in range(free.shape[0]):
        seen = pixels_from_world[v] * wp.vec4(point[0], point[1], point[2], 1.0)
        if seen[2] > 1.0e-4:
            x = int(wp.floor(seen[0] / seen[2] + 0.5 - pixel_centre))
            y = int(wp.floor(seen[1] / seen[2] + 0.5 - pixel_centre))
            inside = x >= 0 and y >= 0 and x < free.shape[2] and y < free.shape[1]
            until = free[v, wp.clamp(y, 0, free.shape[1] - 1), wp.clamp(x, 0, free.shape[2] - 1)]
            if inside and seen[2] < until:
                return True
    return False


@wp.kernel
def _move_back_kernel(
    rays: wp.array(dtype=wp.mat33),  # [T] world direction of a homogeneous pixel, z-depth 1
    centres: wp.array(dtype=wp.vec3),  # [T]
    free: wp.array3d(dtype=wp.float32),  # [V, H', W'] up to this depth a point is in the way
    surface: wp.array3d(dtype=wp.float32),  # [V, H', W'] what is in the way moves to no less than this
    pixels_from_world: wp.array(dtype=wp.mat44),  # [V] to (column * depth, row * depth, depth, 1)
    pixel_centre: float,
    first_target: int,
    depth: wp.array3d(dtype=wp.float32),  # [T, H, W], in and out
):
    offset, i, j = wp.tid()
    t = first_target + offset
    far = depth[t, i, j]
    if not (far > 0.0) or wp.isinf(far):
        return
    direction = rays[t] * wp.vec3(float(j) + pixel_centre, float(i) + pixel_centre, 1.0)
    point = centres[t] + far * direction
    if not _in_the_way(point, free, pixels_from_world, pixel_centre):
        return
    near = far
    for _ in range(TRIES):
        far = near * STEP
        point = centres[t] + far * direction
        if not _in_the_way(point, surface, pixels_from_world, pixel_centre):
            for _halving in range(HALVINGS):
                middle = 0.5 * (near + far)
                point = centres[t] + middle * direction
                if _in_the_way(point, surface, pixels_from_world, pixel_centre):
                    near = middle
                else:
                    far = middle
            depth[t, i, j] = far
            return
        near = far
    depth[t, i, j] = wp.inf


def move_out_of_sight(
    depth: Tensor,  # [T, H, W] along +Z; 0, NaN and inf stay
    camera_from_world: Tensor,  # [T, 4, 4]
    intrinsics: Tensor,  # [T, 3, 3]
    depths: Tensor,  # [V, H', W'] what earlier views saw, along +Z, 0 = unknown, inf = sky
    source_from_world: Tensor,  # [V, 4, 4]
    source_intrinsics: Tensor,  # [V, 3, 3]
    *,
    pixel_centre: float = 0.5,
    tolerance: float = 0.1,  # relative depth by which a point must stand before a surface to be in its way
) -> Tensor:
    """-> depth [T, H, W]. A point is in the way of a view that sees it before all surfaces of the 3x3 pixels there; it
    is moved back, in steps of 5 % and then halves of the last one, until it stands before no view's surface, not even
    by the tolerance: it lies on one, or outside the pictures. Depth becomes inf where there is no such place."""
    moved = depth.float().clone().contiguous()
    surface = torch.where(depths > 0, depths.float(), 0.0).contiguous()  # NaN is unknown too
    around = lowest_around(surface, 1)
    free = (around / (1 + tolerance)).contiguous()
    rotation, translation = camera_from_world[:, :3, :3].double(), camera_from_world[:, :3, 3:].double()
    rays, centres = rotation.mT @ intrinsics.double().inverse(), -(rotation.mT @ translation)[..., 0]
    pixels_from_world = source_from_world.double().clone()
    pixels_from_world[:, :3] = source_intrinsics.double() @ pixels_from_world[:, :3]
    arrays = [
        wp.from_torch(rays.float().contiguous(), dtype=wp.mat33),
        wp.from_torch(centres.float().contiguous(), dtype=wp.vec3),
        wp.from_torch(free),
        wp.from_torch(surface),
        wp.from_torch(pixels_from_world.float().contiguous(), dtype=wp.mat44),
    ]
    output = wp.from_torch(moved)
    load_kernel(_move_back_kernel, device_of(depth))

    def launch(first: int, count: int) -> None:
        wp.launch(
            _move_back_kernel,
            dim=(count, *moved.shape[1:]),
            inputs=[*arrays, pixel_centre, first, output],
            device=device_of(depth),
        )

    parallel_over_first_axis(launch, len(moved), depth.device)
    return moved
