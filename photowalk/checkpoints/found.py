"""Which checkpoints are among files and folders: a folder of torch's distributed format, shards, single files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.readers import INDEX, is_distributed

TOKENIZER_FILES = ("special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json")
_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}\.safetensors")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def checkpoints_in(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Every checkpoint as the paths that it is made of. Raises CheckpointError for a path that does not exist."""
    folders, files = [], []
    for path in paths:
        if not path.exists():
            raise CheckpointError(f"there is no {path}")
        if path.is_file():
            files.append(path)
        else:
            for folder in _folders(path):
                if is_distributed(folder):
                    folders.append(folder)
                else:
                    files += [file for file in sorted(folder.iterdir()) if file.is_file()]
    return [(folder,) for folder in folders] + list(_grouped(files))


def _folders(path: Path) -> Iterator[Path]:
    """The folder and those within it, but for links, hidden ones and what is inside a distributed checkpoint."""
    yield path
    if not is_distributed(path):
        for folder in sorted(path.iterdir()):
            if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
                yield from _folders(folder)


def _grouped(files: Iterable[Path]) -> Iterator[tuple[Path, ...]]:
    groups: dict[object, list[Path]] = {}
    for file in files:
        shard = _SHARD.fullmatch(file.name)
        if shard:
            groups.setdefault((file.parent, shard[1]), []).append(file)
        elif file.name.endswith(INDEX):
            groups.setdefault((file.parent, file.name.removesuffix(INDEX)), []).insert(0, file)
        elif file.name in TOKENIZER_FILES:
            groups.setdefault((file.parent, "tokenizer"), []).append(file)
        elif file.suffix in _SUFFIXES:
            groups[file] = [file]
    for group in groups.values():
        has_index = group[0].name.endswith(INDEX)
        yield (group[0],) if has_index else tuple(sorted(group))
