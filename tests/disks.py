"""Disks that are full, without a disk."""

from contextlib import contextmanager

import pytest


@contextmanager
def smallest_disk(bytes_left):
    """Every file that this process writes may have so many bytes: what a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
