"""What depth says of each pixel: where its surface lies, which way it faces, how wide the pixel is there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.planes import fit_planes

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
    from which even the flatter side of a row or column is steep lies on a ramp between two surfaces. Neighbours beyond
    a steep step are not fitted to. Not differentiable.
    """
    known = (depth > 0) & torch.isfinite(depth)
    inverse = torch.where(known, 1 / torch.where(known, depth, 1), 0)
    slope = torch.maximum(*(_flatter_difference(inverse, known, axis).abs() for axis in (0, 1)))
    inverse, across, down = fit_planes(inverse, STEEP)
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


def _flatter_difference(values: Tensor, known: Tensor, axis: int) -> Tensor:
    """Of the differences to the previous and the next known pixel along `axis`, the smaller one by magnitude."""
    forward = torch.diff(values, dim=axis)
    both_known = known.narrow(axis, 1, known.shape[axis] - 1) & known.narrow(axis, 0, known.shape[axis] - 1)
    forward = torch.where(both_known, forward, torch.inf)
    nothing = torch.full_like(values.narrow(axis, 0, 1), torch.inf)
    after, before = torch.cat([forward, nothing], axis), torch.cat([nothing, forward], axis)
    flatter = torch.where(after.abs() < before.abs(), after, before)
    return torch.where(torch.isfinite(flatter), flatter, values)  # alone: as steep as an edge, so it will be dropped
