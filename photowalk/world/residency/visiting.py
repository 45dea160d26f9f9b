"""Networks that are needed once in a while: their weights come to the device for each use and leave it afterwards.

The weights at home are never changed, so nothing travels back. It works from outside the networks and knows nothing of
what they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from photowalk.models.protocols import StreamState
from photowalk.models.wan_codec import WanCodec


def let_visit(network: nn.Module, device: torch.device) -> None:
    """From now on every layer of `network` is on the device only while it computes, and what it is given is brought
    along. A layer is a module without parts; what other modules hold themselves is little (a class token) and stays."""
    for part in network.modules():
        if any(True for _ in part.children()):
            _put(part, {name: tensor.to(device) for name, tensor in _own(part)})
    for layer in visiting_layers(network):
        visit = _Visit(layer, device)
        layer.register_forward_pre_hook(visit.begin, with_kwargs=True)
        layer.register_forward_hook(visit.end, always_call=True)


def visiting_layers(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that visit one by one."""
    return [part for part in network.modules() if not any(True for _ in part.children()) and _own(part)]


class VisitingCodec:
    """Implements `VideoCodec` around one whose weights, and the state of whose streams, are at home between calls."""

    def __init__(self, codec: WanCodec, device: torch.device) -> None:
        self.spatial_factor, self.temporal_factor = codec.spatial_factor, codec.temporal_factor
        self.channels = codec.channels
        self._codec, self._device = codec, device

    def encode(self, video: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        with _visiting(self._codec, self._device):
            latents, state = self._codec.encode(video, self._brought(state))
        return latents, _at_home(state)

    def decode(self, latents: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        with _visiting(self._codec, self._device):
            video, state = self._codec.decode(latents, self._brought(state))
        return video, _at_home(state)

    def _brought(self, state: StreamState) -> StreamState:
        return {name: tensor.to(self._device) for name, tensor in state.items()}


def _at_home(state: StreamState) -> StreamState:
    return {name: tensor.cpu() for name, tensor in state.items()}


class _Visit:
    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._device = device
        self._home = {part: dict(_own(part)) for part in network.modules()}

    def begin(self, _: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        for part, tensors in self._home.items():
            _put(part, {name: tensor.to(self._device, non_blocking=True) for name, tensor in tensors.items()})
        return tree_map_only(Tensor, lambda tensor: tensor.to(self._device), (args, kwargs))

    def end(self, *_: object) -> None:
        for part, tensors in self._home.items():
            _put(part, tensors)


@contextmanager
def _visiting(network: nn.Module, device: torch.device) -> Iterator[None]:
    visit = _Visit(network, device)
    visit.begin(network, (), {})
    try:
        yield
    finally:
        visit.end()


def _own(part: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers that a module holds itself."""
    held = [*part._parameters.items(), *part._buffers.items()]
    return [(name, tensor) for name, tensor in held if tensor is not None]


def _put(part: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if name not in part._parameters:
            part._buffers[name] = tensor
        elif isinstance(tensor, nn.Parameter):
            part._parameters[name] = tensor
        else:
            part._parameters[name] = nn.Parameter(tensor, requires_grad=False)
