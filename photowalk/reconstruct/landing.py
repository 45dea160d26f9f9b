"""What views say about splats: what of them is rendered there, where their centres fall, and which space is free.

It knows one view at a time and decides nothing; how many views must agree is fusion's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.sliding import lowest_around
from photowalk.scene.render import footprints, visible
from photowalk.scene.types import Splats, View

AGREEMENT = 0.03  # relative depth difference within which two views mean the same surface
IN_FRONT = 1 - 2 * AGREEMENT  # of the depth that a view sees: what is nearer, it sees through
_COARSE = 4  # pixels along each side of a block whose nearest depth is kept for as long as the walk is


@dataclass(frozen=True)
class Description:
    alpha: Tensor  # [H, W]
    depth: Tensor  # [H, W] median
    pixel: Tensor  # [H, W] mean world size of the pixels that showed the splats that are seen there


@torch.no_grad()
def describe(splats: Splats, pixel: Tensor, camera: Cameras) -> Description:
    """`pixel` [N] is the world size of the pixels that showed each splat."""
    rows = visible(splats, camera)
    sums, alpha, _, median = footprints(splats[rows], camera).blend(pixel[rows, None].expand(-1, 3))
    return Description(alpha, median, sums[..., 0] / alpha.clamp_min(1e-6))


@dataclass(frozen=True)
class Landing:
    """Where the centres of splats fall in a view."""

    pixel: Tensor  # [N] flat index, 0 where out of view
    depth: Tensor  # [N] along +Z
    in_view: Tensor  # [N] bool
    agrees: Tensor  # [N] bool: the view saw a surface at this depth


@torch.no_grad()
def land(splats: Splats, view: View) -> Landing:
    pixel, z, in_view = _fall(splats.means, view.camera)
    here = view.depth.reshape(-1)[pixel]
    return Landing(pixel, z, in_view, in_view & ((z - here).abs() < AGREEMENT * here))


def _fall(points: Tensor, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Where points [N, 3] fall: flat index of the pixel (0 if in none), depth along +Z, whether in view, all [N]."""
    position, z = camera.project(points)
    column, row = position.floor().nan_to_num(-1).clamp(-1, 1e6).long().unbind(-1)
    in_view = (z > 0) & (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    return torch.where(in_view, row * camera.width + column, 0), z, in_view


@dataclass(frozen=True)
class FreeSpace:
    """Where a view saw nothing, coarsely, since every view of a walk leaves one behind."""

    camera: Cameras
    depth: Tensor  # [h, w] up to which all is free in a block of pixels; 0 where that is not known

    @staticmethod
    def of(view: View) -> FreeSpace:
        known = view.depth > 0
        least = -F.max_pool2d(-torch.where(known, view.depth, torch.inf)[None], _COARSE, ceil_mode=True)[0]
        most = F.avg_pool2d(known.float()[None], _COARSE, ceil_mode=True)[0] >= 0.5
        depth = lowest_around(torch.where(most, least, 0), 1)
        return FreeSpace(view.camera.resized(*depth.shape), depth.half())

    def holds(self, points: Tensor) -> Tensor:
        """Which `points` [N, 3] lie in it."""
        pixel, z, in_view = _fall(points, self.camera)
        return in_view & (z < IN_FRONT * self.depth.reshape(-1)[pixel])
