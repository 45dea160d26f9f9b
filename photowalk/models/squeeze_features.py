"""SqueezeNet 1.1 without its classifier: features of pictures at four scales (Iandola et al. 2016, arXiv 1602.07360).

The layers pad their borders, unlike the classifier they come from, so that maps line up with the picture: a side that
is divisible by 16 is divided exactly. What the features are used for is not known here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLUE_GREEN_RED_MEAN = (103.939, 116.779, 123.68)  # of the pictures it was trained on, which were in 0..255
SMALLEST_SIDE = 16


class SqueezeFeatures(nn.Module):
    widths = (64, 128, 256, 512)
    strides = (2, 4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.fire2, self.fire3 = Fire(64, 16, 64), Fire(128, 16, 64)
        self.fire4, self.fire5 = Fire(128, 32, 128), Fire(256, 32, 128)
        self.fire6, self.fire7 = Fire(256, 48, 192), Fire(384, 48, 192)
        self.fire8, self.fire9 = Fire(384, 64, 256), Fire(512, 64, 256)
        self.register_buffer("mean", torch.tensor(BLUE_GREEN_RED_MEAN)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """images [B, 3, H, W] in [0, 1], sides of 16 pixels or more -> [B, widths[i], H / strides[i], W / strides[i]],
        not negative; sides that do not divide are rounded up."""
        if images.dim() != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"features are made of images [B, 3, H, W] with sides of at least {SMALLEST_SIDE} pixels, "
                f"got {tuple(images.shape)}"
            )
        half = F.relu(self.conv1(images.flip(1) * 255 - self.mean))
        quarter = self.fire3(self.fire2(_pool(half)))
        eighth = self.fire5(self.fire4(_pool(quarter)))
        sixteenth = self.fire9(self.fire8(self.fire7(self.fire6(_pool(eighth)))))
        return half, quarter, eighth, sixteenth


class Fire(nn.Module):
    """Few channels in the middle, then pointwise and 3x3 maps of them side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, channels, h, w] -> [B, 2 * expanded, h, w]."""
        squeezed = F.relu(self.squeeze1x1(features))
        return F.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))


def feature_distance(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
    """[B] how different two pictures look: squared difference of channel-normalised features, mean over space, summed
    over the scales."""
    distances = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean((-1, -2))
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(distances).sum(0)


def _pool(features: Tensor) -> Tensor:
    return F.max_pool2d(features, 3, stride=2, padding=1)
