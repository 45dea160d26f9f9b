"""Samples that are built once for each clip and kept on disk, where they are found again by where the clip lies."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from photowalk.scene.images import write_atomically


@dataclass(frozen=True)
class Sample:
    """One chunk of a clip with what a network is told of it."""

    tensors: dict[str, Tensor]
    prompt: str = ""


def place_of(clip: Path, folder: Path) -> Path:
    """The folder under `folder` for what is made of a clip; clips of one name that lie in several folders have one
    each."""
    clip = Path(os.path.abspath(clip))  # "." has a name too; a link keeps its own
    above = clip.parent.resolve()
    return folder / f"{above.name}-{zlib.crc32(str(above).encode()):08x}" / clip.name


def prepared(clip: Path, folder: Path, build: Callable[[], Iterable[Sample]], take: int = 0) -> list[Path]:
    """The files of a clip's samples under `folder`, in order, built if they are not there yet; of the clip itself
    (`take` 0) or of another recording of it. Raises what `build` raises."""
    place = place_of(clip, folder)
    done = place / f"{take}.done"
    if not done.exists():
        place.mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(build()):
            tensors = {name: value.contiguous() for name, value in sample.tensors.items()}
            about = {"prompt": sample.prompt}
            path = place / f"{take}_{number:04d}.safetensors"
            write_atomically(path, lambda temporary, t=tensors, a=about: save_file(t, temporary, a))
        done.touch()
    return sorted(place.glob(f"{take}_*.safetensors"))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Of a prepared sample. Raises ValueError, naming the file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        take = path.name.split("_")[0]
        raise ValueError(
            f"{path} cannot be read ({error}); remove it and {take}.done beside it, and it is made again"
        ) from error


def read_prompt(path: Path) -> str:
    """Of a prepared sample."""
    with safe_open(path, "pt") as file:
        return file.metadata()["prompt"]
