"""The training of the 14B denoiser as its paper tells it, and what it and its smaller relatives take of a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from photowalk.diffusion.flow import TrainingSchedule
from photowalk.models.world_transformer import WorldTransformer
from photowalk.presets.nano import nano_denoiser
from photowalk.presets.published import (
    clip_vit_h_network,
    lyra2_14b_denoiser,
    lyra2_14b_to_train,
    umt5_xxl_network,
    wan_1_3b_denoiser,
    wan_codec_network,
)
from photowalk.train.budget import BFLOAT16, Budget, Layout, denoiser_budget
from photowalk.train.denoiser import DenoiserRecipe, train_denoiser
from photowalk.train.films import chunk_frames
from photowalk.train.live import FromClips, Live
from photowalk.train.objective import Objective
from photowalk.train.parallel import processes
from photowalk.train.trainer import TrainingConfig
from photowalk.world.placement import choose_placement

# The paper's numbers; where the released code has others, they stand beside. 64 GPUs take a chunk each a step.
LYRA2_14B = TrainingConfig(
    minutes=math.inf,
    max_steps=7000,  # the released instructions: about 5000
    micro_batches=64,
    learning_rate=3e-5,
    weight_decay=0.1,  # released: 1e-3
    betas=(0.9, 0.999),
    warmup_steps=100,
    final_rate=1.0,  # released: linearly to 0.4 at step 400,000, which is 0.99 at step 7000
    gradient_norm=0.1,
    average=0.0,  # none
    shard=8,
    checkpoint_activations=True,
)


# The paper's shares: 0.3 first chunks, of the others 0.7 behind a past drawn again. The slips of the released code
# (half of that share, weights in bfloat16, clips cut at fixed frames) are left out.
LYRA2_OBJECTIVE = replace(
    Objective.as_released(), own_past=0.49, first=0.3, every=1, random_starts=True, master_weights=True
)


@dataclass(frozen=True)
class Size:
    denoiser: Callable[[], WorldTransformer.Config]
    grid: tuple[int, int]  # rows and columns of its latents
    average: bool
    frozen: tuple[Callable[[], nn.Module], ...]  # networks that every GPU holds beside it, in bfloat16


_WAN = (wan_codec_network, umt5_xxl_network, clip_vit_h_network)
SIZES = {
    "nano": Size(nano_denoiser, (16, 28), True, ()),
    "wan2.1-1.3b": Size(wan_1_3b_denoiser, (60, 104), False, _WAN[:2]),
    "lyra2-14b": Size(lyra2_14b_denoiser, (60, 104), False, _WAN),
}


def train_full_size(
    preset: str, clips: Sequence[Path], config: Callable[[TrainingConfig], TrainingConfig], folder: Path
) -> dict[str, nn.Module]:
    """Train the 14B denoiser on clips, from Wan 2.1 in the store; samples are made as they are needed. `config` has the
    last word on the published numbers. Raises ValueError."""
    if preset != "lyra2-14b":
        raise ValueError(f"there is no recipe to train {preset!r} by; known are nano and lyra2-14b")
    training = config(LYRA2_14B)
    if processes().count % training.shard:
        raise ValueError(
            f"{processes().count} processes cannot hold the 14B denoiser in shards of {training.shard}; start it by "
            "torchrun on several GPUs, and see what they need: photowalk train denoiser --preset lyra2-14b --dry-run"
        )
    generator = lyra2_14b_to_train(choose_placement())
    size = tuple(8 * side for side in SIZES["lyra2-14b"].grid)
    samples = Live(FromClips(tuple(clips), (size[0], size[1])), LYRA2_OBJECTIVE, chunk_frames(generator))
    recipe = DenoiserRecipe(training, LYRA2_OBJECTIVE, TrainingSchedule(), batch=1)
    train_denoiser(generator, samples, recipe, folder)
    return {"denoiser": generator.denoiser}


def plan(preset: str, gpus: int, shard: int | None = None, *, batch: int = 1, recompute: bool = True) -> Budget:
    """What a training of this size takes, with `batch` chunks a GPU at once; shard None: as published, or what of it
    the GPUs allow. Raises ValueError."""
    if preset not in SIZES:
        raise ValueError(f"there is no denoiser of size {preset!r} to plan for; known are {', '.join(SIZES)}")
    size = SIZES[preset]
    with torch.device("meta"):
        held = sum(value.numel() for build in size.frozen for value in build().parameters())
    layout = Layout(gpus, shard or math.gcd(gpus, LYRA2_14B.shard), batch, size.average, recompute)
    beside = {"codec, text and image encoders, bfloat16": held * BFLOAT16}
    return denoiser_budget(size.denoiser(), size.grid, layout, beside)
