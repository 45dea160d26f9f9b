"""Splats as NVIDIA's Omniverse and Isaac Sim 5 show them: a NuRec volume, beside meshes, physics and cameras in .usdz.

The package holds `default.usda`, which is opened; `gauss.usda` with the volume; `splats.nurec`, gzip of msgpack, with
the splats' tensors; `world.usdc` with all that usd.py writes but splats; and the mesh's texture. NVIDIA publishes no
specification: the layout is that of the open-source writers 3DGRUT and fVDB Reality Capture, whose files Isaac Sim 5
opens. It knows nothing of what the renderer makes of it.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import msgpack
import numpy as np
import torch
from pxr import Gf, Sdf, Usd, UsdVol
from torch import Tensor

from photowalk.export import conventions
from photowalk.export.contents import Contents
from photowalk.export.conventions import ExportError, array
from photowalk.export.usd import add_texture, check_whole, new_stage, save, write_stage
from photowalk.scene.images import write_atomically
from photowalk.scene.types import Splats

_SPLATS = "splats.nurec"
_DEGREE = 3  # of harmonics, always: importers before Isaac Sim 6 hang on degrees 1 and 2 (fvdb-reality-capture #124)
_GZIP_LEVEL = 1  # most of what is packed is zeros
_STATE = ".gaussians_nodes.gaussians."
_CONFIG = {  # how to draw, as 3DGRUT says it of splats that were trained elsewhere
    "name": "gaussians_primitive",
    "layers": {
        "gaussians": {
            "name": "sh-gaussians",
            "device": "cuda",
            "density_activation": "sigmoid",
            "scale_activation": "exp",
            "rotation_activation": "normalize",
            "precision": 16,
            "particle": {
                "density_kernel_planar": False,
                "density_kernel_degree": 2,
                "density_kernel_density_clamping": True,
                "density_kernel_min_response": 0.0113,
                "radiance_sph_degree": _DEGREE,
            },
            "transmittance_threshold": 0.0001,
        }
    },
    "renderer": {
        "name": "3dgut-nrend",
        "log_level": 3,
        "force_update": False,
        "update_step_train_batch_end": False,
        "per_ray_features": False,
        "global_z_order": True,
        "projection": {
            "n_rolling_shutter_iterations": 5,
            "ut_dim": 3,
            "ut_alpha": 1.0,
            "ut_beta": 2.0,
            "ut_kappa": 0.0,
            "ut_require_all_sigma_points": False,
            "image_margin_factor": 0.1,
            "min_projected_ray_radius": 0.3**0.5,
        },
        "culling": {
            "rect_bounding": True,
            "tight_opacity_bounding": True,
            "tile_based": True,
            "near_clip_distance": 1e-8,
            "far_clip_distance": 3.402823466e38,
        },
        "render": {"mode": "kbuffer", "k_buffer_size": 0},
    },
    "appearance_embedding": {"name": "skip-appearance", "embedding_dim": 0, "device": "cuda"},
    "background": {"name": "skip-background", "device": "cuda", "composite_in_linear_space": False},
}
_RENDER_SETTINGS = {  # of Omniverse RTX; without them it would tone-map the colours of the photo once more
    "rtx:rendermode": "RaytracedLighting",
    "rtx:directLighting:sampledLighting:samplesPerPixel": 8,
    "rtx:post:histogram:enabled": False,
    "rtx:post:registeredCompositing:invertToneMap": True,
    "rtx:post:registeredCompositing:invertColorCorrection": True,
    "rtx:material:enableRefraction": False,
    "rtx:post:tonemap:op": 2,
    "rtx:raytracing:fractionalCutoutOpacity": False,
    "rtx:matteObject:visibility:secondaryRays": True,
}


def write_nurec(path: Path, contents: Contents) -> None:
    """A .usdz for Isaac Sim 5. Raises ExportError, also where a splat lies farther out than half floats reach."""
    splats, pose = _metric(contents.need_splats(path), contents.level_from_world)
    contents = contents.with_sound_meshes(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as name:
        folder = Path(name)
        (folder / _SPLATS).write_bytes(_payload(splats, path))
        texture = add_texture(folder, contents)
        write_stage(folder / "world.usdc", contents, None, texture=texture)
        _write_volume(folder / "gauss.usda", splats, pose)
        _write_default(folder / "default.usda", proxy=contents.collision is not None)
        files = ["default.usda", _SPLATS, "gauss.usda", "world.usdc", *([texture] if texture else [])]

        def pack(temporary: Path) -> None:
            with Sdf.ZipFileWriter.CreateNew(str(temporary)) as package:
                for file in files:
                    if not package.AddFile(str(folder / file), file):
                        raise ExportError(f"{path}: {file} could not be packed; is there room on the disk?")
            check_whole(temporary)

        write_atomically(path, pack)


def _metric(splats: Splats, level: Tensor) -> tuple[Splats, Tensor]:
    """Splats in metres but in the world's axes, and the rigid motion [4, 4] from there to the level world."""
    metres = float(torch.linalg.det(level[:3, :3])) ** (1 / 3)
    pose = level.clone()
    pose[:3, :3] /= metres
    scaled = Splats(splats.means * metres, splats.scales * metres, splats.rotations, splats.opacities, splats.colours)
    return scaled, pose


