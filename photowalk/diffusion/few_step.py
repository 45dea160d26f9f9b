"""Sampling for distilled networks: guess the clean sample, add fresh noise of the next level, guess again.

Yin et al., Improved Distribution Matching Distillation, 2024.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from photowalk.diffusion.flow import TIMESTEPS, clean_estimate, interpolate, shifted
from photowalk.diffusion.noise import numpy_noise
from photowalk.diffusion.sampler import OnStep, Renoise, Velocity


@dataclass(frozen=True)
class FewStep:
    """Adds noise on its way: what `renoise` gives, else noise that follows from the first one, so that the same start
    always ends in the same sample. (The published system draws from torch's global generator.) The network is told
    exact timesteps."""

    steps: int = 4
    shift: float = 5.0

    @property
    def sigmas(self) -> Tensor:
        """Noise levels [steps] from 1 downwards, float32."""
        if self.steps < 1:
            raise ValueError(f"sampling wants at least one step, got {self.steps}")
        return shifted(torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)[:-1], self.shift).float()

    def sample(
        self, velocity: Velocity, noise: Tensor, *, on_step: OnStep | None = None, renoise: Renoise | None = None
    ) -> Tensor:
        """See `Sampler`."""
        renoise = renoise or _derived_noise(noise)
        levels = self.sigmas.tolist()
        clean = x = noise.float()
        for i, sigma in enumerate(levels):
            if i > 0:
                x = interpolate(clean, renoise(i, x).to(x), sigma)
            slope = velocity(x, torch.full((len(x),), sigma * TIMESTEPS, device=x.device))
            clean = clean_estimate(x.double(), slope.double(), sigma).float()
            if on_step is not None:
                on_step(i + 1, self.steps, clean)
        return clean


def _derived_noise(first: Tensor) -> Renoise:
    """Fresh noise for every step, seeded by the first noise; the same on every device."""
    seed = zlib.crc32(first.float().cpu().numpy().tobytes())
    return lambda step, x: numpy_noise(seed + step, x.shape)
