"""The plainest sampler: straight steps along the velocity."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from photowalk.diffusion.flow import TIMESTEPS, shifted
from photowalk.diffusion.sampler import OnStep, Renoise, Velocity


@dataclass(frozen=True)
class Euler:
    """Deterministic, first order, from sigma 1 to 0. The network is told exact timesteps."""

    steps: int
    shift: float = 5.0

    def sample(
        self, velocity: Velocity, noise: Tensor, *, on_step: OnStep | None = None, renoise: Renoise | None = None
    ) -> Tensor:
        """See `Sampler`."""
        if self.steps < 1:
            raise ValueError(f"sampling wants at least one step, got {self.steps}")
        levels = shifted(torch.linspace(1, 0, self.steps + 1, dtype=torch.float64), self.shift).tolist()
        x = noise.float()
        for i, (here, there) in enumerate(pairwise(levels)):
            slope = velocity(x, torch.full((len(x),), here * TIMESTEPS, device=x.device)).float()
            clean = x - here * slope
            x = x + (there - here) * slope if there > 0 else clean
            if on_step is not None:
                on_step(i + 1, self.steps, clean)
        return x
