"""A small image encoder: features of the whole picture, averaged over a coarse grid of tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from photowalk.models.squeeze_features import SqueezeFeatures


class ImageTokens(nn.Module):
    """Implements the protocol `ImageEncoder`; nothing in it is trained here."""

    width = 512  # channels of the coarsest features

    def __init__(self, features: SqueezeFeatures, grid: tuple[int, int], seen_at: tuple[int, int]) -> None:
        """`grid` rows and columns of tokens; pictures are seen at `seen_at` height and width."""
        super().__init__()
        self.grid, self.seen_at = grid, seen_at
        self.features = features.requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """images [B, 3, H, W] in [0, 1] -> [B, rows * columns, 512]."""
        seen = F.interpolate(images, size=self.seen_at, mode="bilinear", antialias=True, align_corners=False)
        coarsest = self.features(seen)[-1]
        return F.adaptive_avg_pool2d(coarsest, self.grid).flatten(2).transpose(1, 2)
