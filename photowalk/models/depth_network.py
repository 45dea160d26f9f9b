"""Depth of one picture: a picture encoder, attention over the whole picture, and a light decoder.

The direction of every pixel's ray enters at every scale, so that the answer may depend on the lens. Cameras' poses,
memory and clean-up are not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photowalk.models.squeeze_features import SqueezeFeatures

USUAL_DEPTH = 3.0  # metres, the middle of what is predicted
USUAL_FOCAL = 0.75  # of the picture's width
RAYS = 3  # channels that say where a pixel looks


@dataclass(frozen=True)
class DepthPrediction:
    log_depth: Tensor  # [B, H, W] natural logarithm of metres along +Z
    sky: Tensor  # [B, H, W] logit


class DepthNetwork(nn.Module):
    @dataclass(frozen=True)
    class Config:
        widths: tuple[int, ...] = (32, 64, 96, 128, 128)  # at 1/2, 1/4, 1/8, 1/16, 1/32 of the picture's sides
        skips: tuple[int, ...] = (16, 48, 64, 128)  # channels kept of the encoder's four scales
        attention: int = 0  # layers in which all places at 1/16 see each other: a photo is understood as a whole
        heads: int = 4

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = SqueezeFeatures()
        self.deepest = nn.Sequential(_block(config.skips[-1] + RAYS, config.widths[4]), _block(config.widths[4]))
        self.skips = nn.ModuleList(
            _skip(wide, kept) for wide, kept in zip(SqueezeFeatures.widths, config.skips, strict=True)
        )
        self.merges = nn.ModuleList(
            _block(config.skips[i] + RAYS + config.widths[i + 1], config.widths[i]) for i in range(4)
        )
        self.whole = nn.Linear(config.widths[4], config.widths[4])
        self.context = nn.Sequential(*(_attention(config.widths[3], config.heads) for _ in range(config.attention)))
        self.answer = nn.Conv2d(config.widths[0], 2, 3, padding=1)
        self.weights = nn.Conv2d(config.widths[0], 4 * 9, 1)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, images: Tensor, intrinsics: Tensor) -> DepthPrediction:
        """images [B, 3, H, W] in [0, 1] with sides divisible by 16, intrinsics [B, 3, 3] in pixels."""
        if images.dim() != 4 or images.shape[2] % 16 or images.shape[3] % 16:
            raise ValueError(
                f"the depth network wants images [B, 3, H, W] with sides divisible by 16, got {tuple(images.shape)}"
            )
        rays = F.avg_pool2d(_rays(images, intrinsics).to(images.dtype), 2)
        rays = [rays, *(F.avg_pool2d(rays, shrink) for shrink in (2, 4, 8))]
        features = [skip(map_) for skip, map_ in zip(self.skips, self.encoder(images), strict=True)]
        deep = self.deepest(F.avg_pool2d(torch.cat([features[3], rays[3]], dim=1), 2, ceil_mode=True))
        deep = deep + self.whole(deep.mean((-1, -2)))[..., None, None]
        for i in (3, 2, 1, 0):
            deep = F.interpolate(deep, size=features[i].shape[2:], mode="nearest")
            deep = self.merges[i](torch.cat([features[i], rays[i], deep], dim=1))
            if i == 3:  # where a place lies is in the rays beside its features
                deep = self.context(deep.flatten(2).mT).mT.unflatten(2, deep.shape[2:])
        log_depth, sky = _convex_upsample(self.answer(deep).float(), self.weights(deep).float()).unbind(1)
        return DepthPrediction(log_depth + math.log(USUAL_DEPTH), sky * 4)


def _block(channels: int, out: int | None = None) -> nn.Module:
    out = out or channels
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU())


def _attention(width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def _skip(channels: int, out: int) -> nn.Module:
    """Encoder features are tens of times larger than the rays beside them, which would drown; hence the norm."""
    return nn.Sequential(nn.Conv2d(channels, out, 1), nn.GroupNorm(8, out))


def _rays(images: Tensor, intrinsics: Tensor) -> Tensor:
    """[B, 3, H, W]: slopes x / z and y / z of every pixel's ray, and the logarithm of the relative focal length."""
    height, width = images.shape[2:]
    focal, principal = intrinsics[:, [0, 1], [0, 1]], intrinsics[:, :2, 2]
    columns = torch.arange(width, device=images.device) + 0.5
    rows = torch.arange(height, device=images.device) + 0.5
    x = ((columns - principal[:, :1]) / focal[:, :1])[:, None, :].expand(-1, height, -1)
    y = ((rows - principal[:, 1:]) / focal[:, 1:])[:, :, None].expand(-1, -1, width)
    relative = (focal[:, 0] / (USUAL_FOCAL * width)).log()[:, None, None].expand_as(x)
    return torch.stack([x, y, relative], dim=1)


def _convex_upsample(values: Tensor, weights: Tensor) -> Tensor:
    """values [B, C, h, w], weights [B, 4 * 9, h, w] -> [B, C, 2h, 2w]: each fine pixel is a mean of the 3x3 coarse
    pixels around it, with weights of its own (as in RAFT, arXiv 2003.12039)."""
    batch, channels, height, width = values.shape
    weights = weights.view(batch, 1, 9, 4, height, width).softmax(dim=2)
    around = F.unfold(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3).view(batch, channels, 9, 1, height, width)
    fine = (weights * around).sum(2)
    return F.pixel_shuffle(fine.reshape(batch, channels * 4, height, width), 2)
