"""Forward splatting into a hard z-buffer: a point covers the pixels that its source pixel covers, the nearest wins.

A point may stand for the facet of surface that its neighbours span; then depth is that of the facet in each pixel,
which keeps slanted surfaces smooth where depth is carried from frame to frame. The result does not hang on the order of
threads. The module knows nothing of camera objects.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis
from photowalk.kernels.splatting import Row, land, point_arrays, points_only, shape_of_launch, source_row, splat_dim

wp.set_module_options({"enable_backward": False})

NO_WINNER = wp.constant(2**63 - 1)
STEEPEST = wp.constant(0.06)  # relative change of inverse depth per pixel above which neighbours are no facet


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
    landed = land(row, float(j) + pixel_centre, depth)
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
    row = source_row(linear[t, v], offset[t, v], float(i) + pixel_centre)
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
    row = source_row(linear[t, v], offset[t, v], float(i) + pixel_centre)
    for j in range(block * run, wp.min(block * run + run, depths.shape[2])):
        depth = depths[v, i, j]
        if depth > 0.0:
            at = _footprint(
                row, i, j, pixel_centre, depth, magnification[t, v], largest, nearest.shape[1], nearest.shape[2]
            )
            for to_y in range(at.first_row, at.last_row):
                for to_x in range(at.first_column, at.last_column):
                    front = nearest[t, to_y, to_x]
                    if at.z <= front + tolerance * wp.max(front, depth):
                        off_x = at.x - float(to_x)
                        off_y = at.y - float(to_y)
                        distance = wp.int64((off_x * off_x + off_y * off_y) * 4096.0)
                        pixel = wp.int64(i * depths.shape[2] + j)
                        key = (wp.int64(v) << wp.int64(51)) | (distance << wp.int64(31)) | pixel
                        wp.atomic_min(winners, n, to_y, to_x, key)


@wp.func
def _slope(before: float, here: float, after: float) -> wp.float64:
    """Change of inverse depth from pixel to pixel, on the flatter side; 0 where both sides are steep or unknown."""
    inverse = 1.0 / here
    slope = float(0.0)
    flattest = STEEPEST * inverse
    if before > 0.0 and wp.abs(inverse - 1.0 / before) < flattest:
        slope = inverse - 1.0 / before
        flattest = wp.abs(slope)
    if after > 0.0 and wp.abs(1.0 / after - inverse) < flattest:
        slope = 1.0 / after - inverse
    return wp.float64(slope)


@wp.func
def _facet_depth(
    depths: wp.array3d(dtype=wp.float32),
    v: int,
    i: int,
    j: int,
    carry: wp.mat33d,  # planes of the source's homogeneous pixels to the target's: inverse transpose of `linear`
    offset: wp.vec3d,
    x: float,  # of the target pixel's centre
    y: float,
    pixel_centre: float,
    depth: float,
) -> float:
    """z where the ray of a target pixel (x, y) meets the facet of source pixel (i, j), whose point is at z = `depth`.

    Inverse depth is linear in the pixel on a plane: m . d (column, row, 1) = 1 for all its points, d their depths; and
    linear d (column, row, 1) = z (x, y, 1) - offset.
    """
    here = depths[v, i, j]
    left, right = float(0.0), float(0.0)
    above, below = float(0.0), float(0.0)
    if j > 0:
        left = depths[v, i, j - 1]
    if j + 1 < depths.shape[2]:
        right = depths[v, i, j + 1]
    if i > 0:
        above = depths[v, i - 1, j]
    if i + 1 < depths.shape[1]:
        below = depths[v, i + 1, j]
    across, down = _slope(left, here, right), _slope(above, here, below)
    column, row = wp.float64(float(j) + pixel_centre), wp.float64(float(i) + pixel_centre)
    plane = wp.vec3d(across, down, wp.float64(1.0) / wp.float64(here) - across * column - down * row)
    seen = carry * plane
    behind = wp.float64(1.0) + seen[0] * offset[0] + seen[1] * offset[1] + seen[2] * offset[2]
    z = behind / (seen[0] * wp.float64(x) + seen[1] * wp.float64(y) + seen[2])
    moved = wp.abs(z - wp.float64(depth))  # not a number, or large, where the ray passes along the facet
    if z > wp.float64(0.0) and moved < wp.float64(STEEPEST * wp.max(depth, here)):
        return float(z)
    return depth


@wp.kernel
def _gather_kernel(
    depths: wp.array3d(dtype=wp.float32),
    linear: wp.array2d(dtype=wp.mat33d),
    offset: wp.array2d(dtype=wp.vec3d),
    carry: wp.array2d(dtype=wp.mat33d),  # inverse transposes of `linear`; empty: points are no facets
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
            row = source_row(linear[t, v], offset[t, v], float(i) + pixel_centre)
            z = land(row, float(j) + pixel_centre, depths[v, i, j])[2]
            if carry.shape[0] > 0:
                x, y = float(to_x) + pixel_centre, float(to_y) + pixel_centre
                z = _facet_depth(depths, v, i, j, carry[t, v], offset[t, v], x, y, pixel_centre, z)
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
    tolerance: float = 0.02,  # up to which two points are one surface, of their depth in the target or in the source
    overlap: float = 1.3,  # footprints are this much wider than a source pixel, so turned grids leave no cracks
    largest: float = 16.0,  # widest footprint in target pixels, at most 16: nearer than that, a surface has holes
    facets: bool = False,  # depth is that of the surface around the winning point, not of the point
) -> tuple[Tensor, Tensor, Tensor]:
    """-> values [T, C, H', W'], depth [T, H', W'] (0 where nothing lands) and the source index [T, H', W'] (-1: none).

    The nearest surface wins; among points of that surface the earliest source, then the point nearest to the pixel,
    then the first one: the result is the same on every run and device up to rounding of the projection.
    """
    depths = points_only(depths)
    targets = len(maps[0])
    splatted = depths.new_empty(targets, values.shape[1], *size)
    nearest = depths.new_full((targets, *size), torch.inf)
    source = torch.empty_like(nearest, dtype=torch.int32)
    pixels = wp.from_torch(values.float().contiguous())
    points = point_arrays(depths, maps)
    planes = torch.linalg.inv(maps[0]).mT.contiguous() if facets else maps[0][:0]
    carry = wp.from_torch(planes, dtype=wp.mat33d)
    spread = [wp.from_torch((overlap * magnification).float().contiguous()), largest, pixel_centre]
    results = [wp.from_torch(output) for output in (splatted, nearest, source)]
    device, (run, at_once) = device_of(depths), shape_of_launch(depths)
    load_kernel(_winner_kernel, device)

    def launch(first: int, count: int) -> None:
        scratch = torch.full((min(at_once, count), *size), NO_WINNER, dtype=torch.int64, device=depths.device)
        winners = wp.from_torch(scratch)
        for start in range(first, first + count, at_once):
            n = min(at_once, first + count - start)
            dim, splat = splat_dim(n, depths, run), [*points, *spread, run, start]
            gather = [*points, carry, pixel_centre, pixels, background, run, start, winners, *results]
            wp.launch(_nearest_depth_kernel, dim, [*splat, results[1]], device=device)
            wp.launch(_winner_kernel, dim, [*splat, tolerance, results[1], winners], device=device)
            wp.launch(_gather_kernel, (n, size[0], -(-size[1] // run)), gather, device=device)

    parallel_over_first_axis(launch, targets, depths.device)
    return splatted, nearest, source
