"""Two threads for what is made one after the other: the next item comes into being while one is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items in the same order, one of them ahead of what is asked for. What making them raises is raised
    where they are asked for. Modes of torch that belong to a thread, such as no_grad, do not reach the other one; the
    number of torch's threads does, as it is when an item is asked for."""
    made = iter(items)

    def next_one(threads: int) -> list[T]:
        torch.set_num_threads(threads)
        return list(islice(made, 1))

    with ThreadPoolExecutor(1) as other:
        coming = other.submit(next_one, torch.get_num_threads())
        while one := coming.result():
            coming = other.submit(next_one, torch.get_num_threads())
            yield from one
