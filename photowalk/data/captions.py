"""Reads the pickled captions of the published dataset layout without letting the pickle do anything.

Such a file maps first frames to {"frame_range", "caption", "embedding"}. Only numbers, texts, lists and dicts are
built; whatever else a pickle names, the embedding among it, becomes a thing without properties, and is never imported.
"""

from __future__ import annotations

import pickle
from pathlib import Path


class CaptionError(ValueError):
    """Captions that cannot be read; the text says which file and why."""


def read_captions(path: Path) -> dict[int, str]:
    """First frame -> what is seen from there on, by frame. Raises CaptionError."""
    try:
        with path.open("rb") as file:
            content = _Inert(file).load()
    except Exception as error:  # whatever damaged bytes lead to
        raise CaptionError(f"{path} holds no captions that can be read ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict) or not all(
        isinstance(first, int) and isinstance(entry, dict) and isinstance(entry.get("caption"), str)
        for first, entry in content.items()
    ):
        raise CaptionError(f"{path} wants a dict from first frames to dicts with a caption")
    return {first: entry["caption"] for first, entry in sorted(content.items())}


def caption_at(captions: dict[int, str], frame: int) -> str:
    """The last one that begins at `frame` or before; empty if there is none."""
    return next((captions[first] for first in sorted(captions, reverse=True) if first <= frame), "")


class _Thing:
    """Stands for anything that is no plain value: takes what a pickle does to it, and forgets it."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        pass

    def __setitem__(self, key, value) -> None:
        pass

    def append(self, value) -> None:
        pass


class _Inert(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        return _Thing

    def persistent_load(self, pid) -> _Thing:
        return _Thing()
