"""Single numbers drawn from a generator."""

from __future__ import annotations

import torch


def integer(limit: int, random: torch.Generator) -> int:
    """In [0, limit)."""
    return int(torch.randint(limit, (), generator=random))


def uniform(low: float, high: float, random: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))
