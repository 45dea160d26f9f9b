"""Heads that turn tokens into maps (DPT): depth and confidence, splats, raw depth and sky.

They share a pyramid of four scales that is merged from coarse to fine. Parameters have the published names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5
POSITION_STRENGTH, POSITION_BASE = 0.1, 100.0
VIEWS_AT_ONCE = 8  # bounds memory, changes no value
HIDDEN = 32


@dataclass(frozen=True)
class HeadConfig:
    width: int  # of the tokens
    features: int
    channels: tuple[int, int, int, int]  # of the four scales before they are merged


class Pyramid(nn.Module):
    """What all heads share: projections, four scales, merging. Subclasses own the last convolutions."""

    def __init__(self, config: HeadConfig, *, normed: bool, positioned: bool) -> None:
        super().__init__()
        self.positioned = positioned
        first, second, third, fourth = config.channels
        self.norm = nn.LayerNorm(config.width, EPSILON) if normed else nn.Identity()
        self.projects = nn.ModuleList(nn.Conv2d(config.width, channels, 1) for channels in config.channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, 4),
                nn.ConvTranspose2d(second, second, 2, 2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, 2, 1),
            ]
        )
        self.scratch = nn.Module()
        for level, channels in enumerate((first, second, third, fourth), 1):
            self.scratch.add_module(f"layer{level}_rn", nn.Conv2d(channels, config.features, 3, 1, 1, bias=False))
        self._add_merging("", config.features)
        self.scratch.output_conv1 = nn.Conv2d(config.features, config.features // 2, 3, 1, 1)

    def _add_merging(self, suffix: str, features: int) -> None:
        for level in (1, 2, 3, 4):
            self.scratch.add_module(f"refinenet{level}{suffix}", Merge(features, lateral=level < 4))

    def scales(self, tokens: Sequence[Tensor], grid: tuple[int, int], aspect: float) -> list[Tensor]:
        """Tokens [V, h*w, C] of four layers -> four maps [V, features, ...], finest first."""
        maps = []
        for level in range(4):
            flat = self.norm(tokens[level].float()).mT.unflatten(2, grid)
            projected = self._position(self.projects[level](flat), aspect)
            resized = self.resize_layers[level](projected)
            maps.append(self.scratch.get_submodule(f"layer{level + 1}_rn")(resized))
        return maps

    def merged(self, scales: Sequence[Tensor], suffix: str = "") -> Tensor:
        """[V, features, 8h, 8w]"""
        merged = None
        for level in (4, 3, 2, 1):
            size = scales[level - 2].shape[-2:] if level > 1 else tuple(2 * side for side in scales[0].shape[-2:])
            merged = self.scratch.get_submodule(f"refinenet{level}{suffix}")(scales[level - 1], merged, size)
        assert merged is not None
        return merged

    def _position(self, maps: Tensor, aspect: float) -> Tensor:
        return maps + position_embedding(maps, aspect) if self.positioned else maps


class Merge(nn.Module):
    def __init__(self, features: int, *, lateral: bool) -> None:
        super().__init__()
        if lateral:
            self.resConfUnit1 = Residual(features)
        self.resConfUnit2 = Residual(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, lateral: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        maps = lateral if coarser is None else coarser + self.resConfUnit1(lateral)
        return self.out_conv(resize(self.resConfUnit2(maps), size))


class Residual(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, 1, 1)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv2(self.conv1(maps.relu()).relu())


class DepthHead(Pyramid):
    """Depth and its confidence. The released files also hold a chain for rays, which nothing here asks for: it is made
    and loaded only with `rays`."""

    def __init__(self, config: HeadConfig, *, rays: bool = True) -> None:
        super().__init__(config, normed=True, positioned=True)
        half = config.features // 2
        self.scratch.output_conv2 = _last(half, 2)
        if rays:
            self._add_merging("_aux", config.features)
            self.scratch.output_conv1_aux = nn.ModuleList(_five(config.features) for _ in range(4))
            shared = nn.LayerNorm(HIDDEN, EPSILON)
            self.scratch.output_conv2_aux = nn.ModuleList(_last_of_rays(half, shared) for _ in range(4))

    def forward(self, tokens: Sequence[Tensor], size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens [V, h*w, C] -> depth [V, H, W] > 0 and confidence [V, H, W] > 1."""
        logits = torch.cat([self.logits(part, size, grid) for part in _parts(tokens)])
        return logits[:, 0].exp(), logits[:, 1].exp() + 1

    def logits(self, tokens: Sequence[Tensor], size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        aspect = size[1] / size[0]
        fine = resize(self.scratch.output_conv1(self.merged(self.scales(tokens, grid, aspect))), size)
        return self.scratch.output_conv2(self._position(fine, aspect))

    def rays(self, tokens: Sequence[Tensor], size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Rays [V, 8h, 8w, 6] and their confidence [V, 8h, 8w]."""
        aspect = size[1] / size[0]
        fine = self.scratch.output_conv1_aux[3](self.merged(self.scales(tokens, grid, aspect), "_aux"))
        maps = self.scratch.output_conv2_aux[3](self._position(fine, aspect))
        return maps[:, :6].permute(0, 2, 3, 1), maps[:, 6].exp() + 1


class SplatHead(Pyramid):
    """Raw parameters of one splat for every `down_ratio`-th pixel."""

    def __init__(self, config: HeadConfig, outputs: int) -> None:
        super().__init__(config, normed=False, positioned=True)
        half = config.features // 2
        self.scratch.output_conv2 = _last(half, outputs)
        self.images_merger = nn.Sequential(
            nn.Conv2d(3, half // 4, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(half // 4, half // 2, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(half // 2, half, 3, 1, 1),
            nn.GELU(),
        )

    def forward(
        self,
        tokens: Sequence[Tensor],
        images: Tensor,
        grid: tuple[int, int],
        down_ratio: int = 1,
        *,
        merge_first: bool = True,
    ) -> Tensor:
        """Tokens [V, h*w, C], normalised images [V, 3, H, W] -> [V, outputs, H/r, W/r]. Pictures are looked at in full
        and then averaged with `merge_first`, as published; else they are shrunk first."""
        parts = zip(_parts(tokens), images.split(VIEWS_AT_ONCE), strict=True)
        return torch.cat([self._part(part, seen, grid, down_ratio, merge_first) for part, seen in parts])

    def _part(
        self, tokens: Sequence[Tensor], images: Tensor, grid: tuple[int, int], down_ratio: int, merge_first: bool
    ) -> Tensor:
        height, width = images.shape[-2:]
        size, aspect = (height // down_ratio, width // down_ratio), width / height
        fine = resize(self.scratch.output_conv1(self.merged(self.scales(tokens, grid, aspect))), size)
        if merge_first:
            seen = F.adaptive_avg_pool2d(self.images_merger(images), size)
        else:
            seen = self.images_merger(resize(images, size))
        return self.scratch.output_conv2(self._position(fine + seen, aspect))


class MetricHead(Pyramid):
    """Raw depth for a focal length of 300 pixels and a sky score."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, normed=False, positioned=False)
        self.scratch.output_conv2 = _last(config.features // 2, 1)
        self.scratch.sky_output_conv2 = _last(config.features // 2, 1)

    def forward(self, tokens: Sequence[Tensor], size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens [V, h*w, C] -> raw depth [V, H, W] > 0 and sky score [V, H, W] >= 0."""
        depths, skies = [], []
        for part in _parts(tokens):
            merged = self.merged(self.scales(part, grid, size[1] / size[0]))
            fine = resize(self.scratch.output_conv1(merged), size)
            depths.append(self.scratch.output_conv2(fine)[:, 0].exp())
            skies.append(self.scratch.sky_output_conv2(fine)[:, 0].relu())
        return torch.cat(depths), torch.cat(skies)


def position_embedding(maps: Tensor, aspect: float) -> Tensor:
    """[C, h, w] sines of the place in a picture of aspect width/height, the first half of the channels for u."""
    channels, height, width = maps.shape[-3:]
    diagonal = (aspect**2 + 1) ** 0.5
    span_x, span_y = aspect / diagonal * (width - 1) / width, 1 / diagonal * (height - 1) / height
    u = torch.linspace(-span_x, span_x, width, dtype=torch.float64, device=maps.device)
    v = torch.linspace(-span_y, span_y, height, dtype=torch.float64, device=maps.device)
    quarter = channels // 4
    frequencies = POSITION_BASE ** -(torch.arange(quarter, dtype=torch.float64, device=maps.device) / quarter)
    along_x, along_y = (torch.cat([(w := frequencies[:, None] * t).sin(), w.cos()]) for t in (u, v))
    grid = (along_x[:, None].expand(-1, height, -1), along_y[:, :, None].expand(-1, -1, width))
    return (POSITION_STRENGTH * torch.cat(grid)).to(maps.dtype)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def _last(features: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(features, HIDDEN, 3, 1, 1), nn.ReLU(), nn.Conv2d(HIDDEN, outputs, 1))


def _five(features: int) -> nn.Sequential:
    widths = [features, features // 2, features, features // 2, features, features // 2]
    return nn.Sequential(*(nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise(widths)))


def _last_of_rays(features: int, shared: nn.LayerNorm) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(features, HIDDEN, 3, 1, 1), _Moved(1, -1), shared, _Moved(-1, 1), nn.ReLU(), nn.Conv2d(HIDDEN, 7, 1)
    )


class _Moved(nn.Module):
    def __init__(self, source: int, destination: int) -> None:
        super().__init__()
        self.source, self.destination = source, destination

    def forward(self, maps: Tensor) -> Tensor:
        return maps.movedim(self.source, self.destination)


def _parts(tokens: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(each.split(VIEWS_AT_ONCE) for each in tokens), strict=True))
