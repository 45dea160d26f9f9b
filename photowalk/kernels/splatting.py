"""Forward splatting: pixels with depth are thrown from source cameras into target cameras.

Two rules. `splat_soft` is the published one: every point is shared among the four pixels around it, weighted down
exponentially by depth (softmax splatting, Niklaus and Liu, CVPR 2020). `splat_nearest` is a hard z-buffer in which a
point covers the pixels that its source pixel covers; its result does not hang on the order of threads.

A pixel of depth z goes straight to the target's homogeneous pixel z * A (column, row, 1) + b with
A = K_t R K_s^-1 and b = K_t t, so no cloud of world points is ever stored. The module knows nothing of camera
objects; depth is along +Z, and whatever is not finite or not positive is no point.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

OCCLUSION_SHARPNESS = 50.0  # published: exponent of the depth weight at the farthest point
WEIGHT_EPSILON = 1e-7  # published: keeps depth weights and divisions by z away from zero
NO_WINNER = wp.constant(2**63 - 1)


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
def _row(linear: wp.mat33d, offset: wp.vec3d, y: float) -> Row:
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
def _land(row: Row, x: float, depth: float) -> wp.vec3:
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
    row = _row(linear[t, v], offset[t, v], float(i) + pixel_centre)
    for j in range(block * run, wp.min(block * run + run, depths.shape[2])):
        depth = depths[v, i, j]
        if depth > 0.0:
            landed = _land(row, float(j) + pixel_centre, depth)
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
    depths = _points_only(depths)
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
    depths, targets, channels = _points_only(depths), len(maps[0]), values.shape[1]
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
    depths = _points_only(depths)
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
    inputs = [*_points(depths, maps), wp.from_torch(sharpness.float().contiguous()), pixels, pixel_centre, *size]
    device, (run, at_once) = device_of(depths), _shape_of_launch(depths)
    _splat_soft_kernel.module.load(device)

    def launch(first: int, count: int) -> None:
        scratch = depths.new_zeros(min(at_once, count), size[0] * size[1], 4)
        sums = wp.from_torch(scratch, dtype=wp.vec4)
        for start in range(first, first + count, at_once):
            n = min(at_once, first + count - start)
            for channel in range(0, channels + 1, 3):  # the depth is a channel like the others, the last one
                part = [run, start, channel, min(3, channels - channel), sums]
                wp.launch(_splat_soft_kernel, _dim(n, depths, run), [*inputs, *part], device=device)
                store(start, n, channel, sums, run)

    parallel_over_first_axis(launch, targets, depths.device)


def _points_only(depths: Tensor) -> Tensor:
    depths = depths.float()
    return torch.where((depths > 0) & depths.isfinite(), depths, 0.0).contiguous()


def _points(depths: Tensor, maps: tuple[Tensor, Tensor]) -> list[wp.array]:
    linear, offset = maps
    return [
        wp.from_torch(depths),
        wp.from_torch(linear.contiguous(), dtype=wp.mat33d),
        wp.from_torch(offset.contiguous(), dtype=wp.vec3d),
    ]


def _shape_of_launch(depths: Tensor) -> tuple[int, int]:
    """Columns per thread and targets per launch: a CPU wants whole rows and sums that fit its cache, a GPU threads."""
    return (depths.shape[2], 1) if depths.device.type == "cpu" else (1, 16)


def _dim(targets: int, depths: Tensor, run: int) -> tuple[int, int, int, int]:
    return targets, depths.shape[0], depths.shape[1], -(-depths.shape[2] // run)


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


@wp.struct
class Footprint:
    """The target pixels that a source pixel covers, and where its centre lands."""

    x: wp.float32
    y: wp.float32
    z: wp.float32
    first_row: wp.int32
    last_row: wp.int32  # exclusive; first_row where nothing is covered
    first_column: wp.int32
    last_column: wp.int32


@wp.func
def _footprint(
    row: Row,
    i: int,
    j: int,
    pixel_centre: float,
    depth: float,
    magnification: float,
    largest: float,
    height: int,
    width: int,
) -> Footprint:
    """A square as wide as the source pixel looks face on, at least one pixel."""
    landed = _land(row, float(j) + pixel_centre, depth)
    covered = Footprint()
    covered.z = landed[2]
    if covered.z > 0.0:
        half = 0.5 * wp.clamp(magnification * depth / covered.z, 1.0, largest)
        covered.x = landed[0] + float(j)
        covered.y = landed[1] + float(i)
        if (
            covered.x > -half
            and covered.y > -half
            and covered.x < float(width) + half
            and covered.y < float(height) + half
        ):
            covered.first_row = wp.max(int(wp.ceil(covered.y - half)), 0)
            covered.last_row = wp.min(int(wp.floor(covered.y + half)) + 1, height)
            covered.first_column = wp.max(int(wp.ceil(covered.x - half)), 0)
            covered.last_column = wp.min(int(wp.floor(covered.x + half)) + 1, width)
    return covered


@wp.kernel
def _nearest_depth_kernel(
    depths: wp.array3d(dtype=wp.float32),  # [V, H, W], 0 = no point
    linear: wp.array2d(dtype=wp.mat33d),  # [T, V]
    offset: wp.array2d(dtype=wp.vec3d),  # [T, V]
    magnification: wp.array2d(dtype=wp.float32),  # [T, V]
    largest: float,
    pixel_centre: float,
    run: int,  # columns per thread
    first_target: int,
    nearest: wp.array3d(dtype=wp.float32),  # [T, H', W'], starts at inf
):
    n, v, i, block = wp.tid()
    t = first_target + n
    row = _row(linear[t, v], offset[t, v], float(i) + pixel_centre)
    for j in range(block * run, wp.min(block * run + run, depths.shape[2])):
        depth = depths[v, i, j]
        if depth > 0.0:
            at = _footprint(
                row, i, j, pixel_centre, depth, magnification[t, v], largest, nearest.shape[1], nearest.shape[2]
            )
            for to_y in range(at.first_row, at.last_row):
                for to_x in range(at.first_column, at.last_column):
                    wp.atomic_min(nearest, t, to_y, to_x, at.z)


@wp.kernel
def _winner_kernel(
    depths: wp.array3d(dtype=wp.float32),
    linear: wp.array2d(dtype=wp.mat33d),
    offset: wp.array2d(dtype=wp.vec3d),
    magnification: wp.array2d(dtype=wp.float32),
    largest: float,
    pixel_centre: float,
    run: int,
    first_target: int,
    tolerance: float,
    nearest: wp.array3d(dtype=wp.float32),  # [T, H', W']
    winners: wp.array3d(dtype=wp.int64),  # [n, H', W'], starts at NO_WINNER: source, squared distance, pixel
):
    n, v, i, block = wp.tid()
    t = first_target + n
    row = _row(linear[t, v], offset[t, v], float(i) + pixel_centre)
    for j in range(block * run, wp.min(block * run + run, depths.shape[2])):
        depth = depths[v, i, j]
        if depth > 0.0:
            at = _footprint(
                row, i, j, pixel_centre, depth, magnification[t, v], largest, nearest.shape[1], nearest.shape[2]
            )
            for to_y in range(at.first_row, at.last_row):
                for to_x in range(at.first_column, at.last_column):
                    if at.z <= nearest[t, to_y, to_x] * (1.0 + tolerance):
                        off_x = at.x - float(to_x)
                        off_y = at.y - float(to_y)
                        distance = wp.int64((off_x * off_x + off_y * off_y) * 4096.0)
                        pixel = wp.int64(i * depths.shape[2] + j)
                        key = (wp.int64(v) << wp.int64(51)) | (distance << wp.int64(31)) | pixel
                        wp.atomic_min(winners, n, to_y, to_x, key)


@wp.kernel
def _gather_kernel(
    depths: wp.array3d(dtype=wp.float32),
    linear: wp.array2d(dtype=wp.mat33d),
    offset: wp.array2d(dtype=wp.vec3d),
    pixel_centre: float,
    values: wp.array4d(dtype=wp.float32),  # [V, C, H, W]
    background: float,
    run: int,
    first_target: int,
    winners: wp.array3d(dtype=wp.int64),  # [n, H', W'], reset for the next target
    splatted: wp.array4d(dtype=wp.float32),  # [T, C, H', W']
    nearest: wp.array3d(dtype=wp.float32),  # [T, H', W'], becomes the winner's depth, 0 where none
    source: wp.array3d(dtype=wp.int32),  # [T, H', W']
):
    n, to_y, block = wp.tid()
    t = first_target + n
    width = depths.shape[2]
    for to_x in range(block * run, wp.min(block * run + run, nearest.shape[2])):
        key = winners[n, to_y, to_x]
        winners[n, to_y, to_x] = wp.int64(NO_WINNER)
        v = int(-1)
        z = float(0.0)
        if key != wp.int64(NO_WINNER):
            v = int(key >> wp.int64(51))
            pixel = int(key & wp.int64(2147483647))
            i = pixel / width
            j = pixel - i * width
            row = _row(linear[t, v], offset[t, v], float(i) + pixel_centre)
            z = _land(row, float(j) + pixel_centre, depths[v, i, j])[2]
            for c in range(values.shape[1]):
                splatted[t, c, to_y, to_x] = values[v, c, i, j]
        else:
            for c in range(values.shape[1]):
                splatted[t, c, to_y, to_x] = background
        nearest[t, to_y, to_x] = z
        source[t, to_y, to_x] = v


def splat_nearest(
    values: Tensor,  # [V, C, H, W], C may be 0
    depths: Tensor,  # [V, H, W]
    maps: tuple[Tensor, Tensor],  # pixel_maps of the targets
    size: tuple[int, int],  # H', W' of the targets
    *,
    magnification: Tensor,  # [T, V] target focal length over source focal length
    pixel_centre: float = 0.5,
    background: float = 0.0,  # value where nothing lands
    tolerance: float = 0.02,  # relative depth up to which two points are one surface
    overlap: float = 1.3,  # footprints are this much wider than a source pixel, so turned grids leave no cracks
    largest: float = 4.0,  # widest footprint in target pixels, at most 16
) -> tuple[Tensor, Tensor, Tensor]:
    """-> values [T, C, H', W'], depth [T, H', W'] (0 where nothing lands) and the source index [T, H', W'] (-1: none).

    The nearest surface wins; among points of that surface the earliest source, then the point nearest to the pixel,
    then the first one: the result is the same on every run and device up to rounding of the projection.
    """
    depths = _points_only(depths)
    targets = len(maps[0])
    splatted = depths.new_empty(targets, values.shape[1], *size)
    nearest = depths.new_full((targets, *size), torch.inf)
    source = torch.empty_like(nearest, dtype=torch.int32)
    pixels = wp.from_torch(values.float().contiguous())
    points = _points(depths, maps)
    spread = [wp.from_torch((overlap * magnification).float().contiguous()), largest, pixel_centre]
    results = [wp.from_torch(output) for output in (splatted, nearest, source)]
    device, (run, at_once) = device_of(depths), _shape_of_launch(depths)
    _winner_kernel.module.load(device)

    def launch(first: int, count: int) -> None:
        scratch = torch.full((min(at_once, count), *size), NO_WINNER, dtype=torch.int64, device=depths.device)
        winners = wp.from_torch(scratch)
        for start in range(first, first + count, at_once):
            n = min(at_once, first + count - start)
            dim, splat = _dim(n, depths, run), [*points, *spread, run, start]
            gather = [*points, pixel_centre, pixels, background, run, start, winners, *results]
            wp.launch(_nearest_depth_kernel, dim, [*splat, results[1]], device=device)
            wp.launch(_winner_kernel, dim, [*splat, tolerance, results[1], winners], device=device)
            wp.launch(_gather_kernel, (n, size[0], -(-size[1] // run)), gather, device=device)

    parallel_over_first_axis(launch, targets, depths.device)
    return splatted, nearest, source
