"""Front-to-back compositing of projected Gaussians, tile by tile, and its exact derivative.

The kernels know screen-space ellipses and four features each; they know nothing of cameras, rotations or harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels import rasterise_lanes, rasterise_pixels
from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis
from photowalk.kernels.rasterise_pixels import Ellipse, EllipseGradient

wp.set_module_options({"enable_backward": False})

ALPHA_MINIMUM = 1 / 255  # fainter contributions are skipped, so that every Gaussian has a bounded footprint


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
        inputs = [wp.from_torch(ellipses, dtype=Ellipse), wp.from_torch(features, dtype=wp.vec4)]
        outputs = [wp.from_torch(blended, dtype=wp.vec4), *map(wp.from_torch, (transmittance, median, last))]
        _launch("forward", [*inputs, *outputs], tiles, device)
        ctx.save_for_backward(ellipses, features, transmittance.detach().clone(), last)
        ctx.tiles = tiles
        ctx.mark_non_differentiable(median)
        return blended, transmittance, median

    @staticmethod
    def backward(ctx, grad_blended, grad_transmittance, _):
        ellipses, features, transmittance, last = ctx.saved_tensors
        tiles, device = ctx.tiles, last.device
        # One row per (tile, Gaussian) pair: tiles share none, so none waits for another, and on a CPU sums repeat.
        by_ellipse, by_feature = (torch.zeros(len(tiles.splats), width, device=device) for width in (6, 4))
        inputs = [wp.from_torch(ellipses, dtype=Ellipse), wp.from_torch(features, dtype=wp.vec4)]
        inputs += [wp.from_torch(transmittance), wp.from_torch(last)]
        inputs += [wp.from_torch(grad_blended.contiguous(), dtype=wp.vec4)]
        inputs += [wp.from_torch(grad_transmittance.contiguous())]
        outputs = [wp.from_torch(by_ellipse, dtype=EllipseGradient), wp.from_torch(by_feature, dtype=wp.vec4)]
        _launch("backward", [*inputs, *outputs], tiles, device)
        by_centre, by_conic, by_opacity = _summed(by_ellipse, tiles, len(ellipses)).split([2, 3, 1], dim=1)
        return by_centre, by_conic, by_opacity.squeeze(1), _summed(by_feature, tiles, len(ellipses)), None


def share_out(centres: Tensor, conics: Tensor, opacities: Tensor, values: Tensor, tiles: Tiles) -> Tensor:
    """values [H, W, 4] -> [M, 4] = for each Gaussian the sum over pixels of alpha_i T_i value: what `composite` gives
    back to features, without its derivative by places and shapes."""
    ellipses = wp.from_torch(_ellipses(centres, conics, opacities), dtype=Ellipse)
    pairs = torch.zeros(len(tiles.splats), 4, device=centres.device)
    outputs = [wp.from_torch(values.contiguous(), dtype=wp.vec4), wp.from_torch(pairs, dtype=wp.vec4)]
    _launch("share_out", [ellipses, *outputs], tiles, centres.device)
    return _summed(pairs, tiles, len(centres))


def _ellipses(centres: Tensor, conics: Tensor, opacities: Tensor) -> Tensor:
    """[M, 8] all that a pixel asks of a Gaussian side by side, and how far it reaches: up to where its fall-off leaves
    less than ALPHA_MINIMUM of its opacity."""
    centres, conics, opacities = (value.detach().float().contiguous() for value in (centres, conics, opacities))
    packed = torch.empty(len(centres), 8, device=centres.device)
    given = [wp.from_torch(centres, dtype=wp.vec2), wp.from_torch(conics, dtype=wp.vec3), wp.from_torch(opacities)]
    made, device = wp.from_torch(packed, dtype=Ellipse), device_of(centres)
    load_kernel(_pack, device)

    def launch(first: int, count: int) -> None:
        wp.launch(_pack, count, [first, *given, ALPHA_MINIMUM, made], device=device)

    parallel_over_first_axis(launch, len(centres), centres.device)
    return packed


@wp.kernel
def _pack(
    first: int,
    centres: wp.array(dtype=wp.vec2),
    conics: wp.array(dtype=wp.vec3),
    opacities: wp.array(dtype=wp.float32),
    least: float,
    ellipses: wp.array(dtype=Ellipse),
):
    n = first + wp.tid()
    centre, conic, opacity = centres[n], conics[n], opacities[n]
    reach = wp.log(opacity / least)
    ellipses[n] = Ellipse(centre[0], centre[1], conic[0] / 2.0, conic[1], conic[2] / 2.0, opacity, reach, 0.0)


def _summed(pairs: Tensor, tiles: Tiles, count: int) -> Tensor:
    """[count, C] of the Gaussians from [P, C] of each in each of its tiles."""
    return torch.zeros(count, pairs.shape[1], device=pairs.device).index_add_(0, tiles.splats.long(), pairs)


def _launch(kernel: str, arguments: list, tiles: Tiles, device: torch.device) -> None:
    """The kernel of this name, of one tile per thread for those of a CPU, else of one pixel per thread."""
    by_tile = device.type == "cpu" and tiles.side == rasterise_lanes.SIDE
    threads = 1 if by_tile else tiles.side * tiles.side
    chosen = getattr(rasterise_lanes if by_tile else rasterise_pixels, kernel)
    listed = [wp.from_torch(tiles.splats), wp.from_torch(tiles.first), tiles.side, tiles.columns]
    load_kernel(chosen, wp.device_from_torch(device))

    def launch(first: int, count: int) -> None:
        inputs = [first, *listed, *arguments]
        wp.launch(chosen, dim=count * threads, inputs=inputs, device=wp.device_from_torch(device), block_dim=threads)

    parallel_over_first_axis(launch, len(tiles.first) - 1, device)
