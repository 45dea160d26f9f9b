"""Trains the world transformer on clips: samples are conditioned by the very function that generation uses.

A sample is one chunk of a clip: its past as history, earlier views recalled, the true frames as the target. Samples are
built once and kept on disk, since warping and coding cost more than a training step at nano's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from photowalk.data.clips import read_clip
from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule, clean_estimate, interpolate
from photowalk.memory.policies import RandomOwnership
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.models.conditioning import Conditioning
from photowalk.scene.images import write_atomically
from photowalk.scene.types import Clip, View
from photowalk.train.trainer import Losses, TrainingConfig, train
from photowalk.world.conditioning import Past, build_conditioning, priming_frames
from photowalk.world.generator import Generator


@dataclass(frozen=True)
class SampleRules:
    """How a clip becomes samples."""

    chunk_frames: int
    memory_stride: int  # every n-th earlier frame is remembered; published: 8
    memory_gap: int  # frames this close before the chunk are left to the temporal history; published: 16
    depth_noise: float  # largest relative error given to the depth, since estimated depth will not be exact
    seed: int


@torch.inference_mode()
def build_samples(clip: Clip, generator: Generator, rules: SampleRules) -> Iterator[dict[str, Tensor]]:
    """Every chunk of the clip as tensors by name: the fields of `Conditioning` but for text and image, `latest` (the
    picture that the image encoder sees) and `clean`."""
    random = torch.Generator().manual_seed(rules.seed)
    codec, config = generator.codec, generator.config.conditioning
    depth = _disturbed(clip.depth, rules.depth_noise, random)
    views = [View(clip.video[i], depth[i], clip.cameras[i], i) for i in range(len(clip))]
    priming = priming_frames(config.layout, codec.temporal_factor)
    still = clip.video[:1].expand(priming - 1, -1, -1, -1)
    timeline, _ = codec.encode(_as_codec_video(torch.cat([still, clip.video])), {})
    for first in range(1, len(clip) - rules.chunk_frames + 1, rules.chunk_frames):
        targets = clip.cameras[first : first + rules.chunk_frames]
        seen = (priming + first - 2) // codec.temporal_factor + 1
        remembered = [views[i] for i in range(0, max(first - rules.memory_gap, 1), rules.memory_stride)]
        recalled = (
            SpatialMemory()
            .remember(remembered)
            .recall(targets[-1:], config.layout.space_frames, RandomOwnership(seed=rules.seed + first))
        )
        conditioning, _ = build_conditioning(
            Past(timeline[0, :, :seen], clip.cameras[:first], views[0], views[first - 1]),
            recalled,
            targets,
            clip.prompt,
            config=config,
            codec=codec,
            text=generator.text,
            image=generator.image,
        )
        sample = {field.name: getattr(conditioning, field.name)[0] for field in fields(Conditioning)}
        del sample["text"], sample["image"]  # their encoders may change, so features are not kept
        sample["latest"] = views[first - 1].image
        sample["clean"] = timeline[0, :, seen : seen + conditioning.warp.shape[2]]
        yield sample


def _disturbed(depth: Tensor, amount: float, random: torch.Generator) -> Tensor:
    """Depth [F, H, W] times a smooth random field that is the same for all frames."""
    field = torch.rand(1, 1, 4, 6, generator=random) * 2 - 1
    field = torch.nn.functional.interpolate(field, size=depth.shape[-2:], mode="bicubic", align_corners=True)[0]
    strength = torch.rand(1, generator=random) * amount
    return depth * (1 + strength * field)


def _as_codec_video(video: Tensor) -> Tensor:
    return (video * 2 - 1).transpose(0, 1)[None]


@dataclass(frozen=True)
class DenoiserRecipe:
    training: TrainingConfig
    rules: SampleRules
    schedule: TrainingSchedule
    hole_weight: float  # how much more the invented latents count than the warped ones
    batch: int


def prepare_samples(clips: Sequence[Path], generator: Generator, rules: SampleRules, folder: Path) -> list[Path]:
    """Build the samples of clip folders once; those that exist already in `folder` are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip_folder in clips:
        if (folder / f"{clip_folder.name}.done").exists():
            continue
        clip = read_clip(clip_folder)
        for i, sample in enumerate(build_samples(clip, generator, rules)):
            tensors = {name: value.half().contiguous() for name, value in sample.items()}
            about = {"prompt": clip.prompt}
            path = folder / f"{clip_folder.name}_{i}.safetensors"
            write_atomically(path, lambda temporary, t=tensors, a=about: save_file(t, temporary, a))
        (folder / f"{clip_folder.name}.done").touch()
    return sorted(folder.glob("*.safetensors"))


