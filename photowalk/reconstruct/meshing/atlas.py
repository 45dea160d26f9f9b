"""An atlas of a mesh's faces, made by xatlas in a process of its own, which is this file run as a program.

xatlas lets no other thread of its process run Python for the seconds that it takes, and may never come back from
taking an atlas down: its threads are woken without their locks. The other process ends without doing so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback

import numpy as np
from safetensors.numpy import load, save

_GUTTER = 4  # texels around charts that take their colour
_LARGEST = 1 / 20  # of the mesh's area, of a chart: the time that it takes to grow one rises faster than its size


def unwrap(vertices: np.ndarray, faces: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """vertices [V, 3] and faces [F, 3] of them, to be laid into a picture of side x side texels -> which vertex each of
    the atlas is [W], its faces [F, 3] in the order given, and where its vertices lie [W, 2], in [0, 1].

    Raises RuntimeError where xatlas fails.
    """
    # -P: a script's own folder stays off its path; this one holds names that others may use.
    process = subprocess.run(
        [sys.executable, "-P", __file__],
        input=save(
            {
                "vertices": np.ascontiguousarray(vertices),
                "faces": faces.astype(np.uint32, order="C"),
                "side": np.array([side]),
            }
        ),
        capture_output=True,
    )
    if process.returncode != 0:
        said = process.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"the mesh could not be unwrapped (exit code {process.returncode}): {said}")
    atlas = load(process.stdout)
    return atlas["old"], atlas["faces"], atlas["uv"]


def _area(corners: np.ndarray) -> float:
    """Of triangles [F, 3, 3] together."""
    edges = corners[:, 1:] - corners[:, :1]
    return float(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1).sum() / 2)


def _main() -> None:
    import xatlas  # ty: ignore[import-not-found]

    given = load(sys.stdin.buffer.read())
    atlas = xatlas.Atlas()
    atlas.add_mesh(given["vertices"], given["faces"])
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations, charts.max_chart_area = 1, _LARGEST * _area(given["vertices"][given["faces"]])
    packing.padding, packing.bruteForce, packing.resolution = _GUTTER, False, int(given["side"][0])
    atlas.generate(charts, packing)
    old, faces, uv = atlas[0]
    sys.stdout.buffer.write(save({"old": old, "faces": faces, "uv": uv}))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    failed = True
    try:
        _main()
        failed = False
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(failed)
