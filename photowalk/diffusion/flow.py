"""Rectified flow: straight lines from clean latents (sigma 0) to noise (sigma 1), and the noise levels of training.

Liu et al., Flow Straight and Fast, 2022; shifted noise levels as in Esser et al., Scaling Rectified Flow Transformers,
2024. The network is told the timestep 1000 * sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

TIMESTEPS = 1000  # what sigma 1 is called


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """The noisy sample (1 - sigma) * clean + sigma * noise; sigma is a number or [B], samples [B, ...]."""
    sigma = per_sample(sigma, clean)
    return (1 - sigma) * clean + sigma * noise


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """What the network predicts."""
    return noise - clean


def clean_estimate(noisy: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """The clean sample at the end of the straight line."""
    return noisy - per_sample(sigma, noisy) * velocity


def per_sample(values: Tensor | float, like: Tensor) -> Tensor | float:
    """[B] shaped to multiply `like` [B, ...]; numbers stay numbers."""
    if isinstance(values, Tensor) and values.dim() == 1:
        return values.to(like.device).view(-1, *(1 for _ in like.shape[1:]))
    return values


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels in [0, 1] towards noise (shift > 1): larger pictures need more of it."""
    return shift * sigma / (1 + (shift - 1) * sigma)


@dataclass(frozen=True)
class TrainingSchedule:
    """Which noise levels training sees, and how much each counts."""

    shift: float = 5.0
    steps: int = 1000  # entries of the table of noise levels

    @cached_property
    def sigmas(self) -> Tensor:
        """The table [steps], from 1 downwards."""
        return shifted(torch.arange(self.steps, 0, -1).float() / self.steps, self.shift)

    @cached_property
    def weights(self) -> Tensor:
        """Loss weight of every entry of the table, [steps]: a bell around the middle, zero at its noisiest, mean 1."""
        timesteps = self.sigmas * TIMESTEPS
        bell = torch.exp(-2 * ((timesteps - TIMESTEPS / 2) / TIMESTEPS) ** 2)
        bell = bell - bell.min()
        return bell * (self.steps / bell.sum())

    def draw(self, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Noise levels [count], logit-normal before the shift, and their loss weights [count]."""
        return self.at(torch.sigmoid(torch.randn(count, generator=generator)))

    def at(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The noise levels and loss weights at places in [0, 1) of the table; 0 is pure noise."""
        index = (uniform * self.steps).long().clamp_max(self.steps - 1)
        return self.sigmas[index], self.weights[index]
