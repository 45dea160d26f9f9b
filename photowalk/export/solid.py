"""What of a world one cannot walk through, as a box of cells: from the collision mesh, or else from the splats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from photowalk.export.contents import Contents, sound
from photowalk.geometry.motions import rotation_from_quaternion
from photowalk.scene.ground import EYE_HEIGHT
from photowalk.scene.types import Mesh, Splats

# Metres for a body whose eyes are EYE_HEIGHT high; all of them shrink and grow with the eyes.
CELL = 0.1  # where the world is not too large for it
AROUND_PATH = 15.0  # beyond the walk that can be gone to
BELOW, ABOVE = 3.0, 2.0  # under the lowest and over the highest camera
BODY_RADIUS, KNEES, CROWN = 0.3, 0.4, 0.15  # of the column that is free wherever a camera has been

MAXIMUM_CELLS = 16_000_000
POINTS_AT_ONCE = 500_000
LONGEST_EDGE = 16  # cells, of triangles that are sampled in one piece
OPACITY_MINIMUM = 0.5  # of splats that stop one
HITS_MINIMUM = 2  # points of splats in a cell that make it solid; a single one is often a floater
CLUSTER_MINIMUM = 12  # cells; smaller things hang in the air by mistake
LOWEST_EYE, HIGHEST_EYE = 0.05, 3.0  # metres over the floor at which a visitor's eyes can be


@dataclass(frozen=True)
class Solid:
    cells: np.ndarray  # [X, Y, Z] bool
    origin: tuple[float, float, float]  # the low corner of cell 0, 0, 0
    cell: float  # metres along each side


def eye_height(contents: Contents) -> float:
    """Metres over the floor at which the photo was taken, within what a visitor can be."""
    eye = (
        contents.cameras[0].centres.cpu().double() @ contents.level_from_world[2, :3] + contents.level_from_world[2, 3]
    )
    return min(max(float(eye), LOWEST_EYE), HIGHEST_EYE)


def solid_cells(contents: Contents, turn: Tensor) -> Solid:
    """Cells in the axes that `turn` [3, 3] (a permutation with signs) makes of Z-up metres. Raises ExportError."""
    similarity, size = contents.level_from_world, eye_height(contents) / EYE_HEIGHT
    path = contents.cameras.centres.cpu().double() @ similarity[:3, :3].T + similarity[:3, 3]
    low = path.amin(0).numpy() - size * np.array([AROUND_PATH, AROUND_PATH, BELOW])
    high = path.amax(0).numpy() + size * np.array([AROUND_PATH, AROUND_PATH, ABOVE])
    cell = max(size * CELL, float(np.prod(high - low) / MAXIMUM_CELLS) ** (1 / 3))
    shape = np.ceil((high - low) / cell).astype(np.int64)
    if contents.collision is not None and len(contents.collision):
        mesh = sound(contents.collision, "the page")
        cells = _touched(_on_mesh(mesh, similarity, cell, low, high), low, shape, cell)
    else:
        points = _on_splats(contents.need_splats("the page"), similarity)
        cells = _without_crumbs(_filled(points, low, shape, cell) >= HITS_MINIMUM)
    _clear_path(cells, path.numpy(), low, cell, size)
    return _turned(cells, low, cell, turn.numpy())


def _filled(points: Tensor, low: np.ndarray, shape: np.ndarray, cell: float) -> np.ndarray:
    """How many of the points [P, 3] are in each cell."""
    index = np.floor((points.numpy() - low) / cell).astype(np.int64)
    index = index[((index >= 0) & (index < shape)).all(1)]
    flat = np.ravel_multi_index(tuple(index.T), tuple(shape))
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)


def _touched(parts: Iterable[Tensor], low: np.ndarray, shape: np.ndarray, cell: float) -> np.ndarray:
    """[X, Y, Z] bool: whether any of the points [P, 3] of the parts is in a cell."""
    cells, size = torch.zeros(*shape.tolist(), dtype=torch.bool), torch.from_numpy(shape)
    for points in parts:
        index = ((points - torch.from_numpy(low)) / cell).floor().int()
        cells[index[((index >= 0) & (index < size)).all(1)].long().unbind(1)] = True
    return cells.numpy()


def _on_splats(splats: Splats, similarity: Tensor) -> Tensor:
    """Centres of what is opaque, and the ends of both longer axes."""
    splats = splats[splats.opacities >= OPACITY_MINIMUM]
    axes = rotation_from_quaternion(splats.rotations) * splats.scales[:, None, :]
    longer = splats.scales.argsort(dim=1, descending=True)[:, None, :2].expand(-1, 3, -1)
    reach = axes.gather(2, longer).unbind(-1)
    means = splats.means
    points = torch.cat([means, *(means + sign * axis for axis in reach for sign in (-1, 1))]).detach().cpu().double()
    return points @ similarity[:3, :3].T + similarity[:3, 3]


def _on_mesh(mesh: Mesh, similarity: Tensor, cell: float, low: np.ndarray, high: np.ndarray) -> Iterator[Tensor]:
    """Points [P, 3] on each triangle that touches the box, at most half a cell apart: rows of barycentric steps,
    triangles of like size at once."""
    corners = (mesh.vertices.cpu().double() @ similarity[:3, :3].T + similarity[:3, 3])[mesh.faces.cpu()]
    corners = _split(corners, LONGEST_EDGE * cell, torch.from_numpy(low), torch.from_numpy(high))
    longest = (corners - corners.roll(1, 1)).norm(dim=-1).amax(1)
    steps = 2 ** (longest / (0.5 * cell)).clamp_min(1).log2().ceil().long()
    for count in steps.unique().tolist():
        u, v = torch.meshgrid(*(torch.linspace(0, 1, count + 1, dtype=torch.float64),) * 2, indexing="ij")
        weights = torch.stack([u, v, 1 - u - v], dim=-1)[u + v <= 1 + 1e-9]
        for some in corners[steps == count].split(max(1, POINTS_AT_ONCE // len(weights))):
            yield (weights @ some).view(-1, 3)


def _split(corners: Tensor, longest: float, low: Tensor, high: Tensor) -> Tensor:
    """Triangles [T, 3, 3] halved along their longest edges until none is longer, without those outside the box: what
    is sampled is then bounded by the area inside."""
    done = []
    while len(corners):
        inside = ((corners.amin(1) <= high) & (corners.amax(1) >= low)).all(1)
        edges = (corners - corners.roll(1, 1)).norm(dim=-1)  # edge k goes from corner k - 1 to corner k
        small = edges.amax(1) <= longest
        done.append(corners[inside & small])
        corners, edges = corners[inside & ~small], edges[inside & ~small]
        after = edges.argmax(1)
        rows = torch.arange(len(corners))
        start, end, tip = corners[rows, (after - 1) % 3], corners[rows, after], corners[rows, (after + 1) % 3]
        middle = (start + end) / 2
        corners = torch.cat([torch.stack([start, middle, tip], 1), torch.stack([middle, end, tip], 1)])
    return torch.cat(done) if done else corners


def _without_crumbs(cells: np.ndarray) -> np.ndarray:
    """Without connected things of few cells."""
    names, _ = ndimage.label(cells, structure=np.ones((3, 3, 3)))
    return cells & (np.bincount(names.ravel()) >= CLUSTER_MINIMUM)[names]


def _clear_path(cells: np.ndarray, path: np.ndarray, low: np.ndarray, cell: float, size: float) -> None:
    """Make free where the cameras went, from the knees up: whatever seems to be there, the walk went through."""
    radius = size * BODY_RADIUS / cell
    reach = int(np.ceil(radius))
    x, y = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.stack([x, y], axis=-1)[x**2 + y**2 <= radius**2]
    for centre in path:
        i, j, bottom = np.floor((centre - low - [0, 0, size * (EYE_HEIGHT - KNEES)]) / cell).astype(int)
        top = int((centre[2] - low[2] + size * CROWN) / cell) + 1
        cells[disc[:, 0] + i, disc[:, 1] + j, max(bottom, 0) : top] = False


def _turned(cells: np.ndarray, low: np.ndarray, cell: float, turn: np.ndarray) -> Solid:
    """The same cells along other axes."""
    order = np.abs(turn).argmax(1)
    signs = turn[np.arange(3), order]
    ends = np.stack([low, low + cell * np.array(cells.shape)])[:, order] * signs
    moved = cells.transpose(order)
    moved = np.flip(moved, axis=tuple(int(axis) for axis in np.flatnonzero(signs < 0)))
    x, y, z = (float(value) for value in ends.min(0))
    return Solid(np.ascontiguousarray(moved), (x, y, z), cell)
