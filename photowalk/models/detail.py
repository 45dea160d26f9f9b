"""Brings back what remembered pixels know better than the codec: mixes decoded frames with warped earlier ones.

The network decides for every pixel how far to trust the warp (wrong depth, stretched edges and another exposure speak
against it) and adds a small correction. Before training it trusts the warp wherever it covers the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DetailNetwork(nn.Module):
    """A U-Net over 2x2 pixel blocks; implements the protocol `DetailStage`."""

    @dataclass(frozen=True)
    class Config:
        widths: tuple[int, ...]  # channels per level, the first at half resolution
        trust: float = 4.0  # initial logit of the trust in covered pixels

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = config.widths
        self.trust = config.trust
        self.enter = nn.Conv2d(4 * 8, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Level(a, b) for a, b in zip((widths[0], *widths), widths))
        self.up = nn.ModuleList(_Level(a + b, a) for a, b in pairwise(widths))
        self.leave = nn.Conv2d(widths[0], 4 * 4, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def restore(self, decoded: Tensor, warped: Tensor, known: Tensor) -> Tensor:
        """decoded, warped [B, 3, H, W] in [-1, 1], known [B, 1, H, W] in [0, 1] -> [B, 3, H, W] in [-1, 1]."""
        height, width = decoded.shape[-2:]
        multiple = 2 ** len(self.down)
        disagreement = (decoded - warped).abs().mean(1, keepdim=True) * known
        seen = torch.cat([decoded, warped, known, disagreement], dim=1)
        seen = F.pad(seen, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        mixed = F.pixel_shuffle(self._network(F.pixel_unshuffle(seen, 2)), 2)[..., :height, :width].float()
        trust = known * torch.sigmoid(mixed[:, :1] + self.trust)
        return (trust * warped + (1 - trust) * decoded + mixed[:, 1:]).clamp(-1, 1)

    def _network(self, seen: Tensor) -> Tensor:
        features = self.enter(seen.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else F.avg_pool2d(features, 2))
            skips.append(features)
        for skip, block in zip(reversed(skips[:-1]), reversed(self.up)):
            features = F.interpolate(features, scale_factor=2, mode="nearest")
            features = block(torch.cat([skip, features], dim=1))
        return self.leave(F.silu(features))


class _Level(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.second(F.silu(self.first(F.silu(features))))
