"""Meshes on disk, in the world's own axes and unit: .glb for the one to be seen, .ply for the one to be stood on.

A .glb carries, beside the vertices as they are, the motion that brings them to glTF's axes, so that viewers show it
upright and in metres while `read_mesh` gets back what was written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photowalk.scene.images import from_bytes, to_bytes, write_atomically
from photowalk.scene.types import Mesh

_INVENTED, _COLOUR = "_invented", "_colour"  # glTF wants names of one's own to begin so


def write_mesh(file: str | Path, mesh: Mesh, upright_from_world: Tensor | None = None) -> None:
    """.glb (textured where the mesh is) or .ply (vertex colours). `upright_from_world` [4, 4] is glTF's y-up metres.

    A .glb knows of vertices only, so there a face counts as invented if its three vertices are; `texture.bake` splits
    the vertices along the border.
    """
    file = Path(file)
    if file.suffix.lower() not in (".glb", ".ply"):
        raise ValueError(f"{file}: a mesh is written as .glb or .ply, not '{file.suffix}'")
    content = _glb(mesh, upright_from_world) if file.suffix.lower() == ".glb" else _ply(mesh)
    write_atomically(file, lambda temporary: temporary.write_bytes(content))


def read_mesh(file: str | Path) -> Mesh:
    """What `write_mesh` wrote. Raises ValueError for anything else."""
    import trimesh

    file = Path(file)
    if not file.is_file():
        raise ValueError(f"there is no mesh {file}; make it with: photowalk reconstruct WORLD")
    try:
        if file.suffix.lower() == ".ply":
            with file.open("rb") as stream:
                return _from_ply(trimesh.load_mesh(stream, file_type="ply", process=False))
        with file.open("rb") as stream:
            parts = trimesh.load_scene(stream, file_type="glb", process=False).geometry
        return _from_glb(parts["mesh"])
    except (ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"{file} is no mesh that can be read ({error}); make it again with reconstruct") from error


def _colour_bytes(mesh: Mesh) -> np.ndarray:
    return to_bytes(mesh.colours).cpu().numpy()


def _ply(mesh: Mesh) -> bytes:
    import trimesh
    from trimesh.exchange.ply import export_ply
    from trimesh.visual import ColorVisuals

    made = trimesh.Trimesh(mesh.vertices.cpu().numpy(), mesh.faces.cpu().numpy(), process=False)
    made.visual = ColorVisuals(made, vertex_colors=_colour_bytes(mesh))
    made.face_attributes["invented"] = mesh.invented.cpu().numpy().astype(np.uint8)
    return export_ply(made)


def _from_ply(loaded) -> Mesh:
    invented = loaded.metadata["_ply_raw"]["face"]["data"]["invented"]
    return Mesh(
        torch.from_numpy(np.array(loaded.vertices, np.float32)),
        torch.from_numpy(np.asarray(loaded.faces, np.int64)),
        from_bytes(torch.from_numpy(np.asarray(loaded.visual.vertex_colors)[:, :3].copy())),
        torch.from_numpy(np.asarray(invented).reshape(-1) > 0),
    )


def _glb(mesh: Mesh, upright_from_world: Tensor | None) -> bytes:
    import trimesh
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual import ColorVisuals, TextureVisuals
    from trimesh.visual.material import PBRMaterial

    made = trimesh.Trimesh(mesh.vertices.cpu().numpy(), mesh.faces.cpu().numpy(), process=False)
    if mesh.uv is not None and mesh.texture is not None:
        uv = mesh.uv.cpu().numpy() * [1, -1] + [0, 1]  # trimesh counts v upwards
        picture = Image.fromarray(to_bytes(mesh.texture).permute(1, 2, 0).cpu().numpy())
        material = PBRMaterial(baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
        made.visual = TextureVisuals(uv=uv, material=material)
    else:
        made.visual = ColorVisuals(made, vertex_colors=_colour_bytes(mesh))
    seen = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.faces.device)
    seen[mesh.faces[~mesh.invented].flatten()] = True
    made.vertex_attributes[_INVENTED] = (~seen).cpu().numpy().astype(np.float32)
    made.vertex_attributes[_COLOUR] = mesh.colours.cpu().numpy().astype(np.float32)
    scene = trimesh.Scene()
    pose = torch.eye(4) if upright_from_world is None else upright_from_world
    scene.add_geometry(made, node_name="mesh", geom_name="mesh", transform=pose.cpu().double().numpy())
    return export_glb(scene)


def _from_glb(loaded) -> Mesh:
    faces = torch.from_numpy(np.asarray(loaded.faces, np.int64))
    colours = torch.from_numpy(np.array(loaded.vertex_attributes[_COLOUR], np.float32))
    invented = torch.from_numpy(np.array(loaded.vertex_attributes[_INVENTED]).reshape(-1)) > 0
    uv, texture = None, None
    if loaded.visual.kind == "texture":
        uv = torch.from_numpy((loaded.visual.uv * [1, -1] + [0, 1]).astype(np.float32))
        picture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB"))
        texture = from_bytes(torch.from_numpy(picture.copy()).permute(2, 0, 1))
    return Mesh(
        torch.from_numpy(np.array(loaded.vertices, np.float32)),
        faces,
        colours,
        invented[faces].all(1),
        uv,
        texture,
    )
