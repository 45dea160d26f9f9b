"""Forward splatting by the published soft rule (softmax splatting, Niklaus and Liu, CVPR 2020).

Every point is shared among the four pixels around it, weighted down exponentially by its depth. The softness depends on
the farthest point of a whole group of targets. The module knows nothing of camera objects.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, parallel_over_first_axis
from photowalk.kernels.splatting import land, point_arrays, points_only, shape_of_launch, source_row, splat_dim

wp.set_module_options({"enable_backward": False})

OCCLUSION_SHARPNESS = 50.0  # published: exponent of the depth weight at the farthest point
WEIGHT_EPSILON = 1e-7  # published: keeps depth weights and divisions by z away from zero


@wp.kernel
def _splat_soft_kernel(
    depths: wp.array3d(dtype=wp.float32),  # [V, H, W], 0 = no point
    linear: wp.array2d(dtype=wp.mat33d),  # [T, V]
    offset: wp.array2d(dtype=wp.vec3d),  # [T, V]
    sharpness: wp.array(dtype=wp.float32),  # [T]
    values: wp.array4d(dtype=wp.float32),  # [V, C, H, W]
    pixel_centre: float,
    height: int,
    width: int,
    run: int,  # columns per thread
    first_target: int,
    first_channel: int,
    channels: int,  # of this pass, at most 3
    sums: wp.array2d(dtype=wp.vec4),  # [n, H' * W']: up to three channels, z in the place of missing ones, weight
):
    n, v, i, block = wp.tid()
    t = first_target + n
    row = source_row(linear[t, v], offset[t, v], float(i) + pixel_centre)
    for j in range(block * run, wp.min(block * run + run, depths.shape[2])):
        depth = depths[v, i, j]
        if depth > 0.0:
            landed = land(row, float(j) + pixel_centre, depth)
            z = landed[2]
            x = landed[0] + float(j) + 1.0  # a margin of one pixel, as published: it decides the last bit
            y = landed[1] + float(i) + 1.0
            if z > 0.0 and x > 0.0 and y > 0.0 and x < float(width + 1) and y < float(height + 1):
                weight = 1.0 / (wp.exp(wp.min(80.0, sharpness[t] * wp.log(1.0 + z))) + 1.0e-7)
                payload = wp.vec4(z, z, z, 1.0)
                if channels > 0:
                    payload[0] = values[v, first_channel, i, j]
                if channels > 1:
                    payload[1] = values[v, first_channel + 1, i, j]
                if channels > 2:
                    payload[2] = values[v, first_channel + 2, i, j]
                left = int(x)
                top = int(y)
                beyond_x = x - float(left)
                beyond_y = y - float(top)
                for corner_y in range(2):
                    row_weight = weight * (1.0 - beyond_y)
                    to_y = top - 1
                    if corner_y == 1 and beyond_y > 0.0:
                        row_weight = weight * beyond_y
                        to_y = top
                    if to_y >= 0 and to_y < height:
                        for corner_x in range(2):
                            share = row_weight * (1.0 - beyond_x)
                            to_x = left - 1
                            if corner_x == 1 and beyond_x > 0.0:
                                share = row_weight * beyond_x
                                to_x = left
                            if to_x >= 0 and to_x < width:
                                wp.atomic_add(sums, n, to_y * width + to_x, share * payload)


@wp.kernel
def _normalise_kernel(
    sums: wp.array2d(dtype=wp.vec4),  # [n, H' * W'], zeroed for the next target
    background: float,
    run: int,  # pixels per thread
    first_target: int,
    first_channel: int,
    channels: int,
    values: wp.array3d(dtype=wp.float32),  # [T, C, H' * W']
    depths: wp.array2d(dtype=wp.float32),  # [T, H' * W']
    known: wp.array2d(dtype=wp.uint8),  # [T, H' * W']
):
    n, block = wp.tid()
    t = first_target + n
    with_depth = first_channel + channels == values.shape[1] and channels < 3
    for pixel in range(block * run, wp.min(block * run + run, sums.shape[1])):
        total = sums[n, pixel]
        sums[n, pixel] = wp.vec4(0.0, 0.0, 0.0, 0.0)
        known[t, pixel] = wp.uint8(0)
        if total[3] > 0.0:
            known[t, pixel] = wp.uint8(1)
        for c in range(channels):
            value = background
            if total[3] > 0.0:
                value = total[c] / total[3]
            values[t, first_channel + c, pixel] = value
        if with_depth:
            depth = 0.0
            if total[3] > 0.0:
                depth = total[channels] / total[3]
            depths[t, pixel] = depth


@wp.kernel
def _range_kernel(
    sums: wp.array2d(dtype=wp.vec4),  # [n, H' * W'], zeroed for the next target
    run: int,  # pixels per thread
    first_target: int,
    lowest: wp.array(dtype=wp.float32),  # [T], starts at inf
    highest: wp.array(dtype=wp.float32),  # [T], starts at 0
):
    n, block = wp.tid()
    low = float(wp.inf)
    high = float(0.0)
    for pixel in range(block * run, wp.min(block * run + run, sums.shape[1])):
        total = sums[n, pixel]
        sums[n, pixel] = wp.vec4(0.0, 0.0, 0.0, 0.0)
        depth = 0.0
        if total[3] > 0.0:
            depth = total[0] / total[3]
        low = wp.min(low, depth)
        high = wp.max(high, depth)
    wp.atomic_min(lowest, first_target + n, low)
    wp.atomic_max(highest, first_target + n, high)


def occlusion_sharpness(
    depths: Tensor,  # [V, H, W]
    maps: tuple[Tensor, Tensor],  # pixel_maps of all targets
    *,
    pixel_centre: float,
    group: int,
    invalid_at_origin: Tensor | None = None,  # [T, 4, 4] target_from_world: points without depth count at the origin
) -> Tensor:
    """[T] exponents of the soft rule: 50 / max log1p(z) over all points in `group` consecutive targets."""
    depths = points_only(depths)
    farthest = _farthest(depths, *maps, pixel_centre)
    if invalid_at_origin is not None and bool((depths == 0).any()):
        farthest = farthest.maximum(invalid_at_origin[:, 2, 3].double())
    return (OCCLUSION_SHARPNESS / (torch.log1p(_group_maximum(farthest, group)) + WEIGHT_EPSILON)).float()


def splat_soft(
    values: Tensor,  # [V, C, H, W]
    depths: Tensor,  # [V, H, W]
    maps: tuple[Tensor, Tensor],  # pixel_maps of the targets
    size: tuple[int, int],  # H', W' of the targets
    *,
    sharpness: Tensor,  # [T], see occlusion_sharpness
    pixel_centre: float = 0.5,
    background: float = 0.0,  # value where nothing lands; published images: -1
) -> tuple[Tensor, Tensor, Tensor]:
    """-> values [T, C, H', W'], depth [T, H', W'] (0 where nothing lands) and where something lands, bool [T, H', W'].

    A point's share of a pixel is its bilinear weight over (1 + z)^sharpness; a point exactly on a row or column of
    pixels counts twice, as published. Sums are in float32; on a GPU their last bits hang on the order of threads.
    """
    depths, targets, channels = points_only(depths), len(maps[0]), values.shape[1]
    splatted = depths.new_empty(targets, channels, *size)
    depth = depths.new_empty(targets, *size)
    known = torch.empty_like(depth, dtype=torch.uint8)
    results = [wp.from_torch(output.flatten(-2)) for output in (splatted, depth, known)]

    def store(start: int, n: int, channel: int, sums: wp.array, run: int) -> None:
        dim, count = (n, -(-sums.shape[1] // run)), min(3, channels - channel)
        inputs = [sums, background, run, start, channel, count, *results]
        wp.launch(_normalise_kernel, dim, inputs, device=sums.device)

    _accumulate(values, depths, maps, size, sharpness, pixel_centre, store)
    return splatted, depth, known.view(torch.bool)


def soft_depth_range(
    depths: Tensor,  # [V, H, W]
    maps: tuple[Tensor, Tensor],
    size: tuple[int, int],
    *,
    sharpness: Tensor,  # [T]
    pixel_centre: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Least and greatest depth [T] that `splat_soft` would give, pixels where nothing lands being 0."""
    depths = points_only(depths)
    lowest, highest = depths.new_full((len(maps[0]),), torch.inf), depths.new_zeros(len(maps[0]))
    results = [wp.from_torch(lowest), wp.from_torch(highest)]

    def store(start: int, n: int, channel: int, sums: wp.array, run: int) -> None:
        wp.launch(_range_kernel, (n, -(-sums.shape[1] // run)), [sums, run, start, *results], device=sums.device)

    _accumulate(depths.new_empty(len(depths), 0, *depths.shape[1:]), depths, maps, size, sharpness, pixel_centre, store)
    return lowest, highest


def _accumulate(
    values: Tensor,
    depths: Tensor,
    maps: tuple[Tensor, Tensor],
    size: tuple[int, int],
    sharpness: Tensor,
    pixel_centre: float,
    store: Callable[[int, int, int, wp.array, int], None],
) -> None:
    """Sum up target after target, three channels at a time, and let `store` take and clear the sums."""
    targets, channels = len(maps[0]), values.shape[1]
    pixels = wp.from_torch(values.float().contiguous())
    inputs = [*point_arrays(depths, maps), wp.from_torch(sharpness.float().contiguous()), pixels, pixel_centre, *size]
    device, (run, at_once) = device_of(depths), shape_of_launch(depths)
    _splat_soft_kernel.module.load(device)

    def launch(first: int, count: int) -> None:
        scratch = depths.new_zeros(min(at_once, count), size[0] * size[1], 4)
        sums = wp.from_torch(scratch, dtype=wp.vec4)
        for start in range(first, first + count, at_once):
            n = min(at_once, first + count - start)
            for channel in range(0, channels + 1, 3):  # the depth is a channel like the others, the last one
                part = [run, start, channel, min(3, channels - channel), sums]
                wp.launch(_splat_soft_kernel, splat_dim(n, depths, run), [*inputs, *part], device=device)
                store(start, n, channel, sums, run)

    parallel_over_first_axis(launch, targets, depths.device)


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
