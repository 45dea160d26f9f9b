"""How a long step says where it is, and how it is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


class Cancelled(Exception):
    """Raised by `on_step` to stop what is being made; nothing of it is kept."""


@dataclass(frozen=True)
class Progress:
    stage: str
    done: int
    total: int
    preview: Tensor | None = None  # [3, H, W] in [0, 1], the newest picture
    chunk: int = 1  # which chunk of the walk being made, from 1
    chunks: int = 1


OnStep = Callable[[Progress], None]
