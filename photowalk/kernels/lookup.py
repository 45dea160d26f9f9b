"""Backward warping: every target pixel whose depth is known looks its colour up in the source pictures.

Where forward splatting scatters pixels and leaves cracks, this interpolates, so surfaces keep their sharpness. It needs
the target's depth (forward splatting finds that well) and takes, for each pixel, the first source that saw the surface.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

SEEN_BY_NONE = -1
SEEN_AS_SKY = 1_000_000  # added to the index of the source


@wp.func
def _bilinear(
    images: wp.array4d(dtype=wp.float32),
    depths: wp.array3d(dtype=wp.float32),
    v: int,
    column: float,
    row: float,
    expected: float,
    tolerance: float,
    values: wp.array4d(dtype=wp.float32),
    t: int,
    i: int,
    j: int,
) -> float:
    """Mix the corners whose depth agrees with `expected` (sky agrees with an infinite one); return their weight."""
    column0 = int(wp.floor(column))
    row0 = int(wp.floor(row))
    total = 0.0
    for corner in range(4):
        x = column0 + corner % 2
        y = row0 + corner / 2
        if x >= 0 and y >= 0 and x < depths.shape[2] and y < depths.shape[1]:
            weight = (1.0 - wp.abs(column - float(x))) * (1.0 - wp.abs(row - float(y)))
            depth = depths[v, y, x]
            agrees = wp.isinf(depth)
            if not wp.isinf(expected):
                agrees = depth > 0.0 and not wp.isinf(depth) and wp.abs(depth - expected) < tolerance * expected
            if agrees:
                for c in range(images.shape[1]):
                    values[t, c, i, j] = values[t, c, i, j] + weight * images[v, c, y, x]
                total += weight
    if total > 0.25:
        for c in range(images.shape[1]):
            values[t, c, i, j] = values[t, c, i, j] / total
        return total
    for c in range(images.shape[1]):
        values[t, c, i, j] = 0.0
    return 0.0


@wp.kernel
def _look_up_kernel(
    target_depth: wp.array3d(dtype=wp.float32),  # [T, H, W]
    target_rays: wp.array(dtype=wp.mat33),  # [T] world direction of a homogeneous pixel, z-depth 1
    target_centres: wp.array(dtype=wp.vec3),  # [T]
    images: wp.array4d(dtype=wp.float32),  # [V, C, H', W']
    depths: wp.array3d(dtype=wp.float32),  # [V, H', W']
    source_from_world: wp.array(dtype=wp.mat44),  # [V]
    source_intrinsics: wp.array(dtype=wp.mat33),  # [V]
    pixel_centre: float,
    tolerance: float,
    first_target: int,
    values: wp.array4d(dtype=wp.float32),  # [T, C, H, W]
    source: wp.array3d(dtype=wp.int32),  # [T, H, W]
):
    offset, i, j = wp.tid()
    t = first_target + offset
    depth = target_depth[t, i, j]
    direction = target_rays[t] * wp.vec3(float(j) + pixel_centre, float(i) + pixel_centre, 1.0)
    for v in range(depths.shape[0]):
        point = wp.vec4(direction[0], direction[1], direction[2], 0.0)  # sky: the direction alone
        geometric = depth > 0.0 and not wp.isinf(depth)
        if geometric:
            world = target_centres[t] + depth * direction
            point = wp.vec4(world[0], world[1], world[2], 1.0)
        seen = source_from_world[v] * point
        if seen[2] > 1.0e-4:
            pixel = source_intrinsics[v] * wp.vec3(seen[0], seen[1], seen[2])
            expected = seen[2]
            if not geometric:
                expected = wp.inf
            weight = _bilinear(
                images,
                depths,
                v,
                pixel[0] / pixel[2] - pixel_centre,
                pixel[1] / pixel[2] - pixel_centre,
                expected,
                tolerance,
                values,
                t,
                i,
                j,
            )
            if weight > 0.0:
                if geometric:
                    source[t, i, j] = v
                else:
                    source[t, i, j] = v + SEEN_AS_SKY
                return


def look_up(
    target_depth: Tensor,  # [T, H, W] along +Z; 0 or inf: only sky is looked for, in the pixel's direction
    target_from_world: Tensor,  # [T, 4, 4]
    target_intrinsics: Tensor,  # [T, 3, 3]
    images: Tensor,  # [V, C, H', W']
    depths: Tensor,  # [V, H', W'] along +Z, 0 = unknown, inf = sky
    source_from_world: Tensor,  # [V, 4, 4]
    source_intrinsics: Tensor,  # [V, 3, 3]
    *,
    pixel_centre: float = 0.5,
    tolerance: float = 0.05,  # relative depth difference up to which a source saw the same surface
) -> tuple[Tensor, Tensor]:
    """-> values [T, C, H, W], 0 where no source saw the pixel, and the source index [T, H, W] (SEEN_BY_NONE; sky: plus
    SEEN_AS_SKY). Sources are asked in their order, the first that saw the surface gives the colour."""
    targets, height, width = target_depth.shape
    values = target_depth.new_zeros(targets, images.shape[1], height, width)
    source = target_depth.new_full((targets, height, width), SEEN_BY_NONE, dtype=torch.int32)
    rotation, translation = target_from_world[:, :3, :3].double(), target_from_world[:, :3, 3:].double()
    rays = rotation.mT @ target_intrinsics.double().inverse()
    centres = -(rotation.mT @ translation)[..., 0]
    arrays = [
        wp.from_torch(target_depth.float().contiguous()),
        wp.from_torch(rays.float().contiguous(), dtype=wp.mat33),
        wp.from_torch(centres.float().contiguous(), dtype=wp.vec3),
        wp.from_torch(images.float().contiguous()),
        wp.from_torch(depths.float().contiguous()),
        wp.from_torch(source_from_world.float().contiguous(), dtype=wp.mat44),
        wp.from_torch(source_intrinsics.float().contiguous(), dtype=wp.mat33),
    ]
    outputs = [wp.from_torch(values), wp.from_torch(source)]

    load_kernel(_look_up_kernel, device_of(target_depth))

    def launch(first: int, count: int) -> None:
        wp.launch(
            _look_up_kernel,
            dim=(count, height, width),
            inputs=[*arrays, pixel_centre, tolerance, first, *outputs],
            device=device_of(target_depth),
        )

    parallel_over_first_axis(launch, targets, target_depth.device)
    return values, source
