"""Keeps a camera path out of geometry that is already known.

The rule. A camera centre that a view sees (it projects inside the image, in front) is *blocked* for that view if it is
within `clearance` of the surface the view sees there, and *free* if it is nearer to the view than that; behind a
surface, and before sky or unknown depth, the view says nothing. A centre counts as blocked if more views call it
blocked than free. A path with blocked centres is shortened: its excursions from the straight line between its ends are
scaled down if that line is free (so a path that returns still returns), else all its motion is scaled down towards
its start, by the largest factor that is free. Rotations and the number of frames stay.

It knows what was seen, not what is there: the unseen counts as free, and the camera is a point with clearance along the
lines of sight only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras
from photowalk.scene.types import View

_TILES = 32  # a view is looked up in this many columns of tiles
_NEAR_QUANTILE = 0.2  # of the known depths of a tile: a few stray near pixels are noise, a fifth of the tile is a thing
_KNOWN_SHARE = 0.25  # of a tile's pixels that must have depth before the tile speaks
_FACTORS = 50  # tried from 1 downwards


@dataclass(frozen=True)
class Surfaces:
    """The near depth of every tile of every view: what `known_surfaces` makes of views, to be used more than once."""

    cameras: Cameras  # [K], of the size of the tile grid
    depth: Tensor  # [K, h, w], +inf where nothing is known
    clearance: float  # unless said otherwise


def shorten(
    path: Cameras, views: list[View] | Surfaces | None, clearance: float | None = None, *, unit: float = 1.0
) -> tuple[Cameras, str | None]:
    """path [F] -> (a path [F] that keeps clear of what `views` know, a note in words or None if nothing was changed).

    `clearance` is in world units, by default a tenth of the near (25 % quantile) depth of the first view that has any.
    Where the path starts closer than that to a surface, what the start has is enough. `unit` is a metre in
    world units, since the note speaks of metres.
    """
    surfaces = known_surfaces(views) if isinstance(views, list) else views
    if surfaces is None or len(path) < 2:
        return path, None
    clearance = surfaces.clearance if clearance is None else clearance
    if not clearance > 0:
        raise ValueError(f"clearance must be a positive distance, got {clearance}")
    centres = path.centres.detach().double().cpu()
    for _ in range(6):
        if not bool(_blocked(centres[:1], surfaces, clearance).any()):
            break
        clearance /= 2
    blocked = _blocked(centres, surfaces, clearance)
    if bool(_blocked(centres[:1], surfaces, clearance).any()) or not _hits(centres, surfaces, clearance):
        return path, None
    line = _line(centres)
    keeps_end = not bool(blocked[-1]) and not _hits(line, surfaces, clearance)
    base = line if keeps_end else centres[:1].expand_as(centres)
    factor = _largest_free_factor(centres, base, surfaces, clearance)
    shortened = _with_centres(path, base + factor * (centres - base), keeps_end)
    ahead = _distance_to_hit(centres, surfaces, clearance)
    done = f"was shortened to {int(100 * factor)} %" if factor > 0 else "stays in place"
    return shortened, f"the path {done} because it would have run into something {ahead / unit:.1f} m ahead"


def blocked(path: Cameras, surfaces: Surfaces | None) -> Tensor:
    """Which cameras of path [F] are too close to what is known: bool [F], as `shorten` judges them."""
    if surfaces is None:
        return torch.zeros(len(path), dtype=torch.bool)
    return _blocked(path.centres.double().cpu(), surfaces, surfaces.clearance)


def known_surfaces(views: list[View]) -> Surfaces | None:
    """What `views` know; None if none of them has depth."""
    views = [view for view in views if bool((view.depth > 0).any())]
    if not views:
        return None
    tiles, cameras = [], []
    for view in views:
        depth = view.depth.detach().float().cpu()
        side = max(1, round(depth.shape[1] / _TILES))
        rows, columns = max(1, depth.shape[0] // side), max(1, depth.shape[1] // side)
        cut = depth[: rows * side, : columns * side]
        blocks = cut.unflatten(0, (rows, -1)).unflatten(2, (columns, -1)).permute(0, 2, 1, 3).flatten(2)
        tiles.append(_near_depth(blocks))
        camera = view.camera.to("cpu", torch.float64)
        cropped = replace(camera, height=cut.shape[0], width=cut.shape[1])
        cameras.append(cropped.resized(rows, columns))
    if len({tile.shape for tile in tiles}) != 1:
        raise ValueError("views of one size are wanted, got several; resize them first")
    poses = torch.stack([camera.camera_from_world for camera in cameras])
    intrinsics = torch.stack([camera.intrinsics for camera in cameras])
    return Surfaces(
        replace(cameras[0], camera_from_world=poses, intrinsics=intrinsics),
        torch.stack(tiles),
        _default_clearance(views),
    )


def _near_depth(blocks: Tensor) -> Tensor:
    """[h, w, pixels] -> [h, w]: the near quantile of the known depths, +inf where too few are known. Sky is far."""
    known = (blocks > 0) & ~blocks.isnan()
    ordered = torch.where(known, blocks, torch.inf).sort(dim=-1).values
    count = known.sum(-1)
    index = ((count - 1).clamp(min=0) * _NEAR_QUANTILE).long()
    near = ordered.gather(-1, index[..., None])[..., 0]
    return torch.where(count >= _KNOWN_SHARE * blocks.shape[-1], near, torch.inf)


def _default_clearance(views: list[View]) -> float:
    for view in views:
        known = view.depth[(view.depth > 0) & view.depth.isfinite()]
        if known.numel():
            ordered = known.flatten().sort().values
            return 0.1 * float(ordered[len(ordered) // 4])
    return 1.0  # only sky is seen: nothing can be hit, whatever the clearance


def _blocked(points: Tensor, surfaces: Surfaces, clearance: float) -> Tensor:
    """points [P, 3] -> [P] bool, by the vote of the views."""
    pixels, depth = surfaces.cameras.project(points.expand(len(surfaces.cameras), -1, -1))
    count, height, width = surfaces.depth.shape
    seen = (depth > 0) & (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    pixels = torch.where(seen[..., None], pixels, 0).long()
    surface = surfaces.depth[torch.arange(count)[:, None], pixels[..., 1], pixels[..., 0]]
    gap = torch.where(seen, surface - depth, torch.nan)  # comparisons with nan are false: an unseeing view has no vote
    return (gap.abs() < clearance).sum(0) > (gap.isfinite() & (gap >= clearance)).sum(0)


def _hits(centres: Tensor, surfaces: Surfaces, clearance: float) -> bool:
    return bool(_blocked(_dense(centres, clearance), surfaces, clearance).any())


def _dense(centres: Tensor, clearance: float) -> Tensor:
    """The polyline [F, 3] with points between, so that no step jumps over a blocked zone (2 * clearance deep)."""
    longest = float(centres.diff(dim=0).norm(dim=-1).max())
    pieces = min(64, max(1, int(longest / clearance) + 1))
    share = torch.arange(pieces, dtype=centres.dtype) / pieces
    between = centres[:-1, None] + share[:, None] * centres.diff(dim=0)[:, None]
    return torch.cat([between.flatten(0, 1), centres[-1:]])


def _line(centres: Tensor) -> Tensor:
    """[F, 3] on the straight line between the ends, as far along it as the path has gone of its own length."""
    steps = centres.diff(dim=0).norm(dim=-1)
    gone = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    share = gone / gone[-1].clamp(min=torch.finfo(gone.dtype).tiny)
    return centres[:1] + share[:, None] * (centres[-1:] - centres[:1])


def _largest_free_factor(centres: Tensor, base: Tensor, surfaces: Surfaces, clearance: float) -> float:
    """The largest of a grid of factors in [0, 1) whose path is free, refined by bisection."""
    tried = 1.0
    for step in range(_FACTORS - 1, -1, -1):
        factor = step / _FACTORS
        if not _hits(base + factor * (centres - base), surfaces, clearance):
            break
        tried = factor
    low, high = factor, tried
    for _ in range(5):
        middle = (low + high) / 2
        if _hits(base + middle * (centres - base), surfaces, clearance):
            high = middle
        else:
            low = middle
    return low


def _with_centres(path: Cameras, centres: Tensor, keeps_end: bool) -> Cameras:
    """The path's rotations at other centres; cameras equal to its first one (or its last, if kept) stay bit for bit."""
    rotation = path.world_from_camera[:, :3, :3].double().cpu()
    poses = motions.inverse(motions.motion(rotation, centres)).to(path.camera_from_world)
    original = path.camera_from_world
    keep = (original == original[0]).all(-1).all(-1)
    if keeps_end:
        keep |= (original == original[-1]).all(-1).all(-1)
    return replace(path, camera_from_world=torch.where(keep[:, None, None], original, poses))


def _distance_to_hit(centres: Tensor, surfaces: Surfaces, clearance: float) -> float:
    """Straight distance from the start to the first blocked point, and the clearance that lies beyond it."""
    dense = _dense(centres, clearance)
    first = int(_blocked(dense, surfaces, clearance).nonzero()[0, 0])
    return float((dense[first] - centres[0]).norm()) + clearance
