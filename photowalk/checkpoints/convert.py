"""From a checkpoint to the store's safetensors, one tensor at a time.

Library functions that write safetensors want all tensors of a file at once; here the header is written first, since
names, shapes and formats are known beforehand, and then every tensor as it is read. So memory holds one tensor, however
large the checkpoint is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.names import Shape

SHARD_BYTES = 4_000_000_000
OnStep = Callable[[int, int], None]  # bytes done, bytes in all
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def stored_format(given: torch.dtype) -> torch.dtype:
    """What numbers of a file are stored as. 8-bit floats become bfloat16, which holds them exactly: nothing else here
    reads them. Raises CheckpointError for formats that no weights have."""
    if given.is_floating_point and given.itemsize == 1:
        return torch.bfloat16
    if given not in _DTYPES:
        raise CheckpointError(f"{given} is no format for weights")
    return given


@dataclass(frozen=True)
class Portion:
    """Tensors that come from one place, and how to get them."""

    tensors: Mapping[str, tuple[Shape, torch.dtype]]  # as they are to be written
    read: Callable[[], Mapping[str, Tensor]]

    @property
    def size(self) -> int:
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.tensors.values())


def write_weights(portions: Iterable[Portion], folder: Path, on_step: OnStep | None = None) -> dict[str, str]:
    """Write `weights-*.safetensors` into the folder -> their names and SHA-256.

    Raises CheckpointError, naming the tensor, for numbers that are infinite or none: those are damage.
    """
    # Wide formats first: then every tensor begins at a multiple of its width, as readers that map files want it.
    ordered = sorted(portions, key=lambda portion: -max(dtype.itemsize for _, dtype in portion.tensors.values()))
    total, done = sum(portion.size for portion in ordered), 0
    hashes = {}
    for number, shard in enumerate(_shards(ordered), start=1):
        path = folder / f"weights-{number:05d}.safetensors"
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for piece in _file_contents(shard):
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                del piece  # it may be all of a large tensor
                if on_step:
                    on_step(min(done, total), total)
            file.flush()
            os.fsync(file.fileno())
        hashes[path.name] = digest.hexdigest()
    return hashes


def _shards(portions: list[Portion]) -> Iterable[list[Portion]]:
    shard: list[Portion] = []
    for portion in portions:
        if shard and sum(part.size for part in shard) + portion.size > SHARD_BYTES:
            yield shard
            shard = []
        shard.append(portion)
    yield shard


def _file_contents(portions: list[Portion]) -> Iterable[bytes | memoryview]:
    """The header: its length as 8 bytes, then names, formats, shapes and places as JSON. Then the numbers."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for portion in portions:
        for name, (shape, dtype) in portion.tensors.items():
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for portion in portions:
        yield from _numbers(portion)


def _numbers(portion: Portion) -> Iterable[memoryview]:
    """A generator of its own, so that nothing of a portion is held when the next one is read."""
    tensors = dict(portion.read())
    for name, (shape, dtype) in portion.tensors.items():
        yield _bytes_of(name, tensors.pop(name).to(dtype), shape)


def _bytes_of(name: str, tensor: Tensor, shape: Shape) -> memoryview:
    if tensor.shape != shape:
        raise CheckpointError(f"{name} was to be {shape} and is {tuple(tensor.shape)}")
    if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, tensor.aminmax())):
        raise CheckpointError(f"{name} holds numbers that are infinite or none: the file is damaged, download it again")
    return memoryview(tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy())
