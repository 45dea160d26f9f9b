"""What every sampler offers: from noise to a clean sample by following a velocity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # noisy [B, ...], timestep [B] in [0, 1000] -> noise - clean [B, ...]
OnStep = Callable[[int, int, Tensor], None]  # steps done, steps in all, the present estimate of the clean sample
Renoise = Callable[[int, Tensor], Tensor]  # steps done, sample -> fresh standard normal noise of its shape


class Sampler(Protocol):
    def sample(
        self, velocity: Velocity, noise: Tensor, *, on_step: OnStep | None = None, renoise: Renoise | None = None
    ) -> Tensor:
        """noise [B, ...] -> clean sample [B, ...] in float32. `on_step` sees every step and may raise to cancel.
        Only samplers that add noise on their way call `renoise`."""
        ...
