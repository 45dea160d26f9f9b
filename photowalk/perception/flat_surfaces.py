"""Walls and floors that an estimate of depth left wavy, made flat.

Through a plane, inverse depth is linear in the picture (n.X = 1 gives 1 / z = n.ray), so planes are found in it: the
one that most pixels lie on, within a few percent and facing the same way, then the next. Depth is brought onto a plane
where edges in it cross at right angles, as people build, or where it lies level, as floors do: slopes and statues keep
their shape. What goes on beside a plane is taken along.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_opening, distance_transform_edt, gaussian_filter, label
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import cg
from torch import Tensor

from photowalk.perception.alignment import is_surface
from photowalk.scene.types import View

_CELL = 6  # pixels, along each side, of which one is asked in the search
_OFF = 0.06  # relative distance in depth from a plane beyond which a pixel lies on something else
_TURNED = math.cos(math.radians(30.0))  # between a plane and the surface at a pixel of it
_SMALLEST = 0.03  # of the pixels with depth, joined, that a plane must have
_MOST = 10  # planes
_TRIED = 400  # pixels whose own plane is tried
_ROUNDS = 6  # of fitting a plane to the pixels that lie on it
_BLUR = 1.5  # cells: what the way that a surface faces is averaged over
_SEAM = 4.0  # pixels by which a region is blurred
_INSIDE = 0.4  # of a blurred region, from which a pixel is in it
_WITHIN, _ALONG = 12.0, 30.0  # pixels in which the correction fades near a plane's end, and on what goes on from it
_STEP = 0.03  # relative difference of depth between neighbours that are not one surface
_EDGE = (0.01, 0.1)  # of [0, 1] a pixel: contrast of no edge yet, and from which none counts for more
_SQUARE = (0.15, 0.3)  # agreement of edges with right angles: of no plane, and of one for sure
_LEVEL = math.cos(math.radians(25.0))  # between a plane's normal and the picture's own upright


def flattened(view: View) -> Tensor:
    """Depth [H, W] of a view, moved onto the planes that it shows. What is unknown or sky stays so.

    It is moved by at most 6 %, twice: planes are found more nearly in what has been flattened, and farther along.
    """
    with torch.autocast(view.depth.device.type, enabled=False):  # places in space want all their digits
        return _onto_planes(replace(view, depth=_onto_planes(view)))


def _onto_planes(view: View) -> Tensor:
    depth = view.depth
    surface = is_surface(depth)
    rays = replace(view.camera, camera_from_world=torch.eye(4).to(depth)).unproject(torch.ones_like(depth))
    cells = (slice(_CELL // 2, None, _CELL), slice(_CELL // 2, None, _CELL))
    known = torch.where(surface, depth, 0)
    moved, nearest = torch.zeros_like(depth), torch.full_like(depth, _OFF)
    for plane, region in _planes(rays[cells], known[cells], float(view.camera.intrinsics[0, 0]) / _CELL):
        inside = F.interpolate(region[None, None].to(depth), depth.shape, mode="bilinear")[0, 0]
        off = torch.where(surface, (known * (rays @ plane)).clamp_min(1e-6).log(), torch.inf)
        on = (off.abs() < nearest) & (_blurred(inside, _SEAM) > _INSIDE)
        moved = torch.where(on, -off * _built(view.image, rays, plane, inside), moved)
        nearest = torch.where(on, off.abs(), nearest)
    moved = _taken_along(moved, nearest < _OFF, torch.where(surface, known.clamp_min(1e-9).log(), torch.nan))
    return torch.where(surface, depth * moved.exp(), depth)


def _taken_along(moved: Tensor, on: Tensor, log_depth: Tensor) -> Tensor:
    """What leaves a plane gradually goes with it, so that nothing is torn or bent where the plane ends: well inside
    what is `on` planes it is `moved` altogether; near the end it settles between that and what is beside it, and beyond
    it fades along surfaces, by the screened Poisson equation."""
    number = torch.arange(moved.numel()).reshape(moved.shape)
    right = torch.stack([number[:, :-1], number[:, 1:]])[:, log_depth.diff(dim=1).abs().cpu() < _STEP]
    down = torch.stack([number[:-1], number[1:]])[:, log_depth.diff(dim=0).abs().cpu() < _STEP]
    pairs = torch.cat([right, down], dim=1).numpy()
    joined = coo_array((np.ones(pairs.shape[1]), pairs), shape=(moved.numel(), moved.numel()))
    on, surface = on.cpu().numpy(), log_depth.isfinite().cpu().numpy()
    held = on & (distance_transform_edt(on | ~surface) > _WITHIN)
    free, given = np.flatnonzero(~held), np.flatnonzero(held)
    beside = (joined + joined.T).tocsr()[free]
    weight = np.where(on, _WITHIN**-2, _ALONG**-2).ravel()[free]
    values = moved.flatten().double().cpu().numpy()
    screened = diags_array(beside.sum(axis=1) + weight) - beside[:, free]
    wanted = beside[:, given] @ values[given] + weight * values[free]
    values[free] = cg(screened, wanted, rtol=1e-3, maxiter=500)[0]
    return torch.from_numpy(values).to(moved).reshape(moved.shape)


def _planes(rays: Tensor, depth: Tensor, focal_px: float) -> list[tuple[Tensor, Tensor]]:
    """Planes n [3] with n.X = 1 and where they are seen, bool [H, W], the larger ones first. rays [H, W, 3] have z = 1;
    depth [H, W], 0 = none."""
    shape, normals = depth.shape, _normals(rays, depth, focal_px).flatten(0, 1)
    rays, depth = rays.flatten(0, 1), depth.flatten()
    own = normals / (depth * (normals * rays).sum(-1).clamp_min(0.05)).clamp_min(1e-9)[:, None]
    free = depth > 0
    fewest = max(_SMALLEST * float(free.sum()), 3.0)

    def near(planes: Tensor) -> Tensor:
        """[P, pixels] in [0, 1]: 1 on the plane, 0 on something else."""
        off = (depth * (planes @ rays.T) - 1) / _OFF
        return (1 - off.square()).clamp_min(0) * (F.normalize(planes, dim=-1) @ normals.T > _TURNED) * free

    found = []
    while len(found) < _MOST and free.sum() >= fewest:
        tried = free.nonzero()[:, 0]
        tried = own[tried[:: max(len(tried) // _TRIED, 1)]]
        plane = tried[near(tried).sum(1).argmax()]
        for _ in range(_ROUNDS):
            weight = near(plane[None])[0]
            region = _largest_piece((weight > 0).reshape(shape)).flatten()
            if region.sum() < fewest:
                return found
            weight = (weight * region * depth)[:, None].double()  # of relative errors
            plane = torch.linalg.lstsq(rays * weight, weight / depth.clamp_min(1e-9)[:, None]).solution[:, 0].to(rays)
        found.append((plane, region.reshape(shape)))
        free = free & ~region
    return found


def _normals(rays: Tensor, depth: Tensor, focal_px: float) -> Tensor:
    """[H, W, 3] which way surfaces face, away from the camera, averaged over their surroundings."""
    known = (depth > 0).to(depth)
    log_inverse = _blurred(torch.where(depth > 0, -depth.clamp_min(1e-9).log(), 0), _BLUR)
    down, right = torch.gradient(log_inverse / _blurred(known, _BLUR).clamp_min(1e-6))
    down, right = down * focal_px, right * focal_px
    return F.normalize(torch.stack([right, down, 1 - rays[..., 0] * right - rays[..., 1] * down], -1), dim=-1)


def _built(image: Tensor, rays: Tensor, plane: Tensor, inside: Tensor) -> Tensor:
    """In [0, 1], how sure it is that a plane is one: level, or with edges of `image` that run along two axes in it."""
    normal = F.normalize(plane, dim=0)
    if normal[1].abs() > _LEVEL:
        return torch.ones(())
    down, right = torch.gradient(_blurred(image.mean(0), 1.0))
    contrast = (down.square() + right.square()).sqrt()
    along = torch.stack([-down, right, torch.zeros_like(down)], -1) / contrast.clamp_min(1e-6)[..., None]
    distance = (rays @ plane).clamp_min(1e-6)[..., None]  # to the plane, inverse
    in_space = along / distance - rays * (along @ plane)[..., None] / distance.square()
    across = F.normalize(torch.linalg.cross(normal, rays.new_tensor([0.0, 1.0, 0.0])), dim=0)
    angle = torch.atan2(in_space @ torch.linalg.cross(normal, across), in_space @ across)
    weight = (contrast - _EDGE[0]).clamp(0, _EDGE[1]) * inside
    turns = torch.stack([(weight * (4 * angle).cos()).sum(), (weight * (4 * angle).sin()).sum()])  # right angles agree
    return _ramp((turns.norm() / weight.sum().clamp_min(1e-6) - _SQUARE[0]) / (_SQUARE[1] - _SQUARE[0]))


def _largest_piece(mask: Tensor) -> Tensor:
    """The largest joined part of a mask [H, W], without what hangs on it by a thread."""
    pieces, count = label(binary_opening(mask.cpu().numpy(), structure=[[1] * 3] * 3))
    if count == 0:
        return torch.zeros_like(mask)
    pieces = torch.from_numpy(pieces).to(mask.device)
    return pieces == 1 + pieces.flatten().bincount()[1:].argmax()


def _ramp(value: Tensor) -> Tensor:
    """From 0 at 0 to 1 at 1, smoothly."""
    value = value.clamp(0, 1)
    return value * value * (3 - 2 * value)


def _blurred(picture: Tensor, deviation: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(picture.cpu().numpy(), deviation, mode="nearest")).to(picture)
