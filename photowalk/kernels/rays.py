"""Ray images of posed pinhole cameras, written straight into the blocks that the denoiser reads.

Rays go through pixel centres at +0.5 for every model, the published one included, although that one warps at integer
pixels. A ray is its origin and unit direction, not a Pluecker moment.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})


@wp.kernel
def _ray_kernel(
    world_from_camera: wp.array(dtype=wp.mat44),  # [T]
    intrinsics: wp.array(dtype=wp.mat33),  # [T]
    side: int,
    run: int,  # blocks per thread
    first: int,
    rays: wp.array4d(dtype=wp.float32),  # [6 * side^2, T, h, w]
):
    n, row, block = wp.tid()
    t = first + n
    pose = world_from_camera[t]
    lens = intrinsics[t]
    y = (float(row) + 0.5 - lens[1, 2]) / lens[1, 1]
    to_y = row / side
    in_block = (row - to_y * side) * side
    for offset in range(side):
        channel = in_block + offset
        for to_x in range(block * run, wp.min(block * run + run, rays.shape[3])):
            x = (float(to_x * side + offset) + 0.5 - lens[0, 2]) / lens[0, 0]
            scale = 1.0 / wp.sqrt(x * x + y * y + 1.0)
            for axis in range(3):
                rays[axis * side * side + channel, t, to_y, to_x] = pose[axis, 3]
                along = (pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2]) * scale
                rays[(axis + 3) * side * side + channel, t, to_y, to_x] = along


def ray_blocks(world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Poses [T, 4, 4] and intrinsics [T, 3, 3] of an H x W image -> [6 * side * side, T, H / side, W / side] float32.

    Channel = c * side^2 + row * side + column within a block; c = origin x y z, direction x y z.
    """
    count, height, width = len(intrinsics), size[0] // side, size[1] // side
    rays = torch.empty(6 * side * side, count, height, width, device=intrinsics.device)
    poses = wp.from_torch(world_from_camera.float().contiguous(), dtype=wp.mat44)
    lenses = wp.from_torch(intrinsics.float().contiguous(), dtype=wp.mat33)
    device = device_of(rays)
    run = width if device.is_cpu else 1
    load_kernel(_ray_kernel, device)

    def launch(first: int, cameras: int) -> None:
        dim = (cameras, height * side, -(-width // run))
        wp.launch(_ray_kernel, dim, [poses, lenses, side, run, first, wp.from_torch(rays)], device=device)

    parallel_over_first_axis(launch, count, rays.device)
    return rays
