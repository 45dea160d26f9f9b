"""Depth of one picture, or the completion of depth that is known in parts: a picture encoder and a light decoder.

What is known enters at every scale beside the direction of every pixel's ray. The answer is log-depth relative to the
known depth's mean, added to a smooth fill of it, so a known scale carries over to the rest by construction. Cameras'
poses, memory and clean-up are not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photowalk.models.squeeze_features import SqueezeFeatures

USUAL_DEPTH = 3.0  # metres, the middle of what is predicted when nothing is known
USUAL_FOCAL = 0.75  # of the picture's width
GEOMETRY = 7  # channels of ray directions and known depth


@dataclass(frozen=True)
class DepthPrediction:
    log_depth: Tensor  # [B, H, W] natural logarithm of metres along +Z
    sky: Tensor  # [B, H, W] logit
    log_error: Tensor  # [B, H, W] logarithm of the expected absolute error of log_depth


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
        self.deepest = nn.Sequential(_block(config.skips[-1] + GEOMETRY, config.widths[4]), _block(config.widths[4]))
        self.skips = nn.ModuleList(
            _skip(wide, kept) for wide, kept in zip(SqueezeFeatures.widths, config.skips, strict=True)
        )
        self.merges = nn.ModuleList(
            _block(config.skips[i] + GEOMETRY + config.widths[i + 1], config.widths[i]) for i in range(4)
        )
        self.whole = nn.Linear(config.widths[4], config.widths[4])
        self.context = nn.Sequential(*(_attention(config.widths[3], config.heads) for _ in range(config.attention)))
        self.answer = nn.Conv2d(config.widths[0], 3, 3, padding=1)
        self.weights = nn.Conv2d(config.widths[0], 4 * 9, 1)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, images: Tensor, intrinsics: Tensor, known: Tensor) -> DepthPrediction:
        """images [B, 3, H, W] in [0, 1] with sides divisible by 16, intrinsics [B, 3, 3] in pixels, known [B, H, W]
        depth along +Z: 0 = unknown, inf = sky."""
        if images.dim() != 4 or images.shape[2] % 16 or images.shape[3] % 16 or images.shape[2:] != known.shape[1:]:
            raise ValueError(
                f"the depth network wants images [B, 3, H, W] with sides divisible by 16 and known depth [B, H, W], "
                f"got {tuple(images.shape)} and {tuple(known.shape)}"
            )
        offset, geometry, fill = _geometry(images, intrinsics, known)
        features = [skip(map_) for skip, map_ in zip(self.skips, self.encoder(images), strict=True)]
        deep = self.deepest(F.avg_pool2d(torch.cat([features[3], geometry[3]], dim=1), 2, ceil_mode=True))
        deep = deep + self.whole(deep.mean((-1, -2)))[..., None, None]
        for i in (3, 2, 1, 0):
            deep = F.interpolate(deep, size=features[i].shape[2:], mode="nearest")
            deep = self.merges[i](torch.cat([features[i], geometry[i], deep], dim=1))
            if i == 3:  # where a place lies is in the rays among its geometry
                deep = self.context(deep.flatten(2).mT).mT.unflatten(2, deep.shape[2:])
        answer = self.answer(deep).float()
        answer = torch.cat([answer[:, :1] + fill, answer[:, 1:]], dim=1)
        log_depth, sky, log_error = _convex_upsample(answer, self.weights(deep).float()).unbind(1)
        return DepthPrediction(log_depth + offset[:, None, None], sky * 4, log_error - 2)


def _block(channels: int, out: int | None = None) -> nn.Module:
    out = out or channels
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU())


def _attention(width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def _skip(channels: int, out: int) -> nn.Module:
    """Encoder features are tens of times larger than the geometry beside them, which would drown; hence the norm."""
    return nn.Sequential(nn.Conv2d(channels, out, 1), nn.GroupNorm(8, out))


def _geometry(images: Tensor, intrinsics: Tensor, known: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """The mean known log-depth [B], the geometry channels at 1/2, 1/4, 1/8 and 1/16, and the fill at 1/2."""
    surface = (known > 0) & known.isfinite()
    log = torch.where(surface, known, torch.ones_like(known)).log()
    count = surface.sum((1, 2))
    offset = torch.where(count > 0, (log * surface).sum((1, 2)) / count.clamp_min(1), math.log(USUAL_DEPTH))
    values = ((log - offset[:, None, None]) * surface)[:, None]
    filled = fill_gaps(*_halved(values, surface[:, None].float()))
    channels = torch.cat([_rays(images, intrinsics), values, surface[:, None], known.isinf()[:, None]], dim=1)
    channels = F.avg_pool2d(channels.to(images.dtype), 2)
    half = torch.cat([channels, filled], dim=1)
    return offset, [half, F.avg_pool2d(half, 2), F.avg_pool2d(half, 4), F.avg_pool2d(half, 8)], filled


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


def fill_gaps(values: Tensor, weight: Tensor) -> Tensor:
    """values [B, 1, h, w], weight [B, 1, h, w] in [0, 1] -> values where weight > 0, elsewhere averages of what is
    around, from ever coarser copies of the picture; zero if nothing has weight."""
    if min(values.shape[2:]) == 1:
        total = (values * weight).sum((-1, -2), keepdim=True)
        return torch.where(weight > 0, values, total / weight.sum((-1, -2), keepdim=True).clamp_min(1e-6))
    coarse = fill_gaps(*_halved(values * weight, weight))
    smooth = F.interpolate(coarse, size=values.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, values, smooth)


def _halved(weighted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted values and weights -> mean values and weights at half the size."""
    total = F.avg_pool2d(weight, 2, ceil_mode=True)
    return F.avg_pool2d(weighted, 2, ceil_mode=True) / total.clamp_min(1e-6), (total > 0).float()


def _convex_upsample(values: Tensor, weights: Tensor) -> Tensor:
    """values [B, C, h, w], weights [B, 4 * 9, h, w] -> [B, C, 2h, 2w]: each fine pixel is a mean of the 3x3 coarse
    pixels around it, with weights of its own (as in RAFT, arXiv 2003.12039)."""
    batch, channels, height, width = values.shape
    weights = weights.view(batch, 1, 9, 4, height, width).softmax(dim=2)
    around = F.unfold(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3).view(batch, channels, 9, 1, height, width)
    fine = (weights * around).sum(2)
    return F.pixel_shuffle(fine.reshape(batch, channels * 4, height, width), 2)
