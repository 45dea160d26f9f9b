"""Splats of many views made one: surfaces already described add nothing, floaters go, the sky goes to a dome.

Views come in order of trust (a walk's own order: the photo first). It trusts the views' cameras and depths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_quaternion
from photowalk.kernels.rasterise import SH_DC, rasterise
from photowalk.reconstruct.lift import FOOTPRINT, Surface, lift, surface_of
from photowalk.reconstruct.simplify import simplify
from photowalk.scene.types import Clip, Scene, Splats, View

AGREEMENT = 0.03  # relative depth difference within which two views mean the same surface
CLOSED = 0.8  # alpha from which a surface counts as described
COARSER = 1.6  # a surface described by splats this many times larger than a pixel is described anew
DARK = 0.05  # colours this close to black or white say nothing about exposure
SKY_DISTANCE = 4.0  # radius of the sky dome, times the farthest depth seen
SKY_SHRINK = 2  # sky is smooth: one splat for so many pixels along each side


def reconstruct(
    walk: Sequence[Clip] | Sequence[View],
    *,
    budget: int = 400_000,
    on_step: Callable[[int, int], None] | None = None,
) -> Scene:
    """Splats of a walk, from the frames whose depth is known (depth 0 = unknown, inf = sky).

    `budget` bounds the number of splats of the geometry; neighbours are merged until it holds. `on_step(done, total)`
    is called after every view. Raises ValueError if no frame has depth.
    """
    views = views_with_depth(walk)
    if not views:
        raise ValueError(
            "no frame of this walk has depth, and splats need it; generate the walk with a depth estimator"
        )
    if budget < 1:
        raise ValueError(f"a budget of {budget} splats holds no scene; give at least 1")
    splats, sky = None, None
    dome = SKY_DISTANCE * _farthest(views)
    for done, view in enumerate(views, 1):
        surface = surface_of(view.depth, view.camera)
        splats = add_view(splats, view, surface)
        sky = add_sky(sky, view, dome)
        if on_step is not None:
            on_step(done, len(views))
    if splats is None or len(splats) == 0:
        raise ValueError("the depth of this walk is all sky or unknown; there is no surface to make splats of")
    splats = simplify(remove_floaters(splats, views), budget)
    return Scene(splats, None if sky is None or len(sky) == 0 else sky)


def views_with_depth(walk: Sequence[Clip] | Sequence[View]) -> list[View]:
    """The frames of clips (in order, numbered through) or views whose depth is known somewhere."""
    views: list[View] = []
    start = 0
    for part in walk:
        if isinstance(part, View):
            views.append(part)
        else:
            if part.depth is not None:
                kept = [frame for frame in range(len(part)) if (part.depth[frame] > 0).any()]
                views += [View(part.video[f], part.depth[f], part.cameras[f], start + f) for f in kept]
            start += len(part)
    return [view for view in views if (view.depth > 0).any()]


def add_view(splats: Splats | None, view: View, surface: Surface) -> Splats:
    """The splats so far with those of one view's pixels that they do not describe, or describe too coarsely."""
    if splats is None or len(splats) == 0:
        return lift(view.image, surface, view.camera, surface.valid)
    seen = _describe(splats, view.camera)
    same = (seen.alpha > CLOSED) & ((seen.depth - view.depth).abs() < _tolerance(view.depth, surface))
    too_coarse = same & (seen.footprint > COARSER * surface.footprint)
    chosen = surface.valid & (~same | too_coarse)
    landing = _land(splats, view)
    image = (view.image * _exposure(splats, view, landing)[:, None, None]).clamp(0, 1)
    replaced = _inside(landing, too_coarse & surface.valid)
    replaced &= splats.scales[:, 1] / FOOTPRINT > COARSER * surface.footprint.reshape(-1)[landing.pixel]
    return Splats.cat([splats[~replaced], lift(image, surface, view.camera, chosen)])


def add_sky(sky: Splats | None, view: View, radius: float) -> Splats | None:
    """The dome so far with the view's sky where it has none, as round splats around the world's origin."""
    in_sky = torch.isinf(view.depth)
    if not in_sky.any():
        return sky
    share = F.avg_pool2d(in_sky.float()[None], SKY_SHRINK, ceil_mode=True)[0]
    colour = F.avg_pool2d(view.image * in_sky, SKY_SHRINK, ceil_mode=True) / share.clamp_min(1e-6)
    camera = view.camera.resized(*share.shape)
    missing = share > 0
    if sky is not None and len(sky) > 0:
        missing &= _describe(sky, camera).alpha < 0.5
    origin, directions = camera.rays()
    means = origin + radius * directions[missing]
    sigma = torch.full((len(means),), 1.2 * FOOTPRINT * radius / float(camera.intrinsics[0, 0]))
    added = Splats(
        means=means,
        scales=sigma[:, None].expand(-1, 3).to(means),
        rotations=torch.tensor([1.0, 0, 0, 0]).to(means).expand(len(means), 4),
        opacities=torch.ones(len(means)).to(means),
        colours=((colour[:, missing].T - 0.5) / SH_DC)[:, None],
    )
    return added if sky is None else Splats.cat([sky, added])


