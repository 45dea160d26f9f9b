"""From a posed RGB-D picture to splats with a network's corrections: what the frames beside it deny becomes faint,
edges are closed, colours are set so that blended splats look like the picture.

It makes the evidence and applies the answer; fusion's choices are those that splats without a network get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.models.splat_head import BESIDE, Corrections, SplatHead
from photowalk.reconstruct.lift import lift, shrink
from photowalk.scene.surfaces import Surface, surface_of
from photowalk.scene.types import Splats, View

FAINTEST = 0.05  # splats of less opacity are left out
_CLEAR = 0.1  # log-ratio of depths that is plainly another surface
_STEEP = 0.05  # log-depth beside its neighbours' that is plainly an edge


@dataclass(frozen=True)
class LearntLift:
    """Implements `photowalk.reconstruct.lift.Lifter`."""

    network: SplatHead
    ratio: int = 1
    blends: bool = False  # colours are such that they look right where splats overlap

    def __call__(self, view: View, surface: Surface, chosen: Tensor, beside: Sequence[View]) -> Splats:
        corrections: Corrections = self.network(evidence(view, surface, beside), self.ratio)
        if self.ratio != 1:
            view, chosen = shrink(view, surface, chosen, self.ratio)
            surface = surface_of(view.depth, view.camera)
        splats = lift(view.image, surface, view.camera, chosen, corrections)
        return splats[splats.opacities > FAINTEST]


def evidence(view: View, surface: Surface, beside: Sequence[View]) -> Tensor:
    """[EVIDENCE, H, W], all of about unit size: the picture, the surface in the camera's axes, its depth in the whole
    picture and among its neighbours, and what at most BESIDE other views see at its place."""
    known = (view.depth > 0) & view.depth.isfinite()
    log_depth = torch.where(known, view.depth.clamp_min(1e-6).log(), 0)
    usual = log_depth[known].median() if known.any() else 0.0
    around = F.avg_pool2d(log_depth[None], 3, 1, 1)[0]
    parts = [
        view.image - 0.5,
        (surface.normals @ view.camera.camera_from_world[:3, :3].T).movedim(-1, 0) * known,
        torch.stack(
            [
                surface.slant * known,
                surface.valid.float(),
                view.depth.isinf().float(),
                ((log_depth - usual) * known).clamp(-2, 2),
                ((log_depth - around) * known / _STEEP).clamp(-2, 2),
            ]
        ),
    ]
    parts += [_seen_from(other, view, surface.points, known) for other in beside[:BESIDE]]
    parts += [torch.zeros(3, *known.shape).to(view.image)] * (BESIDE - len(beside))
    return torch.cat(parts)


def _seen_from(other: View, view: View, points: Tensor, known: Tensor) -> Tensor:
    """[3, H, W] whether another view looks at the points [H, W, 3] of a view, how much farther they lie than what it
    sees there, and how different it looks."""
    camera = other.camera
    position, z = camera.project(points)
    depth, image = _sampled(other, position, camera)
    sees = known & (z > 0) & (depth > 0) & depth.isfinite()
    farther = torch.where(sees, (z.clamp_min(1e-6) / torch.where(sees, depth, 1)).log() / _CLEAR, 0)
    through = known & (z > 0) & depth.isinf()  # it sees the sky there
    farther = torch.where(through, -2.0, farther.clamp(-2, 2))
    difference = (image - view.image).abs().mean(0) * (sees | through) * 4
    return torch.stack([(sees | through).float(), farther, difference.clamp(0, 2)])


def _sampled(view: View, position: Tensor, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Depth [H, W] (0 outside) of the nearest pixel and blended colour [3, H, W] at pixel positions [H, W, 2]."""
    grid = position / position.new_tensor([camera.width, camera.height]) * 2 - 1
    grid = grid.nan_to_num(-3).clamp(-3, 3)[None]
    finite = torch.where(view.depth.isfinite(), view.depth, -1)
    depth = F.grid_sample(finite[None, None], grid, mode="nearest", align_corners=False)[0, 0]
    image = F.grid_sample(view.image[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    return torch.where(depth < 0, torch.inf, depth), image
