"""What all forward splatting shares: where a source pixel lands in a target, and how splats are launched.

A pixel of depth z goes straight to the target's homogeneous pixel z * A (column, row, 1) + b with
A = K_t R K_s^-1 and b = K_t t, so no cloud of world points is ever stored. The module knows nothing of camera
objects; depth is along +Z, and whatever is not finite or not positive is no point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor

from photowalk.kernels.sliding import highest_around, lowest_around

wp.set_module_options({"enable_backward": False})


def reliable_depth(depth: Tensor, *, ratio: float, window: int = 5) -> Tensor:
    """[..., H, W] -> bool, true where depth is known and (max - min) / mean over the window stays below `ratio`.

    Means are taken over a window padded with zeros, which makes the rule stricter at the border of the image: the
    published weights were trained with it.
    """
    planes = depth.nan_to_num(nan=1e4, posinf=1e4).clamp(0, 1e4).reshape(-1, 1, *depth.shape[-2:])
    highest = highest_around(planes, window // 2)
    lowest = lowest_around(planes, window // 2)
    mean = F.avg_pool2d(planes, window, 1, window // 2)
    steady = (highest - lowest) / (mean + 1e-6) < ratio
    return steady.reshape(depth.shape) & (depth > 0) & depth.isfinite()


def pixel_maps(
    source_from_world: Tensor,  # [V, 4, 4]
    source_intrinsics: Tensor,  # [V, 3, 3]
    target_from_world: Tensor,  # [T, 4, 4]
    target_intrinsics: Tensor,  # [T, 3, 3]
) -> tuple[Tensor, Tensor]:
    """A [T, V, 3, 3] and b [T, V, 3] in float64: a source pixel p (homogeneous, depth z) is seen at z A p + b."""
    source, target = source_from_world.double(), target_from_world.double()
    target_from_source = target[:, None] @ source.inverse()
    linear = (
        target_intrinsics.double()[:, None] @ target_from_source[..., :3, :3] @ source_intrinsics.double().inverse()
    )
    offset = (target_intrinsics.double()[:, None] @ target_from_source[..., :3, 3:])[..., 0]
    return linear, offset


@wp.struct
class Row:
    """One source row seen from one target: a column x of depth d lands at d (slope x + start) + offset, homogeneous."""

    x_slope: wp.float64
    x_start: wp.float64
    x_offset: wp.float64
    y_slope: wp.float64
    y_start: wp.float64
    y_offset: wp.float64
    z_slope: wp.float64
    z_start: wp.float64
    z_offset: wp.float64
    y: wp.float64  # of the source row


@wp.func
def source_row(linear: wp.mat33d, offset: wp.vec3d, y: float) -> Row:
    row = Row()
    row.y = wp.float64(y)
    row.x_slope = linear[0, 0]
    row.y_slope = linear[1, 0]
    row.z_slope = linear[2, 0]
    row.x_start = linear[0, 1] * row.y + linear[0, 2]
    row.y_start = linear[1, 1] * row.y + linear[1, 2]
    row.z_start = linear[2, 1] * row.y + linear[2, 2]
    row.x_offset = offset[0]
    row.y_offset = offset[1]
    row.z_offset = offset[2]
    return row


@wp.func
def land(row: Row, x: float, depth: float) -> wp.vec3:
    """Flow from the source pixel in columns and rows, rounded once, and z in the target; no flow where z <= 0."""
    x64 = wp.float64(x)
    depth64 = wp.float64(depth)
    z = depth64 * (row.z_slope * x64 + row.z_start) + row.z_offset
    if z <= wp.float64(0.0):
        return wp.vec3(0.0, 0.0, float(z))
    inverse = wp.float64(1.0) / (z + wp.float64(1.0e-7))
    to_x = depth64 * (row.x_slope * x64 + row.x_start) + row.x_offset
    to_y = depth64 * (row.y_slope * x64 + row.y_start) + row.y_offset
    return wp.vec3(float(to_x * inverse - x64), float(to_y * inverse - row.y), float(z))


def points_only(depths: Tensor) -> Tensor:
    depths = depths.float()
    return torch.where((depths > 0) & depths.isfinite(), depths, 0.0).contiguous()


def point_arrays(depths: Tensor, maps: tuple[Tensor, Tensor]) -> list[wp.array]:
    linear, offset = maps
    return [
        wp.from_torch(depths),
        wp.from_torch(linear.contiguous(), dtype=wp.mat33d),
        wp.from_torch(offset.contiguous(), dtype=wp.vec3d),
    ]


def shape_of_launch(depths: Tensor) -> tuple[int, int]:
    """Columns per thread and targets per launch: a CPU wants whole rows and sums that fit its cache, a GPU threads."""
    return (depths.shape[2], 1) if depths.device.type == "cpu" else (1, 16)


def splat_dim(targets: int, depths: Tensor, run: int) -> tuple[int, int, int, int]:
    return targets, depths.shape[0], depths.shape[1], -(-depths.shape[2] // run)
