"""Torch's distributed checkpoints, read in one process and one tensor at a time.

Such a folder is described by a pickle, `.metadata`. Torch would unpickle anything from it; here it may name nothing but
the few types that a description consists of, and the data files must lie in the folder itself.
"""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, StorageMeta

from photowalk.checkpoints.archives import compare_checksums, is_archive
from photowalk.checkpoints.errors import CheckpointError

METADATA = ".metadata"
_CHECKPOINT, _SHARDED = "torch.distributed.checkpoint", "torch.distributed._shard.sharded_tensor.metadata"
_ALLOWED = {
    *(
        (f"{_CHECKPOINT}.metadata", name)
        for name in (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        )
    ),
    *((f"{_CHECKPOINT}.filesystem", name) for name in ("_StorageInfo", "StorageMeta")),
    *((_SHARDED, name) for name in ("MEM_FORMAT_ENCODING", "TensorProperties")),
    *(("pathlib", name) for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
}


class _DescriptionUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) in _ALLOWED:
            return super().find_class(module_name, global_name)
        if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype):
            return getattr(torch, global_name)
        raise CheckpointError(f"it names {module_name}.{global_name}, which could run anything")


class _Reader(dcp.FileSystemReader):
    """Torch's reader with the description given."""

    def __init__(self, folder: Path, description: Metadata) -> None:
        super().__init__(folder)
        self.description = description

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.description


@dataclass(frozen=True)
class _Piece:
    """Where some of a tensor lies."""

    file: Path
    begin: int
    size: int


class DistributedCheckpoint:
    """Implements the protocol `Checkpoint`."""

    files: tuple[Path, ...]
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError for a description that is damaged or names anything else, and for data files that
        are missing, cut short or elsewhere."""
        description = _description(folder)
        try:
            self.tensors = _tensors(folder, description)
            self._pieces = _pieces(folder, description)
        except (AttributeError, TypeError) as error:  # the right types with the wrong things in them
            raise CheckpointError(f"{folder / METADATA} is damaged ({error}); download it again") from error
        self._reader = _Reader(folder, description)
        every = [piece for pieces in self._pieces.values() for piece in pieces]
        _check_files(every)
        self.files = (folder / METADATA, *sorted({piece.file for piece in every}))

    def read(self, name: str) -> Tensor:
        for piece in self._pieces[name]:
            _compare(piece, name)
        shape, dtype = self.tensors[name]
        state = {name: torch.empty(shape, dtype=dtype)}
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that it is one process
                dcp.load(state, storage_reader=self._reader, no_dist=True)
        except (Exception, CheckpointException) as error:  # the latter is none of the former
            raise CheckpointError(f"{name} cannot be read; the checkpoint is damaged, download it again") from error
        return state[name]


def _compare(piece: _Piece, name: str) -> None:
    """A function of its own, so that the bytes are gone before the tensor is made of them."""
    with piece.file.open("rb") as file:
        file.seek(piece.begin)
        content, what = BytesIO(file.read(piece.size)), f"{name} in {piece.file}"
    if is_archive(content, what):
        compare_checksums(content, what)


def _description(folder: Path) -> Metadata:
    path = folder / METADATA
    try:
        with path.open("rb") as file:
            description = _DescriptionUnpickler(file).load()
    except CheckpointError as error:
        raise CheckpointError(f"{path} is refused: {error}") from error
    except Exception as error:  # whatever damaged bytes lead to
        raise CheckpointError(f"{path} is damaged or cut short ({type(error).__name__}); download it again") from error
    if not isinstance(description, Metadata):
        raise CheckpointError(f"{path} describes no checkpoint of torch; download it again")
    description.storage_meta = StorageMeta()
    return description


def _tensors(folder: Path, description: Metadata) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    tensors = {}
    for name, stored in description.state_dict_metadata.items():
        if isinstance(stored, BytesStorageMetadata):
            continue
        shape, dtype = tuple(stored.size), stored.properties.dtype
        if not isinstance(dtype, torch.dtype) or not all(isinstance(side, int) for side in shape):
            raise TypeError(f"{name} has no shape or no format")
        if sum(math.prod(chunk.sizes) for chunk in stored.chunks) != math.prod(shape):
            raise CheckpointError(f"{folder} does not hold all of {name}; download it again")
        tensors[name] = (shape, dtype)
    return tensors


def _pieces(folder: Path, description: Metadata) -> dict[str, list[_Piece]]:
    pieces: dict[str, list[_Piece]] = {name: [] for name in description.state_dict_metadata}
    for index, place in description.storage_data.items():
        name = place.relative_path
        if not isinstance(name, str) or Path(name).name != name or name in ("", "..", ".") or len(name) > 255:
            raise CheckpointError(f"{folder / METADATA} is refused: it points to {name!r:.80} outside of its folder")
        pieces.setdefault(index.fqn, []).append(_Piece(folder / name, place.offset, place.length))
    return pieces


def _check_files(pieces: Iterable[_Piece]) -> None:
    for piece in pieces:
        if not piece.file.is_file():
            raise CheckpointError(f"{piece.file.parent} is incomplete: {piece.file.name} is missing; download it again")
        end = piece.begin + piece.size
        if piece.begin < 0 or piece.size < 0 or piece.file.stat().st_size < end:
            raise CheckpointError(f"{piece.file} is cut short: it wants {end} bytes; download it again")
