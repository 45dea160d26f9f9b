"""The training of the 14B denoiser as its paper tells it, and what it and its smaller relatives take of a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from photowalk.models.world_transformer import WorldTransformer
from photowalk.presets import (
    clip_vit_h_network,
    lyra2_14b_denoiser,
    nano_denoiser,
    umt5_xxl_network,
    wan_1_3b_denoiser,
    wan_codec_network,
)
from photowalk.train.budget import BFLOAT16, Budget, Layout, denoiser_budget
from photowalk.train.trainer import TrainingConfig

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
