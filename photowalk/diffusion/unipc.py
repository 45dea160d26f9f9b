"""UniPC for rectified flow: a multistep predictor of order two, whose every step is corrected by the next evaluation.

Zhao et al., UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models, 2023 (the variant
B2(h), predicting the clean sample), with the noise levels of Wan 2.1. The updates are written out for order two, where
the paper's small linear system has a closed solution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from photowalk.diffusion.flow import TIMESTEPS, shifted
from photowalk.diffusion.sampler import OnStep, Renoise, Velocity


def unipc_sigmas(steps: int, shift: float) -> Tensor:
    """Noise levels [steps + 1], float32, from 0.999 shifted down to exactly 0."""
    if steps < 1:
        raise ValueError(f"sampling wants at least one step, got {steps}")
    base = torch.linspace(1 - 1 / TIMESTEPS, 0, steps + 1, dtype=torch.float64)
    return shifted(base, shift).float()


@dataclass(frozen=True)
class UniPC:
    """Deterministic, float32. The network is told whole timesteps (truncated), as the published one is."""

    steps: int
    shift: float = 5.0

    def sample(
        self, velocity: Velocity, noise: Tensor, *, on_step: OnStep | None = None, renoise: Renoise | None = None
    ) -> Tensor:
        """See `Sampler`."""
        levels = unipc_sigmas(self.steps, self.shift).tolist()
        x = noise.float()
        clean: list[Tensor] = []  # estimates of the latest steps, as the uncorrected samples gave them
        predicted_from, order = x, 0
        for i, sigma in enumerate(levels[:-1]):
            timestep = torch.full((len(x),), int(sigma * TIMESTEPS), dtype=torch.float32, device=x.device)
            clean.append(x - sigma * velocity(x, timestep).float())
            if i > 0:
                x = _correct(predicted_from, clean, levels[: i + 1], order)
            predicted_from, order = x, min(2, self.steps - i, i + 1)
            x = _predict(x, clean, levels[: i + 2], order)
            if on_step is not None:
                on_step(i + 1, self.steps, clean[-1])
            clean = clean[-2:]
        return x


def _predict(x: Tensor, clean: list[Tensor], levels: list[float], order: int) -> Tensor:
    """From levels[-2] to levels[-1]; clean[-1] belongs to levels[-2], clean[-2] to the level before."""
    here, there = levels[-2], levels[-1]
    step = _log_snr(there) - _log_snr(here)
    growth = (1 - there) * math.expm1(-step)
    x = there / here * x - growth * clean[-1]
    if order == 1:
        return x
    ratio = (_log_snr(levels[-3]) - _log_snr(here)) / step
    return x - growth * 0.5 * (clean[-2] - clean[-1]) / ratio


def _correct(x: Tensor, clean: list[Tensor], levels: list[float], order: int) -> Tensor:
    """Repeat the step from x at levels[-2] to levels[-1], now that clean[-1], the estimate there, is known."""
    here, there = levels[-2], levels[-1]
    step = _log_snr(there) - _log_snr(here)
    phi = math.expm1(-step)
    change = clean[-1] - clean[-2]
    if order == 1:
        bracket = 0.5 * change
    else:
        ratio = (_log_snr(levels[-3]) - _log_snr(here)) / step
        first, second = _corrector_weights(phi, step, ratio)
        bracket = first * (clean[-3] - clean[-2]) / ratio + second * change
    return there / here * x - (1 - there) * phi * (clean[-2] + bracket)


def _corrector_weights(phi: float, step: float, ratio: float) -> tuple[float, float]:
    """Solve [[1, 1], [ratio, 1]] rho = [h1 / phi, 2 h2 / phi]."""
    h1 = phi / -step - 1
    h2 = h1 / -step - 0.5
    first = (h1 - 2 * h2) / phi / (1 - ratio)
    return first, h1 / phi - first


def _log_snr(sigma: float) -> float:
    """lambda = ln(alpha) - ln(sigma), infinite at sigma 0."""
    return math.log1p(-sigma) - math.log(sigma) if sigma > 0 else math.inf
