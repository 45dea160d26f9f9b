"""What of a world one cannot walk through, as a box of cells: from the collision mesh, or else from the splats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from photowalk.export.contents import Contents, sound
from photowalk.geometry.motions import rotation_from_quaternion
from photowalk.scene.types import Mesh, Splats

CELL = 0.1  # metres, where the world is not too large for it
MAXIMUM_CELLS = 16_000_000
AROUND_PATH = 15.0  # metres beyond the walk that can be gone to
BELOW, ABOVE = 3.0, 2.0  # metres under the lowest and over the highest camera
OPACITY_MINIMUM = 0.5  # of splats that stop one
HITS_MINIMUM = 2  # points of splats in a cell that make it solid; a single one is often a floater
CLUSTER_MINIMUM = 12  # cells; smaller things hang in the air by mistake
BODY_RADIUS, KNEES, CROWN = 0.3, 0.4, 0.15  # of the column that is free wherever a camera has been, metres


@dataclass(frozen=True)
class Solid:
    cells: np.ndarray  # [X, Y, Z] bool
    origin: tuple[float, float, float]  # the low corner of cell 0, 0, 0
    cell: float  # metres along each side


def solid_cells(contents: Contents, turn: Tensor) -> Solid:
    """Cells in the axes that `turn` [3, 3] (a permutation with signs) makes of Z-up metres."""
    similarity = contents.level_from_world
    path = contents.cameras.centres.cpu().double() @ similarity[:3, :3].T + similarity[:3, 3]
    if contents.collision is not None and len(contents.collision):
        cell, points = _with_points(path, contents.collision, similarity)
        least, smallest = 1, 1
    else:
        splats = contents.need_splats("the page")
        cell, points = _with_points(path, splats, similarity)
        least, smallest = HITS_MINIMUM, CLUSTER_MINIMUM
    low, shape = _box(path, cell)
    index = np.floor((points.numpy() - low) / cell).astype(np.int64)
    index = index[((index >= 0) & (index < shape)).all(1)]
    cells = np.bincount(np.ravel_multi_index(tuple(index.T), tuple(shape)), minlength=int(np.prod(shape))) >= least
    cells = _without_crumbs(cells.reshape(shape), smallest)
    _clear_path(cells, path.numpy(), low, cell, float(path[0, 2]))
    return _turned(cells, low, cell, turn.numpy())


def _with_points(path: Tensor, shape: Mesh | Splats, similarity: Tensor) -> tuple[float, Tensor]:
    """The side of a cell that keeps their number in bounds, and points [P, 3] on all surfaces, denser than cells."""
    extent = path.amax(0) - path.amin(0) + torch.tensor([2 * AROUND_PATH, 2 * AROUND_PATH, BELOW + ABOVE])
    cell = max(CELL, float(extent.prod() / MAXIMUM_CELLS) ** (1 / 3))
    points = _on_mesh(shape, similarity, cell) if isinstance(shape, Mesh) else _on_splats(shape, similarity)
    return cell, points


def _box(path: Tensor, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Low corner [3] and number of cells [3] of the place around the walk."""
    low = path.amin(0).numpy() - np.array([AROUND_PATH, AROUND_PATH, BELOW])
    high = path.amax(0).numpy() + np.array([AROUND_PATH, AROUND_PATH, ABOVE])
    return low, np.ceil((high - low) / cell).astype(np.int64)


def _on_splats(splats: Splats, similarity: Tensor) -> Tensor:
    """Centres of what is opaque, and the ends of both longer axes."""
    splats = splats[splats.opacities >= OPACITY_MINIMUM]
    axes = rotation_from_quaternion(splats.rotations) * splats.scales[:, None, :]
    longer = splats.scales.argsort(dim=1, descending=True)[:, None, :2].expand(-1, 3, -1)
    reach = axes.gather(2, longer).unbind(-1)
    means = splats.means
    points = torch.cat([means, *(means + sign * axis for axis in reach for sign in (-1, 1))]).detach().cpu().double()
    return points @ similarity[:3, :3].T + similarity[:3, 3]


def _on_mesh(mesh: Mesh, similarity: Tensor, cell: float) -> Tensor:
    """Points on each triangle, at most half a cell apart: rows of barycentric steps, triangles of like size at once."""
    mesh = sound(mesh)
    corners = (mesh.vertices.cpu().double() @ similarity[:3, :3].T + similarity[:3, 3])[mesh.faces.cpu()]
    longest = (corners - corners.roll(1, 1)).norm(dim=-1).amax(1)
    steps = 2 ** (longest / (0.5 * cell)).clamp_min(1).log2().ceil().long()
    parts = []
    for count in steps.unique().tolist():
        u, v = torch.meshgrid(*(torch.linspace(0, 1, count + 1, dtype=torch.float64),) * 2, indexing="ij")
        weights = torch.stack([u, v, 1 - u - v], dim=-1)[u + v <= 1 + 1e-9]
        parts.append(torch.einsum("pk,tkc->tpc", weights, corners[steps == count]).reshape(-1, 3))
    return torch.cat(parts) if parts else corners.reshape(-1, 3)


def _without_crumbs(cells: np.ndarray, smallest: int) -> np.ndarray:
    """Without connected things of fewer cells."""
    if smallest <= 1:
        return cells
    names, _ = ndimage.label(cells, structure=np.ones((3, 3, 3)))
    return cells & (np.bincount(names.ravel()) >= smallest)[names]


def _clear_path(cells: np.ndarray, path: np.ndarray, low: np.ndarray, cell: float, eye: float) -> None:
    """Make free where the cameras went, from the knees up: whatever seems to be there, the walk went through."""
    reach = int(np.ceil(BODY_RADIUS / cell))
    x, y = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.stack([x, y], axis=-1)[x**2 + y**2 <= (BODY_RADIUS / cell) ** 2]
    for centre in path:
        i, j, bottom = np.floor((centre - low - [0, 0, max(eye - KNEES, 0.2)]) / cell).astype(int)
        top = int((centre[2] - low[2] + CROWN) / cell) + 1
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
