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

_ALPHA_MAXIMUM = wp.constant(ALPHA_MAXIMUM)
_TRANSMITTANCE_MINIMUM = wp.constant(TRANSMITTANCE_MINIMUM)
_Ellipse = wp.types.vector(length=8, dtype=wp.float32)  # centre x, y; conic a / 2, b, c / 2; opacity; reach; nothing
_EllipseGradient = wp.types.vector(length=6, dtype=wp.float32)  # by centre x, y; conic a, b, c; opacity


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
        ellipses, features = _ellipses(centres, conics, opacities), features.detach().contiguous()
        size, device = (tiles.height, tiles.width), centres.device
        blended = torch.empty(*size, 4, device=device)
        transmittance, median = torch.empty(size, device=device), torch.empty(size, device=device)
        last = torch.empty(size, dtype=torch.int32, device=device)
        inputs = [wp.from_torch(ellipses, dtype=_Ellipse), wp.from_torch(features, dtype=wp.vec4)]
        outputs = [wp.from_torch(blended, dtype=wp.vec4), *map(wp.from_torch, (transmittance, median, last))]
        _launch(_forward, [*inputs, *outputs], tiles, device)
        ctx.save_for_backward(ellipses, features, transmittance.detach().clone(), last)
        ctx.tiles = tiles
        ctx.mark_non_differentiable(median)
        return blended, transmittance, median

    @staticmethod
    def backward(ctx, grad_blended, grad_transmittance, _):
        ellipses, features, transmittance, last = ctx.saved_tensors
        tiles, device = ctx.tiles, last.device
        # One row per (tile, Gaussian) pair: tiles share none, so threads need no atomics and sums repeat.
        by_ellipse, by_feature = (torch.zeros(len(tiles.splats), width, device=device) for width in (6, 4))
        inputs = [wp.from_torch(ellipses, dtype=_Ellipse), wp.from_torch(features, dtype=wp.vec4)]
        inputs += [wp.from_torch(transmittance), wp.from_torch(last)]
        inputs += [wp.from_torch(grad_blended.contiguous(), dtype=wp.vec4)]
        inputs += [wp.from_torch(grad_transmittance.contiguous())]
        outputs = [wp.from_torch(by_ellipse, dtype=_EllipseGradient), wp.from_torch(by_feature, dtype=wp.vec4)]
        _launch(_backward, [*inputs, *outputs], tiles, device)
        by_centre, by_conic, by_opacity = _summed(by_ellipse, tiles, len(ellipses)).split([2, 3, 1], dim=1)
        return by_centre, by_conic, by_opacity.squeeze(1), _summed(by_feature, tiles, len(ellipses)), None


def share_out(centres: Tensor, conics: Tensor, opacities: Tensor, values: Tensor, tiles: Tiles) -> Tensor:
    """values [H, W, 4] -> [M, 4] = for each Gaussian the sum over pixels of alpha_i T_i value: what `composite` gives
    back to features, without its derivative by places and shapes."""
    ellipses = wp.from_torch(_ellipses(centres, conics, opacities), dtype=_Ellipse)
    pairs = torch.zeros(len(tiles.splats), 4, device=centres.device)
    outputs = [wp.from_torch(values.contiguous(), dtype=wp.vec4), wp.from_torch(pairs, dtype=wp.vec4)]
    _launch(_share_out, [ellipses, *outputs], tiles, centres.device)
    return _summed(pairs, tiles, len(centres))


@torch.no_grad()
def _ellipses(centres: Tensor, conics: Tensor, opacities: Tensor) -> Tensor:
    """[M, 8] all that a pixel asks of a Gaussian side by side, and how far it reaches: up to where its fall-off leaves
    less than ALPHA_MINIMUM of its opacity."""
    a, b, c = conics.unbind(1)
    reach = torch.log(opacities / ALPHA_MINIMUM)
    return torch.stack([*centres.unbind(1), a / 2, b, c / 2, opacities, reach, torch.zeros_like(reach)], dim=1)


