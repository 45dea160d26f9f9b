"""Forward splatting by the published soft rule (softmax splatting, Niklaus and Liu, CVPR 2020).

Every point is shared among the four pixels around it, weighted down exponentially by its depth. The softness depends on
the farthest point of a whole group of targets. Points go to their target by way of the world, each step rounded to
float32 in the published order, without fused multiplications: where only the rim of a point touches a pixel, the last
bit of where it lands decides what the pixel shows. The module knows nothing of camera objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis
from photowalk.kernels.splatting import points_only, shape_of_launch, splat_dim

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

OCCLUSION_SHARPNESS = wp.constant(50.0)  # published: exponent of the depth weight at the farthest point
WEIGHT_EPSILON = 1e-7  # published: keeps depth weights and divisions by z away from zero


@dataclass(frozen=True)
class Steps:
    """The way of a source pixel to a target: to a ray, into the world, into the target's camera, onto its picture."""

    ray_from_pixel: Tensor  # [V, 3, 3]
    world_from_source: Tensor  # [V, 4, 4]
    target_from_world: Tensor  # [T, 4, 4]
    pixel_from_target: Tensor  # [T, 3, 3]

    @classmethod
    def of(
        cls,
        source_from_world: Tensor,  # [V, 4, 4]
        source_intrinsics: Tensor,  # [V, 3, 3]
        target_from_world: Tensor,  # [T, 4, 4]
        target_intrinsics: Tensor,  # [T, 3, 3]
    ) -> Steps:
        """Inverses in float32 by elimination, not by transposing rotations, as published."""
        return cls(
            torch.linalg.inv(source_intrinsics.float()),
            torch.linalg.inv(source_from_world.float()),
            target_from_world.float(),
            target_intrinsics.float(),
        )

    def __getitem__(self, targets: slice | list[int]) -> Steps:
        return Steps(
            self.ray_from_pixel,
            self.world_from_source,
            self.target_from_world[targets],
            self.pixel_from_target[targets],
        )

    def __len__(self) -> int:
        """Number of targets."""
        return len(self.target_from_world)

    def arrays(self) -> list[wp.array]:
        return [
            wp.from_torch(self.ray_from_pixel.contiguous(), dtype=wp.mat33),
            wp.from_torch(self.world_from_source.contiguous(), dtype=wp.mat44),
            wp.from_torch(self.target_from_world.contiguous(), dtype=wp.mat44),
            wp.from_torch(self.pixel_from_target.contiguous(), dtype=wp.mat33),
        ]


@wp.func
def _turned(matrix: wp.mat33, point: wp.vec3) -> wp.vec3:
    return wp.vec3(
        matrix[0, 0] * point[0] + matrix[0, 1] * point[1] + matrix[0, 2] * point[2],
        matrix[1, 0] * point[0] + matrix[1, 1] * point[1] + matrix[1, 2] * point[2],
        matrix[2, 0] * point[0] + matrix[2, 1] * point[1] + matrix[2, 2] * point[2],
    )


@wp.func
def _moved(pose: wp.mat44, point: wp.vec3) -> wp.vec3:
    return wp.vec3(
        pose[0, 0] * point[0] + pose[0, 1] * point[1] + pose[0, 2] * point[2] + pose[0, 3],
        pose[1, 0] * point[0] + pose[1, 1] * point[1] + pose[1, 2] * point[2] + pose[1, 3],
        pose[2, 0] * point[0] + pose[2, 1] * point[1] + pose[2, 2] * point[2] + pose[2, 3],
    )


@wp.func
def _land(
    ray_from_pixel: wp.mat33,
    world_from_source: wp.mat44,
    target_from_world: wp.mat44,
    pixel_from_target: wp.mat33,
    x: float,
    y: float,
    depth: float,
) -> wp.vec3:
    """Homogeneous pixel of the target."""
    ray = _turned(ray_from_pixel, wp.vec3(x, y, 1.0))
    world = _moved(world_from_source, wp.vec3(depth * ray[0], depth * ray[1], depth * ray[2]))
    return _turned(pixel_from_target, _moved(target_from_world, world))


