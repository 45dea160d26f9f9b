"""Checkpoints as they are published: which tensors a file or folder holds, and each of them when it is asked for.

Nothing of a file is trusted: no code in it is run, no path in it leads out of its folder.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from photowalk.checkpoints.archives import compare_checksums, is_archive
from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.names import Shape

INDEX = ".safetensors.index.json"
_WRAPPERS = ("state_dict", "module", "model")  # under which training programs put the tensors


class Checkpoint(Protocol):
    files: tuple[Path, ...]
    tensors: dict[str, tuple[Shape, torch.dtype]]

    def read(self, name: str) -> Tensor:
        """On the CPU, in memory of its own or in that of the file; not to be written to."""
        ...


def open_checkpoint(paths: tuple[Path, ...]) -> Checkpoint:
    """Open a file, a folder of torch's distributed format, or the shards of safetensors (with or without their index).

    Raises CheckpointError.
    """
    path = paths[0]
    if path.is_dir():
        from photowalk.checkpoints.dcp import DistributedCheckpoint  # a second of importing that few need

        return DistributedCheckpoint(path)
    if path.suffix in (".safetensors", ".json"):
        return SafetensorsCheckpoint(paths)
    return TorchCheckpoint(path)


class SafetensorsCheckpoint:
    """Implements the protocol `Checkpoint`."""

    files: tuple[Path, ...]
    tensors: dict[str, tuple[Shape, torch.dtype]]

    def __init__(self, paths: tuple[Path, ...]) -> None:
        index = next((path for path in paths if path.name.endswith(INDEX)), None)
        self.files = paths if index is None else (index, *_indexed_files(index))
        self.tensors = {}
        self._file_of: dict[str, Path] = {}
        for path in self.files:
            if path != index:
                self._add(path)
        if index is not None:
            _check_index(index, self._file_of)

    def read(self, name: str) -> Tensor:
        with safe_open(self._file_of[name], framework="pt") as file:
            return file.get_tensor(name)

    def _add(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118, it is no mapping
                    if name in self._file_of:
                        raise CheckpointError(f"{name} is in {self._file_of[name].name} and in {path.name}")
                    part = file.get_slice(name)
                    dtype = file.get_slice(name)[:0].dtype if part.get_shape() else file.get_tensor(name).dtype
                    self.tensors[name] = (tuple(part.get_shape()), dtype)
                    self._file_of[name] = path
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged or cut short ({error}); download it again") from error


class TorchCheckpoint:
    """Implements the protocol `Checkpoint`. Files in torch's zip format stay on disk until a tensor is read."""

    files: tuple[Path, ...]

    def __init__(self, path: Path) -> None:
        self.files = (path,)
        with path.open("rb") as file:
            zipped = is_archive(file, str(path))
        self._compared = not zipped  # old files have no checksums
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # of pickles that torch did not write
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            raise CheckpointError(_not_only_tensors(path, error)) from error
        except Exception as error:  # whatever torch makes of damaged bytes
            raise CheckpointError(
                f"{path} is damaged, cut short or no checkpoint ({type(error).__name__}); download it again"
            ) from error
        self._content = {
            name: tensor.detach()
            for name, tensor in _state(content).items()
            if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        }
        self.tensors = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in self._content.items()}

    def read(self, name: str) -> Tensor:
        if not self._compared:
            with self.files[0].open("rb") as file:
                compare_checksums(file, str(self.files[0]))
            self._compared = True
        return self._content[name]


def is_distributed(folder: Path) -> bool:
    return (folder / ".metadata").is_file()


def _state(content: object) -> Mapping:
    """The dictionary of tensors in what was saved; a tensor alone is called `tensor`."""
    if isinstance(content, Tensor):
        return {"tensor": content}
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    return content if inner is None else inner


def _not_only_tensors(path: Path, error: Exception) -> str:
    named = str(error).partition("GLOBAL ")[2].split(" ")[0]
    holds = f"it names {named}" if named else "it holds more than tensors, or is damaged"
    return f"{path} is refused: {holds}, and opening that could run anything. Get the published file, which has none"


def _indexed_files(index: Path) -> tuple[Path, ...]:
    return tuple(index.parent / name for name in sorted(set(_weight_map(index).values())))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        files = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is no index of safetensors; download it again") from error
    if not isinstance(files, dict):
        raise CheckpointError(f"{index} is no index of safetensors; download it again")
    for name in files.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} is refused: it points to {name!r} outside of its folder")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent} is incomplete: {name} is missing; download it again")
    return files


def _check_index(index: Path, found: dict[str, Path]) -> None:
    missing = [name for name, file in _weight_map(index).items() if name not in found or found[name].name != file]
    if missing:
        raise CheckpointError(f"{index.parent} is incomplete: {', '.join(missing[:5])} are not where {index.name} says")