def _summed(pairs: Tensor, tiles: Tiles, count: int) -> Tensor:
    """[count, C] of the Gaussians from [P, C] of each in each of its tiles."""
    return torch.zeros(count, pairs.shape[1], device=pairs.device).index_add_(0, tiles.splats.long(), pairs)


def _launch(kernel: wp.Kernel, arguments: list, tiles: Tiles, device: torch.device) -> None:
    pixels = tiles.side * tiles.side
    listed = [wp.from_torch(tiles.splats), wp.from_torch(tiles.first), tiles.side, tiles.columns]

    def launch(first: int, count: int) -> None:
        inputs = [first, *listed, *arguments]
        wp.launch(kernel, dim=count * pixels, inputs=inputs, device=wp.device_from_torch(device), block_dim=pixels)

    parallel_over_first_axis(launch, len(tiles.first) - 1, device)


@wp.func
def _row_and_column(tile: int, pixel: int, side: int, columns: int):
    return (tile / columns) * side + pixel / side, (tile % columns) * side + pixel % side


@wp.func
def _fall_off(ellipse: _Ellipse, dx: float, dy: float) -> float:
    return ellipse[2] * dx * dx + ellipse[3] * dx * dy + ellipse[4] * dy * dy


@wp.func
def _reached(fall_off: float, ellipse: _Ellipse) -> bool:
    """Whether a Gaussian takes enough of the light at a place to be looked at."""
    return fall_off >= 0.0 and fall_off < ellipse[6]


@wp.func
def _alpha(ellipse: _Ellipse, fall_off: float) -> float:
    """What a Gaussian takes of the light where it reaches."""
    return wp.min(ellipse[5] * wp.exp(-fall_off), _ALPHA_MAXIMUM)


@wp.kernel
def _forward(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    ellipses: wp.array(dtype=_Ellipse),
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
        ellipse = ellipses[splat]
        fall_off = _fall_off(ellipse, x - ellipse[0], y - ellipse[1])
        if _reached(fall_off, ellipse):
            alpha = _alpha(ellipse, fall_off)
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
    ellipses: wp.array(dtype=_Ellipse),
    features: wp.array(dtype=wp.vec4),
    transmittance: wp.array2d(dtype=wp.float32),
    last: wp.array2d(dtype=wp.int32),
    grad_blended: wp.array2d(dtype=wp.vec4),
    grad_transmittance: wp.array2d(dtype=wp.float32),
    grad_ellipses: wp.array(dtype=_EllipseGradient),
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
        ellipse = ellipses[splat]
        dx = x - ellipse[0]
        dy = y - ellipse[1]
        fall_off = _fall_off(ellipse, dx, dy)
        if _reached(fall_off, ellipse):
            alpha = _alpha(ellipse, fall_off)
            light = light / (1.0 - alpha)
            along = wp.dot(gradient, features[splat])
            wp.atomic_add(grad_features, pair, (alpha * light) * gradient)
            if alpha < _ALPHA_MAXIMUM:  # a clamped alpha does not move
                by_alpha = light * along - (behind + from_left_over) / (1.0 - alpha)
                by_fall_off = -by_alpha * alpha
                moved = _EllipseGradient(
                    -by_fall_off * (2.0 * ellipse[2] * dx + ellipse[3] * dy),
                    -by_fall_off * (ellipse[3] * dx + 2.0 * ellipse[4] * dy),
                    by_fall_off * 0.5 * dx * dx,
                    by_fall_off * dx * dy,
                    by_fall_off * 0.5 * dy * dy,
                    by_alpha * alpha / ellipse[5],
                )
                wp.atomic_add(grad_ellipses, pair, moved)
            behind += alpha * light * along
        pair -= 1


@wp.kernel
def _share_out(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    ellipses: wp.array(dtype=_Ellipse),
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
        ellipse = ellipses[splats[pair]]
        fall_off = _fall_off(ellipse, x - ellipse[0], y - ellipse[1])
        if _reached(fall_off, ellipse):
            alpha = _alpha(ellipse, fall_off)
            remaining = light * (1.0 - alpha)
            if remaining < _TRANSMITTANCE_MINIMUM:
                break
            wp.atomic_add(shares, pair, (alpha * light) * value)
            light = remaining
