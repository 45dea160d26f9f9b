"""The floor under the walk where nobody saw it, guessed, so that one can stand there.

A guess spreads from under the path over what is not blocked by something that was seen, at the height of the floor that
was seen nearest. It fills cells that no view says anything of, and marks them as invented; what was seen stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from photowalk.reconstruct.meshing.fusion import Field, Look, fuse_grid
from photowalk.reconstruct.meshing.grid import Sizing, grid_of_keys, keys_at, widened
from photowalk.scene.ground import Ground

REACH = 2.5  # heights of the eye around the path: about where a camera that looks ahead begins to see the floor
_STEP = 0.15  # of the eye's height: what is higher above the floor is in the way
_LAYERS = 2  # cells above and below the floor that may be guessed
_PLAIN = 1 / 24  # of the eye's height, as a guess needs no finer cells
_CHUNK = 100_000
_LARGEST = 4_000_000  # places of the map


def close_floor(field: Field, looks: Sequence[Look], ground: Ground, sizing: Sizing, noise: float) -> Field:
    """The field with the floor around the path closed."""
    centres = torch.stack([look.view.camera.centres for look in looks]).double()
    eye = float(ground.height(centres).median())
    if not eye > 0:
        return field
    plan = _plan(field, centres, ground, eye)
    quarters = torch.cartesian_prod(*[torch.tensor([0.25, 0.75], dtype=torch.float64)] * 2)
    places = (plan.guess.nonzero()[:, None].double() + quarters) * plan.side + plan.origin
    on_floor = places @ plan.axes + (ground.floor + plan.height[plan.guess])[:, None, None] * ground.up
    sizing = sizing.plain_beyond(field.grid.keys, _PLAIN * eye)
    keys = torch.unique(keys_at(on_floor.flatten(0, 1), sizing))
    every = torch.unique(torch.cat([field.grid.keys, *(widened(part, sizing) for part in keys.split(_CHUNK))]))
    if len(every) > len(field.grid):
        field = fuse_grid(grid_of_keys(every, sizing), looks, sizing, noise)
    unknown = field.weight <= 0
    middles = field.grid.middles.double()
    column, inside = plan.place(middles)
    above = ground.height(middles) - plan.height[column[:, 0], column[:, 1]]
    guessed = unknown & inside & plan.guess[column[:, 0], column[:, 1]]
    guessed &= above.abs() < _LAYERS * field.grid.sides
    seen_floor = ~unknown & (field.distance.abs() < field.grid.sides) & (ground.height(middles).abs() < _STEP * eye)
    colour = field.colour[seen_floor].median(0).values if bool(seen_floor.any()) else torch.full((3,), 0.5)
    return replace(
        field,
        distance=torch.where(guessed, above.float(), field.distance),
        weight=torch.where(guessed, 1e-6, field.weight),
        colour=torch.where(guessed[:, None], colour, field.colour),
        invented=field.invented | guessed,
    )


@dataclass(frozen=True)
class _Plan:
    """A map of the floor, seen from above."""

    axes: Tensor  # [2, 3] unit, level
    origin: Tensor  # [2] of place (0, 0)
    side: float  # of a place
    guess: Tensor  # [X, Y] bool: floor wanted
    height: Tensor  # [X, Y] of the floor over the ground's plane

    def place(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points [M, 3] lie: [M, 2] (clamped), and whether inside [M]."""
        place = ((points @ self.axes.T - self.origin) / self.side).floor().long()
        size = torch.tensor(self.guess.shape)
        inside = ((place >= 0) & (place < size)).all(1)
        return torch.minimum(place.clamp_min(0), size - 1), inside


def _plan(field: Field, centres: Tensor, ground: Ground, eye: float) -> _Plan:
    axes = level_axes(ground.up)
    path = dense_path(centres @ axes.T, eye / 8)
    reach = REACH * eye
    low, high = path.amin(0) - reach, path.amax(0) + reach
    area = float((high - low).prod())
    side = max(1.5 * field.grid.finest, math.sqrt(area / _LARGEST))
    shape = [max(1, math.ceil(float(extent) / side)) for extent in high - low]
    plan = _Plan(axes, low, side, torch.zeros(shape, dtype=torch.bool), torch.zeros(shape))
    middles = field.grid.middles.double()
    column, inside = plan.place(middles)
    height = ground.height(middles)
    surface = inside & (field.weight > 0) & (field.distance.abs() < 0.75 * field.grid.sides)
    blocked = np.zeros(shape, dtype=bool)
    obstacle = surface & (height > _STEP * eye) & (height < eye)
    blocked[tuple(column[obstacle].T.numpy())] = True
    blocked = ndimage.binary_dilation(blocked, iterations=2)
    under = np.zeros(shape, dtype=bool)
    under[tuple(plan.place(path @ axes)[0].T.numpy())] = True
    near = ndimage.distance_transform_edt(~under) * side < reach
    parts, _ = ndimage.label((near & ~blocked) | under)
    guess = np.isin(parts, np.unique(parts[under])) & (parts > 0)
    guess = ndimage.binary_dilation(guess, iterations=3) & near  # meet the walls
    floor = surface & (height.abs() < 0.5 * _STEP * eye)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, tuple(column[floor].T.numpy()), (height - field.distance)[floor].numpy())
    np.add.at(count, tuple(column[floor].T.numpy()), 1.0)
    heights = np.zeros(shape)
    if count.any():
        nearest = ndimage.distance_transform_edt(count == 0, return_distances=False, return_indices=True)
        known = np.divide(total, count, out=np.zeros(shape), where=count > 0)
        blur = max(1.0, 0.25 * eye / side)
        heights = ndimage.gaussian_filter(known[tuple(nearest)], blur)
    return _Plan(axes, low, side, torch.from_numpy(guess), torch.from_numpy(heights))


def level_axes(up: Tensor) -> Tensor:
    """Two unit vectors [2, 3] that with `up` make a right-handed frame."""
    first = torch.linalg.cross(up, torch.eye(3, dtype=up.dtype)[int(up.abs().argmin())])
    first = first / first.norm()
    return torch.stack([first, torch.linalg.cross(up, first)])


def dense_path(path: Tensor, step: float) -> Tensor:
    """The polyline [F, C] with points between, at most `step` apart."""
    parts = [path[:1]]
    for one, other in pairwise(path):
        count = max(1, math.ceil(float((other - one).norm()) / step))
        share = torch.arange(1, count + 1, dtype=path.dtype)[:, None] / count
        parts.append(one + share * (other - one))
    return torch.cat(parts)
