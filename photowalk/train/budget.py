"""What a training of the denoiser takes of every GPU, worked out on meta tensors before anything is bought or loaded.

Activations are counted by running one block without data and adding up what it keeps for the backward pass. Not
counted: buffers within a kernel and of communication, fragmentation, the driver; leave a tenth.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from photowalk.models.conditioning import Conditioning
from photowalk.models.world_transformer import WorldTransformer

FLOAT32, BFLOAT16, GIB = 4, 2, 2**30


@dataclass(frozen=True)
class Layout:
    """How a training is spread."""

    gpus: int
    shard: int  # GPUs that hold the weights together
    batch: int  # chunks a GPU takes at once
    average: bool  # whether a moving average of the weights is kept
    recompute: bool = True  # activation checkpointing


@dataclass(frozen=True)
class Budget:
    parameters: int
    tokens: int
    sample: int  # bytes of one prepared sample on disk
    parts: dict[str, int]  # bytes of each GPU

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def table(self) -> str:
        lines = [f"{self.parameters / 1e6:,.0f} M parameters, all of which learn"]
        lines += [f"{self.tokens:,} tokens a chunk; {self.sample / 1e6:,.0f} MB a prepared sample"]
        lines += ["memory of each GPU:"]
        lines += [f"  {size / GIB:7.2f} GiB  {name}" for name, size in self.parts.items()]
        return "\n".join([*lines, f"  {self.total / GIB:7.2f} GiB  in all"])


def denoiser_budget(
    config: WorldTransformer.Config,
    grid: tuple[int, int],  # rows and columns of the latents
    layout: Layout,
    beside: dict[str, int] | None = None,  # bytes of other networks that every GPU holds
) -> Budget:
    """The budget of a training with float32 weights that computes in bfloat16, as `train` does. Raises ValueError."""
    if layout.gpus < 1 or layout.shard < 1 or layout.gpus % layout.shard:
        raise ValueError(f"{layout.gpus} GPUs cannot hold the weights in shards of {layout.shard}; give a divisor")
    with torch.device("meta"):
        network = WorldTransformer(config).to(torch.bfloat16)
    size = sum(parameter.numel() for parameter in network.parameters())
    block = sum(parameter.numel() for parameter in network.blocks[0].parameters())
    conditioning = _conditioning(config, grid, layout.batch)
    shared, inside, tokens = _kept(network, conditioning)
    entering = layout.batch * tokens * config.width * BFLOAT16
    new_tokens = config.layout.segments(*_token_grid(config, grid))[-1].tokens
    head = 3 * layout.batch * len(new_tokens) * config.width * FLOAT32  # tokens, their norm, their modulation
    blocks = {
        "what enters each block": config.depth * entering,
        "inside the block that is computed again": inside,
    }
    gathered = size if layout.shard == 1 else size - (config.depth - 2) * block  # this block and the next
    parts = {
        "weights, float32": size * FLOAT32 // layout.shard,
        "weights as they compute, bfloat16": gathered * BFLOAT16,
        "optimiser, two moments in float32": 2 * size * FLOAT32 // layout.shard,
        "gradients, float32": size * FLOAT32 // layout.shard,
        "gradients of a block before they are shared": block * (BFLOAT16 + FLOAT32) if layout.shard > 1 else 0,
        "average of the weights, float32": size * FLOAT32 // layout.shard if layout.average else 0,
        "activations: conditioning, embeddings, head": shared + head,
        **(blocks if layout.recompute else {"activations: all blocks": config.depth * inside}),
        **(beside or {}),
    }
    sample = (
        sum(
            value.numel() * BFLOAT16 // layout.batch
            for name, value in vars(conditioning).items()
            if name not in ("text", "image")
        )
        + conditioning.warp.numel() * BFLOAT16 // layout.batch
    )  # the clean latents
    return Budget(size, tokens, sample, {name: size for name, size in parts.items() if size})


def _token_grid(config: WorldTransformer.Config, grid: tuple[int, int]) -> tuple[int, int]:
    return grid[0] // config.patch[1], grid[1] // config.patch[2]


def _conditioning(config: WorldTransformer.Config, grid: tuple[int, int], batch: int) -> Conditioning:
    layout, area = config.layout, config.condition_side**2

    def empty(*shape: int) -> Tensor:
        return torch.empty(batch, *shape, device="meta", dtype=torch.bfloat16)

    return Conditioning(
        history=empty(config.channels, layout.history_frames, *grid),
        warp=empty(config.channels, layout.new_frames, *grid),
        known=empty(4, layout.new_frames, *grid),
        rays=empty(6 * area, layout.frames, *grid),
        correspondence=empty(layout.space_frames * 4 * area, layout.new_frames, *grid),
        text=empty(config.text_length, config.text_dim),
        image=empty(257, config.image_dim),
    )


def _kept(network: WorldTransformer, conditioning: Conditioning) -> tuple[int, int, int]:
    """Bytes kept for the backward pass outside of the blocks and within one, and the tokens of a chunk."""
    batch, width = len(conditioning.history), network.config.width
    prepared, shared = _counted(network, lambda: network.prepare(conditioning))
    tokens = prepared.rays.shape[1]
    entering = torch.empty(batch, tokens, width, device="meta", dtype=torch.bfloat16, requires_grad=True)
    modulation = torch.empty(batch, 6, width, device="meta", requires_grad=True)
    block = network.blocks[0]
    _, inside = _counted(network, lambda: block(entering, modulation, prepared, prepared.blocks[0], 0))
    return shared, inside, tokens


def _counted(network: nn.Module, run: Callable) -> tuple:
    """The result of `run`, and the bytes of what autograd keeps of it, weights left out."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return value

    hooks: AbstractContextManager = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
    with _FusedAttention(), hooks:
        result = run()
    return result, sum(storage.nbytes() for storage in kept.values())


class _FusedAttention(TorchFunctionMode):
    """Meta tensors would take the textbook's attention, which keeps every score; GPUs do not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            return _KeepsNoScores.apply(*args)
        return func(*args, **(kwargs or {}))


class _KeepsNoScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        attended = torch.empty_like(queries)
        sums = queries.new_empty(queries.shape[:3], dtype=torch.float32)  # of each query's scores, logarithms
        ctx.save_for_backward(queries, keys, values, attended, sums)
        return attended
