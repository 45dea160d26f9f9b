"""Samples of the denoiser's training: one chunk of a clip each, with all that the denoiser is told of it.

They are built once and kept on disk, since warping and coding cost more than a training step at nano's size.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from photowalk.data.clips import read_clip
from photowalk.diffusion.flow import TrainingSchedule
from photowalk.models.conditioning import Conditioning, no_correspondence
from photowalk.scene.types import Clip
from photowalk.train.films import Film, chunk_frames, clean_latents, condition, drawn_again, film_of
from photowalk.train.objective import Kind, Objective, corrupted
from photowalk.train.prepared import Sample, prepared, read_prompt, read_tensors
from photowalk.train.retakes import retake
from photowalk.world.generator import Generator
from photowalk.world.preview import Preview

Samples = Mapping[Kind, Sequence[Path]]


def prepare_samples(
    clips: Sequence[Path],
    generator: Generator,
    objective: Objective,
    folder: Path,
    kind: Kind = "plain",
    *,
    retakes: int = 0,
) -> list[Path]:
    """The samples of clips and of `retakes` other recordings of each; those that lie in `folder` already are kept, the
    others built. Raises ValueError."""

    def build(path: Path, take: int) -> Iterator[Sample]:
        # By name alone: wherever the clips lie, their samples are the same.
        seed = zlib.crc32((f"{path.name}-{take}" if take else path.name).encode())
        clip = read_clip(path)
        if take:
            clip = retake(clip, torch.Generator().manual_seed(seed))
        for sample in build_samples(clip, generator, objective, kind, seed):
            yield replace(sample, tensors={name: value.half() for name, value in sample.tensors.items()})

    wanted = product(clips, range(1 + retakes))
    return [sample for path, take in wanted for sample in prepared(path, folder, partial(build, path, take), take)]


@torch.no_grad()  # not inference_mode: what it leaves of split weights could not be trained any more
def build_samples(
    clip: Clip, generator: Generator, objective: Objective, kind: Kind, seed: int, *, last: bool = False
) -> Iterator[Sample]:
    """Every chunk of the clip that the kind stands for, or the last one alone, with what is told from its first frame
    on and tensors by name: the fields of `Conditioning` but for text and image, `latest` (the picture that the image
    encoder sees) and `clean`. Raises ValueError for a clip without depth."""
    if clip.depth is None:
        raise ValueError("the denoiser is trained on clips with depth; photowalk data prepare estimates it")
    random, chunk = torch.Generator().manual_seed(seed), chunk_frames(generator)
    clip = clip[_start(len(clip), chunk, objective, random) :]
    assert clip.depth is not None
    film = film_of(replace(clip, depth=_disturbed(clip.depth, objective.depth_noise, random)), generator)
    telling = _Telling(objective, generator, kind, seed)
    firsts = range(1, len(clip) - chunk + 1, chunk)
    for first in firsts[-1:] if last else firsts:
        if kind == "first" and first > 1:
            return
        if kind == "own" and first <= chunk:
            continue
        past = telling.own_past(film, first - chunk, random) if kind == "own" else film
        conditioning, _ = telling.told(past, first)
        tensors = {field.name: getattr(conditioning, field.name)[0] for field in fields(Conditioning)}
        del tensors["text"], tensors["image"]  # their encoders may change, so features are not kept
        tensors["latest"] = past.views[first - 1].image
        tensors["clean"] = clean_latents(film, first, generator)
        yield Sample(tensors, film.prompts[first])


def _start(frames: int, chunk: int, objective: Objective, random: torch.Generator) -> int:
    """The frame at which a clip's chunks begin: a random one, if that leaves two chunks or costs none."""
    whole = (frames - 1) // chunk
    kept = max(whole - 1, min(whole, 2)) if objective.random_starts else whole
    return int(torch.randint(frames - kept * chunk, (), generator=random)) if objective.random_starts else 0


