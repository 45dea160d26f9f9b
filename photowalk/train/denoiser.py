"""Trains the world transformer on clips: samples are conditioned by the very function that generation uses.

A sample is one chunk of a clip: its past as history, earlier views recalled, the true frames as the target. Samples are
built once and kept on disk, since warping and coding cost more than a training step at nano's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from photowalk.data.clips import read_clip
from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule, clean_estimate, interpolate
from photowalk.geometry.cameras import Cameras
from photowalk.memory.policies import RandomOwnership
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.models.conditioning import Conditioning
from photowalk.scene.images import quantise, write_atomically
from photowalk.scene.types import Clip, View
from photowalk.train.batches import read_sample
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
    own_past: float = 0.0  # largest noise level from which the chunk before is drawn again; 0: the past is true


@dataclass(frozen=True)
class _Film:
    """A clip as the denoiser's past shows it: true, or in part drawn by the denoiser itself."""

    views: list[View]
    timeline: Tensor  # [C, T, h, w] latents of the repeated first frame and the clip
    cameras: Cameras
    prompt: str


@torch.inference_mode()
def build_samples(clip: Clip, generator: Generator, rules: SampleRules) -> Iterator[dict[str, Tensor]]:
    """Every chunk of the clip as tensors by name: the fields of `Conditioning` but for text and image, `latest` (the
    picture that the image encoder sees) and `clean`. With `own_past`, every chunk but the first, behind one that the
    generator has drawn again."""
    random = torch.Generator().manual_seed(rules.seed)
    codec, chunk = generator.codec, rules.chunk_frames
    depth = _disturbed(clip.depth, rules.depth_noise, random)
    views = [View(clip.video[i], depth[i], clip.cameras[i], i) for i in range(len(clip))]
    still = clip.video[:1].expand(_priming(generator) - 1, -1, -1, -1)
    timeline, _ = codec.encode(_as_codec_video(torch.cat([still, clip.video])), {})
    film = _Film(views, timeline[0], clip.cameras, clip.prompt)
    for first in range(1, len(clip) - chunk + 1, chunk):
        if rules.own_past and first <= chunk:
            continue
        past = _drawn_again(film, first - chunk, generator, rules, random) if rules.own_past else film
        yield _sample(film, past, first, generator, rules)


def _priming(generator: Generator) -> int:
    return priming_frames(generator.config.conditioning.layout, generator.codec.temporal_factor)


def _seen(first: int, generator: Generator) -> int:
    """Latent frames of the timeline before the chunk that begins with frame `first`."""
    return (_priming(generator) + first - 2) // generator.codec.temporal_factor + 1


def _condition(film: _Film, first: int, generator: Generator, rules: SampleRules) -> Conditioning:
    targets = film.cameras[first : first + rules.chunk_frames]
    config = generator.config.conditioning
    remembered = [film.views[i] for i in range(0, max(first - rules.memory_gap, 1), rules.memory_stride)]
    policy = RandomOwnership(seed=rules.seed + first)
    recalled = SpatialMemory().remember(remembered).recall(targets[-1:], config.layout.space_frames, policy)
    latents = film.timeline[:, : _seen(first, generator)]
    conditioning, _ = build_conditioning(
        Past(latents, film.cameras[:first], film.views[0], film.views[first - 1]),
        recalled,
        targets,
        film.prompt,
        config=config,
        codec=generator.codec,
        text=generator.text,
        image=generator.image,
    )
    return conditioning


def _sample(truth: _Film, past: _Film, first: int, generator: Generator, rules: SampleRules) -> dict[str, Tensor]:
    conditioning = _condition(past, first, generator, rules)
    sample = {field.name: getattr(conditioning, field.name)[0] for field in fields(Conditioning)}
    del sample["text"], sample["image"]  # their encoders may change, so features are not kept
    sample["latest"] = past.views[first - 1].image
    seen = _seen(first, generator)
    sample["clean"] = truth.timeline[:, seen : seen + conditioning.warp.shape[2]]
    return sample


def _drawn_again(film: _Film, first: int, generator: Generator, rules: SampleRules, random: torch.Generator) -> _Film:
    """The film with the chunk from frame `first` on as the generator sees it after one step from a noise level of at
    most `own_past`: what it will have to continue in a walk (self-augmentation, Lyra 2.0). Depth stays true."""
    codec, seen, last = generator.codec, _seen(first, generator), first + rules.chunk_frames
    conditioning = _condition(film, first, generator, rules)
    clean = film.timeline[None, :, seen : seen + conditioning.warp.shape[2]]
    sigma = TrainingSchedule().draw(1, random)[0] * rules.own_past
    noisy = interpolate(clean, torch.randn(clean.shape, generator=random), sigma)
    estimate = clean_estimate(noisy, generator.denoiser(noisy, sigma * TIMESTEPS, conditioning).float(), sigma)
    _, decoder = codec.decode(film.timeline[None, :, :seen], {})
    video = quantise(codec.decode(estimate, decoder)[0][0].transpose(0, 1).float() / 2 + 0.5)
    still = film.views[0].image.expand(_priming(generator) - 1, -1, -1, -1)
    before = torch.cat([still, torch.stack([view.image for view in film.views[:first]])])
    _, encoder = codec.encode(_as_codec_video(before), {})
    own, _ = codec.encode(_as_codec_video(video), encoder)
    views = [replace(view, image=image) for view, image in zip(film.views[first:last], video)]
    timeline = torch.cat([film.timeline[:, :seen], own[0], film.timeline[:, seen + own.shape[2] :]], dim=1)
    return replace(film, views=[*film.views[:first], *views, *film.views[last:]], timeline=timeline)


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
    tensors = [read_sample(path) for path in picked]
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
