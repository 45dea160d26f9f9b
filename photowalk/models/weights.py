"""Weights from safetensors into modules, strictly."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn


class WeightsError(ValueError):
    """A file of weights that does not fit."""


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file; number formats are converted. Raises WeightsError, naming every tensor
    that is missing, surplus or of another shape."""
    if not path.exists():
        raise WeightsError(f"there are no weights at {path}; train them or reinstall the package")
    given, wanted = load_file(path), module.state_dict()
    faults = [f"missing: {name}" for name in sorted(wanted.keys() - given.keys())]
    faults += [f"surplus: {name}" for name in sorted(given.keys() - wanted.keys())]
    faults += [
        f"{name}: {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & given.keys())
        if given[name].shape != wanted[name].shape
    ]
    if faults:
        raise WeightsError(f"{path} does not fit {type(module).__name__}; " + "; ".join(faults[:20]))
    module.load_state_dict({name: given[name].to(wanted[name].dtype) for name in wanted})