@dataclass(frozen=True)
class _Telling:
    objective: Objective
    generator: Generator
    kind: Kind
    seed: int

    def told(self, film: Film, first: int) -> tuple[Conditioning, Preview]:
        config = self.generator.config
        remembered = self.objective.remembered(
            self.kind, len(film.views), first, chunk_frames(self.generator), config.depth_stride
        )
        return condition(
            film, first, remembered, self.objective.recall(config.recall, self.seed + first), self.generator
        )

    def own_past(self, film: Film, first: int, random: torch.Generator) -> Film:
        """The film with the chunk from frame `first` on as the generator itself sees it."""
        conditioning, preview = self.told(film, first)
        conditioning = with_recall_noise(conditioning, self.generator, self.objective, random)
        uniform = torch.sigmoid(torch.randn(1, generator=random))
        noise = torch.randn(clean_latents(film, first, self.generator).shape, generator=random)
        return drawn_again(
            film,
            first,
            conditioning,
            preview,
            self.generator,
            sigma=self.objective.own_level(uniform, TrainingSchedule())[0].to(film.timeline.device),
            noise=noise.to(film.timeline),
            worn_history=self.objective.worn_history,
        )


def _disturbed(depth: Tensor, amount: float, random: torch.Generator) -> Tensor:
    """Depth [F, H, W] times a smooth random field that is the same for all frames."""
    field = torch.rand(1, 1, 4, 6, generator=random) * 2 - 1
    field = torch.nn.functional.interpolate(field, size=depth.shape[-2:], mode="bicubic", align_corners=True)[0]
    strength = torch.rand(1, generator=random) * amount
    return depth * (1 + strength * field).to(depth)


def with_recall_noise(
    conditioning: Conditioning, generator: Generator, objective: Objective, random: torch.Generator
) -> Conditioning:
    """The conditioning with noise on its recalled latents, if the objective wants any."""
    if objective.recall_noise is None:
        return conditioning
    layout, history = generator.config.conditioning.layout, conditioning.history
    size = (len(history), layout.space_frames)
    levels = objective.recall_levels(torch.rand(size, generator=random))
    noise = torch.randn(len(history), history.shape[1], layout.space_frames, *history.shape[3:], generator=random)
    return replace(conditioning, history=corrupted(history, layout, noise.to(history), levels.to(history)))


@dataclass(frozen=True)
class Batch:
    """Samples with the chance of one step, on the CPU."""

    prompts: list[str | None]  # None: dropped
    tensors: dict[str, Tensor]  # [B, ...] as in a sample
    noise: Tensor  # [B, C, T, h, w]
    sigma: Tensor  # [B] noise levels
    weight: Tensor  # [B] of the noise levels in the loss
    seed: int  # for what else is drawn

    def conditioning(self, generator: Generator, objective: Objective) -> Conditioning:
        """On the generator's device; gradients flow to its text encoder."""
        parts = {name: value.to(generator.placement.device) for name, value in self.tensors.items()}
        if not generator.config.conditioning.correspondence:
            slots = generator.config.conditioning.layout.space_frames
            parts["correspondence"] = no_correspondence(slots, parts["correspondence"])
        latest = parts.pop("latest")
        del parts["clean"]
        with torch.no_grad():
            image = generator.image.encode(latest)
        conditioning = Conditioning(**parts, text=texts_of(generator, self.prompts), image=image)
        return with_recall_noise(conditioning, generator, objective, torch.Generator().manual_seed(self.seed))


def draw_batch(
    samples: Samples, objective: Objective, schedule: TrainingSchedule, size: int, random: torch.Generator
) -> Batch:
    """`size` samples, each of a kind that the objective's shares choose."""
    kinds = [kind for kind, paths in samples.items() if paths]
    chosen = [samples[objective.draw_kind(kinds, random)] for _ in range(size)]
    paths = [paths[int(torch.randint(len(paths), (), generator=random))] for paths in chosen]
    read = [read_tensors(path) for path in paths]
    tensors = {name: torch.stack([sample[name].float() for sample in read]) for name in read[0]}
    dropped = torch.rand(size, generator=random) < objective.text_dropout
    prompts = [None if drop else read_prompt(path) for path, drop in zip(paths, dropped.tolist())]
    sigma, weight = schedule.draw(size, random)
    noise = torch.randn(tensors["clean"].shape, generator=random)
    return Batch(prompts, tensors, noise, sigma, weight, int(torch.randint(2**31, (), generator=random)))


def texts_of(generator: Generator, prompts: list[str | None]) -> Tensor:
    """Features [B, L, D]; dropped prompts (None) are replaced by what guidance leads away from."""
    silent = generator.config.negative_prompt
    texts = generator.text.encode([silent if prompt is None else prompt for prompt in prompts])
    if generator.negative is None or None not in prompts:
        return texts
    dropped = torch.tensor([prompt is None for prompt in prompts], device=texts.device)
    return torch.where(dropped[:, None, None], generator.negative.to(texts), texts)
