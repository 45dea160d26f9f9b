"""Which remembered points a camera would see: z-buffers of point clouds on a coarse grid.

The rule is the published one: all candidates' points fall into the cells of one grid, the nearest point of a cell hides
what lies more than a tolerance behind it. The module knows nothing of views or of what is done with the answer.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})


@wp.func
def _cell(
    point: wp.vec3, pose: wp.mat44, intrinsics: wp.mat33, stride: float, pixel_centre: float, height: int, width: int
) -> wp.vec2:
    """Flat cell index and z; the index is -1 for a point behind the camera, beside the grid or not finite."""
    seen = pose * wp.vec4(point[0], point[1], point[2], 1.0)
    z = seen[2]
    if not (z > 0.0 and z < 1.0e30):
        return wp.vec2(-1.0, z)
    pixel = intrinsics * wp.vec3(seen[0], seen[1], z)
    # round half to even, as published
    column = wp.rint((pixel[0] / (z + 1.0e-7) - pixel_centre) / stride)
    row = wp.rint((pixel[1] / (z + 1.0e-7) - pixel_centre) / stride)
    if not (column >= 0.0 and row >= 0.0 and column < float(width) and row < float(height)):
        return wp.vec2(-1.0, z)
    return wp.vec2(row * float(width) + column, z)


@wp.kernel
def _nearest_kernel(
    points: wp.array2d(dtype=wp.vec3),  # [C, N]
    poses: wp.array(dtype=wp.mat44),  # [V]
    intrinsics: wp.array(dtype=wp.mat33),  # [V]
    stride: float,
    pixel_centre: float,
    height: int,
    width: int,
    first: int,
    nearest: wp.array2d(dtype=wp.float32),  # [V, cells], starts at inf
):
    c, n, v = wp.tid()
    cell = _cell(points[first + c, n], poses[v], intrinsics[v], stride, pixel_centre, height, width)
    if cell[0] >= 0.0:
        wp.atomic_min(nearest, v, int(cell[0]), cell[1])


@wp.kernel
def _coverage_kernel(
    points: wp.array2d(dtype=wp.vec3),  # [C, N]
    poses: wp.array(dtype=wp.mat44),  # [V]
    intrinsics: wp.array(dtype=wp.mat33),  # [V]
    stride: float,
    pixel_centre: float,
    height: int,
    width: int,
    nearest: wp.array2d(dtype=wp.float32),  # [V, cells]
    tolerance: float,
    relative_tolerance: float,
    first: int,
    covered: wp.array3d(dtype=wp.uint8),  # [C, V, cells], starts at 0
):
    c, n, v = wp.tid()
    cell = _cell(points[first + c, n], poses[v], intrinsics[v], stride, pixel_centre, height, width)
    if cell[0] >= 0.0:
        front = nearest[v, int(cell[0])]
        if cell[1] <= front + tolerance + relative_tolerance * front:
            covered[first + c, v, int(cell[0])] = wp.uint8(1)


def coverage(
    points: Tensor,  # [C, N, 3] world points of C candidates, NaN = no point
    camera_from_world: Tensor,  # [V, 4, 4] target views
    intrinsics: Tensor,  # [V, 3, 3] in pixels of the full image
    size: tuple[int, int],  # H, W of the full image
    *,
    stride: int,  # pixels per cell of the grid
    pixel_centre: float,
    tolerance: float = 0.0,  # in world units
    relative_tolerance: float = 0.0,  # as a fraction of the nearest depth
) -> Tensor:
    """-> bool [C, V * cells]: which cells of which view each candidate has a visible point in."""
    height, width = -(-size[0] // stride), -(-size[1] // stride)
    candidates, views = len(points), len(camera_from_world)
    clouds = wp.from_torch(points.float().contiguous(), dtype=wp.vec3)
    inputs = [
        clouds,
        wp.from_torch(camera_from_world.float().contiguous(), dtype=wp.mat44),
        wp.from_torch(intrinsics.float().contiguous(), dtype=wp.mat33),
        float(stride),
        pixel_centre,
        height,
        width,
    ]
    device = device_of(points)
    _nearest_kernel.module.load(device)
    buffers: list[Tensor] = []

    def launch_nearest(first: int, count: int) -> None:
        buffer = points.new_full((views, height * width), torch.inf, dtype=torch.float32)
        buffers.append(buffer)  # one for each thread, since their candidates meet in the same cells
        dim = (count, points.shape[1], views)
        wp.launch(_nearest_kernel, dim, [*inputs, first, wp.from_torch(buffer)], device=device)

    parallel_over_first_axis(launch_nearest, candidates, points.device)
    nearest = torch.stack(buffers).amin(0) if buffers else points.new_empty(views, height * width)
    covered = torch.zeros(candidates, views, height * width, dtype=torch.uint8, device=points.device)
    outputs = [wp.from_torch(nearest), tolerance, relative_tolerance]

    def launch_coverage(first: int, count: int) -> None:
        dim = (count, points.shape[1], views)
        wp.launch(_coverage_kernel, dim, [*inputs, *outputs, first, wp.from_torch(covered)], device=device)

    parallel_over_first_axis(launch_coverage, candidates, points.device)
    return covered.flatten(1).bool()
