"""Torch's zip archives: their checksums, which torch itself does not compare."""

from __future__ import annotations

import zipfile
from typing import BinaryIO

from photowalk.checkpoints.errors import CheckpointError


def is_archive(file: BinaryIO, what: str) -> bool:
    """Whether a file is a zip archive at all; older files of torch are plain pickles, which have no checksums.

    Raises CheckpointError, which begins with `what`, for one that is cut short, or compressed as torch's are not.
    """
    begin = file.read(2)
    file.seek(0)
    if begin != b"PK":
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except Exception as error:  # damaged archives lead to many
        raise CheckpointError(f"{what} is damaged or cut short ({error}); download it again") from error
    if compressed:
        raise CheckpointError(f"{what} is a compressed archive, which torch does not write: it is refused")
    return True


def compare_checksums(file: BinaryIO, what: str) -> None:
    """Reads all of an archive. Raises CheckpointError where it is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise CheckpointError(f"{what} is damaged or cut short ({error}); download it again") from error
    if damaged is not None:
        raise CheckpointError(f"{what} is damaged: the checksum of {damaged} is wrong; download it again")
