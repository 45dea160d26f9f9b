"""A walk as a stream of the frames whose depth is known, a few at a time, whatever the walk's length.

Nothing here holds more than one batch, so a walk may be read from disk while it is taken in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from torch import Tensor

from photowalk.scene.types import Clip, View


def stream_views(walk: Iterable[Clip] | Iterable[View]) -> Iterator[View]:
    """The frames of clips (in order, numbered through) or views whose depth is known somewhere.

    NaN and negative depth is taken for unknown. No view keeps the clip that it came from alive.
    """
    start = 0
    for part in walk:
        if isinstance(part, View):
            views = [part]
        else:
            views = [] if part.depth is None else [replace(part.view(f), frame=start + f) for f in range(len(part))]
            start += len(part)
        for view in views:
            depth = _sound(view.depth)
            if (depth > 0).any():
                yield View(view.image.clone(), depth.clone(), view.camera, view.frame)


def batches(views: Iterable[View], size: int) -> Iterator[list[View]]:
    """All views in order, `size` at a time, the last batch as many as are left."""
    views = iter(views)
    while batch := list(islice(views, size)):
        yield batch


def _sound(depth: Tensor) -> Tensor:
    return depth.nan_to_num(0, posinf=float("inf")).clamp_min(0)
