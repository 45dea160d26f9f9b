"""How the files of others measure: axes, order of quaternions, harmonics, encodings of scale and opacity.

Our world is RDF (x right, y down, z forward). Three others occur in files: RUB (x right, y up, z back) in SPZ, glTF and
web pages; Z-up (x right, y forward, z up) in USD; and RDF itself in .ply. Every conversion between them is here, and
nothing else is: this module knows no format and no file.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from photowalk.geometry.motions import rotation_from_quaternion
from photowalk.kernels.rasterise import SH_DC, harmonics_basis
from photowalk.scene.types import Splats

OPACITY_MARGIN = 1e-6  # opacities are encoded within (margin, 1 - margin), where the logit is finite
SCALE_MINIMUM = 1e-10  # smaller scales are encoded as this, where the logarithm is finite

# Each maps RDF to the axes it is named after; the first is its own inverse.
RUB_FROM_RDF = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=torch.float64)
Z_UP_FROM_RDF = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
Y_UP_FROM_Z_UP = RUB_FROM_RDF @ Z_UP_FROM_RDF.mT


class ExportError(ValueError):
    """A file that cannot be written: the text says why and what to do."""


class SplatFileError(ExportError):
    """A splat file that cannot be read or splats that cannot be written: the text says why."""


def check_splats(splats: Splats, where: object) -> Splats:
    """The splats, if there are any and all their numbers are finite. Raises SplatFileError that begins with `where`."""
    if len(splats) == 0:
        raise SplatFileError(f"{where}: there are no splats to write; reconstruct a walk that sees something first")
    for name in ("means", "scales", "rotations", "opacities", "colours"):
        good = getattr(splats, name).detach().reshape(len(splats), -1).isfinite().all(dim=1)
        if not bool(good.all()):
            raise SplatFileError(
                f"{where}: {name} of {int((~good).sum())} of {len(splats)} splats is not a finite number; "
                f"reconstruct the world again"
            )
    return splats


def half_turned(splats: Splats) -> Splats:
    """The splats of an RDF world in RUB axes, and the reverse: half a turn about x, done to everything that turns."""
    flip = torch.tensor([1.0, -1.0, -1.0]).to(splats.means)
    return Splats(
        means=splats.means * flip,
        scales=splats.scales,
        rotations=splats.rotations * torch.tensor([1.0, 1.0, -1.0, -1.0]).to(splats.rotations),
        opacities=splats.opacities,
        colours=splats.colours * _half_turn_signs(splats.colours.shape[1]).to(splats.colours)[:, None],
    )


def xyzw(rotations: Tensor) -> Tensor:
    """Quaternions wxyz [*, 4] -> xyzw, of unit length."""
    return torch.nn.functional.normalize(rotations, dim=-1).roll(-1, dims=-1)


def log_scales(scales: Tensor) -> Tensor:
    """Standard deviations -> their logarithms, as 3DGS files store them."""
    return scales.clamp_min(SCALE_MINIMUM).log()


def logit_opacities(opacities: Tensor) -> Tensor:
    """[0, 1] -> finite logits, as 3DGS files store them."""
    return torch.logit(opacities.double().clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)).to(opacities)


def flat_colours(splats: Splats) -> Tensor:
    """sRGB [N, 3] in [0, 1] of the constant harmonic: what a splat looks like from everywhere on average."""
    return (splats.colours[:, 0] * SH_DC + 0.5).clamp(0, 1)


def linear(srgb: Tensor) -> Tensor:
    """sRGB-encoded [0, 1] -> linear light, which vertex colours are in glTF and USD (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def sh_degree(splats: Splats) -> int:
    """0 to 3."""
    return round(splats.colours.shape[1] ** 0.5) - 1


def bounds(splats: Splats) -> tuple[np.ndarray, np.ndarray]:
    """Corners [3], [3] of the box that holds every splat out to three standard deviations."""
    axes = rotation_from_quaternion(splats.rotations) * splats.scales[:, None, :]
    reach = 3 * axes.square().sum(-1).sqrt()
    return (splats.means - reach).amin(0).double().cpu().numpy(), (splats.means + reach).amax(0).double().cpu().numpy()


def array(values: Tensor) -> np.ndarray:
    """A tensor as contiguous float32 for a file."""
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype=np.float32)


def _half_turn_signs(count: int) -> Tensor:
    """[count] +1 or -1: what becomes of each harmonic when y and z change their signs. Asked of the basis itself."""
    direction = torch.nn.functional.normalize(torch.tensor([[0.3, 0.5, 0.8]], dtype=torch.float64), dim=-1)
    return (harmonics_basis(direction @ RUB_FROM_RDF, count) / harmonics_basis(direction, count))[0, :count].round()
