"""Weights that wait in host memory and travel to the device just before their turn, while the layers before compute.

A stream is a sequence of units, each a few layers whose weights travel together, that are used one after the other,
again and again. Two slots on the device take turns: while one unit is in use, the next one fills the other slot. It
works from outside a network, by hooks, and knows nothing of what the layers do. Weights read outside of a layer's
`forward` are those of whatever unit is in the slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from photowalk.world.placement import Copies, CopyInWork
from photowalk.world.residency.plan import SLOTS

_ALIGNMENT = 256  # bytes; kernels read faster from such addresses


@dataclass(frozen=True)
class _Weight:
    layer: nn.Module
    name: str
    dtype: torch.dtype
    shape: torch.Size
    first: int  # byte in the unit

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * self.shape.numel()

    def of(self, memory: Tensor) -> Tensor:
        """As a view of a unit's memory, uint8 [size]."""
        return memory[self.first : self.first + self.bytes].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class _Unit:
    weights: tuple[_Weight, ...]
    host: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.host)

    def move_into(self, memory: Tensor) -> None:
        """Let the layers read their weights there."""
        for weight in self.weights:
            _put(weight.layer, weight.name, weight.of(memory))


class WeightStream:
    """`units` are taken one by one and their weights, of any device, moved to host memory before the next is taken."""

    def __init__(self, units: Iterable[Sequence[nn.Module]], copies: Copies) -> None:
        self._copies = copies
        self._units = [_pack(layers, copies) for layers in units]
        count = min(SLOTS, len(self._units))
        size = max(unit.size for unit in self._units)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=copies.device) for _ in range(count)]
        self._holds: list[int | None] = [None] * count  # which unit was last sent to each slot
        self._sent: list[CopyInWork] = [None] * count
        self._current: int | None = None
        use = torch.compiler.disable(self._use)  # here, since naming it loads the compiler, which takes seconds
        for index, unit in enumerate(self._units):
            unit.move_into(self._slots[index % count])
            for layer in {weight.layer: None for weight in unit.weights}:
                layer.register_forward_pre_hook(partial(use, index))

    def _use(self, index: int, *_: object) -> None:
        """Unit `index` is about to compute: wait until it is there, and send for the next one."""
        if index == self._current:
            return
        self._send(index)
        self._copies.finish(self._sent[index % len(self._slots)])
        self._current = index
        following = (index + 1) % len(self._units)
        if (following - index) % len(self._slots):
            self._send(following)

    def _send(self, index: int) -> None:
        slot = index % len(self._slots)
        if self._holds[slot] != index:
            self._sent[slot] = self._copies.begin(self._slots[slot], self._units[index].host)
            self._holds[slot] = index


def _pack(layers: Sequence[nn.Module], copies: Copies) -> _Unit:
    weights, size = [], 0
    for layer in layers:
        for name, tensor in [*layer._parameters.items(), *layer._buffers.items()]:
            if tensor is not None:
                weights.append(_Weight(layer, name, tensor.dtype, tensor.shape, size))
                size += -(-weights[-1].bytes // _ALIGNMENT) * _ALIGNMENT
    host = copies.host_memory(size)
    packed = torch.empty(sum(map(len, host)), dtype=torch.uint8, device=copies.device)
    for weight in weights:
        weight.of(packed).copy_(getattr(weight.layer, weight.name).detach())
        _put(weight.layer, weight.name, None)
    for piece, filled in zip(host, packed.split([len(piece) for piece in host])):
        piece.copy_(filled)
    return _Unit(tuple(weights), tuple(host))


def _put(layer: nn.Module, name: str, value: Tensor | None) -> None:
    if name in layer._parameters:
        layer._parameters[name] = None if value is None else nn.Parameter(value, requires_grad=False)
    else:
        layer._buffers[name] = value
