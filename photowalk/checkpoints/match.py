"""Whose checkpoint is this, and does it hold exactly what the network wants?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.names import Link, Naming, Shape, links
from photowalk.checkpoints.readers import Checkpoint

_NAMED_FAULTS = 20


@dataclass(frozen=True)
class Match:
    links: tuple[Link, ...]
    prefix: str  # of the names in the file
    ignored: tuple[str, ...]  # names in the file of what is left out


def prefix_of(checkpoint: Checkpoint, naming: Naming) -> str | None:
    """What stands before the names of this naming in the checkpoint; None where it is not of this naming."""
    signs = (re.compile(re.escape(prefix) + naming.sign) for prefix in naming.prefixes)
    found = (any(sign.match(name) for name in checkpoint.tensors) for sign in signs)
    return next((prefix for prefix, is_found in zip(naming.prefixes, found) if is_found), None)


def match(checkpoint: Checkpoint, ours: Mapping[str, Shape], naming: Naming, prefix: str) -> Match:
    """Raises CheckpointError that names every tensor that is missing, surplus or of another shape."""
    first = {naming.first_name(name): name for name in sorted(checkpoint.tensors, reverse=True)}
    wanted = {first.get(prefix + link.source, prefix + link.source): link for link in links(ours, naming)}
    wanted = {name: replace(link, source=name.removeprefix(prefix)) for name, link in wanted.items()}
    repeats = {name for name in checkpoint.tensors if naming.first_name(name) != name} - wanted.keys()
    given = {name for name in checkpoint.tensors if name in wanted or not naming.is_ignored(name)} - repeats
    faults = [f"missing: {name}" for name in wanted.keys() - given]
    faults += [f"surplus: {name}" for name in given - wanted.keys()]
    for name in wanted.keys() & given:
        shape, dtype = checkpoint.tensors[name]
        if shape != wanted[name].shape:
            faults.append(f"{name}: {shape} instead of {wanted[name].shape}")
        elif not dtype.is_floating_point:
            faults.append(f"{name}: {dtype} instead of floating-point numbers")
    if faults:
        more = f"; and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
        raise CheckpointError(
            f"{described(checkpoint.files)} looks like {naming.publisher}'s but does not fit; "
            + "; ".join(sorted(faults)[:_NAMED_FAULTS])
            + more
        )
    return Match(tuple(wanted.values()), prefix, tuple(sorted(checkpoint.tensors.keys() - wanted.keys())))


def described(files: tuple[Path, ...]) -> str:
    """One file by its name, several by their folder."""
    return str(files[0] if len(files) == 1 else files[0].parent)
