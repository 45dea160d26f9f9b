"""Trains a change of low rank instead of the weights themselves (Hu et al., LoRA, 2021); `merge_lora` adds it up."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def adapt(network: nn.Module, rank: int) -> nn.Module:
    """Freeze the network and let every linear layer learn a change of at most this rank, zero at first.

    Returns the changes, shared with the network: a module whose state dict has the published names, `<layer>.lora_A`
    [rank, in] and `<layer>.lora_B` [out, rank]. Raises ValueError for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"the rank of an adaptation is at least 1, got {rank}")
    network.requires_grad_(False)
    changes = nn.Module()
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    for name, layer in layers:
        change = _Change(layer, rank)
        parametrize.register_parametrization(layer, "weight", change)
        _put(changes, name, change.parts)
    return changes


class _Change(nn.Module):
    """A weight [out, in] -> the same plus B @ A."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        kind = {"device": layer.weight.device, "dtype": torch.float32}
        self.parts = nn.ModuleDict(
            {
                "lora_A": nn.Linear(layer.in_features, rank, bias=False, **kind),
                "lora_B": nn.Linear(rank, layer.out_features, bias=False, **kind),
            }
        )
        nn.init.zeros_(self.parts["lora_B"].weight)

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.parts["lora_B"].weight @ self.parts["lora_A"].weight).to(weight.dtype)


def _put(tree: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if not hasattr(tree, part):
            tree.add_module(part, nn.Module())
        tree = getattr(tree, part)
    tree.add_module(last, module)
