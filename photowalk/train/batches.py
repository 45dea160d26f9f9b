"""Draws the batches of a training, in processes of their own if wanted, and names what cannot be drawn.

A step takes `micro_batches` of them. Their numbers run on from step to step, and the chance of each hangs on the seed
and its number alone: it does not matter which process draws it, or whether the run was stopped before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset

from photowalk.train.parallel import Processes

ENDLESS = 10**9  # steps
ATTEMPTS = 5  # at a micro-batch, each with other chance, before a training stops
TORCH_NOTICES = 2.0  # seconds, at most, until torch breaks in because a process ended
FAR = 7_919_000_003  # between the seeds of attempts, lest one is that of a later micro-batch
SHOWN = 10**12  # seed of the batch in the pictures; far from those of the steps
OnFault = Literal["skip", "stop"]
Batch = TypeVar("Batch")
FAULTS = (
    ValueError,
    OSError,
    EOFError,
    SafetensorError,
)  # as readers of files raise them; any other is an error of ours


class TrainingError(ValueError):
    """A training that cannot go on; what it had learnt is in its last checkpoint."""


@dataclass(frozen=True)
class Drawn(Generic[Batch]):
    number: int  # of the micro-batch
    batch: Batch | None  # None: it cannot be drawn
    faults: tuple[str, ...]  # what was met on the way


@dataclass(frozen=True)
class MicroBatches(Dataset, Generic[Batch]):
    """Every micro-batch by its number."""

    draw: Callable[[torch.Generator], Batch]
    seed: int
    on_fault: OnFault

    def __getitem__(self, index: int) -> Drawn[Batch]:
        faults: list[str] = []
        for attempt in range(ATTEMPTS if self.on_fault == "skip" else 1):
            random = torch.Generator().manual_seed(seed_of(self.seed, index) + attempt * FAR)
            try:
                return Drawn(index, self.draw(random), tuple(faults))
            except FAULTS as error:
                faults.append(str(error))
        return Drawn(index, None, tuple(faults))


def shown(draw: Callable[[torch.Generator], Batch], on_fault: OnFault) -> Drawn[Batch]:
    """The batch of which pictures are made, the same each time; files may fail it as they fail any other."""
    return MicroBatches(draw, SHOWN, on_fault)[0]


def seed_of(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def numbers(first_step: int, steps: int | None, micro_batches: int, processes: Processes) -> Iterator[int]:
    """Those of this process, step by step."""
    for step in range(first_step, ENDLESS if steps is None else steps):
        yield from range(step * micro_batches + processes.rank, (step + 1) * micro_batches, processes.count)


def load(source: MicroBatches[Batch], order: Iterator[int], workers: int) -> Iterator[Drawn[Batch]]:
    """Draw in the order given, ahead of need by `workers` processes."""
    return iter(DataLoader(source, batch_size=None, sampler=_Order(order), num_workers=workers))


def death_of_drawers(work: Callable[[], None]) -> str | None:
    """Do work that draws batches. The words of torch if a process that draws them ended unasked: torch then breaks into
    whatever runs, and again and again for as long as its loader is held, so nothing of the work is kept."""
    try:
        try:
            work()
        except (ConnectionError, EOFError):  # cut off while a batch was handed over: torch's words follow, by a signal
            time.sleep(TORCH_NOTICES)
            raise
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        return str(error)
    return None


class _Order:
    """What torch's loader wants for an iterator."""

    def __init__(self, order: Iterator[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return self.order
