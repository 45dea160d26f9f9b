"""A small U-Net body: what networks share that answer for every place of a picture. Inputs and answers are theirs."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """Features of a map at its own resolution, made at ever coarser ones."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Level(a, b) for a, b in zip((widths[0], *widths), widths))
        self.up = nn.ModuleList(_Level(a + b, a) for a, b in pairwise(widths))

    def features(self, seen: Tensor) -> Tensor:
        """[B, channels, h, w], sides divisible by 2^(levels - 1) -> [B, widths[0], h, w]."""
        features = self.enter(seen.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else F.avg_pool2d(features, 2))
            skips.append(features)
        for skip, block in zip(reversed(skips[:-1]), reversed(self.up)):
            features = F.interpolate(features, scale_factor=2, mode="nearest")
            features = block(torch.cat([skip, features], dim=1))
        return F.silu(features)


class _Level(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.second(F.silu(self.first(F.silu(features))))
