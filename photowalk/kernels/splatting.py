"""Forward splatting: pixels with depth are thrown from source cameras into target cameras.

Two rules. `splat_soft` is the published one: every point is shared among the four pixels around it, weighted down
exponentially by depth (softmax splatting, Niklaus and Liu, CVPR 2020). `splat_nearest` is a hard z-buffer in which a
point covers the pixels that its source pixel covers; its result does not hang on the order of threads.

A pixel of depth z goes straight to the target's homogeneous pixel z * A (column, row, 1) + b with
A = K_t R K_s^-1 and b = K_t t, so no cloud of world points is ever stored. The module knows nothing of camera
objects; depth is along +Z, and whatever is not finite or not positive is no point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

OCCLUSION_SHARPNESS = 50.0  # published: exponent of the depth weight at the farthest point
WEIGHT_EPSILON = 1e-7  # published: keeps depth weights and divisions by z away from zero
NO_WINNER = 2**63 - 1


def reliable_depth(depth: Tensor, *, ratio: float, window: int = 5) -> Tensor:
    """[..., H, W] -> bool, true where depth is known and (max - min) / mean over the window stays below `ratio`.

    Means are taken over a window padded with zeros, which makes the rule stricter at the border of the image: the
    published weights were trained with it.
    """
    planes = depth.nan_to_num(nan=1e4, posinf=1e4).clamp(0, 1e4).reshape(-1, 1, *depth.shape[-2:])
    highest = F.max_pool2d(planes, window, 1, window // 2)
    lowest = -F.max_pool2d(-planes, window, 1, window // 2)
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


@wp.func
def _seen_at(linear: wp.mat33d, offset: wp.vec3d, depth: float, row: int, column: int, pixel_centre: float) -> wp.vec3d:
    centre = wp.float64(pixel_centre)
    pixel = wp.vec3d(wp.float64(column) + centre, wp.float64(row) + centre, wp.float64(1.0))
    return wp.float64(depth) * (linear * pixel) + offset


@wp.kernel
def _splat_soft_kernel(
    values: wp.array4d(dtype=wp.float32),  # [V, C, H, W]
    depths: wp.array3d(dtype=wp.float32),  # [V, H, W], 0 = no point
    linear: wp.array2d(dtype=wp.mat33d),  # [T, V]
    offset: wp.array2d(dtype=wp.vec3d),  # [T, V]
    sharpness: wp.array(dtype=wp.float32),  # [T]
    pixel_centre: float,
    first_target: int,
    sums: wp.array4d(dtype=wp.float32),  # [n, H', W', C + 2]: values, depth, weight
):
    n, v, row, column = wp.tid()
    depth = depths[v, row, column]
    if depth <= 0.0:
        return
    t = first_target + n
    seen = _seen_at(linear[t, v], offset[t, v], depth, row, column, pixel_centre)
    z = float(seen[2])
    if z <= 0.0:
        return
    inverse = wp.float64(1.0) / (seen[2] + wp.float64(1.0e-7))
    # the published system keeps the flow in float32 and adds the pixel back, one pixel of margin included
    x = (float(seen[0] * inverse - wp.float64(column)) - pixel_centre + float(column)) + 1.0
    y = (float(seen[1] * inverse - wp.float64(row)) - pixel_centre + float(row)) + 1.0
    height = sums.shape[1]
    width = sums.shape[2]
    if x <= 0.0 or y <= 0.0 or x >= float(width + 1) or y >= float(height + 1):
        return
    left = wp.floor(x)
    top = wp.floor(y)
    right = wp.ceil(x)
    bottom = wp.ceil(y)
    weight = 1.0 / (wp.exp(wp.min(80.0, sharpness[t] * wp.log(1.0 + z))) + 1.0e-7)
    channels = values.shape[1]
    for corner in range(4):
        i = int(top) - 1
        share = (1.0 - (y - top)) * weight
        if corner >= 2:
            i = int(bottom) - 1
            share = (1.0 - (bottom - y)) * weight
        j = int(left) - 1
        if corner % 2 == 0:
            share = share * (1.0 - (x - left))
        else:
            j = int(right) - 1
            share = share * (1.0 - (right - x))
        if i >= 0 and j >= 0 and i < height and j < width:
            for c in range(channels):
                wp.atomic_add(sums, n, i, j, c, share * values[v, c, row, column])
            wp.atomic_add(sums, n, i, j, channels, share * z)
            wp.atomic_add(sums, n, i, j, channels + 1, share)


@wp.kernel
def _normalise_kernel(
    sums: wp.array4d(dtype=wp.float32),  # [n, H', W', C + 2], zeroed for the next target
    background: float,
    first_target: int,
    values: wp.array4d(dtype=wp.float32),  # [T, C, H', W']
    depths: wp.array3d(dtype=wp.float32),  # [T, H', W']
    weights: wp.array3d(dtype=wp.float32),  # [T, H', W']
):
    n, i, j = wp.tid()
    t = first_target + n
    channels = values.shape[1]
    total = sums[n, i, j, channels + 1]
    weights[t, i, j] = total
    depth = 0.0
    if total > 0.0:
        depth = sums[n, i, j, channels] / total
    depths[t, i, j] = depth
    for c in range(channels):
        value = background
        if total > 0.0:
            value = sums[n, i, j, c] / total
        values[t, c, i, j] = value
        sums[n, i, j, c] = 0.0
    sums[n, i, j, channels] = 0.0
    sums[n, i, j, channels + 1] = 0.0


def splat_soft(
    values: Tensor,  # [V, C, H, W]
    depths: Tensor,  # [V, H, W]
    source_from_world: Tensor,  # [V, 4, 4]
    source_intrinsics: Tensor,  # [V, 3, 3]
    target_from_world: Tensor,  # [T, 4, 4]
    target_intrinsics: Tensor,  # [T, 3, 3]
    size: tuple[int, int],  # H', W' of the targets
    *,
    pixel_centre: float = 0.5,
    group: int = 16,  # targets that share one farthest point, and so one softness; published: 16
    background: float = 0.0,  # value where nothing lands; published images: -1
    invalid_at_origin: bool = False,  # published: points without depth count, at the world origin, as farthest points
) -> tuple[Tensor, Tensor, Tensor]:
    """-> values [T, C, H', W'], depth [T, H', W'] (0 where nothing lands) and the sum of weights [T, H', W'].

    A point's share of a pixel is its bilinear weight over exp(50 log1p(z) / max log1p(z)); a point exactly on a pixel
    counts four times, as published. Sums are in float32; on a GPU their last bits hang on the order of threads.
    """
    depths = _points_only(depths)
    linear, offset = pixel_maps(source_from_world, source_intrinsics, target_from_world, target_intrinsics)
    farthest = _farthest(depths, linear, offset, pixel_centre)
    if invalid_at_origin:
        without = (depths == 0).any()
        farthest = torch.where(without, farthest.maximum(target_from_world[:, 2, 3].double()), farthest)
    sharpness = OCCLUSION_SHARPNESS / (torch.log1p(_group_maximum(farthest, group)) + WEIGHT_EPSILON)
    targets, channels = len(target_from_world), values.shape[1]
    outputs = [depths.new_empty(targets, channels, *size), depths.new_empty(targets, *size)]
    outputs.append(torch.empty_like(outputs[1]))
    results = [wp.from_torch(output) for output in outputs]
    inputs = [
        wp.from_torch(values.float().contiguous()),
        wp.from_torch(depths),
        wp.from_torch(linear.contiguous(), dtype=wp.mat33d),
        wp.from_torch(offset.contiguous(), dtype=wp.vec3d),
        wp.from_torch(sharpness.float()),
    ]
    device = device_of(depths)
    _splat_soft_kernel.module.load(device)
    at_once = 1 if device.is_cpu else group

    def launch(first: int, count: int) -> None:
        scratch = depths.new_zeros(min(at_once, count), *size, channels + 2)
        sums = wp.from_torch(scratch)
        for start in range(first, first + count, at_once):
            n = min(at_once, first + count - start)
            dim = (n, *depths.shape)
            wp.launch(_splat_soft_kernel, dim, [*inputs, pixel_centre, start, sums], device=device)
            wp.launch(_normalise_kernel, (n, *size), [sums, background, start, *results], device=device)

    parallel_over_first_axis(launch, targets, depths.device)
    return outputs[0], outputs[1], outputs[2]


def _points_only(depths: Tensor) -> Tensor:
    depths = depths.float()
    return torch.where((depths > 0) & depths.isfinite(), depths, 0.0).contiguous()


def _farthest(depths: Tensor, linear: Tensor, offset: Tensor, pixel_centre: float) -> Tensor:
    """[T] largest z, at least 0, of any point in each target camera."""
    rows = torch.arange(depths.shape[1], device=depths.device) + pixel_centre
    columns = torch.arange(depths.shape[2], device=depths.device) + pixel_centre
    farthest = linear.new_zeros(len(linear))
    for v, depth in enumerate(depths):
        valid = depth > 0
        if not bool(valid.any()):
            continue
        points = torch.stack([depth * columns, depth * rows[:, None], depth])[:, valid]  # [3, N]
        for first in range(0, len(linear), 8):
            part = slice(first, first + 8)
            z = (linear[part, v, 2].float() @ points).amax(-1).double() + offset[part, v, 2]
            farthest[part] = farthest[part].maximum(z)
    return farthest


def _group_maximum(per_target: Tensor, group: int) -> Tensor:
    """[T] -> [T], every run of `group` targets replaced by its maximum."""
    return torch.cat([part.amax().expand(len(part)) for part in per_target.split(group)])


@wp.func
def _footprint(z: float, depth: float, magnification: float, largest: float) -> float:
    """Side in target pixels of a source pixel seen face on, at least one."""
    return wp.clamp(magnification * depth / z, 1.0, largest)


@wp.kernel
def _nearest_depth_kernel(
    depths: wp.array3d(dtype=wp.float32),  # [V, H, W], 0 = no point
    linear: wp.array2d(dtype=wp.mat33d),  # [T, V]
    offset: wp.array2d(dtype=wp.vec3d),  # [T, V]
    magnification: wp.array2d(dtype=wp.float32),  # [T, V]
    largest: float,
    pixel_centre: float,
    first_target: int,
    nearest: wp.array3d(dtype=wp.float32),  # [T, H', W'], starts at inf
):
    n, v, row, column = wp.tid()
    depth = depths[v, row, column]
    if depth <= 0.0:
        return
    t = first_target + n
    seen = _seen_at(linear[t, v], offset[t, v], depth, row, column, pixel_centre)
    z = float(seen[2])
    if z <= 1.0e-6:
        return
    x = float(seen[0] / seen[2]) - pixel_centre
    y = float(seen[1] / seen[2]) - pixel_centre
    half = 0.5 * _footprint(z, depth, magnification[t, v], largest)
    if x + half < 0.0 or y + half < 0.0 or x - half > float(nearest.shape[2]) or y - half > float(nearest.shape[1]):
        return
    for i in range(wp.max(int(wp.ceil(y - half)), 0), wp.min(int(wp.floor(y + half)) + 1, nearest.shape[1])):
        for j in range(wp.max(int(wp.ceil(x - half)), 0), wp.min(int(wp.floor(x + half)) + 1, nearest.shape[2])):
            wp.atomic_min(nearest, t, i, j, z)


@wp.kernel
def _winner_kernel(
    depths: wp.array3d(dtype=wp.float32),
    linear: wp.array2d(dtype=wp.mat33d),
    offset: wp.array2d(dtype=wp.vec3d),
    magnification: wp.array2d(dtype=wp.float32),
    largest: float,
    pixel_centre: float,
    tolerance: float,
    nearest: wp.array3d(dtype=wp.float32),  # [T, H', W']
    first_target: int,
    winners: wp.array3d(dtype=wp.int64),  # [n, H', W'], starts at NO_WINNER: source, squared distance, pixel
):
    n, v, row, column = wp.tid()
    depth = depths[v, row, column]
    if depth <= 0.0:
        return
    t = first_target + n
    seen = _seen_at(linear[t, v], offset[t, v], depth, row, column, pixel_centre)
    z = float(seen[2])
    if z <= 1.0e-6:
        return
    x = float(seen[0] / seen[2]) - pixel_centre
    y = float(seen[1] / seen[2]) - pixel_centre
    half = 0.5 * _footprint(z, depth, magnification[t, v], largest)
    if x + half < 0.0 or y + half < 0.0 or x - half > float(nearest.shape[2]) or y - half > float(nearest.shape[1]):
        return
    identity = wp.int64(row * depths.shape[2] + column)
    for i in range(wp.max(int(wp.ceil(y - half)), 0), wp.min(int(wp.floor(y + half)) + 1, nearest.shape[1])):
        for j in range(wp.max(int(wp.ceil(x - half)), 0), wp.min(int(wp.floor(x + half)) + 1, nearest.shape[2])):
            if z <= nearest[t, i, j] * (1.0 + tolerance):
                off_x = x - float(j)
                off_y = y - float(i)
                distance = wp.int64(wp.min((off_x * off_x + off_y * off_y) * 4096.0, 1048575.0))
                key = (wp.int64(v) << wp.int64(51)) | (distance << wp.int64(31)) | identity
                wp.atomic_min(winners, n, i, j, key)


@wp.kernel
def _gather_kernel(
    values: wp.array4d(dtype=wp.float32),  # [V, C, H, W]
    depths: wp.array3d(dtype=wp.float32),
    linear: wp.array2d(dtype=wp.mat33d),
    offset: wp.array2d(dtype=wp.vec3d),
    pixel_centre: float,
    background: float,
    first_target: int,
    winners: wp.array3d(dtype=wp.int64),  # [n, H', W'], reset for the next target
    splatted: wp.array4d(dtype=wp.float32),  # [T, C, H', W']
    nearest: wp.array3d(dtype=wp.float32),  # [T, H', W'], from the nearest to the winner's depth, 0 where none
    source: wp.array3d(dtype=wp.int32),  # [T, H', W']
):
    n, i, j = wp.tid()
    t = first_target + n
    key = winners[n, i, j]
    winners[n, i, j] = wp.int64(9223372036854775807)
    if key == wp.int64(9223372036854775807):
        nearest[t, i, j] = 0.0
        source[t, i, j] = -1
        for c in range(values.shape[1]):
            splatted[t, c, i, j] = background
        return
    v = int(key >> wp.int64(51))
    identity = int(key & wp.int64(2147483647))
    row = identity / depths.shape[2]
    column = identity % depths.shape[2]
    seen = _seen_at(linear[t, v], offset[t, v], depths[v, row, column], row, column, pixel_centre)
    nearest[t, i, j] = float(seen[2])
    source[t, i, j] = v
    for c in range(values.shape[1]):
        splatted[t, c, i, j] = values[v, c, row, column]


def splat_nearest(
    values: Tensor,  # [V, C, H, W]
    depths: Tensor,  # [V, H, W]
    source_from_world: Tensor,  # [V, 4, 4]
    source_intrinsics: Tensor,  # [V, 3, 3]
    target_from_world: Tensor,  # [T, 4, 4]
    target_intrinsics: Tensor,  # [T, 3, 3]
    size: tuple[int, int],  # H', W' of the targets
    *,
    pixel_centre: float = 0.5,
    background: float = 0.0,  # value where nothing lands
    tolerance: float = 0.02,  # relative depth up to which two points are one surface
    overlap: float = 1.3,  # footprints are this much wider than a source pixel, so turned grids leave no cracks
    largest: float = 4.0,  # widest footprint in target pixels
) -> tuple[Tensor, Tensor, Tensor]:
    """-> values [T, C, H', W'], depth [T, H', W'] (0 where nothing lands) and the source index [T, H', W'] (-1: none).

    The nearest surface wins; among points of that surface the earliest source, then the point nearest to the pixel.
    """
    depths = _points_only(depths)
    linear, offset = pixel_maps(source_from_world, source_intrinsics, target_from_world, target_intrinsics)
    magnification = overlap * target_intrinsics[:, None, 0, 0] / source_intrinsics[None, :, 0, 0]
    targets = len(target_from_world)
    splatted = depths.new_empty(targets, values.shape[1], *size)
    nearest = depths.new_full((targets, *size), torch.inf)
    source = torch.empty_like(nearest, dtype=torch.int32)
    pixels = wp.from_torch(values.float().contiguous())
    points = [
        wp.from_torch(depths),
        wp.from_torch(linear.contiguous(), dtype=wp.mat33d),
        wp.from_torch(offset.contiguous(), dtype=wp.vec3d),
    ]
    spread = [wp.from_torch(magnification.float().contiguous()), largest, pixel_centre]
    results = [wp.from_torch(output) for output in (splatted, nearest, source)]
    device = device_of(depths)
    _winner_kernel.module.load(device)
    at_once = 1 if device.is_cpu else 16

    def launch(first: int, count: int) -> None:
        scratch = torch.full((min(at_once, count), *size), NO_WINNER, dtype=torch.int64, device=depths.device)
        winners = wp.from_torch(scratch)
        for start in range(first, first + count, at_once):
            n = min(at_once, first + count - start)
            dim = (n, *depths.shape)
            wp.launch(_nearest_depth_kernel, dim, [*points, *spread, start, results[1]], device=device)
            wp.launch(_winner_kernel, dim, [*points, *spread, tolerance, results[1], start, winners], device=device)
            gather = [pixels, *points, pixel_centre, background, start, winners, *results]
            wp.launch(_gather_kernel, (n, *size), gather, device=device)

    parallel_over_first_axis(launch, targets, depths.device)
    return splatted, nearest, source
