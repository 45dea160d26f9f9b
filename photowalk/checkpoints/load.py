"""Weights from the store into a network, strictly and without a second copy in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from photowalk.checkpoints.store import weight_files
from photowalk.models.weights import WeightsError


@torch.no_grad()
def load(module: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Fill `module` with the tensors of a folder of the store, one by one; `dtype` None keeps the stored format.

    Parameters of a module that was built under `torch.device("meta")` become views of the files, read when they are
    first used; others are written into, in their own format and on their own device. Raises WeightsError, before
    anything is changed, naming every tensor that is missing, surplus or of another shape.
    """
    wanted, files = _slots(module), weight_files(folder)
    shapes = {name: shape for file in files for name, shape in _shapes(file)}
    faults = [f"missing: {name}" for name in wanted.keys() - shapes.keys()]
    faults += [f"surplus: {name}" for name in shapes.keys() - wanted.keys()]
    faults += [
        f"{name}: {shapes[name]} instead of {tuple(wanted[name][0].shape)}"
        for name in wanted.keys() & shapes.keys()
        if shapes[name] != tuple(wanted[name][0].shape)
    ]
    if faults:
        raise WeightsError(f"{folder} does not fit {type(module).__name__}; " + "; ".join(sorted(faults)[:20]))
    for file in files:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118, it is no mapping
                _put(*wanted[name], stored.get_tensor(name), dtype)


Places = list[tuple[nn.Module, str]]


def _slots(module: nn.Module) -> dict[str, tuple[Tensor, Places]]:
    """Every stored tensor of a module under its first name, and all the places that share it."""
    unique: dict[str, tuple[Tensor, Places]] = {}
    names: dict[int, str] = {}
    for prefix, part in module.named_modules():
        kept = {n: b for n, b in part._buffers.items() if n not in part._non_persistent_buffers_set}
        for name, value in [*part._parameters.items(), *kept.items()]:
            if value is not None:
                first = names.setdefault(id(value), f"{prefix}.{name}".removeprefix("."))
                unique.setdefault(first, (value, []))[1].append((part, name))
    return unique


def stored_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all that is stored of a module, each shared tensor once."""
    return {name: tuple(value.shape) for name, (value, _) in _slots(module).items()}


def _shapes(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with safe_open(file, framework="pt") as stored:
        for name in stored.keys():  # noqa: SIM118
            yield name, tuple(stored.get_slice(name).get_shape())


def _put(target: Tensor, places: Places, value: Tensor, dtype: torch.dtype | None) -> None:
    value = value if dtype is None else value.to(dtype)
    if not target.is_meta:
        target.copy_(value)
        return
    for part, name in places:
        if name in part._parameters:
            part._parameters[name] = nn.Parameter(value, requires_grad=target.requires_grad)
        else:
            part._buffers[name] = value
