"""Classifier-free guidance: Ho and Salimans, Classifier-Free Diffusion Guidance, 2022."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from photowalk.diffusion.sampler import Velocity

Known = TypeVar("Known", contravariant=True)  # what the network is told besides the noise
Prepared = TypeVar("Prepared")  # the same, with all work done that does not depend on the noise


class PreparingDenoiser(Protocol[Known, Prepared]):
    def prepare(self, conditioning: Known, like: Prepared | None = None) -> Prepared: ...

    def stacked(self, one: Prepared, other: Prepared) -> Prepared:
        """Two samples as a batch."""
        ...

    def __call__(self, noisy: Tensor, timestep: Tensor, conditioning: Prepared) -> Tensor: ...


def guided(
    denoiser: PreparingDenoiser[Known, Prepared],
    conditioning: Known,
    negative: Known | None,
    guidance: float,
    *,
    together: bool = False,
    prepare: Callable[..., Prepared] | None = None,
) -> Velocity:
    """The velocity negative + guidance * (positive - negative). With guidance 1 the negative branch is never run, and
    `negative` may be None. Branches that run `together`, as one batch, want twice the working memory.
    `prepare` replaces the denoiser's."""
    prepare = prepare or denoiser.prepare
    positive = prepare(conditioning)
    if guidance == 1:
        return lambda noisy, timestep: denoiser(noisy, timestep, positive)
    if negative is None:
        raise ValueError(f"guidance {guidance} wants a negative conditioning; guidance 1 does without")
    opposite = prepare(negative, like=positive)
    both = denoiser.stacked(positive, opposite) if together else None

    def velocity(noisy: Tensor, timestep: Tensor) -> Tensor:
        if both is None:
            towards, away = denoiser(noisy, timestep, positive), denoiser(noisy, timestep, opposite)
        else:
            towards, away = denoiser(torch.cat([noisy, noisy]), torch.cat([timestep, timestep]), both).chunk(2)
        return away + guidance * (towards - away)

    return velocity
