"""Torch's distributed checkpoints, read in one process and one tensor at a time.

Such a folder is described by a pickle, `.metadata`. Torch would unpickle anything from it; here it may name nothing but
the few types that a description consists of, and the data files must lie in the folder itself.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, StorageMeta, TensorStorageMetadata

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


class DistributedCheckpoint:
    """Implements the protocol `Checkpoint`."""

    files: tuple[Path, ...]
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError for a description that is damaged or names anything else, and for data files that
        are missing, cut short or elsewhere."""
        self._description = _description(folder)
        self._reader = _Reader(folder, self._description)
        self.files = (folder / METADATA, *_data_files(folder, self._description))
        self.tensors = {}
        for name, stored in self._description.state_dict_metadata.items():
            if isinstance(stored, BytesStorageMetadata):
                continue
            if sum(chunk.sizes.numel() for chunk in stored.chunks) != stored.size.numel():
                raise CheckpointError(f"{folder} does not hold all of {name}; download it again")
            self.tensors[name] = (tuple(stored.size), stored.properties.dtype)

    def read(self, name: str) -> Tensor:
        shape, dtype = self.tensors[name]
        state = {name: torch.empty(shape, dtype=dtype)}
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that it is one process
                dcp.load(state, storage_reader=self._reader, no_dist=True)
        except (Exception, CheckpointException) as error:  # the latter is none of the former
            raise CheckpointError(f"{name} cannot be read; the checkpoint is damaged, download it again") from error
        return state[name]


def _description(folder: Path) -> Metadata:
    path = folder / METADATA
    try:
        with path.open("rb") as file:
            description = _DescriptionUnpickler(file).load()
    except CheckpointError as error:
        raise CheckpointError(f"{path} is refused: {error}") from error
    except Exception as error:  # whatever damaged bytes lead to
        raise CheckpointError(f"{path} is damaged or cut short ({type(error).__name__}); download it again") from error
    entries = getattr(description, "state_dict_metadata", None)
    kinds = (TensorStorageMetadata, BytesStorageMetadata)
    if not isinstance(description, Metadata) or not all(isinstance(entry, kinds) for entry in (entries or {}).values()):
        raise CheckpointError(f"{path} describes no checkpoint of torch; download it again")
    description.storage_meta = description.storage_meta or StorageMeta()
    return description


def _data_files(folder: Path, description: Metadata) -> list[Path]:
    ends: dict[str, int] = {}
    for piece in description.storage_data.values():
        name = str(piece.relative_path)
        if Path(name).name != name or name in ("", "..", "."):
            raise CheckpointError(f"{folder / METADATA} is refused: it points to {name!r} outside of its folder")
        ends[name] = max(ends.get(name, 0), piece.offset + piece.length)
    for name, end in ends.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing; download it again")
        if (folder / name).stat().st_size < end:
            raise CheckpointError(f"{folder / name} is cut short: it wants {end} bytes; download it again")
    return [folder / name for name in sorted(ends)]
