"""Which remembered points a camera would see: z-buffers of point clouds on a coarse grid.

The rule is the published one: all candidates' points fall into the cells of one grid, the nearest point of a cell hides
what lies more than a tolerance behind it. The module knows nothing of views or of what is done with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})


@wp.struct
class Grid:
    """Cells of `stride` pixels; cell (i, j) is centred where pixel (stride i, stride j) is."""

    stride: wp.float32
    pixel_centre: wp.float32
    height: wp.int32
    width: wp.int32


@wp.func
def _cell(seen: wp.vec4, intrinsics: wp.mat33, grid: Grid) -> int:
    """Flat index of the cell that a point in camera space falls into, -1 if it is behind, beside or not finite."""
    z = seen[2]
    if not (z > 0.0 and z < 1.0e30):
        return -1
    pixel = intrinsics * wp.vec3(seen[0], seen[1], z)
    # round half to even, as published
    column = wp.rint((pixel[0] / (z + 1.0e-7) - grid.pixel_centre) / grid.stride)
    row = wp.rint((pixel[1] / (z + 1.0e-7) - grid.pixel_centre) / grid.stride)
    if not (column >= 0.0 and row >= 0.0 and column < float(grid.width) and row < float(grid.height)):
        return -1
    return int(row) * grid.width + int(column)


@wp.kernel
def _nearest_kernel(
    points: wp.array(dtype=wp.vec3),  # [N]
    poses: wp.array(dtype=wp.mat44),  # [V]
    intrinsics: wp.array(dtype=wp.mat33),  # [V]
    grid: Grid,
    run: int,  # points per thread
    nearest: wp.array2d(dtype=wp.float32),  # [V, cells], starts at inf
):
    v, block = wp.tid()
    pose = poses[v]
    lens = intrinsics[v]
    for n in range(block * run, wp.min(block * run + run, points.shape[0])):
        point = points[n]
        seen = pose * wp.vec4(point[0], point[1], point[2], 1.0)
        cell = _cell(seen, lens, grid)
        if cell >= 0:
            wp.atomic_min(nearest, v, cell, seen[2])


@wp.kernel
def _coverage_kernel(
    points: wp.array(dtype=wp.vec3),  # [N]
    poses: wp.array(dtype=wp.mat44),  # [V]
    intrinsics: wp.array(dtype=wp.mat33),  # [V]
    grid: Grid,
    run: int,
    nearest: wp.array2d(dtype=wp.float32),  # [V, cells]
    tolerance: float,
    relative_tolerance: float,
    covered: wp.array2d(dtype=wp.uint8),  # [V, cells], starts at 0
):
    v, block = wp.tid()
    pose = poses[v]
    lens = intrinsics[v]
    for n in range(block * run, wp.min(block * run + run, points.shape[0])):
        point = points[n]
        seen = pose * wp.vec4(point[0], point[1], point[2], 1.0)
        cell = _cell(seen, lens, grid)
        if cell >= 0:
            front = nearest[v, cell]
            if seen[2] <= front + tolerance + relative_tolerance * front:
                covered[v, cell] = wp.uint8(1)


def coverage(
    points: Sequence[Tensor],  # C clouds of world points [N_c, 3], NaN = no point
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
    cells = (-(-size[0] // stride), -(-size[1] // stride))
    grid = Grid()
    grid.stride, grid.pixel_centre, grid.height, grid.width = stride, pixel_centre, *cells
    candidates, views, cell_count = len(points), len(camera_from_world), cells[0] * cells[1]
    clouds = [wp.from_torch(cloud.float().contiguous(), dtype=wp.vec3) for cloud in points]
    poses = wp.from_torch(camera_from_world.float().contiguous(), dtype=wp.mat44)
    lenses = wp.from_torch(intrinsics.float().contiguous(), dtype=wp.mat33)
    device = device_of(camera_from_world)
    load_kernel(_nearest_kernel, device)

    covered = torch.zeros(candidates, views, cell_count, dtype=torch.uint8, device=camera_from_world.device)
    buffers: list[Tensor] = []  # one for each thread, since their candidates meet in the same cells

    def launch(kernel: wp.Kernel, cloud: wp.array, *arguments) -> None:
        run = max(cloud.shape[0], 1) if device.is_cpu else 1
        dim = (views, -(-cloud.shape[0] // run))
        wp.launch(kernel, dim, [cloud, poses, lenses, grid, run, *arguments], device=device)

    def find_nearest(first: int, count: int) -> None:
        buffer = torch.full((views, cell_count), torch.inf, device=camera_from_world.device)
        buffers.append(buffer)
        for cloud in clouds[first : first + count]:
            launch(_nearest_kernel, cloud, wp.from_torch(buffer))

    def find_covered(first: int, count: int) -> None:
        for c in range(first, first + count):
            launch(_coverage_kernel, clouds[c], front, tolerance, relative_tolerance, wp.from_torch(covered[c]))

    parallel_over_first_axis(find_nearest, candidates, camera_from_world.device, pieces_per_thread=1)
    front = wp.from_torch(torch.stack(buffers).amin(0)) if buffers else None
    parallel_over_first_axis(find_covered, candidates, camera_from_world.device)
    return covered.flatten(1).view(torch.bool)
