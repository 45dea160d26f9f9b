"""Brings back what remembered pixels know better than the codec: mixes decoded frames with warped earlier ones.

The network decides for every pixel how far to trust the warp (wrong depth, stretched edges and another exposure speak
against it) and adds a small correction. Before training it trusts the warp wherever it covers the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photowalk.kernels.sliding import highest_around, lowest_around
from photowalk.models.unet import UNet

# How far of [-1, 1] a picture may be from the warp. Codecs fail on fast turns, and weave patterns there that flicker.
# Where nothing is known most of what is farther from the fill than this was such a pattern (docs/training_log.md).
LEEWAY_WHERE_KNOWN = 0.04
LEEWAY_ELSEWHERE = 0.06
_RIM = 5  # pixels across an edge
_STEP = 0.1  # relative change of depth across it


class DetailNetwork(UNet):
    """A U-Net over 2x2 pixel blocks; implements the protocol `DetailStage`."""

    @dataclass(frozen=True)
    class Config:
        widths: tuple[int, ...]  # channels per level, the first at half resolution
        trust: float = 4.0  # initial logit of the trust in covered pixels

    def __init__(self, config: Config) -> None:
        super().__init__(4 * 8, config.widths)
        self.trust = config.trust
        self.leave = nn.Conv2d(config.widths[0], 4 * 4, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def restore(self, decoded: Tensor, warped: Tensor, known: Tensor) -> Tensor:
        """decoded, warped [B, 3, H, W] in [-1, 1], known [B, 1, H, W] in [0, 1] -> [B, 3, H, W] in [-1, 1]."""
        height, width = decoded.shape[-2:]
        multiple = 2 ** len(self.down)
        disagreement = (decoded - warped).abs().mean(1, keepdim=True) * known
        seen = torch.cat([decoded, warped, known, disagreement], dim=1)
        seen = F.pad(seen, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        mixed = F.pixel_shuffle(self.leave(self.features(F.pixel_unshuffle(seen, 2))), 2)[..., :height, :width].float()
        trust = known * torch.sigmoid(mixed[:, :1] + self.trust)
        return (trust * warped + (1 - trust) * decoded + mixed[:, 1:]).clamp(-1, 1)


def stay_near(pictures: Tensor, warped: Tensor, known: Tensor, depth: Tensor) -> Tensor:
    """pictures and warped, filled where nothing is known, [B, 3, H, W] in [-1, 1], known and depth [B, 1, H, W] -> the
    pictures, no farther from the warp than they may be. At edges they are free: there warps are frayed."""
    near = torch.where((depth > 0) & depth.isfinite(), 1 / depth.clamp_min(1e-6), 0)
    nearest, farthest = highest_around(near, _RIM // 2), lowest_around(near, _RIM // 2)
    leeway = torch.where(known > 0, LEEWAY_WHERE_KNOWN, LEEWAY_ELSEWHERE)
    leeway = torch.where(nearest - farthest > _STEP * nearest, 2.0, leeway)
    return pictures.clamp(warped - leeway, warped + leeway)
