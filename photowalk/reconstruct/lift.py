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
from photowalk.scene.types import Splats, View

FOOTPRINT = 0.5  # standard deviation of a splat in pixels of its view: smaller ones leave gaps, larger ones blur
FLATNESS = 0.15  # standard deviation along the normal, relative to the footprint
WINDOW = 2  # pixels around each to which its plane is fitted
RIDGE = 1e-3  # pixel^2; pulls planes with too few neighbours towards the frontal one
STRETCH_MINIMUM = 0.1  # slants below this stretch a splat no further
OPACITY = 0.98  # of a nearer one, rasterisers leave a splat out that would hide all behind it, and a dark dot stays
STEEP = 0.06  # relative change of depth per pixel above which a pixel belongs to a ramp between surfaces, not to one


@dataclass(frozen=True)
class Surface:
    """What the depth of a view says about each pixel."""

    points: Tensor  # [H, W, 3] world
    normals: Tensor  # [H, W, 3] world, unit, facing away from the camera
    slant: Tensor  # [H, W] cosine between normal and ray, in (0, 1]
    footprint: Tensor  # [H, W] world size of a pixel at the surface, across the ray
    valid: Tensor  # [H, W] bool: depth is known, finite and no stretched edge


def surface_of(depth: Tensor, camera: Cameras) -> Surface:
    """depth [H, W] along +Z (0 = unknown, inf = sky) of one camera.

    Inverse depth is linear in the pixel on any plane, w = n . ray with n / |n| the normal: a plane is fitted around
    every pixel, to the neighbours that may lie on the same surface, which also takes the noise off the depth. A pixel
    from which even the flatter side of a row or column is steep lies on a ramp between two surfaces.
    """
    known = (depth > 0) & torch.isfinite(depth)
    inverse = torch.where(known, 1 / torch.where(known, depth, 1), 0)
    slope = torch.maximum(*(_flatter_difference(inverse, known, axis).abs() for axis in (0, 1)))
    inverse, across, down = _fit_planes(inverse, known)
    focal, principal = camera.intrinsics[[0, 1], [0, 1]], camera.intrinsics[:2, 2]
    columns = (torch.arange(camera.width).to(depth) + 0.5 - principal[0]) / focal[0]
    rows = (torch.arange(camera.height).to(depth) + 0.5 - principal[1]) / focal[1]
    n_x, n_y = focal[0] * across, focal[1] * down
    normals = torch.stack([n_x, n_y, inverse - n_x * columns - n_y * rows[:, None]], dim=-1)
    length = normals.norm(dim=-1).clamp_min(1e-12)
    ray_length = (1 + columns.square() + rows.square()[:, None]).sqrt()
    depth = torch.where(known, 1 / inverse.clamp_min(1e-12), 1)
    return Surface(
        points=camera.unproject(depth),
        normals=(normals / length[..., None]) @ camera.camera_from_world[:3, :3],
        slant=(inverse / (length * ray_length)).clamp(1e-3, 1),
        footprint=depth / focal.mean(),
        valid=known & (slope < STEEP * inverse),
    )


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


def _fit_planes(inverse: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares plane through every pixel's window of inverse depth -> its value, d/dcolumn and d/drow [H, W].

    Neighbours that could not be reached without a steep step are left out; without any, the plane is frontal.
    """
    height, width = inverse.shape
    values = F.pad(torch.where(known, inverse, torch.inf)[None], [WINDOW] * 4, value=torch.inf)[0]
    steps = range(-WINDOW, WINDOW + 1)
    sums = torch.zeros(8, height, width, dtype=inverse.dtype, device=inverse.device)
    count, x, y, xx, xy, yy, xw, yw = sums
    total = torch.zeros_like(inverse)
    for dy in steps:
        for dx in steps:
            change = values[WINDOW + dy : WINDOW + dy + height, WINDOW + dx : WINDOW + dx + width] - inverse
            near = (change.abs() < STEEP * max(abs(dx), abs(dy), 0.5) * inverse).to(inverse.dtype)
            change = torch.where(near > 0, change, 0)
            count += near
            x += dx * near
            y += dy * near
            xx += dx * dx * near
            xy += dx * dy * near
            yy += dy * dy * near
            xw += dx * change
            yw += dy * change
            total += change
    count = count.clamp_min(1)
    mean_x, mean_y, mean_w = x / count, y / count, total / count
    cxx, cyy = xx / count - mean_x**2 + RIDGE, yy / count - mean_y**2 + RIDGE
    cxy, cxw, cyw = xy / count - mean_x * mean_y, xw / count - mean_x * mean_w, yw / count - mean_y * mean_w
    determinant = cxx * cyy - cxy**2
    across = (cxw * cyy - cyw * cxy) / determinant
    down = (cyw * cxx - cxw * cxy) / determinant
    return inverse + mean_w - across * mean_x - down * mean_y, across, down


def _flatter_difference(values: Tensor, known: Tensor, axis: int) -> Tensor:
    """Of the differences to the previous and the next known pixel along `axis`, the smaller one by magnitude."""
    forward = torch.diff(values, dim=axis)
    both_known = known.narrow(axis, 1, known.shape[axis] - 1) & known.narrow(axis, 0, known.shape[axis] - 1)
    forward = torch.where(both_known, forward, torch.inf)
    nothing = torch.full_like(values.narrow(axis, 0, 1), torch.inf)
    after, before = torch.cat([forward, nothing], axis), torch.cat([nothing, forward], axis)
    flatter = torch.where(after.abs() < before.abs(), after, before)
    return torch.where(torch.isfinite(flatter), flatter, values)  # alone: as steep as an edge, so it will be dropped
