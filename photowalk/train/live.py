"""Samples of the denoiser's training made as they are needed: a walk is drawn, its last chunk is the target.

For clips of which prepared samples would fill too many disks, and for synthetic worlds without end. Processes of their
own read or render the walk; the codec, and the denoiser where it draws its own past, run where they are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from photowalk.data.clips import count_frames, read_clip
from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule
from photowalk.scene.types import Clip
from photowalk.synthetic import SyntheticWorld, training_seeds
from photowalk.train.chance import integer
from photowalk.train.objective import Kind, Objective
from photowalk.train.parallel import processes
from photowalk.train.samples import Batch, build_samples
from photowalk.world.generator import Generator

FARTHEST_SEED = 2**40
KINDS: tuple[Kind, ...] = ("plain", "first", "own")
Source = Callable[[torch.Generator, int, int], Clip]  # chance, frames of a chunk, chunks at least -> a walk of chunks


@dataclass(frozen=True)
class LiveChunk:
    """A walk of 1 + n chunks' frames whose last chunk is to be learnt, and the chance of its sample."""

    clip: Clip
    kind: Kind
    silent: bool  # whether it goes without its prompt
    seed: int


@dataclass(frozen=True)
class Live:
    source: Source
    objective: Objective
    chunk: int  # frames

    def draw(self, random: torch.Generator) -> LiveChunk:
        kind = self.objective.draw_kind(KINDS, random)
        clip = self.source(random, self.chunk, 2 if kind == "own" else 1)
        clip = clip[: 1 + self.chunk] if kind == "first" else clip
        silent = float(torch.rand((), generator=random)) < self.objective.text_dropout
        return LiveChunk(clip, kind, silent, int(torch.randint(2**31, (), generator=random)))


@dataclass(frozen=True)
class FromClips:
    """Walks out of clips, from any frame on, with as many chunks as chance will have."""

    clips: tuple[Path, ...]
    size: tuple[int, int]  # height, width of the frames

    def __call__(self, random: torch.Generator, chunk: int, least: int) -> Clip:
        path = self.clips[int(torch.randint(len(self.clips), (), generator=random))]
        whole = (count_frames(path) - 1) // chunk
        if whole < least:
            raise ValueError(f"{path} has {count_frames(path)} frames; a sample wants {1 + least * chunk}")
        frames = 1 + chunk * int(torch.randint(least, whole + 1, (), generator=random))
        start = int(torch.randint(count_frames(path) - frames + 1, (), generator=random))
        return read_clip(path, slice(start, start + frames), self.size)


@dataclass(frozen=True)
class FromWorlds:
    """Walks of one or two chunks through synthetic worlds, a new world each; those held out for judging are spared."""

    size: tuple[int, int]

    def __call__(self, random: torch.Generator, chunk: int, least: int) -> Clip:
        seed = next(training_seeds(integer(FARTHEST_SEED, random)))
        chunks = int(torch.randint(least, 3, (), generator=random))
        world = SyntheticWorld.sample(seed)
        return world.render(world.walk(1 + chunks * chunk, seed, size=self.size))


def live_batch(drawn: LiveChunk, generator: Generator, objective: Objective, schedule: TrainingSchedule) -> Batch:
    """The sample of a chunk, as a batch of one."""
    device, random = generator.placement.device, torch.Generator().manual_seed(drawn.seed)
    assert drawn.clip.depth is not None
    clip = replace(
        drawn.clip,
        video=drawn.clip.video.to(device),
        cameras=drawn.clip.cameras.to(device),
        depth=drawn.clip.depth.to(device),
    )
    known = replace(objective, random_starts=False)  # chance has had its say
    with torch.autocast(device.type, enabled=False):
        (sample,) = build_samples(clip, generator, known, drawn.kind, drawn.seed, last=True)
    tensors = {name: value[None].float() for name, value in sample.tensors.items()}
    sigma, weight = schedule.draw(1, random)
    noise = torch.randn(tensors["clean"].shape, generator=random)
    batch = Batch([None if drawn.silent else sample.prompt], tensors, noise, sigma, weight, drawn.seed)
    if processes().count > 1 and drawn.kind != "own":
        _keep_in_step(batch, generator, objective)
    return batch


@torch.no_grad()
def _keep_in_step(batch: Batch, generator: Generator, objective: Objective) -> None:
    """Ask the denoiser once for nothing: processes that share its weights ask together, and some draw their past."""
    device = generator.placement.device
    conditioning = batch.conditioning(generator, objective)
    generator.denoiser(batch.noise.to(device), batch.sigma.to(device) * TIMESTEPS, conditioning)
