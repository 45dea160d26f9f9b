"""How publishers name and shape the tensors of a network, and how those become this project's: both ways.

A naming says what each of our tensors is called in a file. Several of ours may be one tensor there, stacked along its
first axis (queries, keys and values), and shapes may differ by axes of length one or flattened ones: whatever differs,
the numbers stand in the same order. The one exception are added columns, which begin as zeros.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]  # a pattern in our name, what stands there in the file

_PIECE = re.compile(r"\[(\d)\]")


@dataclass(frozen=True)
class Naming:
    """One publisher's names for a network."""

    publisher: str
    sign: str  # pattern of the beginning of a name, without prefix, that only such files hold
    rules: tuple[Rule, ...] = ()  # applied one after the other; `[i]` in the result: the i-th piece of a stacked tensor
    prefixes: tuple[str, ...] = ("",)  # of every name in a file, one of these
    shapes: Mapping[str, Callable[[Shape], Shape]] = field(
        default_factory=dict
    )  # pattern of a file's name -> its shape
    ignored: tuple[str, ...] = ()  # patterns of names in a file, prefix and all, of tensors that we have no use for
    absent: str | None = None  # pattern of our names of tensors that no such file holds
    repeated: tuple[
        Rule, ...
    ] = ()  # names in a file of one tensor that it may hold under several, and the first of them

    def in_file(self, name: str) -> tuple[str, int]:
        """Our name -> the file's, and which piece of that tensor is ours."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        piece = _PIECE.search(name)
        return _PIECE.sub("", name), int(piece[1]) if piece else 0

    def shape_in_file(self, name: str, shape: Shape) -> Shape:
        reshape = next((reshape for pattern, reshape in self.shapes.items() if re.fullmatch(pattern, name)), None)
        return shape if reshape is None else reshape(shape)

    def first_name(self, name: str) -> str:
        """A name in a file -> the first under which the file may hold the same tensor."""
        for pattern, replacement in self.repeated:
            name = re.sub(pattern, replacement, name)
        return name

    def is_ignored(self, name: str) -> bool:
        return any(re.match(pattern, name) for pattern in self.ignored)

    def is_absent(self, name: str) -> bool:
        return self.absent is not None and re.fullmatch(self.absent, name) is not None


@dataclass(frozen=True)
class Link:
    """One tensor of a file and those of ours that it holds."""

    source: str  # without the prefix
    shape: Shape
    targets: tuple[tuple[str, Shape], ...]

    def ours(self, tensor: Tensor) -> dict[str, Tensor]:
        """A tensor of the file [shape] -> ours by name."""
        if self.is_widened:
            (name, shape), rows = self.targets[0], tensor.flatten(1)
            return {name: F.pad(rows, (0, shape[1] - rows.shape[1]))}
        pieces = tensor.reshape(-1).split([math.prod(shape) for _, shape in self.targets])
        return {name: piece.view(shape) for (name, shape), piece in zip(self.targets, pieces)}

    def theirs(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Ours by name -> the tensor of the file [shape]. Added columns are left out."""
        if self.is_widened:
            return tensors[self.targets[0][0]][:, : math.prod(self.shape[1:])].reshape(self.shape)
        return torch.cat([tensors[name].reshape(-1) for name, _ in self.targets]).view(self.shape)

    @property
    def is_widened(self) -> bool:
        return math.prod(self.shape) < sum(math.prod(shape) for _, shape in self.targets)


def links(ours: Mapping[str, Shape], naming: Naming) -> tuple[Link, ...]:
    """How a file of this naming holds tensors of ours, given by name and shape; those that it lacks are left out."""
    pieces: dict[str, dict[int, tuple[str, Shape]]] = {}
    for name, shape in ours.items():
        if not naming.is_absent(name):
            source, piece = naming.in_file(name)
            if piece in pieces.setdefault(source, {}):
                raise ValueError(f"two tensors would be {source} in a file of {naming.publisher}: one is {name}")
            pieces[source][piece] = (name, shape)
    found = []
    for source, parts in pieces.items():
        targets = tuple(parts[piece] for piece in sorted(parts))
        first, rows = targets[0][1], sum(shape[0] for _, shape in targets if shape)
        stacked = first if len(targets) == 1 else (rows, *first[1:])
        found.append(Link(source, naming.shape_in_file(source, stacked), targets))
    return tuple(found)
