"""What a person at the terminal sees meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from photowalk.world.progress import OnStep, Progress


@contextmanager
def progress_bars() -> Iterator[OnStep]:
    """A bar for each chunk that names the stage it is in; nothing where no one watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[int, TaskID] = {}

        def show(step: Progress) -> None:
            if step.chunk not in tasks:
                for finished in tasks.values():
                    bars.stop_task(finished)
                tasks[step.chunk] = bars.add_task("")
            name = f"chunk {step.chunk}/{step.chunks} {step.stage}" if step.chunks > 1 else step.stage
            bars.update(tasks[step.chunk], description=name, completed=step.done, total=step.total)

        yield show


@contextmanager
def byte_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each file that is written; nothing where no one watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:24}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        yield show


def note(text: str) -> None:
    print(text, file=sys.stderr)
