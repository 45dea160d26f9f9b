"""What a training tells about itself: log.jsonl, faults.jsonl, pictures, and TensorBoard's files if wanted."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from torch import Tensor

from photowalk.scene.images import quantise, write_atomically, write_png
from photowalk.train.parallel import processes

_logger = logging.getLogger(__name__)


class Log:
    """Means of what was noted, a line every so many steps. Lines of steps that a resumed run will take again go.

    `noted` [name: values] is what no line holds yet; a checkpoint keeps it, so that a resumed run writes the same
    lines. The first process of a training writes for all; only faults are told by each.
    """

    def __init__(self, folder: Path, step: int, noted: dict[str, list[float]], *, tensorboard: bool = False) -> None:
        here = processes()
        self.folder, self.noted, self._writes = folder, noted, here.first
        self._faults = folder / ("faults.jsonl" if here.first else f"faults_{here.rank}.jsonl")
        _keep_until(self._faults, step)
        if self._writes:
            _keep_until(folder / "log.jsonl", step)
        self._board = _board(folder / "tensorboard", step) if tensorboard and self._writes else None

    def note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.noted.setdefault(name, []).append(value)

    def write(self, step: int, minutes: float, rate: float) -> None:
        """A line of the means since the last one."""
        means = {name: sum(values) / len(values) for name, values in self.noted.items()}
        self.noted.clear()
        if self._writes:
            _append(self.folder / "log.jsonl", {"step": step, "minutes": round(minutes, 3), "rate": rate, **means})
        if self._board:
            for name, value in {"rate": rate, **means}.items():
                self._board.add_scalar(name, value, step)

    def fault(self, step: int, text: str) -> None:
        _logger.warning("step %d: %s", step, text)
        _append(self._faults, {"step": step, "fault": text})

    def picture(self, step: int, image: Tensor) -> None:
        """image [3, H, W] in [0, 1]."""
        if not self._writes:
            return
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        image = quantise(image.detach().float().cpu().clamp(0, 1))
        write_png(folder / f"{step:07d}.png", image)
        if self._board:
            self._board.add_image("picture", image, step)

    def close(self) -> None:
        if self._board:
            self._board.close()


def _board(folder: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard wants tensorboard: pip install 'photowalk[train]'") from error
    return SummaryWriter(str(folder), purge_step=step + 1)


def _append(path: Path, line: dict[str, object]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines after `step`, and one that a kill left half-written."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        write_atomically(path, lambda temporary: temporary.write_text("".join(kept)))
