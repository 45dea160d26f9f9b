"""The only place that knows sizes: each preset is one complete, frozen description of a generator.

Everything else is built from the same classes, whatever the preset.
"""

from __future__ import annotations

from collections.abc import Callable

from photowalk.presets.nano import nano
from photowalk.presets.preset import Preset
from photowalk.presets.published import lyra2_14b, lyra2_14b_fast, lyra2_14b_zoom, lyra2_14b_zoom_fast

__all__ = ["PRESETS", "Preset", "load_preset"]

PRESETS: dict[str, Callable[[], Preset]] = {
    "nano": nano,
    "lyra2-14b": lyra2_14b,
    "lyra2-14b-fast": lyra2_14b_fast,
    "lyra2-14b-zoom": lyra2_14b_zoom,
    "lyra2-14b-zoom-fast": lyra2_14b_zoom_fast,
}


def load_preset(name: str) -> Preset:
    """Raises ValueError for a name that is no preset."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; known are {', '.join(PRESETS)}")
    return PRESETS[name]()
