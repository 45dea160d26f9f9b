"""Distils a denoiser into one that samples in a few steps, by matching distributions (Yin et al., Improved Distribution
Matching Distillation, 2024, without its adversarial part).

The student is run as it will be used, some of its steps from pure noise. The teacher says where its sample should move
to be likelier, the critic, which is trained on the student's samples all the while, how likely it is already; the
student moves along the difference. Histories are those of the denoiser's training, the denoiser's own among them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule, clean_estimate, interpolate
from photowalk.diffusion.guidance import guided
from photowalk.diffusion.sampler import Velocity
from photowalk.models.conditioning import Conditioning
from photowalk.models.world_transformer import WorldTransformer
from photowalk.train.adaptation import adapt
from photowalk.train.objective import Objective
from photowalk.train.samples import Batch, Samples, draw_batch, texts_of
from photowalk.train.trainer import Losses, TrainingConfig, train
from photowalk.world.generator import Generator

JUDGED = (0.02, 0.98)  # noise levels at which teacher and critic are asked; at either end they know nothing
Known = TypeVar("Known")  # what networks are told besides the noise
Network = Callable[[Tensor, Tensor, Known], Tensor]  # noisy [B, ...], timestep [B], known -> velocity [B, ...]


@dataclass(frozen=True)
class DistilRecipe:
    training: TrainingConfig
    objective: Objective  # which pasts are shown
    schedule: TrainingSchedule
    sampler: FewStep  # how the student will be used
    batch: int
    student_every: int = 5  # steps of the critic, on average, for one of the student; published: 5
    rank: int | None = None  # of the changes that student and critic learn; None: all their weights learn


@dataclass(frozen=True)
class Matching(Generic[Known]):
    """The losses of a step."""

    student: Network[Known]
    critic: Network[Known]
    teacher: Callable[[Known], Velocity]  # guided, if it is
    sampler: FewStep
    schedule: TrainingSchedule

    def losses(self, known: Known, noise: Tensor, learns: bool, random: torch.Generator) -> Losses:
        """`learns`: whether the student takes this step, or the critic alone. `student` is how far the student's
        samples are from what the teacher makes of them."""
        sample = self.sample(known, noise, learns, random)
        critic = self._critic_loss(known, sample.detach(), random)
        matching, distance = self._student_loss(known, sample, random)
        return {"loss": critic + matching if learns else critic, "critic": critic, "student": distance}

    def sample(self, known: Known, noise: Tensor, learns: bool, random: torch.Generator) -> Tensor:
        """What the student makes of noise in a number of its steps that is drawn; gradients flow through the last."""
        levels = self.sampler.sigmas.tolist()
        last = int(torch.randint(len(levels), (), generator=random))
        noisy, clean = noise, noise
        for i, level in enumerate(levels[: last + 1]):
            if i > 0:
                noisy = interpolate(clean, _noise_like(noise, random), level)
            with torch.set_grad_enabled(learns and i == last):
                clean = _clean(self.student, known, noisy, torch.full((len(noise),), level))
        return clean

    def _critic_loss(self, known: Known, sample: Tensor, random: torch.Generator) -> Tensor:
        """The critic learns to denoise what the student makes."""
        noisy, sigma = self._noised(sample, random)
        return (_clean(self.critic, known, noisy, sigma) - sample).square().mean()

    @torch.no_grad()
    def _towards(self, known: Known, sample: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where the sample should be, and how far the teacher would move it."""
        noisy, sigma = self._noised(sample, random)
        velocity = self.teacher(known)(noisy, sigma * TIMESTEPS).float()
        real, fake = clean_estimate(noisy, velocity, sigma), _clean(self.critic, known, noisy, sigma)
        apart = (sample - real).abs().mean(tuple(range(1, sample.dim())), keepdim=True)
        return sample - (fake - real) / apart.clamp_min(1e-4), apart.mean()

    def _student_loss(self, known: Known, sample: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Its gradient is the difference between what critic and teacher see in the noised sample."""
        target, distance = self._towards(known, sample, random)
        return 0.5 * (sample - target).square().mean(), distance

    def _noised(self, sample: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        sigma = self.schedule.draw(len(sample), random)[0].clamp(*JUDGED).to(sample.device)
        return interpolate(sample, _noise_like(sample, random), sigma), sigma


def _clean(network: Network[Known], known: Known, noisy: Tensor, sigma: Tensor) -> Tensor:
    sigma = sigma.to(noisy.device)
    return clean_estimate(noisy, network(noisy, sigma * TIMESTEPS, known).float(), sigma)


def _noise_like(sample: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(sample.shape, generator=random).to(sample.device)


def train_student(
    generator: Generator, student: WorldTransformer, samples: Samples, recipe: DistilRecipe, folder: Path
) -> nn.Module:
    """Train `student` in place to make in few steps what the generator's denoiser, the teacher, makes in many. The text
    encoder stays the teacher's.

    Returns what is to be kept: the student, or its change of low rank where the recipe gives one. Raises ValueError.
    """
    if not samples.get("plain"):
        raise ValueError("distillation wants samples; prepare_samples makes them from clip folders")
    if recipe.training.shard != 1:  # each batch draws how often the student is asked, and whoever gathers it would wait
        raise ValueError(
            f"distillation does not split weights among processes, got shards of {recipe.training.shard}; give 1"
        )
    teacher = generator.denoiser.eval().requires_grad_(False)
    critic = deepcopy(teacher)
    kept = _prepared(student, recipe.rank)
    _prepared(critic, recipe.rank)
    matching = Matching(student, critic, partial(_guided, generator), recipe.sampler, recipe.schedule)

    def loss_of(drawn: tuple[Batch, bool]) -> Losses:
        batch, learns = drawn
        with torch.no_grad():
            conditioning = batch.conditioning(generator, recipe.objective)
        random = torch.Generator().manual_seed(batch.seed)
        return matching.losses(conditioning, batch.noise.to(generator.placement.device), learns, random)

    networks = nn.ModuleDict({"student": student, "critic": critic})
    train(networks, partial(_draw, samples, recipe), loss_of, recipe.training, folder, generator.placement)
    return kept


def _prepared(network: WorldTransformer, rank: int | None) -> nn.Module:
    return adapt(network, rank) if rank else network.requires_grad_(True)


def _draw(samples: Samples, recipe: DistilRecipe, random: torch.Generator) -> tuple[Batch, bool]:
    learns = int(torch.randint(recipe.student_every, (), generator=random)) == 0
    return draw_batch(samples, recipe.objective, recipe.schedule, recipe.batch, random), learns


def _guided(generator: Generator, conditioning: Conditioning) -> Velocity:
    guidance = generator.config.guidance
    if guidance == 1:
        return guided(generator.denoiser, conditioning, None, guidance)
    nothing = replace(conditioning, text=texts_of(generator, [None] * len(conditioning.text)))
    return guided(generator.denoiser, conditioning, nothing, guidance)
