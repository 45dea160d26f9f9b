"""How alike two pictures are."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture [*, C, H, W] in [0, 1] against its truth -> [*].

    -10 log10 of the mean squared error; identical pictures count as 100 dB.
    """
    error = (pictures.float() - truth.float()).square().mean((-3, -2, -1))
    return -10 * torch.log10(error.clamp_min(1e-10))


def masked_psnr(pictures: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """As `psnr`, over the pixels of `where` [*, H, W] alone; NaN where there are none."""
    error = (pictures.float() - truth.float()).square().mean(-3) * where
    return -10 * torch.log10((error.sum((-2, -1)) / where.sum((-2, -1))).clamp_min(1e-10))


def sharpness_where(picture: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of [C, H, W], across and down, both in `where` [H, W]."""
    across = (picture[..., 1:] - picture[..., :-1]).abs()[..., where[:, 1:] & where[:, :-1]]
    down = (picture[..., 1:, :] - picture[..., :-1, :]).abs()[..., where[1:] & where[:-1]]
    return (across.mean() + down.mean()) / 2
