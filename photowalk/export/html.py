"""One page that opens from disk and lets a visitor walk through the world: no network, no installation.

Everything is inside: splats as .spz, a grid of what is solid, the walk's cameras, and the few scripts of page/, which
draw with WebGL 2. Of spherical harmonics the page shows the constant one.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photowalk.export.contents import Contents
from photowalk.export.conventions import RUB_FROM_RDF, Y_UP_FROM_Z_UP
from photowalk.export.solid import Solid, eye_height, solid_cells
from photowalk.export.spz import packed
from photowalk.geometry.motions import motion
from photowalk.scene.images import write_atomically

_SCRIPTS = ("spz.js", "renderer.js", "walker.js", "main.js")


def write_html(path: Path, contents: Contents) -> None:
    """Raises SplatFileError."""
    splats = contents.need_splats(path)
    solid = solid_cells(contents, Y_UP_FROM_Z_UP)
    page = _filled(
        _source("page.html"),
        title=html.escape(contents.name),
        style=_source("style.css"),
        sorter=_source("sorter.js"),
        script="\n".join(_source(name) for name in _SCRIPTS),
        place=json.dumps(_place(contents, solid)).replace("<", "\\u003c"),
        splats=base64.b64encode(packed(replace(splats, colours=splats.colours[:, :1]))).decode("ascii"),
        solid=base64.b64encode(_packed_cells(solid)).decode("ascii"),
    )
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _place(contents: Contents, solid: Solid) -> dict:
    """What the scripts know besides splats and cells; matrices are column-major and of the page's axes, y up metres."""
    level, cameras = contents.level_from_world, contents.cameras.to("cpu", torch.float64)
    scale = torch.linalg.det(level[:3, :3]) ** (1 / 3)
    turn = Y_UP_FROM_Z_UP @ level[:3, :3] / scale
    centres = (cameras.centres @ level[:3, :3].T + level[:3, 3]) @ Y_UP_FROM_Z_UP.T
    poses = motion(turn @ cameras.world_from_camera[:, :3, :3] @ RUB_FROM_RDF, centres)
    from_splats = motion(scale * turn @ RUB_FROM_RDF, Y_UP_FROM_Z_UP @ level[:3, 3])
    lenses = cameras.intrinsics[:, [0, 1], [0, 1]] / torch.tensor([cameras.width, cameras.height])
    return {
        "path": [_columns(pose) for pose in poses],
        "fromSplats": _columns(from_splats),
        "lenses": [[round(focal, 6) for focal in lens] for lens in lenses.tolist()],
        "eye": eye_height(contents),
        "solid": {"origin": solid.origin, "shape": solid.cells.shape, "cell": solid.cell},
    }


def _columns(matrix: Tensor) -> list[float]:
    return [round(value, 6) for value in matrix.T.flatten().tolist()]


def _packed_cells(solid: Solid) -> bytes:
    """A bit for each cell, in the order x, z, y."""
    return gzip.compress(np.packbits(solid.cells.transpose(0, 2, 1), bitorder="little").tobytes(), mtime=0)


def _source(name: str) -> str:
    return resources.files("photowalk.export").joinpath("page", name).read_text(encoding="utf-8")


def _filled(template: str, **parts: str) -> str:
    """The template with each {{name}} replaced, in one pass, so that what is filled in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
