"""What a robot finds on a collision mesh: a height map of the floor and of all that stands in the way.

MuJoCo makes every mesh convex, which would fill rooms; a height field stands. It comes from the mesh alone: at each
place the floor is what a ray from above meets near the floor's plane, an obstacle any part of the mesh that rises
above a step there, up to the height that matters to a robot. Where there is no mesh there is a hole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from photowalk.kernels.mesh_rays import RayCaster
from photowalk.scene.types import Mesh

STEP = 0.06  # metres off the floor around that wheels climb; between neighbours it may be twice as much
TALL = 0.5  # metres above the floor up to which things are in the way
HOLE = 2.0  # metres that a hole is deep
UNEVEN = 0.4  # metres off its plane that a floor may be
SIDE, LARGEST = 0.04, 500  # metres of a place, unless that made more places than these along a side of the map


@dataclass(frozen=True)
class Terrain:
    """A map [X, Y] of places, `side` metres each; place (0, 0) begins at `origin`, x and y level, z up."""

    origin: np.ndarray  # [2]
    side: float
    height: np.ndarray  # [X, Y] metres, of the floor or of what stands on it; -HOLE where there is nothing
    floor: np.ndarray  # [X, Y] bool: no more than a step off the floor around
    invented: np.ndarray  # [X, Y] bool: floor that nobody saw

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points [M, 2] -> places [M, 2], clamped to the map."""
        place = np.floor((np.asarray(points) - self.origin) / self.side).astype(int)
        return np.clip(place, 0, np.array(self.height.shape) - 1)

    def point(self, places: np.ndarray) -> np.ndarray:
        """Places [M, 2] -> the points [M, 2] of their middles."""
        return (np.asarray(places) + 0.5) * self.side + self.origin

    def clearance(self) -> np.ndarray:
        """[X, Y] metres from the middle of each place to where there is no floor; the map's rim is none."""
        return ndimage.distance_transform_edt(np.pad(self.floor, 1))[1:-1, 1:-1] * self.side


def terrain_of(mesh: Mesh, path: np.ndarray, *, reach: float = 6.0) -> Terrain:
    """mesh in metres, z up, floor near 0; path [F, 2] that is walked. The map ends `reach` metres from the path."""
    low, high = path.min(0) - reach, path.max(0) + reach
    side = max(SIDE, float((high - low).max()) / LARGEST)
    shape = tuple(int(count) for count in np.ceil((high - low) / side))
    places = np.stack(np.meshgrid(*(np.arange(count) for count in shape), indexing="ij"), axis=-1).reshape(-1, 2)
    above = np.concatenate([(places + 0.5) * side + low, np.full((len(places), 1), UNEVEN)], axis=1)
    rays = torch.from_numpy(above).float()
    hits = RayCaster(mesh.vertices, mesh.faces).cast(rays, torch.tensor([0.0, 0, -1]).expand_as(rays))
    found = (hits.distance < 2 * UNEVEN).numpy()
    height = np.where(found, UNEVEN - hits.distance.numpy(), np.nan).reshape(shape)
    invented = (found & mesh.invented.numpy()[hits.face.clamp_min(0).numpy()]).reshape(shape)
    ground = _ground(height, side)
    top = np.maximum(np.nan_to_num(height, nan=-HOLE), _obstacles(mesh, ground, low, side, shape))
    return Terrain(low, side, top, np.abs(top - ground) < STEP, invented)


def _ground(height: np.ndarray, side: float) -> np.ndarray:
    """What the floor is around each place: the median of the lower half of what lies around it."""
    known = np.isfinite(height)
    if not known.any():
        return np.zeros_like(height)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = height[tuple(nearest)]
    coarse = max(1, round(0.2 / side))
    few = filled[::coarse, ::coarse]
    few = ndimage.percentile_filter(few, 30, size=7)
    rows, columns = (
        np.minimum(np.arange(count) / coarse, few.shape[axis] - 1) for axis, count in enumerate(height.shape)
    )
    return ndimage.map_coordinates(few, np.meshgrid(rows, columns, indexing="ij"), order=1)


def _obstacles(mesh: Mesh, ground: np.ndarray, low: np.ndarray, side: float, shape: tuple[int, ...]) -> np.ndarray:
    """[X, Y] the highest part of the mesh between a step and TALL above the ground, -HOLE where there is none."""
    points = _samples(mesh, side / 2, low, low + np.array(shape) * side)
    place = np.floor((points[:, :2] - low) / side).astype(int)
    inside = ((place >= 0) & (place < shape)).all(1)
    place, tall = place[inside], points[inside, 2]
    above = tall - ground[place[:, 0], place[:, 1]]
    chosen = (above > STEP) & (above < TALL)
    top = np.full(shape, -HOLE)
    np.maximum.at(top, (place[chosen, 0], place[chosen, 1]), tall[chosen])
    return top


def _samples(mesh: Mesh, spacing: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Points [M, 3] all over the faces that come near the floor inside a rectangle, about `spacing` apart."""
    corners = mesh.vertices[mesh.faces].numpy()
    near = (corners[:, :, 2].min(1) < 2 * TALL) & (corners[:, :, 2].max(1) > -TALL)
    near &= (corners[:, :, :2].max(1) > low).all(1) & (corners[:, :, :2].min(1) < high).all(1)
    corners = corners[near]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1) if len(corners) else np.zeros(0)
    pieces = np.clip(np.ceil(longest / spacing), 1, 64).astype(int)
    points = [corners.reshape(-1, 3)]
    for count in np.unique(pieces):
        i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        kept = i + j <= count
        weights = np.stack([i[kept], j[kept], count - i[kept] - j[kept]], axis=1) / count
        points.append(np.einsum("kc,tcx->tkx", weights, corners[pieces == count]).reshape(-1, 3))
    return np.concatenate(points)
