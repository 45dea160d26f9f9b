"""Which frames of a video a network is shown that sees a limited number at once: some of all, or overlapping windows.

Numbers only; nothing here knows pictures or cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class WindowPlan:
    frames: Tensor  # [U] int64, increasing: the frames of the video that any window is shown
    places: Tensor  # [C, S] int64: for each window, where its frames stand in `frames`
    overlap: int  # frames that a window shares with the one before

    def kept(self, window: int) -> slice:
        """Of the frames of a window those that no earlier one showed."""
        return slice(self.overlap if window else 0, None)


def spread(frames: int, count: int) -> Tensor:
    """At most `count` of so many frames, evenly, the first and the last among them -> int64 [min(frames, count)]."""
    return _evenly(0, frames - 1, min(frames, count))


def even_windows(frames: int, windows: int, size: int, overlap: int) -> WindowPlan:
    """Windows over frames that are spread over the whole video. Raises ValueError where these are too few."""
    _check(windows, size, overlap)
    wanted = windows * size - (windows - 1) * overlap
    if frames < wanted:
        raise ValueError(
            f"{windows} windows of {size} frames that share {overlap} want {wanted} frames, the video has {frames}; "
            f"choose fewer or smaller windows"
        )
    starts = torch.arange(windows)[:, None] * (size - overlap)
    return WindowPlan(spread(frames, wanted), starts + torch.arange(size), overlap)


def split_windows(frames: int, splits: Sequence[int], size: int, overlap: int) -> WindowPlan:
    """A window for each part of the video that ends with one of the frames `splits` or the last: frames spread over the
    part, after the last ones of the window before. Raises ValueError for a part with too few frames."""
    _check(len(splits) + 1, size, overlap)
    edges = [-1, *splits, frames - 1]
    chosen: list[Tensor] = []
    for number, (before, last) in enumerate(pairwise(edges)):
        wanted = size - (overlap if number else 0)
        if last - before < wanted:
            raise ValueError(f"frames {before + 1} to {last} are {last - before} frames; this window wants {wanted}")
        new = _evenly(before + 1, last, wanted)
        chosen.append(new if not number else torch.cat([chosen[-1][-overlap:], new]))
    unique = torch.cat(chosen).unique()
    return WindowPlan(unique, torch.searchsorted(unique, torch.stack(chosen)), overlap)


def _evenly(first: int, last: int, count: int) -> Tensor:
    return torch.from_numpy(np.linspace(first, last, count).astype(np.int64))


def _check(windows: int, size: int, overlap: int) -> None:
    if windows < 1 or not 3 <= overlap < size:
        raise ValueError(f"windows of {size} frames share at least 3 and less than all of them, got {overlap}")
