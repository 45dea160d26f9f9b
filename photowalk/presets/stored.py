"""Networks with weights of the store on this computer, brought to where they are computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from photowalk.checkpoints.load import load as load_stored
from photowalk.checkpoints.store import weight_files
from photowalk.models.lora import Changes, merge_layer
from photowalk.world.placement import Placement
from photowalk.world.residency.visiting import let_visit

Module = TypeVar("Module", bound=nn.Module)


def stored_network(build: Callable[[], Module], folder: Path) -> Module:
    """A network with the weights of a folder of the store, in bfloat16 as published: views of the files, which take no
    memory that is wanted elsewhere."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        network = build()
    tie = getattr(network, "tie_weights", None)
    if callable(tie):  # a network of transformers, which has lost in this what its parts share
        tie()
    load_stored(network, folder, torch.bfloat16)
    return network.eval().requires_grad_(False)


def lodge(network: nn.Module, placement: Placement) -> None:
    """Bring a network to the device, for good or for each of its uses."""
    if placement.plan is not None and placement.plan.visiting:
        let_visit(network, placement.device)
    else:
        network.to(placement.device)


def settle(name: str, module: nn.Module, *, device: torch.device, changes: Changes) -> None:
    """Bring what a module holds itself to the device, with the adaptations of its weights."""
    for key, parameter in module.named_parameters(recurse=False):
        module._parameters[key] = nn.Parameter(parameter.to(device), requires_grad=False)
    for key, buffer in module.named_buffers(recurse=False):
        module._buffers[key] = buffer.to(device)
    for layers, weight in changes:
        if name in layers and isinstance(module, nn.Linear):
            merge_layer(module, layers[name], weight)


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    files = [load_file(file) for file in weight_files(folder)]
    return {name: tensor for file in files for name, tensor in file.items()}
