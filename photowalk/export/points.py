"""Coloured points, for tools that know no splats: plain .ply, and .xyz as text. One point for each splat.

Axes are Z-up metres. Splats that can hardly be seen are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from photowalk.export.contents import Contents
from photowalk.export.conventions import flat_colours
from photowalk.scene.images import to_bytes, write_atomically

OPACITY_MINIMUM = 0.1  # fainter splats are haze and no surface
_ROW = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


def write_points_ply(path: Path, contents: Contents) -> None:
    """Binary little-endian .ply of x y z red green blue. Raises SplatFileError."""
    rows = _rows(path, contents)
    properties = "".join(f"property {'float' if name in 'xyz' else 'uchar'} {name}\n" for name in _ROW.names or ())
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    write_atomically(path, lambda temporary: temporary.write_bytes(header.encode("ascii") + rows.tobytes()))


def write_xyz(path: Path, contents: Contents) -> None:
    """A line `x y z red green blue` for each point: metres with four decimals, colours 0 to 255."""
    rows = _rows(path, contents)
    columns = [np.char.mod("%.4f", rows[name]) for name in "xyz"]
    columns += [rows[name].astype("U3") for name in ("red", "green", "blue")]
    lines = columns[0]
    for column in columns[1:]:
        lines = np.char.add(np.char.add(lines, " "), column)
    write_atomically(path, lambda temporary: temporary.write_text("\n".join(lines) + "\n", encoding="ascii"))


def _rows(path: Path, contents: Contents) -> np.ndarray:
    splats = contents.need_splats(path)
    visible = splats[splats.opacities >= OPACITY_MINIMUM]
    level = contents.level_from_world
    positions = visible.means.detach().cpu().double() @ level[:3, :3].T + level[:3, 3]
    colours = to_bytes(flat_colours(visible).detach().cpu())
    columns = [*positions.float().numpy().T, *colours.numpy().T]
    return np.rec.fromarrays(columns, dtype=_ROW)
