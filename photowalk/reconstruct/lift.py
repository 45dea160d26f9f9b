"""From one posed RGB-D picture to splats: every pixel becomes a flat Gaussian that lies in the surface it saw.

The scale comes from the pixel's footprint and the surface's slope, so that surfaces are closed at the distance from
which they were seen and stay sharp. It knows one view at a time; agreement between views is fusion's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import quaternion_from_rotation
from photowalk.kernels.rasterise import SH_DC
from photowalk.scene.types import Splats

FOOTPRINT = 0.45  # standard deviation of a splat, in pixels of the view that saw it; measured, see benchmarks
FLATNESS = 0.15  # standard deviation along the normal, relative to the footprint
STRETCH_MINIMUM = 0.1  # slants below this stretch a splat no further
OPACITY = 0.98
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

    Inverse depth is linear in the pixel on any plane, w = n . ray with n / |n| the normal. Each derivative takes the
    flatter of its two sides: a crisp edge leaves both its surfaces alone, a ramp between them is found out.
    """
    known = (depth > 0) & torch.isfinite(depth)
    depth = torch.where(known, depth, 1)
    inverse = torch.where(known, 1 / depth, 0)
    focal, principal = camera.intrinsics[[0, 1], [0, 1]], camera.intrinsics[:2, 2]
    across, down = _flatter_difference(inverse, known, 1), _flatter_difference(inverse, known, 0)
    n_x, n_y = focal[0] * across, focal[1] * down
    columns = (torch.arange(camera.width).to(depth) + 0.5 - principal[0]) / focal[0]
    rows = (torch.arange(camera.height).to(depth) + 0.5 - principal[1]) / focal[1]
    n_z = inverse - n_x * columns - n_y * rows[:, None]
    normals = torch.stack([n_x, n_y, n_z], dim=-1)
    length = normals.norm(dim=-1).clamp_min(1e-12)
    ray_length = (1 + columns.square() + rows.square()[:, None]).sqrt()
    slant = inverse / (length * ray_length)
    return Surface(
        points=camera.unproject(depth),
        normals=(normals / length[..., None]) @ camera.camera_from_world[:3, :3],
        slant=slant.clamp(1e-3, 1),
        footprint=depth / focal.mean(),
        valid=known & (torch.maximum(across.abs(), down.abs()) < STEEP * inverse),
    )


def lift(image: Tensor, surface: Surface, camera: Cameras, chosen: Tensor) -> Splats:
    """image [3, H, W]; the `chosen` [H, W] pixels become splats, in row order."""
    points, slant = surface.points[chosen], surface.slant[chosen]
    sigma = FOOTPRINT * surface.footprint[chosen]
    return Splats(
        means=points,
        scales=torch.stack([sigma / slant.clamp_min(STRETCH_MINIMUM), sigma, FLATNESS * sigma], dim=-1),
        rotations=_lying_in(surface.normals[chosen], points - camera.centres),
        opacities=torch.full_like(sigma, OPACITY),
        colours=((image[:, chosen].T - 0.5) / SH_DC)[:, None],
    )


def _lying_in(normals: Tensor, rays: Tensor) -> Tensor:
    """Rotations wxyz [N, 4] whose first axis follows the slope seen along `rays`, whose third is the normal [N, 3]."""
    across = torch.linalg.cross(normals, rays)  # vanishes where a surface is seen head on; then any direction will do
    any_across = torch.linalg.cross(normals, torch.eye(3).to(normals)[normals.abs().argmin(dim=-1)])
    head_on = across.norm(dim=-1, keepdim=True) < 1e-3 * rays.norm(dim=-1, keepdim=True)
    across = normalize(torch.where(head_on, any_across, across), dim=-1)
    along = torch.linalg.cross(across, normals)
    return quaternion_from_rotation(torch.stack([along, across, normals], dim=-1))


def _flatter_difference(values: Tensor, known: Tensor, axis: int) -> Tensor:
    """Of the differences to the previous and the next known pixel along `axis`, the smaller one by magnitude."""
    forward = torch.diff(values, dim=axis)
    both_known = known.narrow(axis, 1, known.shape[axis] - 1) & known.narrow(axis, 0, known.shape[axis] - 1)
    forward = torch.where(both_known, forward, torch.inf)
    nothing = torch.full_like(values.narrow(axis, 0, 1), torch.inf)
    after, before = torch.cat([forward, nothing], axis), torch.cat([nothing, forward], axis)
    flatter = torch.where(after.abs() < before.abs(), after, before)
    return torch.where(torch.isfinite(flatter), flatter, values)  # alone: as steep as an edge, so it will be dropped