@wp.func
def _log1p(z: float) -> float:
    above = 1.0 + z
    return wp.log(above) + (z - (above - 1.0)) / above  # what the sum lost


@wp.kernel
def _splat_soft_kernel(
    depths: wp.array3d(dtype=wp.float32),  # [V, H, W], 0 = no point
    ray_from_pixel: wp.array(dtype=wp.mat33),  # [V]
    world_from_source: wp.array(dtype=wp.mat44),  # [V]
    target_from_world: wp.array(dtype=wp.mat44),  # [T]
    pixel_from_target: wp.array(dtype=wp.mat33),  # [T]
    softness: wp.array(dtype=wp.float32),  # [T]
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
    row = float(i) + pixel_centre
    to_ray, to_world = ray_from_pixel[v], world_from_source[v]
    to_target, to_pixel = target_from_world[t], pixel_from_target[t]
    for j in range(block * run, wp.min(block * run + run, depths.shape[2])):
        depth = depths[v, i, j]
        if depth > 0.0:
            column = float(j) + pixel_centre
            landed = _land(to_ray, to_world, to_target, to_pixel, column, row, depth)
            z = landed[2]
            x = (landed[0] / (z + 1.0e-7) - column) + float(j) + 1.0  # as published: flow, and a margin of one pixel
            y = (landed[1] / (z + 1.0e-7) - row) + float(i) + 1.0
            if z > 0.0 and x > 0.0 and y > 0.0 and x < float(width + 1) and y < float(height + 1):
                weight = 1.0 / (wp.exp(wp.min(80.0, _log1p(z) / softness[t] * OCCLUSION_SHARPNESS)) + 1.0e-7)
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
def _farthest_kernel(
    depths: wp.array3d(dtype=wp.float32),  # [V, H, W], 0 = no point
    ray_from_pixel: wp.array(dtype=wp.mat33),  # [V]
    world_from_source: wp.array(dtype=wp.mat44),  # [V]
    target_from_world: wp.array(dtype=wp.mat44),  # [T]
    pixel_from_target: wp.array(dtype=wp.mat33),  # [T]
    pixel_centre: float,
    first_target: int,
    farthest: wp.array(dtype=wp.float32),  # [T], starts at 0
):
    n, v, i = wp.tid()
    t = first_target + n
    largest = float(0.0)
    row = float(i) + pixel_centre
    to_ray, to_world = ray_from_pixel[v], world_from_source[v]
    to_target, to_pixel = target_from_world[t], pixel_from_target[t]
    for j in range(depths.shape[2]):
        depth = depths[v, i, j]
        if depth > 0.0:
            landed = _land(to_ray, to_world, to_target, to_pixel, float(j) + pixel_centre, row, depth)
            largest = wp.max(largest, landed[2])
    wp.atomic_max(farthest, t, largest)


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


def group_softness(
    depths: Tensor,  # [V, H, W]
    steps: Steps,  # to all targets
    *,
    pixel_centre: float,
    group: int,
    invalid_at_origin: bool = False,  # points without depth count at the world's origin
) -> Tensor:
    """[T] the softness of the soft rule: max log1p(z) over all points in `group` consecutive targets."""
    depths = points_only(depths)
    farthest = _farthest(depths, steps, pixel_centre)
    if invalid_at_origin and bool((depths == 0).any()):
        farthest = farthest.maximum(steps.target_from_world[:, 2, 3])
    return _group_maximum(torch.log1p(farthest), group) + WEIGHT_EPSILON


def splat_soft(
    values: Tensor,  # [V, C, H, W]
    depths: Tensor,  # [V, H, W]
    steps: Steps,
    size: tuple[int, int],  # H', W' of the targets
    *,
    softness: Tensor,  # [T], see group_softness
    pixel_centre: float = 0.5,
    background: float = 0.0,  # value where nothing lands; published images: -1
) -> tuple[Tensor, Tensor, Tensor]:
    """-> values [T, C, H', W'], depth [T, H', W'] (0 where nothing lands) and where something lands, bool [T, H', W'].

    A point's share of a pixel is its bilinear weight over (1 + z)^(50 / softness); a point exactly on a row or column
    of pixels counts twice, as published. Sums are in float32; on a GPU their last bits hang on the order of threads.
    """
    depths, targets, channels = points_only(depths), len(steps), values.shape[1]
    splatted = depths.new_empty(targets, channels, *size)
    depth = depths.new_empty(targets, *size)
    known = torch.empty_like(depth, dtype=torch.uint8)
    results = [wp.from_torch(output.flatten(-2)) for output in (splatted, depth, known)]

    def store(start: int, n: int, channel: int, sums: wp.array, run: int) -> None:
        dim, count = (n, -(-sums.shape[1] // run)), min(3, channels - channel)
        inputs = [sums, background, run, start, channel, count, *results]
        wp.launch(_normalise_kernel, dim, inputs, device=sums.device)

    _accumulate(values, depths, steps, size, softness, pixel_centre, store)
    return splatted, depth, known.view(torch.bool)


def soft_depth_range(
    depths: Tensor,  # [V, H, W]
    steps: Steps,
    size: tuple[int, int],
    *,
    softness: Tensor,  # [T]
    pixel_centre: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Least and greatest depth [T] that `splat_soft` would give, pixels where nothing lands being 0."""
    depths = points_only(depths)
    lowest, highest = depths.new_full((len(steps),), torch.inf), depths.new_zeros(len(steps))
    results = [wp.from_torch(lowest), wp.from_torch(highest)]

    def store(start: int, n: int, channel: int, sums: wp.array, run: int) -> None:
        wp.launch(_range_kernel, (n, -(-sums.shape[1] // run)), [sums, run, start, *results], device=sums.device)

    values = depths.new_empty(len(depths), 0, *depths.shape[1:])
    _accumulate(values, depths, steps, size, softness, pixel_centre, store)
    return lowest, highest


def _accumulate(
    values: Tensor,
    depths: Tensor,
    steps: Steps,
    size: tuple[int, int],
    softness: Tensor,
    pixel_centre: float,
    store: Callable[[int, int, int, wp.array, int], None],
) -> None:
    """Sum up target after target, three channels at a time, and let `store` take and clear the sums."""
    targets, channels = len(steps), values.shape[1]
    pixels = wp.from_torch(values.float().contiguous())
    points = [wp.from_torch(depths), *steps.arrays()]
    inputs = [*points, wp.from_torch(softness.float().contiguous()), pixels, pixel_centre, *size]
    device, (run, at_once) = device_of(depths), shape_of_launch(depths)
    load_kernel(_splat_soft_kernel, device)

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


def _farthest(depths: Tensor, steps: Steps, pixel_centre: float) -> Tensor:
    """[T] largest z, at least 0, of any point in each target camera."""
    farthest = depths.new_zeros(len(steps))
    inputs, device = [wp.from_torch(depths), *steps.arrays(), pixel_centre], device_of(depths)
    load_kernel(_farthest_kernel, device)

    def launch(first: int, count: int) -> None:
        dim = (count, *depths.shape[:2])
        wp.launch(_farthest_kernel, dim, [*inputs, first, wp.from_torch(farthest)], device=device)

    parallel_over_first_axis(launch, len(steps), depths.device)
    return farthest


def _group_maximum(per_target: Tensor, group: int) -> Tensor:
    """[T] -> [T], every run of `group` targets replaced by its maximum."""
    return torch.cat([part.amax().expand(len(part)) for part in per_target.split(group)])
