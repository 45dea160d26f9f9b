"""photowalk turns one photograph into a 3D world that you can walk through."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from photowalk.geometry.cameras import Cameras as Cameras
    from photowalk.presets import load_preset as load_preset
    from photowalk.scene.types import Scene as Scene
    from photowalk.world.session import World as World

# Read by OpenMP when torch is loaded: threads that wait should sleep. By default they spin, which on a machine with
# other work, or beside our own kernel threads, makes everything several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read by torch when it first wants memory: large tensors lie in large pages. In small ones a fifth of a chunk's time on
# a CPU goes to the system, which hands out and clears each page anew.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
__all__ = ["Cameras", "Scene", "World", "load_preset"]

_PUBLIC = {
    "Cameras": "photowalk.geometry.cameras",
    "Scene": "photowalk.scene.types",
    "World": "photowalk.world.session",
    "load_preset": "photowalk.presets",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `photowalk --help` should not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
