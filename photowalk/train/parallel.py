"""Spreads a training over processes and saves its memory, from outside the networks: replicas, shards, recomputation.

Started by torchrun there is one process for each GPU (or, to try it, several on a CPU). Replicas hold all weights and
average their gradients; shards hold a part each of weights, gradients and optimiser (FSDP2), gathered block by block.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from photowalk.models.token_share import ALL_TOKENS, TokenShare
from photowalk.models.world_transformer import WorldTransformer
from photowalk.parallel.tokens import TokensAmong
from photowalk.world.placement import Placement

PATIENCE = timedelta(hours=6)  # for the slowest process, which may be making samples


@dataclass(frozen=True)
class Processes:
    """Which of the processes of a training this is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes logs, pictures and weights."""
        return self.rank == 0


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun started; alone where it did not."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    done = False
    try:
        yield processes()
        done = True
    finally:
        if done:  # who leaves while others still talk to it may be aborted by gloo's threads
            dist.barrier()
        dist.destroy_process_group()


def processes() -> Processes:
    """Those that were joined."""
    return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()


def drawers(context: int) -> Processes:
    """Those among which batches are shared out: groups of `context` processes that work on one batch together. Raises
    ValueError."""
    here = processes()
    if context < 1 or here.count % context:
        raise ValueError(
            f"{here.count} processes cannot work on batches in groups of {context}; give a divisor of their number"
        )
    return Processes(here.rank // context, here.count // context)


def token_share(context: int) -> TokenShare:
    """The tokens of this process in its group of `context`. Every process has to ask, in the same order."""
    group = drawers(context)
    if context == 1:
        return ALL_TOKENS
    ranks = torch.arange(processes().count).split(context)
    groups = [dist.new_group(members.tolist(), timeout=PATIENCE) for members in ranks]
    return TokensAmong(processes().rank % context, context, groups[group.rank])


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def spread(module: nn.Module, shard: int, placement: Placement) -> None:
    """Give every process the weights of the first; with `shard` > 1 split them in place among so many processes.

    Groups of `shard` processes hold one copy of the weights together, and there are as many copies as groups: the
    first group's, of which each process keeps its part, so all should begin alike. Products are taken in the
    placement's format; weights, gradients and optimiser stay as fine as they are. Raises ValueError.
    """
    count = processes().count
    if shard < 1 or count % shard:
        raise ValueError(
            f"weights cannot be split into shards of {shard} among {count} processes; give a divisor of their number"
        )
    if shard > 1:
        return _shard(module, shard, placement)
    module.to(placement.device)
    if count > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def _shard(module: nn.Module, shard: int, placement: Placement) -> None:
    mesh = init_device_mesh(
        placement.device.type, (processes().count // shard, shard), mesh_dim_names=("replicas", "shards")
    )
    warnings.filterwarnings(
        "ignore", "FSDP2-wrapped module", UserWarning
    )  # of views that are changed in place: none is
    products = None if placement.dtype == torch.float32 else placement.dtype
    policy = MixedPrecisionPolicy(param_dtype=products, reduce_dtype=torch.float32, cast_forward_inputs=False)
    split = partial(fully_shard, mesh=mesh, mp_policy=policy)
    for network in module.children() if isinstance(module, nn.ModuleDict) else (module,):
        for part in network.modules():
            if isinstance(part, WorldTransformer):
                _split_early_layers(part, split)
        for block in _blocks(network):
            split(block)
        split(network)
        if hasattr(network, "encode"):
            register_fsdp_forward_method(network, "encode")
    if processes().count > shard:
        copies = mesh.get_group("replicas")
        for parameter in module.parameters():
            assert isinstance(parameter, DTensor)
            dist.broadcast(parameter.to_local().detach(), group=copies, group_src=0)


def _split_early_layers(network: WorldTransformer, split) -> None:
    """What `prepare` asks of every block before the blocks run is gathered then, and not with the block."""
    for block in network.blocks:
        attention = block.cross_attn
        split(block.buffer_encoder[0])
        split([attention.k, attention.v, attention.norm_k])
        if network.img_emb is not None:
            split([attention.k_img, attention.v_img, attention.norm_k_img])


def recompute_blocks(module: nn.Module) -> None:
    """Activation checkpointing: what happens inside a block is computed again in the backward pass, not kept."""
    for block in _blocks(module):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The members of every list of modules that is called `blocks`."""
    lists = (part for name, part in module.named_modules() if name.split(".")[-1] == "blocks")
    return [block for found in lists if isinstance(found, nn.ModuleList) for block in found]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; shards have done so in the backward pass."""
    count = processes().count
    if count == 1 or any(isinstance(parameter, DTensor) for parameter in parameters):
        return
    present = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.float32)
    dist.all_reduce(present)
    shared = [parameter for parameter, votes in zip(parameters, present.tolist()) if votes]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / count
    dist.all_reduce(flat)
    for parameter, mean in zip(shared, flat.split([gradient.numel() for gradient in gradients])):
        parameter.grad = mean.view_as(parameter)


def mean_over_processes(values: Tensor) -> Tensor:
    """[N] on the CPU -> the mean of each over the processes."""
    if processes().count == 1:
        return values
    values = values / processes().count
    dist.all_reduce(values)
    return values


def whole(value: Tensor) -> Tensor:
    """The tensor itself, put together where it is split. Every process has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value