def _payload(splats: Splats, path: Path) -> bytes:
    """Encoded as a .ply has them, in half precision."""
    farthest = float(splats.means.abs().max())
    if farthest >= float(np.finfo(np.float16).max):
        raise ExportError(f"{path}: a splat lies {farthest:.0f} m from the start and NuRec holds no more than 65504 m")
    harmonics = np.zeros((len(splats), (_DEGREE + 1) ** 2 - 1, 3), dtype=np.float16)
    harmonics[:, : splats.colours.shape[1] - 1] = array(splats.colours[:, 1:])
    tensors = {
        "positions": array(splats.means),
        "rotations": array(splats.rotations),
        "scales": array(conventions.log_scales(splats.scales)),
        "densities": array(conventions.logit_opacities(splats.opacities))[:, None],
        "extra_signal": np.zeros((len(splats), 0)),
        "features_albedo": array(splats.colours[:, 0]),
        "features_specular": harmonics.reshape(len(splats), -1),
    }
    state: dict[str, object] = {"._extra_state": {"obj_track_ids": {"gaussians": []}}}
    for name, values in tensors.items():
        state[_STATE + name] = values.astype(np.float16).tobytes()
        state[_STATE + name + ".shape"] = list(values.shape)
    state[_STATE + "n_active_features"] = np.array(_DEGREE, dtype=np.int64).tobytes()
    state[_STATE + "n_active_features.shape"] = []
    whole = {"nre_data": {"version": "0.2.576", "model": "nre", "config": _CONFIG, "state_dict": state}}
    return gzip.compress(msgpack.packb(whole), compresslevel=_GZIP_LEVEL)


def _write_volume(file: Path, splats: Splats, pose: Tensor) -> None:
    stage = new_stage(file)
    volume = UsdVol.Volume.Define(stage, "/World/gauss")
    volume.AddTransformOp().Set(Gf.Matrix4d(pose.T.tolist()))
    low, high = (Gf.Vec3f(*corner.tolist()) for corner in conventions.bounds(splats))
    volume.CreateExtentAttr([low, high])
    prim = volume.GetPrim()
    for name, kind, value in (
        ("isNuRecVolume", Sdf.ValueTypeNames.Bool, True),
        ("useProxyTransform", Sdf.ValueTypeNames.Bool, False),  # the volume's own counts
        ("offset", Sdf.ValueTypeNames.Float3, Gf.Vec3f(0)),
        ("crop:minBounds", Sdf.ValueTypeNames.Float3, low),
        ("crop:maxBounds", Sdf.ValueTypeNames.Float3, high),
    ):
        prim.CreateAttribute(f"omni:nurec:{name}", kind).Set(value)
    prim.CreateRelationship("proxy")
    _add_field(stage, volume, "density", "float")
    colour = _add_field(stage, volume, "emissiveColor", "float3")
    for row, channel in enumerate("RGB"):
        weights = Gf.Vec4f(0)
        weights[row] = 1
        colour.CreateAttribute(f"omni:nurec:ccm{channel}", Sdf.ValueTypeNames.Float4).Set(weights)
    stage.SetMetadataByDictKey("customLayerData", "renderSettings", _RENDER_SETTINGS)
    save(stage)


def _add_field(stage: Usd.Stage, volume: UsdVol.Volume, role: str, kind: str) -> Usd.Prim:
    names = {"density": "density_field", "emissiveColor": "emissive_color_field"}
    field = stage.DefinePrim(f"/World/gauss/{names[role]}", "OmniNuRecFieldAsset")
    field.CreateAttribute("filePath", Sdf.ValueTypeNames.Asset).Set(f"./{_SPLATS}")
    field.CreateAttribute("fieldName", Sdf.ValueTypeNames.Token).Set(role)
    field.CreateAttribute("fieldDataType", Sdf.ValueTypeNames.Token).Set(kind)
    field.CreateAttribute("fieldRole", Sdf.ValueTypeNames.Token).Set(role)
    volume.CreateFieldRelationship(role, field.GetPath())
    return field


def _write_default(file: Path, *, proxy: bool) -> None:
    """The layer that is opened: the rest of the world below it, the volume referred to, the solid mesh its proxy."""
    stage = new_stage(file)
    stage.GetRootLayer().subLayerPaths.append("./world.usdc")
    stage.OverridePrim("/World/gauss").GetReferences().AddReference("./gauss.usda")
    if proxy:
        stage.OverridePrim("/World/gauss/gauss").CreateRelationship("proxy").AddTarget("/World/Collision")
    stage.SetMetadataByDictKey("customLayerData", "renderSettings", _RENDER_SETTINGS)
    save(stage)
