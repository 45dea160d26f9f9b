"""Many clips in few files: tar archives as WebDataset reads them, and clips picked out of them by name.

A shard holds `<name>.clip.json` and `<name>.clip.safetensors` of each clip, the two files of a clip folder. A clip in
it is named by a path: `walks-000003.tar/<name>`.
"""

from __future__ import annotations

import errno
import io
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from photowalk.scene.images import write_atomically

PARTS = ("clip.json", "clip.safetensors")


class ShardError(ValueError):
    """A shard that cannot be read or written; the text says which and why."""


def write_shards(clips: Sequence[Path], folder: Path, size: float, name: str = "clips") -> list[Path]:
    """Pack clip folders into `<folder>/<name>-000000.tar` and on, each of about `size` bytes and at least one clip.

    A clip is called as its folder is. Raises ShardError for two of one name, and for a folder that has shards already.
    """
    names = [clip.name for clip in clips]
    if double := sorted({each for each in names if names.count(each) > 1}):
        raise ShardError(f"two clips are called {double[0]}; rename one of them, since a shard knows them by name only")
    if bad := [each for each in names if "." in each]:
        raise ShardError(f"{bad[0]} has a dot in its name, which ends a name in WebDataset; rename it")
    if list(folder.glob(f"{name}-*.tar")):
        raise ShardError(f"{folder} has shards called {name} already; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    groups: list[list[Path]] = []
    filled = size
    for clip in clips:
        taken = sum((clip / part).stat().st_size for part in PARTS)
        if filled + taken > size:
            groups.append([])
            filled = 0
        groups[-1].append(clip)
        filled += taken
    shards = [folder / f"{name}-{number:06d}.tar" for number in range(len(groups))]
    for shard, group in zip(shards, groups):
        write_atomically(shard, lambda temporary, group=group: _write(temporary, group))
    return shards


def _write(path: Path, clips: Sequence[Path]) -> None:
    with tarfile.open(path, "w") as archive:
        for clip in clips:
            for part in PARTS:
                content = (clip / part).read_bytes()
                member = tarfile.TarInfo(f"{clip.name}.{part}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def find_in_shards(folder: Path) -> list[Path]:
    """The paths of all clips in the shards under `folder`, or in the one shard that it is, sorted."""
    shards = [folder] if folder.suffix == ".tar" and folder.is_file() else sorted(folder.rglob("*.tar"))
    return [shard / name for shard in shards for name in sorted(_names(shard))]


def in_shard(path: Path) -> bool:
    """Whether the path names a clip in a shard."""
    return path.parent.suffix == ".tar" and path.parent.is_file()


def read_part(clip: Path, part: str) -> bytes:
    """One of `PARTS` of a clip in a shard. Raises ShardError, and FileNotFoundError if it is not there."""
    place = _places(clip.parent).get(f"{clip.name}.{part}")
    if place is None:
        raise FileNotFoundError(errno.ENOENT, "is not in the shard", part)
    with clip.parent.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def _names(shard: Path) -> set[str]:
    return {member.split(".", 1)[0] for member in _places(shard) if member.split(".", 1)[-1] in PARTS}


def _places(shard: Path) -> dict[str, tuple[int, int]]:
    try:
        return _index(shard, shard.stat().st_mtime_ns)
    except (tarfile.TarError, OSError) as error:
        raise ShardError(f"{shard} cannot be read: {error}") from error


@lru_cache(maxsize=4096)
def _index(shard: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Where each member's content begins, and its length, in bytes."""
    with tarfile.open(shard, "r:") as archive:
        files = [member for member in archive if member.isfile()]
    # tar calls the members of `tar -cf a.tar .` ./NAME
    return {member.name.removeprefix("./"): (member.offset_data, member.size) for member in files}
