"""Two threads for what is made one after the other: the next item comes into being while one is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items in the same order, one of them ahead of what is asked for. What making them raises is raised
    where they are asked for. Modes of torch that belong to a thread, such as no_grad, do not reach the other one."""
    made = iter(items)
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(lambda: list(islice(made, 1)))
        while one := coming.result():
            coming = other.submit(lambda: list(islice(made, 1)))
            yield from one
