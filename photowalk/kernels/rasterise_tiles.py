"""Front-to-back compositing of projected Gaussians, tile by tile, and its exact derivative.

The kernels know screen-space ellipses and four features each; they know nothing of cameras, rotations or harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

ALPHA_MINIMUM = 1 / 255  # fainter contributions are skipped, so that every Gaussian has a bounded footprint
ALPHA_MAXIMUM = 0.999  # keeps 1 - alpha, by which the backward pass divides, away from zero
TRANSMITTANCE_MINIMUM = 1e-4  # what lies behind this little light is not looked at

_ALPHA_MINIMUM = wp.constant(ALPHA_MINIMUM)
_ALPHA_MAXIMUM = wp.constant(ALPHA_MAXIMUM)
_TRANSMITTANCE_MINIMUM = wp.constant(TRANSMITTANCE_MINIMUM)


@dataclass(frozen=True)
class Tiles:
    """Which Gaussians touch which square of the image, nearest first within each."""

    splats: Tensor  # [P] int32: Gaussian of each (tile, Gaussian) pair
    first: Tensor  # [tiles + 1] int32: the pairs of tile t are first[t] .. first[t + 1]
    side: int  # pixels
    columns: int  # tiles in a row of the image
    height: int
    width: int


def composite(centres: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, tiles: Tiles) -> tuple[Tensor, ...]:
    """Blend Gaussians over each other, nearest first.

    centres [M, 2] pixels; conics [M, 3] = (a, b, c) of the inverse covariance [[a, b], [b, c]] in 1/pixel^2;
    opacities [M]; features [M, 4], of which the last is the depth -> features [H, W, 4] = sum of alpha_i T_i f_i,
    transmittance [H, W] = what is left of the light, and the depth [H, W] at which half of it was gone (0 if never;
    not differentiable). Differentiable in the first four arguments.
    """
    return _Composite.apply(centres, conics, opacities, features, tiles)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, centres, conics, opacities, features, tiles):
        inputs = [value.detach().contiguous() for value in (centres, conics, opacities, features)]
        size, device = (tiles.height, tiles.width), centres.device
        blended = torch.empty(*size, 4, device=device)
        transmittance, median = torch.empty(size, device=device), torch.empty(size, device=device)
        last = torch.empty(size, dtype=torch.int32, device=device)
        arguments = _warp_arguments(inputs, tiles)
        outputs = [
            wp.from_torch(blended, dtype=wp.vec4),
            wp.from_torch(transmittance),
            wp.from_torch(median),
            wp.from_torch(last),
        ]
        _launch(_forward, [*arguments, *outputs], tiles, device)
        ctx.save_for_backward(*inputs, transmittance.detach().clone(), last)
        ctx.tiles = tiles
        ctx.mark_non_differentiable(median)
        return blended, transmittance, median

    @staticmethod
    def backward(ctx, grad_blended, grad_transmittance, _):
        *inputs, transmittance, last = ctx.saved_tensors
        tiles = ctx.tiles
        # One row per (tile, Gaussian) pair: tiles share none, so threads need no atomics and sums repeat.
        pairs = [torch.zeros(len(tiles.splats), width, device=last.device) for width in (2, 3, 1, 4)]
        gradients = [wp.from_torch(grad_blended.contiguous(), dtype=wp.vec4)]
        gradients += [wp.from_torch(grad_transmittance.contiguous())]
        outputs = [
            wp.from_torch(pairs[0], dtype=wp.vec2),
            wp.from_torch(pairs[1], dtype=wp.vec3),
            wp.from_torch(pairs[2].view(-1)),
            wp.from_torch(pairs[3], dtype=wp.vec4),
        ]
        arguments = [*_warp_arguments(inputs, tiles), wp.from_torch(transmittance), wp.from_torch(last)]
        _launch(_backward, [*arguments, *gradients, *outputs], tiles, last.device)
        sums = [_summed(pair, tiles, len(inputs[0])) for pair in pairs]
        return sums[0], sums[1], sums[2].squeeze(1), sums[3], None


def share_out(centres: Tensor, conics: Tensor, opacities: Tensor, values: Tensor, tiles: Tiles) -> Tensor:
    """values [H, W, 4] -> [M, 4] = for each Gaussian the sum over pixels of alpha_i T_i value: what `composite` gives
    back to features, without its derivative by places and shapes."""
    inputs = [value.detach().contiguous() for value in (centres, conics, opacities)]
    pairs = torch.zeros(len(tiles.splats), 4, device=centres.device)
    outputs = [wp.from_torch(values.contiguous(), dtype=wp.vec4), wp.from_torch(pairs, dtype=wp.vec4)]
    _launch(_share_out, [*_warp_arguments(inputs, tiles), *outputs], tiles, centres.device)
    return _summed(pairs, tiles, len(centres))


def _summed(pairs: Tensor, tiles: Tiles, count: int) -> Tensor:
    """[count, C] of the Gaussians from [P, C] of each in each of its tiles."""
    return torch.zeros(count, pairs.shape[1], device=pairs.device).index_add_(0, tiles.splats.long(), pairs)


def _warp_arguments(inputs: list[Tensor], tiles: Tiles) -> list:
    """Tiles, centres, conics, opacities and features, if there are any."""
    types = (wp.vec2, wp.vec3, wp.float32, wp.vec4)
    listed = [wp.from_torch(tiles.splats), wp.from_torch(tiles.first), tiles.side, tiles.columns]
    return [*listed, *(wp.from_torch(value, dtype=kind) for value, kind in zip(inputs, types))]


def _launch(kernel: wp.Kernel, arguments: list, tiles: Tiles, device: torch.device) -> None:
    pixels = tiles.side * tiles.side

    def launch(first: int, count: int) -> None:
        inputs = [first, *arguments]
        wp.launch(kernel, dim=count * pixels, inputs=inputs, device=wp.device_from_torch(device), block_dim=pixels)

    parallel_over_first_axis(launch, len(tiles.first) - 1, device)


@wp.func
def _row_and_column(tile: int, pixel: int, side: int, columns: int):
    return (tile / columns) * side + pixel / side, (tile % columns) * side + pixel % side


@wp.func
def _fall_off(conic: wp.vec3, dx: float, dy: float) -> float:
    return 0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) + conic[1] * dx * dy


@wp.func
def _alpha(centre: wp.vec2, conic: wp.vec3, opacity: float, x: float, y: float) -> float:
    """What a Gaussian takes of the light at a place; 0 where that is too little to be looked at."""
    q = _fall_off(conic, x - centre[0], y - centre[1])
    if q >= 0.0 and q < 6.0:  # beyond 6 even an opaque Gaussian is below ALPHA_MINIMUM
        alpha = wp.min(opacity * wp.exp(-q), _ALPHA_MAXIMUM)
        if alpha >= _ALPHA_MINIMUM:
            return alpha
    return 0.0


@wp.kernel
def _forward(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    centres: wp.array(dtype=wp.vec2),
    conics: wp.array(dtype=wp.vec3),
    opacities: wp.array(dtype=wp.float32),
    features: wp.array(dtype=wp.vec4),
    blended: wp.array2d(dtype=wp.vec4),
    transmittance: wp.array2d(dtype=wp.float32),
    median: wp.array2d(dtype=wp.float32),
    last: wp.array2d(dtype=wp.int32),
):
    thread = wp.tid()
    tile = first_tile + thread / (side * side)
    i, j = _row_and_column(tile, thread % (side * side), side, columns)
    if i >= transmittance.shape[0] or j >= transmittance.shape[1]:
        return
    x = float(j) + 0.5
    y = float(i) + 0.5
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    light = wp.float32(1.0)
    half_way = wp.float32(0.0)
    stop = first[tile]
    for pair in range(first[tile], first[tile + 1]):
        splat = splats[pair]
        alpha = _alpha(centres[splat], conics[splat], opacities[splat], x, y)
        if alpha > 0.0:
            remaining = light * (1.0 - alpha)
            if remaining < _TRANSMITTANCE_MINIMUM:
                break
            feature = features[splat]
            total += (alpha * light) * feature
            if light > 0.5 and remaining <= 0.5:
                half_way = feature[3]
            light = remaining
            stop = pair + 1
    blended[i, j] = total
    transmittance[i, j] = light
    median[i, j] = half_way
    last[i, j] = stop


@wp.kernel
def _backward(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    centres: wp.array(dtype=wp.vec2),
    conics: wp.array(dtype=wp.vec3),
    opacities: wp.array(dtype=wp.float32),
    features: wp.array(dtype=wp.vec4),
    transmittance: wp.array2d(dtype=wp.float32),
    last: wp.array2d(dtype=wp.int32),
    grad_blended: wp.array2d(dtype=wp.vec4),
    grad_transmittance: wp.array2d(dtype=wp.float32),
    grad_centres: wp.array(dtype=wp.vec2),
    grad_conics: wp.array(dtype=wp.vec3),
    grad_opacities: wp.array(dtype=wp.float32),
    grad_features: wp.array(dtype=wp.vec4),
):
    thread = wp.tid()
    tile = first_tile + thread / (side * side)
    i, j = _row_and_column(tile, thread % (side * side), side, columns)
    if i >= transmittance.shape[0] or j >= transmittance.shape[1]:
        return
    x = float(j) + 0.5
    y = float(i) + 0.5
    gradient = grad_blended[i, j]
    left_over = transmittance[i, j]
    from_left_over = grad_transmittance[i, j] * left_over
    light = wp.float32(
        left_over
    )  # in front of the current Gaussian, recovered while walking from the last to the first
    behind = wp.float32(0.0)  # gradient . (what the Gaussians behind contribute)
    pair = last[i, j] - 1
    while pair >= first[tile]:
        splat = splats[pair]
        centre = centres[splat]
        conic = conics[splat]
        dx = x - centre[0]
        dy = y - centre[1]
        q = _fall_off(conic, dx, dy)
        if q >= 0.0 and q < 6.0:
            weight = wp.exp(-q)
            opacity = opacities[splat]
            alpha = wp.min(opacity * weight, _ALPHA_MAXIMUM)
            if alpha >= _ALPHA_MINIMUM:
                light = light / (1.0 - alpha)
                along = wp.dot(gradient, features[splat])
                wp.atomic_add(grad_features, pair, (alpha * light) * gradient)
                if opacity * weight < _ALPHA_MAXIMUM:  # a clamped alpha does not move
                    by_alpha = light * along - (behind + from_left_over) / (1.0 - alpha)
                    by_q = -by_alpha * alpha
                    wp.atomic_add(grad_opacities, pair, by_alpha * weight)
                    wp.atomic_add(grad_conics, pair, by_q * wp.vec3(0.5 * dx * dx, dx * dy, 0.5 * dy * dy))
                    slope = wp.vec2(conic[0] * dx + conic[1] * dy, conic[1] * dx + conic[2] * dy)
                    wp.atomic_add(grad_centres, pair, -by_q * slope)
                behind += alpha * light * along
        pair -= 1


@wp.kernel
def _share_out(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    centres: wp.array(dtype=wp.vec2),
    conics: wp.array(dtype=wp.vec3),
    opacities: wp.array(dtype=wp.float32),
    values: wp.array2d(dtype=wp.vec4),
    shares: wp.array(dtype=wp.vec4),
):
    thread = wp.tid()
    tile = first_tile + thread / (side * side)
    i, j = _row_and_column(tile, thread % (side * side), side, columns)
    if i >= values.shape[0] or j >= values.shape[1]:
        return
    x = float(j) + 0.5
    y = float(i) + 0.5
    value = values[i, j]
    light = wp.float32(1.0)
    for pair in range(first[tile], first[tile + 1]):
        splat = splats[pair]
        alpha = _alpha(centres[splat], conics[splat], opacities[splat], x, y)
        if alpha > 0.0:
            remaining = light * (1.0 - alpha)
            if remaining < _TRANSMITTANCE_MINIMUM:
                break
            wp.atomic_add(shares, pair, (alpha * light) * value)
            light = remaining