def remove_floaters(splats: Splats, views: Sequence[View]) -> Splats:
    """Drop splats that more views see through than see; the opacity of the others follows the votes."""
    seen, seen_through = torch.zeros(2, len(splats), device=splats.means.device)
    for view in views:
        around = -F.max_pool2d(-view.depth[None], 3, stride=1, padding=1)[0]  # an edge may pass through the pixel
        landing = _land(splats, view)
        seen += landing.agrees
        seen_through += landing.in_view & (landing.depth < (1 - 2 * AGREEMENT) * around.reshape(-1)[landing.pixel])
    keep = seen >= seen_through
    trust = ((1 + seen) / (1 + seen + seen_through))[keep]
    kept = splats[keep]
    return Splats(kept.means, kept.scales, kept.rotations, kept.opacities * trust, kept.colours)


@dataclass(frozen=True)
class _Description:
    alpha: Tensor  # [H, W]
    depth: Tensor  # [H, W] median
    footprint: Tensor  # [H, W] mean pixel footprint of the splats that are seen there


def _describe(splats: Splats, camera: Cameras) -> _Description:
    axes = rotation_from_quaternion(splats.rotations) * splats.scales[:, None, :]
    footprints = (splats.scales[:, 1:2] / FOOTPRINT).expand(-1, 3)
    size = (camera.height, camera.width)
    pose, intrinsics = camera.camera_from_world, camera.intrinsics
    sums, alpha, _, median = rasterise(splats.means, axes, splats.opacities, footprints, pose, intrinsics, *size)
    return _Description(alpha, median, sums[..., 0] / alpha.clamp_min(1e-6))


def _tolerance(depth: Tensor, surface: Surface) -> Tensor:
    """A share of the depth, and what the depth changes over two pixels of a slanted surface."""
    return AGREEMENT * torch.where(torch.isfinite(depth), depth, 0) + 2 * surface.footprint / surface.slant


@dataclass(frozen=True)
class _Landing:
    """Where the centres of splats fall in a view."""

    pixel: Tensor  # [N] flat index, 0 where out of view
    depth: Tensor  # [N] along +Z
    in_view: Tensor  # [N] bool
    agrees: Tensor  # [N] bool: the view saw a surface at this depth


def _land(splats: Splats, view: View) -> _Landing:
    camera = view.camera
    position, z = camera.project(splats.means)
    column, row = position.floor().nan_to_num(-1).clamp(-1, 1e6).long().unbind(-1)
    in_view = (z > 0) & (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    pixel = torch.where(in_view, row * camera.width + column, 0)
    here = view.depth.reshape(-1)[pixel]
    return _Landing(pixel, z, in_view, in_view & ((z - here).abs() < AGREEMENT * here))


def _inside(landing: _Landing, mask: Tensor) -> Tensor:
    """Which splats [N] agree with the view and lie well inside `mask` [H, W]."""
    inner = -F.max_pool2d(-mask.float()[None], 5, stride=1, padding=2)[0] > 0
    return landing.agrees & inner.reshape(-1)[landing.pixel]


def _exposure(splats: Splats, view: View, landing: _Landing) -> Tensor:
    """Gain per colour [3] that brings the view to the brightness of the splats it sees again: the median ratio."""
    known = splats.colours[landing.agrees, 0] * SH_DC + 0.5
    now = view.image.reshape(3, -1)[:, landing.pixel[landing.agrees]].T
    usable = ((known > DARK) & (now > DARK) & (known < 1 - DARK) & (now < 1 - DARK)).all(dim=-1)
    if usable.float().mean() < 0.05 or usable.sum() < 500:
        return torch.ones(3).to(known)
    return (known[usable] / now[usable]).median(dim=0).values.clamp(0.5, 2)


def _farthest(views: Sequence[View]) -> float:
    depths = [view.depth[torch.isfinite(view.depth)] for view in views]
    return max((float(depth.max()) for depth in depths if len(depth)), default=0.0) or 1.0
