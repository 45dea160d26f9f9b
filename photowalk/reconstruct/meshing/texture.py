"""The frames painted onto a mesh: an atlas of its faces, each texel the colour of the views that see it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import normalize

from photowalk.kernels.mesh_rays import RayCaster
from photowalk.kernels.painting import Painter
from photowalk.reconstruct.meshing.atlas import unwrap
from photowalk.reconstruct.meshing.cleaning import of_faces
from photowalk.reconstruct.meshing.floor import level_axes
from photowalk.scene.types import Mesh, View

_STRIP = 1 / 16  # of the picture's height, for what is invented
_RIM = 1 / 16  # of the strip, around what lies in it


def bake(mesh: Mesh, views: Sequence[View], side: int) -> Mesh:
    """The mesh with a texture of side x side texels; texels that no view sees have the vertices' colours."""
    if len(mesh) == 0:
        return mesh
    mesh = _unwrapped(mesh, side)
    face, weights = _texels(mesh, side)
    texel = face >= 0
    corners = mesh.faces[face[texel].long()]
    share = weights[texel][..., None]
    places = (mesh.vertices[corners] * share).sum(1)
    edges = mesh.vertices[corners]
    normals = normalize(torch.linalg.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0]), dim=-1)
    painter = Painter(places, normals)
    for view in views:
        painter.look(view.image, view.depth, view.camera.camera_from_world, view.camera.intrinsics)
    picture = torch.zeros(side, side, 3)
    picture[texel] = painter.colours((mesh.colours[corners] * share).sum(1))
    nearest = ndimage.distance_transform_edt(~texel.numpy(), return_distances=False, return_indices=True)
    filled = picture[torch.from_numpy(nearest[0]).long(), torch.from_numpy(nearest[1]).long()]
    return replace(mesh, texture=filled.permute(2, 0, 1).contiguous())


def _unwrapped(mesh: Mesh, side: int) -> Mesh:
    """The mesh with vertices split along the seams of an atlas and along the border of what is invented.

    What is invented is a floor of nearly one colour; it lies as seen from above in a strip below the rest, so that the
    texels are left to what was seen.
    """
    seen, guess = (of_faces(mesh, chosen) for chosen in (~mesh.invented, mesh.invented))
    if len(guess) == 0:
        return _charted(seen, side)
    flat = _from_above(guess)
    if len(seen) == 0:
        return flat
    seen = _charted(seen, side)
    assert seen.uv is not None
    assert flat.uv is not None
    squeezed = seen.uv * torch.tensor([1, 1 - _STRIP])
    strip = torch.tensor([0, 1 - _STRIP]) + flat.uv * torch.tensor([1, _STRIP])
    return Mesh(
        torch.cat([seen.vertices, flat.vertices]),
        torch.cat([seen.faces, flat.faces + len(seen.vertices)]),
        torch.cat([seen.colours, flat.colours]),
        torch.cat([seen.invented, flat.invented]),
        torch.cat([squeezed, strip]),
        seen.texture,
    )


def _charted(mesh: Mesh, side: int) -> Mesh:
    """The mesh with vertices split along the seams of an atlas of side x side texels."""
    old, faces, uv = unwrap(mesh.vertices.numpy(), mesh.faces.numpy(), side)
    old = torch.from_numpy(old.astype(np.int64))
    return Mesh(
        mesh.vertices[old],
        torch.from_numpy(faces.astype(np.int64)),
        mesh.colours[old],
        mesh.invented,
        torch.from_numpy(uv.astype(np.float32)),
        torch.zeros(3, 1, 1),
    )


def _from_above(mesh: Mesh) -> Mesh:
    """The mesh with the texture coordinates of its projection along its mean normal."""
    corners = mesh.vertices[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).sum(0)
    places = mesh.vertices @ level_axes(normalize(normal, dim=0)).T
    low, high = places.amin(0), places.amax(0)
    inner = _RIM + (1 - 2 * _RIM) * (places - low) / (high - low).clamp_min(1e-9)
    return replace(mesh, uv=inner, texture=torch.zeros(3, 1, 1))


def _texels(mesh: Mesh, side: int) -> tuple[Tensor, Tensor]:
    """The face [side, side] of every texel (-1: none) and its weights [side, side, 3], by rays onto the flat atlas."""
    assert mesh.uv is not None
    flat = torch.cat([mesh.uv, torch.zeros(len(mesh.uv), 1)], dim=1)
    line = (torch.arange(side) + 0.5) / side
    down, across = torch.meshgrid(line, line, indexing="ij")
    origins = torch.stack([across, down, torch.full_like(across, -1.0)], dim=-1).flatten(0, 1)
    hits = RayCaster(flat, mesh.faces).cast(origins, torch.tensor([0.0, 0, 1]).expand_as(origins))
    return hits.face.view(side, side), hits.weights.view(side, side, 3)
