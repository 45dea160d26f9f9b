"""Several processes, one for each GPU, that denoise one chunk together; the first leads, the others help.

Only the leader has a world: it decides, encodes, decodes and writes. Before each pass it tells the helpers what it
does, and all work on tokens of their own (`tokens.py`). Helpers need the denoiser alone, so they cannot come to another
view of the world, and a walk is the same program whether it has helpers or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from photowalk.models.conditioning import Conditioning
from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.models.world_transformer import PreparedConditioning, WorldTransformer
from photowalk.parallel.tokens import TokensAmong

PATIENCE = timedelta(hours=6)  # of helpers while the leader does something else, such as waiting for a download
_DONE = "done"


@contextmanager
def joined() -> Iterator[Team]:
    """Join the processes that torchrun started."""
    dist.init_process_group(timeout=PATIENCE)
    team = Team(dist.get_rank(), dist.get_world_size())
    done = False
    try:
        yield team
        done = True
    finally:
        if team.leads:
            _tell(_DONE, {})
        if team.leads or done:  # who leaves while others still talk to it may be aborted by gloo's threads
            dist.barrier()
        dist.destroy_process_group()


@dataclass(frozen=True)
class Team:
    rank: int
    processes: int

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def shared(self, network: WorldTransformer) -> SharedDenoiser:
        """The leader's network with the helpers behind it."""
        return SharedDenoiser(_Part(network, TokensAmong(self.rank, self.processes)))

    @torch.inference_mode()
    def help(self, network: WorldTransformer, device: torch.device) -> None:
        """Do with one's own copy of the network what the leader tells, until it is done."""
        part = _Part(network, TokensAmong(self.rank, self.processes))
        while True:
            what, given = _hear(device)
            if what == _DONE:
                return
            getattr(part, what)(**given)


class SharedDenoiser:
    """What `guided` wants of a denoiser. Preparations are numbers, and those of a chunk hold until the next one."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._sources: list[Conditioning] = []

    def prepare(self, conditioning: Conditioning, like: int | None = None, *, savings: Savings = ALL_SAVINGS) -> int:
        known = {} if like is None else vars(self._sources[like])
        self._sources = [conditioning] if like is None else [*self._sources, conditioning]
        changed = {name: value for name, value in vars(conditioning).items() if known.get(name) is not value}
        return self._everyone("prepare", like=like, savings=savings, **changed)

    def stacked(self, one: int, other: int) -> int:
        self._sources.append(self._sources[one])
        return self._everyone("stacked", one=one, other=other)

    def __call__(self, noisy: Tensor, timestep: Tensor, conditioning: int) -> Tensor:
        return self._everyone("velocity", noisy=noisy, timestep=timestep, prepared=conditioning)

    def _everyone(self, what: str, **given: Any) -> Any:
        _tell(what, given)
        return getattr(self._part, what)(**given)


class _Part:
    """What every process does for its share of the tokens."""

    def __init__(self, network: WorldTransformer, share: TokensAmong) -> None:
        self._network, self._share = network, share
        self._prepared: list[PreparedConditioning] = []

    def prepare(self, like: int | None, savings: Savings, **changed: Tensor) -> int:
        known, conditioning = None, None
        if like is not None:
            known = self._prepared[like]
            assert known.source is not None, "a stacked preparation has no source"
            conditioning = replace(known.source, **changed)
        else:
            self._prepared.clear()
            conditioning = Conditioning(**changed)
        return self._kept(self._network.prepare(conditioning, known, savings=savings, share=self._share))

    def stacked(self, one: int, other: int) -> int:
        return self._kept(self._network.stacked(self._prepared[one], self._prepared[other]))

    def velocity(self, noisy: Tensor, timestep: Tensor, prepared: int) -> Tensor:
        return self._network(noisy, timestep, self._prepared[prepared])

    def _kept(self, prepared: PreparedConditioning) -> int:
        self._prepared.append(prepared)
        return len(self._prepared) - 1


def _tell(what: str, given: dict[str, Any]) -> None:
    tensors = {name: value.contiguous() for name, value in given.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in given.items() if name not in tensors}
    dist.broadcast_object_list([what, plain, {name: (t.shape, t.dtype) for name, t in tensors.items()}], src=0)
    for tensor in tensors.values():
        dist.broadcast(tensor, src=0)


def _hear(device: torch.device) -> tuple[str, dict[str, Any]]:
    message: list[Any] = [None, None, None]
    dist.broadcast_object_list(message, src=0)
    what, plain, shapes = message
    tensors = {name: torch.empty(shape, dtype=dtype, device=device) for name, (shape, dtype) in shapes.items()}
    for tensor in tensors.values():
        dist.broadcast(tensor, src=0)
    return what, {**plain, **tensors}
