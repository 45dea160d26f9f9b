"""Trains the world transformer, and the text encoder with it, on prepared samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule, clean_estimate, interpolate
from photowalk.models.conditioning import Conditioning
from photowalk.models.image_tokens import ImageTokens
from photowalk.models.nano_codec import NanoCodec
from photowalk.train.live import Live, LiveChunk, live_batch
from photowalk.train.looks import Look
from photowalk.train.objective import Objective, prediction_error
from photowalk.train.parallel import token_share
from photowalk.train.pictures import chunk_grid
from photowalk.train.samples import Batch, Samples, draw_batch
from photowalk.train.trainer import Losses, TrainingConfig, train
from photowalk.world.generator import Generator


@dataclass(frozen=True)
class DenoiserRecipe:
    training: TrainingConfig
    objective: Objective
    schedule: TrainingSchedule
    batch: int


def train_denoiser(
    generator: Generator,
    samples: Samples | Sequence[Path] | Live,  # paths alone are plain samples; Live makes them as they are needed
    recipe: DenoiserRecipe,
    folder: Path,
    channel_weight: Tensor | None = None,  # [C], how much the error of each latent channel is seen
) -> None:
    """Train the denoiser of `generator` in place, and the text encoder with it unless that is frozen. Raises ValueError
    without plain samples; of kinds that have none, plain ones are taken."""
    objective, denoiser, text = recipe.objective, generator.denoiser, generator.text
    draw = samples.draw if isinstance(samples, Live) else _drawing(samples, recipe)
    objective.freeze(denoiser)
    if not objective.master_weights:
        denoiser.to(torch.bfloat16)
    parts = nn.ModuleDict({"denoiser": denoiser})
    if isinstance(text, nn.Module) and any(parameter.requires_grad for parameter in text.parameters()):
        parts["text"] = text.requires_grad_(not objective.trainable)
    channels = torch.ones(1) if channel_weight is None else channel_weight / channel_weight.mean()
    channels = channels.view(-1, 1, 1, 1).to(generator.placement.device)

    look = _look(generator) if objective.look else None
    share = token_share(recipe.training.context)

    def batch_of(drawn: Batch | LiveChunk) -> Batch:
        return drawn if isinstance(drawn, Batch) else live_batch(drawn, generator, objective, recipe.schedule)

    def loss_of(drawn: Batch | LiveChunk) -> Losses:
        device = generator.placement.device
        batch = batch_of(drawn)
        clean, noise, sigma = (value.to(device) for value in (batch.tensors["clean"], batch.noise, batch.sigma))
        conditioning = batch.conditioning(generator, objective)
        noisy = interpolate(clean, noise, sigma)
        velocity = denoiser(noisy, sigma * TIMESTEPS, conditioning, share=share).float()
        weight = batch.weight.to(device)
        error = prediction_error(objective, velocity, noisy, clean, noise, sigma, weight)
        found = losses(error * channels, clean, conditioning, objective.hole_weight, channels)
        if look is None:
            return found
        unlike = look.error(
            clean_estimate(noisy, velocity, sigma), clean, importance(conditioning, objective.hole_weight)
        )
        return found | {"loss": found["loss"] + objective.look * unlike, "look": unlike}

    def picture(drawn: Batch | LiveChunk) -> Tensor:
        batch = batch_of(drawn)
        conditioning = batch.conditioning(generator, objective)
        made = generator.sampler.sample(
            lambda noisy, timestep: denoiser(noisy, timestep, conditioning).float(),
            batch.noise.to(generator.placement.device),
        )
        rows = (conditioning.warp, made, batch.tensors["clean"].to(made))
        return chunk_grid(generator.codec, conditioning.history[:1, :, -1:], *(row[:1] for row in rows))

    training = replace(recipe.training, master_weights=objective.master_weights)
    train(parts, draw, loss_of, training, folder, generator.placement, picture)


def _drawing(samples: Samples | Sequence[Path], recipe: DenoiserRecipe) -> Callable[[torch.Generator], Batch]:
    kinds = samples if isinstance(samples, dict) else {"plain": samples}
    if not kinds.get("plain"):
        raise ValueError("training the denoiser wants samples; prepare_samples makes them from clip folders")
    return partial(draw_batch, kinds, recipe.objective, recipe.schedule, recipe.batch)


def losses(error: Tensor, clean: Tensor, conditioning: Conditioning, hole_weight: float, channels: Tensor) -> Losses:
    """Of the error [B, C, T, h, w]. Holes and warped places are also reported apart, beside what the bare warp has
    there."""
    known = conditioning.known.mean(1, keepdim=True)
    error = error.mean(1, keepdim=True)
    floor = ((conditioning.warp - clean).square() * channels).mean(1, keepdim=True)

    def share(values: Tensor, where: Tensor) -> Tensor:
        return (values * where).sum() / where.sum().clamp_min(1)

    return {
        "loss": share(error, importance(conditioning, hole_weight)),
        "holes": share(error, 1 - known),
        "known": share(error, known),
        "warp_in_holes": share(floor, 1 - known),
        "warp_in_known": share(floor, known),
    }


def importance(conditioning: Conditioning, hole_weight: float) -> Tensor:
    """How much the places of a chunk count, [B, 1, T, h, w]."""
    return 1 + (hole_weight - 1) * (1 - conditioning.known.mean(1, keepdim=True))


def _look(generator: Generator) -> Look:
    codec, image = generator.codec, generator.image
    if not isinstance(codec, NanoCodec) or not isinstance(image, ImageTokens):
        raise ValueError("how pictures look is told for nano's latents alone; train this denoiser with look=0")
    return Look(codec, image.features)
