"""From one posed RGB-D picture to splats: every pixel becomes a flat Gaussian that lies in the surface it saw.

The scale comes from the pixel's footprint and the surface's slope, so that surfaces are closed at the distance from
which they were seen and stay sharp. It knows one view at a time; agreement between views is fusion's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import normalize

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import quaternion_from_rotation, rotation_from_quaternion
from photowalk.kernels.rasterise import SH_DC
from photowalk.models.splat_head import Corrections
from photowalk.scene.surfaces import STEEP, Surface, surface_of
from photowalk.scene.types import Splats, View

FOOTPRINT = 0.5  # standard deviation of a splat in pixels of its view: smaller ones leave gaps, larger ones blur
FLATNESS = 0.15  # standard deviation along the normal, relative to the footprint
STRETCH_MINIMUM = 0.1  # slants below this stretch a splat no further
OPACITY = 0.98  # of a nearer one, rasterisers leave a splat out that would hide all behind it, and a dark dot stays


class Lifter(Protocol):
    @property
    def ratio(self) -> int:
        """For how many pixels along each side a splat is made."""
        ...

    @property
    def blends(self) -> bool:
        """Whether a splat's colour is that of what it lies in, so that later views may average it."""
        ...

    def __call__(self, view: View, surface: Surface, chosen: Tensor, beside: Sequence[View]) -> Splats:
        """Splats for the `chosen` [H, W] pixels of a view, whose surface is given; `beside` are views taken shortly
        before and after it, as far as there are any."""
        ...


@dataclass(frozen=True)
class PixelAligned:
    """Implements `Lifter` without a network."""

    ratio: int = 1
    blends: bool = True

    def __call__(self, view: View, surface: Surface, chosen: Tensor, beside: Sequence[View]) -> Splats:
        if self.ratio == 1:
            return lift(view.image, surface, view.camera, chosen)
        view, chosen = shrink(view, surface, chosen, self.ratio)
        return lift(view.image, surface_of(view.depth, view.camera), view.camera, chosen)


def lift(
    image: Tensor, surface: Surface, camera: Cameras, chosen: Tensor, corrections: Corrections | None = None
) -> Splats:
    """image [3, H, W]; the `chosen` [H, W] pixels become splats, in row order and with `corrections` [H, W]."""
    points, slant = surface.points[chosen], surface.slant[chosen]
    sigma = FOOTPRINT * surface.footprint[chosen]
    splats = Splats(
        means=points,
        scales=torch.stack([sigma / slant.clamp_min(STRETCH_MINIMUM), sigma, FLATNESS * sigma], dim=-1),
        rotations=_lying_in(surface.normals[chosen], points - camera.centres),
        opacities=torch.full_like(sigma, OPACITY),
        colours=((image[:, chosen].T - 0.5) / SH_DC)[:, None],
    )
    return splats if corrections is None else _corrected(splats, corrections[chosen], surface.footprint[chosen])


def shrink(view: View, surface: Surface, chosen: Tensor, ratio: int) -> tuple[View, Tensor]:
    """The view with a pixel for every block of `ratio` x `ratio`, and which of them are `chosen`: at least half of it.

    A block that an edge runs through takes the nearest depth in it; to blend depths would hang a splat between them.
    """
    inverse = torch.where(surface.valid, 1 / view.depth, 0)[None]
    share = F.avg_pool2d(surface.valid.float()[None], ratio, ceil_mode=True)
    mean = F.avg_pool2d(inverse, ratio, ceil_mode=True) / share.clamp_min(1e-6)
    nearest = F.max_pool2d(inverse, ratio, ceil_mode=True)
    inverse = torch.where(nearest < (1 + STEEP) * mean, mean, nearest)[0]
    image = F.avg_pool2d(view.image, ratio, ceil_mode=True)
    size = (image.shape[1], image.shape[2])
    small = View(image, torch.where(inverse > 0, 1 / inverse, 0), view.camera.resized(*size), view.frame)
    wanted = F.avg_pool2d(chosen.float()[None], ratio, ceil_mode=True)[0] >= 0.5
    return small, wanted & (inverse > 0)


def _corrected(splats: Splats, corrections: Corrections, footprint: Tensor) -> Splats:
    axes = rotation_from_quaternion(splats.rotations)
    shift = footprint[:, None] * corrections.shift
    half_turn = torch.cat([torch.ones_like(footprint)[:, None], corrections.turn / 2], dim=-1)
    return replace(
        splats,
        means=splats.means + (axes @ shift[..., None])[..., 0],
        scales=splats.scales * corrections.stretch.exp(),
        rotations=_product(splats.rotations, normalize(half_turn, dim=-1)),
        opacities=torch.sigmoid(torch.logit(splats.opacities) + corrections.opacity),
        colours=splats.colours + corrections.colour[:, None] / SH_DC,
    )


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Of quaternions wxyz [N, 4]: the turn b, then the turn a."""
    real = a[:, :1] * b[:, :1] - (a[:, 1:] * b[:, 1:]).sum(-1, keepdim=True)
    imaginary = a[:, :1] * b[:, 1:] + b[:, :1] * a[:, 1:] + torch.linalg.cross(a[:, 1:], b[:, 1:])
    return torch.cat([real, imaginary], dim=-1)


def _lying_in(normals: Tensor, rays: Tensor) -> Tensor:
    """Rotations wxyz [N, 4] whose first axis follows the slope seen along `rays`, whose third is the normal [N, 3]."""
    across = torch.linalg.cross(normals, rays)  # vanishes where a surface is seen head on; then any direction will do
    any_across = torch.linalg.cross(normals, torch.eye(3).to(normals)[normals.abs().argmin(dim=-1)])
    head_on = across.norm(dim=-1, keepdim=True) < 1e-3 * rays.norm(dim=-1, keepdim=True)
    across = normalize(torch.where(head_on, any_across, across), dim=-1)
    along = torch.linalg.cross(across, normals)
    return quaternion_from_rotation(torch.stack([along, across, normals], dim=-1))
