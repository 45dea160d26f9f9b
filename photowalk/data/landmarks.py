"""The points of a COLMAP model: which of them each image sees."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

_MOST_ERROR = 4.0  # pixels of reprojection beyond which a point is not believed


def read_landmarks(model: Path, images: Sequence[int]) -> list[Tensor]:
    """For each image, by COLMAP's number, the points [P, 3] that it sees; an empty list if the model has no points.

    Raises ValueError, struct.error or OSError for damaged files.
    """
    binary, text = model / "points3D.bin", model / "points3D.txt"
    if not binary.is_file() and not text.is_file():
        return []
    seen: dict[int, list[tuple[float, ...]]] = {image: [] for image in images}
    for point, error, track in _binary(binary.read_bytes()) if binary.is_file() else _text(text):
        for image in set(track):
            if error < _MOST_ERROR and image in seen:
                seen[image].append(point)
    points = [torch.tensor(seen[image]).reshape(-1, 3) for image in images]
    return points if any(len(part) for part in points) else []


def _text(file: Path) -> Iterator[tuple[tuple[float, ...], float, list[int]]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            _, x, y, z, _, _, _, error, *track = line.split()
            yield (float(x), float(y), float(z)), float(error), [int(image) for image in track[::2]]


def _binary(content: bytes) -> Iterator[tuple[tuple[float, ...], float, list[int]]]:
    (count,), at = struct.unpack_from("<Q", content), 8
    for _ in range(count):
        _, *point, _, _, _, error, length = struct.unpack_from("<Q3d3BdQ", content, at)
        at += struct.calcsize("<Q3d3BdQ")
        track = struct.unpack_from(f"<{2 * length}i", content, at)
        at += 8 * length
        yield tuple(point), error, list(track[::2])
