"""Classifier-free guidance: Ho and Salimans, Classifier-Free Diffusion Guidance, 2022."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor

from photowalk.diffusion.sampler import Velocity

Known = TypeVar("Known", contravariant=True)  # what the network is told besides the noise
Prepared = TypeVar("Prepared")  # the same, with all work done that does not depend on the noise


class PreparingDenoiser(Protocol[Known, Prepared]):
    def prepare(self, conditioning: Known, like: Prepared | None = None) -> Prepared: ...

    def __call__(self, noisy: Tensor, timestep: Tensor, conditioning: Prepared) -> Tensor: ...


def guided(
    denoiser: PreparingDenoiser[Known, Prepared], conditioning: Known, negative: Known | None, guidance: float
) -> Velocity:
    """The velocity negative + guidance * (positive - negative). With guidance 1 the negative branch is never run, and
    `negative` may be None."""
    positive = denoiser.prepare(conditioning)
    if guidance == 1:
        return lambda noisy, timestep: denoiser(noisy, timestep, positive)
    if negative is None:
        raise ValueError(f"guidance {guidance} wants a negative conditioning; guidance 1 does without")
    opposite = denoiser.prepare(negative, like=positive)

    def velocity(noisy: Tensor, timestep: Tensor) -> Tensor:
        away = denoiser(noisy, timestep, opposite)
        return away + guidance * (denoiser(noisy, timestep, positive) - away)

    return velocity
