"""Splats in .spz: a seventh to a twentieth of a .ply, for the web, phones and engines. Axes are RUB, as SPZ asks.

Positions are fixed-point, everything else has 8 bits or so: what is read back is near what was written, not equal.
Bits that say less than a splat is wide are left at zero, so that they pack.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gsply
import numpy as np
import torch
from torch import Tensor

from photowalk.export.contents import Contents
from photowalk.export.conventions import SplatFileError, array, half_turned, log_scales, logit_opacities
from photowalk.scene.images import write_atomically
from photowalk.scene.types import Splats

FRACTIONAL_BITS = 11  # positions are rounded to half a millimetre
POSITION_STEP = 0.25  # of a splat's second longest standard deviation: its place is rounded to a power of two below it
SCALE_STEP = 2.0 / 16  # of a scale's logarithm, of which the format keeps sixteenths
OPACITY_STEP = 4.0 / 255
ROTATION_BITS = (
    5  # and a sign, of each of the three numbers that tell a rotation: within 1.3 degrees on average, 4 at most
)
HARMONIC_BITS = (5, 4)  # of -1 to 1, for the first degree and for those above it
_LARGEST = 2 ** (23 - FRACTIONAL_BITS)  # 24 bits with sign
_MORTON_BITS = 20


def write_spz(path: Path, contents: Contents) -> None:
    """SPZ version 3 (gzip), which all its readers know. Raises SplatFileError."""
    content = packed(contents.need_splats(path))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def packed(splats: Splats) -> bytes:
    """What stands in a file. Raises SplatFileError for splats that lie too far out."""
    if float(splats.means.abs().max()) >= _LARGEST:
        raise SplatFileError(
            f"a splat lies {float(splats.means.abs().max()):.0f} m from the start and .spz holds no more than "
            f"{_LARGEST} m; export .ply, or export parts of the walk"
        )
    with tempfile.TemporaryDirectory() as folder:
        gsply.write_spz(Path(folder) / "splats.spz", _encoded(splats), fractional_bits=FRACTIONAL_BITS)
        return (Path(folder) / "splats.spz").read_bytes()


def _encoded(splats: Splats) -> gsply.GSData:
    """In the order and the encoding that .spz wants."""
    turned = half_turned(splats[_morton_order(splats)])
    return gsply.GSData(
        means=array(_rounded_places(turned)),
        scales=array((log_scales(turned.scales) / SCALE_STEP).round() * SCALE_STEP),
        quats=array(_rounded_turns(turned.rotations)),
        opacities=array(logit_opacities((turned.opacities / OPACITY_STEP).round() * OPACITY_STEP)),
        sh0=array(turned.colours[:, 0]),
        shN=array(_rounded(turned.colours[:, 1:])),
    )


def _rounded_places(splats: Splats) -> Tensor:
    step = (POSITION_STEP * splats.scales.median(dim=1).values).log2().floor().exp2()[:, None]
    step = step.clamp(2.0**-FRACTIONAL_BITS, 1.0)
    return (splats.means / step).round() * step


def _rounded_turns(rotations: Tensor) -> Tensor:
    """Unit quaternions [N, 4] whose three smaller numbers have few of the format's nine bits (and a sign) each."""
    unit = torch.nn.functional.normalize(rotations, dim=-1)
    largest = unit.abs().argmax(dim=-1, keepdim=True)
    unit = unit * unit.gather(-1, largest).sign()
    step = 2.0 ** (9 - ROTATION_BITS) / (511 * 2**0.5)
    rounded = ((unit / step).round() * step).scatter(-1, largest, 0.0)
    return rounded.scatter(-1, largest, (1 - rounded.square().sum(-1, keepdim=True)).clamp_min(0).sqrt())


def _rounded(harmonics: Tensor) -> Tensor:
    """Harmonics [N, K - 1, 3] to the bits that the format's authors give them, so that they pack well."""
    steps = torch.full((harmonics.shape[1], 1), 2.0 ** (1 - HARMONIC_BITS[1])).to(harmonics)
    steps[:3] = 2.0 ** (1 - HARMONIC_BITS[0])
    return (harmonics / steps).round() * steps


def _morton_order(splats: Splats) -> np.ndarray:
    """Indices along a curve that keeps neighbours together, so that similar numbers follow each other and pack well."""
    means = splats.means.detach().cpu().double()
    low, high = means.amin(0), means.amax(0)
    cells = ((means - low) / (high - low).clamp_min(1e-12) * (2**_MORTON_BITS - 1)).numpy().astype(np.uint64)
    code = np.zeros(len(cells), dtype=np.uint64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return np.argsort(code)