def train_denoiser(
    generator: Generator,
    samples: Sequence[Path],
    recipe: DenoiserRecipe,
    folder: Path,
    channel_weight: Tensor | None = None,  # [C], how much the error of each latent channel is seen
) -> None:
    """Train the denoiser and the text encoder of `generator` together, in place.

    The loss is the squared error of the clean latents: uniform over noise levels, so that the first step from pure
    noise counts as well.
    """
    if not samples:
        raise ValueError("training the denoiser wants samples; prepare_samples makes them from clip folders")
    denoiser, text = generator.denoiser, generator.text
    parts = nn.ModuleDict({"denoiser": denoiser, "text": text})
    channels = torch.ones(1) if channel_weight is None else channel_weight / channel_weight.mean()
    channels = channels.view(-1, 1, 1, 1).to(generator.placement.device)

    def loss_of(drawn: tuple[list[str], dict[str, Tensor]]) -> Losses:
        prompts, batch = drawn
        batch = {name: value.to(generator.placement.device) for name, value in batch.items()}
        clean, latest, noise, sigma = (batch.pop(name) for name in ("clean", "latest", "noise", "sigma"))
        with torch.no_grad():
            image = generator.image.encode(latest)
        conditioning = Conditioning(**batch, text=text.encode(prompts), image=image)
        noisy = interpolate(clean, noise, sigma)
        velocity = denoiser(noisy, sigma * TIMESTEPS, conditioning)
        return _losses(clean_estimate(noisy, velocity, sigma), clean, conditioning, recipe.hole_weight, channels)

    train(parts, partial(_draw, samples, recipe), loss_of, recipe.training, folder, generator.placement)


def _draw(
    samples: Sequence[Path], recipe: DenoiserRecipe, random: torch.Generator
) -> tuple[list[str], dict[str, Tensor]]:
    """Prompts and tensors of a batch, with its noise [B, C, T, h, w] and noise levels `sigma` [B]."""
    picked = [samples[i] for i in torch.randint(len(samples), (recipe.batch,), generator=random).tolist()]
    tensors = [load_file(path) for path in picked]
    batch = {name: torch.stack([sample[name].float() for sample in tensors]) for name in tensors[0]}
    batch["sigma"] = recipe.schedule.draw(recipe.batch, random)[0]
    batch["noise"] = torch.randn(batch["clean"].shape, generator=random)
    return [_prompt(path) for path in picked], batch


def _losses(
    estimate: Tensor, clean: Tensor, conditioning: Conditioning, hole_weight: float, channels: Tensor
) -> Losses:
    """Holes and warped places are also reported apart, beside what the bare warp has there."""
    known = conditioning.known.mean(1, keepdim=True)
    error = ((estimate - clean).square() * channels).mean(1, keepdim=True)
    floor = ((conditioning.warp - clean).square() * channels).mean(1, keepdim=True)
    importance = 1 + (hole_weight - 1) * (1 - known)

    def share(values: Tensor, where: Tensor) -> Tensor:
        return (values * where).sum() / where.sum().clamp_min(1)

    return {
        "loss": share(error, importance),
        "holes": share(error, 1 - known),
        "known": share(error, known),
        "warp_in_holes": share(floor, 1 - known),
        "warp_in_known": share(floor, known),
    }


def _prompt(path: Path) -> str:
    with safe_open(path, "pt") as file:
        return file.metadata()["prompt"]
