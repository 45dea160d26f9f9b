"""Splats in the usual .ply of 3D Gaussian splatting, which viewers, engines and converters read.

Little-endian floats in one `vertex` element: position, unused normals, harmonics (DC, then the rest colour by colour),
logit of the opacity, logarithms of the scales, quaternion wxyz. Axes are the world's: x right, y down, z forward.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photowalk.export.contents import Contents
from photowalk.export.conventions import SplatFileError, check_splats, log_scales, logit_opacities
from photowalk.scene.images import write_atomically
from photowalk.scene.types import Splats

_WHOLE_LAYOUT = 3  # degree; 248 bytes a splat. The original's viewer and importers of engines know no other
_MAXIMUM_HEADER = 65536
_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "uchar": "u1", "uint8": "u1", "int": "<i4", "uint": "<u4"}


def write_ply(path: str | Path, splats: Splats, degree: int = 0) -> None:
    """Write splats of degree 0 to 3; harmonics are filled up with zeros to `degree`, if theirs is lower.

    Raises SplatFileError if there are none, or if they hold NaN or infinity.
    """
    rest = max(splats.colours.shape[1], (degree + 1) ** 2) - 1
    columns, names = _columns(check_splats(splats, path), rest), _names(rest)
    table = np.zeros(len(splats), dtype=[(name, "<f4") for name in names])
    for name, column in columns.items():
        table[name] = column
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(splats)}\n{properties}end_header\n"

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(header.encode("ascii"))
            file.write(table.view(np.uint8).data)  # tofile names no reason where it fails

    write_atomically(path, fill)


def export_ply(path: Path, contents: Contents) -> None:
    """The splats of a world, in the whole layout of the original programs. Raises SplatFileError."""
    write_ply(path, contents.need_splats(path), degree=_WHOLE_LAYOUT)


def read_splats(path: str | Path) -> Splats:
    """Read a binary little-endian 3DGS .ply, ours or another's; higher degrees that are 0 everywhere are left out.

    Raises SplatFileError.
    """
    table = _table(Path(path))
    wanted = [
        *"xyz",
        "opacity",
        *(f"{name}_{k}" for name, count in (("f_dc", 3), ("scale", 3), ("rot", 4)) for k in range(count)),
    ]
    names = table.dtype.names or ()
    missing = [name for name in wanted if name not in names]
    if missing:
        raise SplatFileError(f"{path} holds points but no 3D Gaussians: it lacks {', '.join(missing)}")
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in (0, 9, 24, 45):
        raise SplatFileError(
            f"{path} has {rest} f_rest values per splat; harmonics of degree 0 to 3 have 0, 9, 24 or 45"
        )

    def columns(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([table[name].astype(np.float32) for name in names], axis=-1))

    colours = columns(*(f"f_dc_{k}" for k in range(3)))[:, None]
    used = max((k % (rest // 3) + 1 for k in range(rest) if table[f"f_rest_{k}"].any()), default=0)
    if used:
        of_degree = math.ceil(math.sqrt(used + 1)) ** 2 - 1
        by_colour = [columns(*(f"f_rest_{colour * (rest // 3) + k}" for k in range(of_degree))) for colour in range(3)]
        colours = torch.cat([colours, torch.stack(by_colour, dim=-1)], dim=1)
    return Splats(
        means=columns("x", "y", "z"),
        scales=columns(*(f"scale_{k}" for k in range(3))).exp(),
        rotations=torch.nn.functional.normalize(columns(*(f"rot_{k}" for k in range(4))), dim=-1),
        opacities=columns("opacity")[:, 0].sigmoid(),
        colours=colours,
    )


def _names(rest: int) -> list[str]:
    """The columns of the file in order, with `rest` harmonics of each colour besides DC."""

    def numbered(name: str, count: int) -> list[str]:
        return [f"{name}_{k}" for k in range(count)]

    harmonics = [*numbered("f_dc", 3), *numbered("f_rest", 3 * rest)]
    return ["x", "y", "z", "nx", "ny", "nz", *harmonics, "opacity", *numbered("scale", 3), *numbered("rot", 4)]


def _columns(splats: Splats, rest: int) -> dict[str, np.ndarray]:
    """Column name -> values [N], without those that are 0 everywhere. `rest`: as for `_names`."""
    values = {
        name: getattr(splats, name).detach().double().cpu() for name in ("means", "scales", "rotations", "colours")
    }
    own = values["colours"][:, 1:].mT.flatten(1)  # colour by colour
    per_colour = values["colours"].shape[1] - 1
    groups = [
        (["x", "y", "z"], values["means"]),
        ([f"f_dc_{k}" for k in range(3)], values["colours"][:, 0]),
        ([f"f_rest_{colour * rest + k}" for colour in range(3) for k in range(per_colour)], own),
        (["opacity"], logit_opacities(splats.opacities.detach().double().cpu())[:, None]),
        ([f"scale_{k}" for k in range(3)], log_scales(values["scales"])),
        ([f"rot_{k}" for k in range(4)], _unit(values["rotations"])),
    ]
    return {name: block[:, k].numpy() for names, block in groups for k, name in enumerate(names)}


def _unit(rotations: Tensor) -> Tensor:
    """Of unit length; what is so but for rounding keeps its digits, so that files are copied exactly."""
    length = rotations.norm(dim=-1, keepdim=True)
    return torch.where((length - 1).abs() < 1e-6, rotations, torch.nn.functional.normalize(rotations, dim=-1))


def _table(path: Path) -> np.ndarray:
    """The vertex element as a structured array."""
    with path.open("rb") as file:
        start = file.read(_MAXIMUM_HEADER)
        end = re.search(rb"end_header\r?\n", start)
        if not start.startswith(b"ply") or end is None:
            raise SplatFileError(f"{path} is not a .ply file")
        lines = [line.split() for line in start[: end.start()].decode("ascii", "replace").splitlines()]
        if ["format", "binary_little_endian", "1.0"] not in lines:
            raise SplatFileError(f"{path} is not in binary little-endian form, which splat files use")
        count, fields = _vertex(path, lines)
        file.seek(end.end())
        data = file.read(count * np.dtype(fields).itemsize)
    if len(data) < count * np.dtype(fields).itemsize:
        raise SplatFileError(f"{path} is cut short: it promises {count} splats and holds fewer; copy it again")
    return np.frombuffer(data, dtype=fields)


def _vertex(path: Path, lines: list[list[str]]) -> tuple[int, list[tuple[str, str]]]:
    """Number and fields of the vertex element, which must come first."""
    elements = [k for k, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1:2] != ["vertex"]:
        raise SplatFileError(f"{path} does not begin with its vertices")
    stop = elements[1] if len(elements) > 1 else len(lines)
    properties = [line for line in lines[elements[0] + 1 : stop] if line[:1] == ["property"]]
    try:
        return int(lines[elements[0]][2]), [(name, _TYPES[kind]) for _, kind, name in properties]
    except (ValueError, KeyError, IndexError) as error:
        raise SplatFileError(f"{path} has a header that cannot be understood ({error})") from error
