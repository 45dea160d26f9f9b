"""A mesh made presentable: floaters removed, faces merged until a budget holds."""

from __future__ import annotations

import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor

from photowalk.scene.types import Mesh

# Each of its hundred rounds merges what costs less than 1e-9 times the round's number to the power of its haste. With
# the usual 7 the last rounds come while flat floors are still in splinters, and everything else pays for these.
_HASTE = 3.0
_EDGE = 0.008  # length of an edge for it: rounds begin at a fiftieth of an edge (squared) and end at four of them
_TRIES = 6  # with edges of a quarter each, where all rounds were not enough
SMALLEST_PART = 200  # faces; smaller parts hang in the air more often than not


def without_small_parts(mesh: Mesh, smallest: int = SMALLEST_PART) -> Mesh:
    """The mesh without connected parts of fewer faces; the largest part always stays."""
    if len(mesh) == 0:
        return mesh
    part = parts_of(mesh)[mesh.faces[:, 0]]
    sizes = part.bincount()
    keep = (sizes >= smallest) | (sizes == sizes.amax())
    return of_faces(mesh, keep[part])


def parts_of(mesh: Mesh) -> Tensor:
    """Number [V] of the connected part of each vertex."""
    one, other = mesh.faces[:, [0, 1, 2]].flatten().numpy(), mesh.faces[:, [1, 2, 0]].flatten().numpy()
    links = coo_matrix((torch.ones(len(one)).numpy(), (one, other)), shape=(len(mesh.vertices),) * 2)
    return torch.from_numpy(connected_components(links, directed=False)[1]).long()


def of_faces(mesh: Mesh, keep: Tensor) -> Mesh:
    """The mesh of the faces `keep` [T] bool, without vertices of no face. Textures are not kept."""
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    return Mesh(mesh.vertices[used], faces.view(-1, 3), mesh.colours[used], mesh.invented[keep])


def decimated(mesh: Mesh, faces: int) -> Mesh:
    """At most about `faces` faces, by quadric edge collapse; colours and marks come from the nearest old face."""
    import fast_simplification

    if len(mesh) <= faces:
        return mesh
    ends = mesh.vertices[mesh.faces[:, :2]]
    unit = _EDGE / float((ends[:, 1] - ends[:, 0]).norm(dim=1).median().clamp_min(1e-9))
    for _ in range(_TRIES):
        points, triangles = fast_simplification.simplify(
            (unit * mesh.vertices).numpy(), mesh.faces.int().numpy(), target_count=faces, agg=_HASTE
        )
        if len(triangles) <= faces:
            break
        unit /= 4
    points /= unit
    vertices, triangles = torch.from_numpy(points).float(), torch.from_numpy(triangles).long()
    corners = vertices[triangles]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    triangles = triangles[area > 0]
    _, nearest = KDTree(mesh.vertices.numpy()).query(points)
    _, old = KDTree(mesh.vertices[mesh.faces].mean(1).numpy()).query(vertices[triangles].mean(1).numpy())
    made = Mesh(vertices, triangles, mesh.colours[torch.from_numpy(nearest)], mesh.invented[torch.from_numpy(old)])
    return of_faces(made, torch.ones(len(triangles), dtype=torch.bool))
