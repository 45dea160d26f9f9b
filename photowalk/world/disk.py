"""Files of a world on a disk that may be full, read-only, or cut off at any moment: written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from photowalk.scene.images import NO_ROOM

LOCK = ".lock"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class WorldError(ValueError):
    """A world that cannot be made, read or changed: the text says which, why, and what to do."""


class WorldBusyError(WorldError):
    """Another process is changing the world."""


def write_bytes(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_into_place(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.partial")
    try:
        write_bytes(partial, content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def share(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise WorldBusyError(
                f"{folder} is being changed by another process (pid {holder}); wait until it is done, then try again"
            ) from None
        with suppress(OSError):  # who holds it is good to know, not needed
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def explained(folder: Path, when_full: Callable[[], str]) -> Iterator[None]:
    """Turn the system's errors about the world's disk into words."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise WorldError(f"no space is left for {folder} ({error.strerror}); {when_full()}") from error
        if error.errno in _READ_ONLY:
            raise WorldError(
                f"{folder} cannot be written ({error.strerror}: {error.filename}); make it writable or use another one"
            ) from error
        raise
