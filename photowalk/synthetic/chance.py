"""Seeded dice: everything in a synthetic world is drawn from one stream, so its seed says all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Choice = TypeVar("Choice")


class Chance:
    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def rand(self, *shape: int) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(*shape, generator=self._random)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rand(1))

    def integer(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (1,), generator=self._random))

    def choice(self, options: Sequence[Choice]) -> Choice:
        return options[self.integer(0, len(options) - 1)]

    def happens(self, probability: float) -> bool:
        return float(self.rand(1)) < probability
