"""How unlike pictures look: differences of features, beside errors of every number by itself.

A squared error alone is least where all that is doubtful is blurred, and hardly minds the seams between tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.models.nano_codec import NanoCodec
from photowalk.models.squeeze_features import SqueezeFeatures

SCALES = 3  # the finest ones; coarser features know what a thing is, not how it looks


def feature_error(features: SqueezeFeatures, made: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the features of pictures [B, 3, H, W] in [0, 1], relative to their size; of some
    places more than of others by `weight` [B, 1, h, w]. Gradients flow to `made`."""
    with torch.no_grad():
        wanted = features(truth)[:SCALES]
    errors = []
    for a, b in zip(features(made)[:SCALES], wanted):
        here = torch.ones_like(b[:, :1]) if weight is None else F.adaptive_avg_pool2d(weight, b.shape[-2:])
        difference, size = ((part.float() * here).mean() for part in ((a - b).abs(), b))
        errors.append(difference / size.clamp_min(1e-3))
    return torch.stack(errors).mean()


@dataclass(frozen=True)
class Look:
    """Of chunks in nano's latents, by the pictures that end some of their latent frames."""

    codec: NanoCodec
    features: SqueezeFeatures
    frames: int = 2  # of every chunk, drawn from torch's generator

    def error(self, made: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
        """Latents [B, C, T, h, w] and the weight of their places [B, 1, T, h, w] -> the error of their features."""
        drawn = torch.randperm(clean.shape[2])[: self.frames]
        made, clean, weight = (value[:, :, drawn].transpose(1, 2).flatten(0, 1) for value in (made, clean, weight))
        return feature_error(self.features, self._pictures(made), self._pictures(clean), weight)

    def _pictures(self, latents: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, 3, H, W] in [0, 1]."""
        channels = self.codec.config.picture_channels
        mean, deviation = (part[:channels].view(-1, 1, 1) for part in (self.codec.mean, self.codec.deviation))
        return (self.codec.picture(latents[:, :channels] * deviation + mean) / 2 + 0.5).clamp(0, 1)
