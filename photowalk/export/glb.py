"""glTF 2.0 in one binary file: the textured mesh, and the splats as KHR_gaussian_splatting (ratified by Khronos).

Both lie under one node that turns and scales the world to glTF's metres, y up, -z ahead. Programs that do not know the
extension show its splats as points. Meshes are unlit, because the photo's light is in their colours already.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pygltflib as gltf
import torch
from PIL import Image
from torch import Tensor

from photowalk.export import conventions
from photowalk.export.contents import Contents, sound
from photowalk.export.conventions import array
from photowalk.geometry.motions import quaternion_from_rotation
from photowalk.scene.images import to_bytes, write_atomically
from photowalk.scene.types import Mesh, Splats

_EXTENSION, _UNLIT = "KHR_gaussian_splatting", "KHR_materials_unlit"
_JPEG_QUALITY = 90
_SHAPES = {1: gltf.SCALAR, 2: gltf.VEC2, 3: gltf.VEC3, 4: gltf.VEC4}
_NUMBERS = {"float32": gltf.FLOAT, "uint8": gltf.UNSIGNED_BYTE, "uint32": gltf.UNSIGNED_INT}


def write_glb(path: Path, contents: Contents) -> None:
    """The mesh where there is one, and the splats. Raises ExportError, also for a mesh of no sound face."""
    _write(path, contents, splats=contents.need_splats(path), mesh=contents.mesh)


def write_mesh_glb(path: Path, contents: Contents) -> None:
    """The mesh alone, for tools that would show splats as points over it. Raises ExportError where there is none
    that has a sound face."""
    _write(path, contents, splats=None, mesh=contents.need_mesh(path))


def _write(path: Path, contents: Contents, *, splats: Splats | None, mesh: Mesh | None) -> None:
    model = _Model()
    if mesh is not None:
        model.add("mesh", _mesh_primitive(model, sound(mesh, path)))
    if splats is not None:
        model.add("splats", _splat_primitive(model, splats))
    content = model.binary(_y_up_node(contents))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


class _Model:
    """A glTF in the making: arrays are appended to its one buffer."""

    def __init__(self) -> None:
        self.json = gltf.GLTF2(asset=gltf.Asset(version="2.0", generator="photowalk"))
        self._parts: list[bytes] = []
        self._size = 0

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes and return the number of their view."""
        self.json.bufferViews.append(
            gltf.BufferView(buffer=0, byteOffset=self._size, byteLength=len(content), target=target)
        )
        padded = content + b"\0" * (-len(content) % 4)
        self._parts.append(padded)
        self._size += len(padded)
        return len(self.json.bufferViews) - 1

    def accessor(self, values: np.ndarray, *, limits: bool = False, normalized: bool = False) -> int:
        """Append [N] or [N, C] values of a vertex each; `limits` states their extremes, as positions must."""
        target = gltf.ELEMENT_ARRAY_BUFFER if values.dtype == np.uint32 else gltf.ARRAY_BUFFER
        made = gltf.Accessor(
            bufferView=self.view(values.tobytes(), target),
            componentType=_NUMBERS[values.dtype.name],
            count=len(values),
            type=_SHAPES[1 if values.ndim == 1 else values.shape[1]],
            normalized=normalized or None,
        )
        if limits:
            made.min, made.max = values.min(0).tolist(), values.max(0).tolist()
        self.json.accessors.append(made)
        return len(self.json.accessors) - 1

    def add(self, name: str, primitive: gltf.Primitive) -> None:
        self.json.meshes.append(gltf.Mesh(name=name, primitives=[primitive]))
        self.json.nodes.append(gltf.Node(name=name, mesh=len(self.json.meshes) - 1))
        for extension in [*(primitive.extensions or {}), *(_UNLIT for _ in self.json.materials)]:
            if extension not in self.json.extensionsUsed:
                self.json.extensionsUsed.append(extension)

    def binary(self, root: gltf.Node) -> bytes:
        """The whole file, with all that was added under the node `root`."""
        root.children = list(range(len(self.json.nodes)))
        self.json.nodes.append(root)
        self.json.scenes.append(gltf.Scene(nodes=[len(root.children)]))
        self.json.scene = 0
        self.json.buffers.append(gltf.Buffer(byteLength=self._size))
        self.json.set_binary_blob(b"".join(self._parts))
        return b"".join(self.json.save_to_bytes())


def _splat_primitive(model: _Model, splats: Splats) -> gltf.Primitive:
    """Values are decoded ones: linear scales, opacities in [0, 1], harmonics without offset, quaternions xyzw."""
    faded = torch.cat([conventions.linear(conventions.flat_colours(splats)), splats.opacities[:, None]], dim=1)
    attributes = gltf.Attributes(POSITION=model.accessor(array(splats.means), limits=True))
    attributes.COLOR_0 = model.accessor(to_bytes(faded).cpu().numpy(), normalized=True)
    named = {"ROTATION": conventions.xyzw(splats.rotations), "SCALE": splats.scales, "OPACITY": splats.opacities}
    for degree in range(conventions.sh_degree(splats) + 1):
        for order in range(2 * degree + 1):
            named[f"SH_DEGREE_{degree}_COEF_{order}"] = splats.colours[:, degree**2 + order]
    for name, values in named.items():
        setattr(attributes, f"{_EXTENSION}:{name}", model.accessor(array(values)))
    look = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    return gltf.Primitive(attributes=attributes, mode=gltf.POINTS, extensions={_EXTENSION: look})


def _mesh_primitive(model: _Model, mesh: Mesh) -> gltf.Primitive:
    attributes = gltf.Attributes(POSITION=model.accessor(array(mesh.vertices), limits=True))
    surface = gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=1.0)
    if mesh.uv is not None and mesh.texture is not None:
        attributes.TEXCOORD_0 = model.accessor(array(mesh.uv))
        model.json.images.append(gltf.Image(mimeType="image/jpeg", bufferView=model.view(_jpeg(mesh.texture))))
        model.json.samplers.append(gltf.Sampler(magFilter=gltf.LINEAR, minFilter=gltf.LINEAR_MIPMAP_LINEAR))
        model.json.textures.append(gltf.Texture(source=0, sampler=0))
        surface.baseColorTexture = gltf.TextureInfo(index=0)
    else:
        attributes.COLOR_0 = model.accessor(array(conventions.linear(mesh.colours)))
    look = gltf.Material(name="walk", pbrMetallicRoughness=surface, doubleSided=True, extensions={_UNLIT: {}})
    model.json.materials.append(look)
    indices = mesh.faces.detach().cpu().numpy().astype(np.uint32).reshape(-1)
    return gltf.Primitive(attributes=attributes, indices=model.accessor(indices), material=0, mode=gltf.TRIANGLES)


def _y_up_node(contents: Contents) -> gltf.Node:
    """The node that carries the world to y up metres."""
    level = contents.level_from_world
    scale = float(torch.linalg.det(level[:3, :3])) ** (1 / 3)
    rotation = conventions.Y_UP_FROM_Z_UP @ level[:3, :3] / scale
    return gltf.Node(
        name=contents.name,
        translation=(conventions.Y_UP_FROM_Z_UP @ level[:3, 3]).tolist(),
        rotation=conventions.xyzw(quaternion_from_rotation(rotation)).tolist(),
        scale=[scale] * 3,
    )


def _jpeg(texture: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(to_bytes(texture).permute(1, 2, 0).cpu().numpy()).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
