"""Packages for Isaac Sim 5 are opened by OpenUSD, and their splats by msgpack, as the engine's importer finds them."""

import gzip
import zipfile

import numpy as np
import pytest
import torch
from exports import box, some_contents, some_splats
from test_export_usd import room

pytest.importorskip("pxr")
pytest.importorskip("msgpack")

import msgpack
from pxr import Gf, Usd, UsdGeom, UsdPhysics, UsdUtils, UsdValidation, UsdVol

from photowalk.export.conventions import ExportError, logit_opacities
from photowalk.export.formats import format_of

STATE = ".gaussians_nodes.gaussians."
UNKNOWN_TO_OPENUSD = {"UnsupportedFileExtensionInPackage"}  # .nurec is Omniverse's


def written(folder, **parts):
    contents = some_contents(**parts)
    file = folder / "Gäste (neu).nurec.usdz"
    format_of(file).write(file, contents)
    return contents, file


def volume_of(file):
    """The volume, found as importers look for it, and its tensors by their names."""
    stage = Usd.Stage.Open(str(file))
    (prim,) = [
        prim
        for prim in stage.Traverse()
        if prim.IsA(UsdVol.Volume) and prim.GetAttribute("omni:nurec:isNuRecVolume").Get()
    ]
    paths = {
        child.GetAttribute("filePath").Get().path
        for child in prim.GetChildren()
        if child.GetTypeName() == "OmniNuRecFieldAsset"
    }
    (path,) = paths
    content = msgpack.unpackb(gzip.decompress(zipfile.ZipFile(file).read(path.removeprefix("./"))))["nre_data"]
    state, tensors = content["state_dict"], {}
    for name, shape in state.items():
        if name.endswith(".shape"):
            kind = np.int64 if name == f"{STATE}n_active_features.shape" else np.float16
            values = np.frombuffer(state[name.removesuffix(".shape")], kind)
            tensors[name.removeprefix(STATE).removesuffix(".shape")] = values.reshape(shape)
    return stage, prim, content["config"], tensors


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_the_tensors_are_the_splats_in_metres(tmp_path, degree):
    contents, file = written(tmp_path, degree=degree)
    _, _, config, tensors = volume_of(file)
    splats = contents.splats
    assert np.allclose(tensors["positions"], 2 * splats.means, rtol=1e-3, atol=1e-3)
    assert np.allclose(np.exp(tensors["scales"].astype(np.float32)), 2 * splats.scales, rtol=4e-3)
    assert np.allclose(tensors["rotations"], splats.rotations, atol=1e-3)
    assert np.allclose(tensors["densities"][:, 0], logit_opacities(splats.opacities), rtol=2e-3, atol=2e-3)
    assert np.allclose(tensors["features_albedo"], splats.colours[:, 0], atol=1e-3)
    higher = tensors["features_specular"].reshape(50, 15, 3)
    assert np.allclose(higher[:, : splats.colours.shape[1] - 1], splats.colours[:, 1:], atol=1e-3)
    assert not higher[:, splats.colours.shape[1] - 1 :].any()
    assert tensors["extra_signal"].shape == (50, 0)
    layer = config["layers"]["gaussians"]
    assert int(tensors["n_active_features"]) == layer["particle"]["radiance_sph_degree"] == 3
    activations = [layer[f"{name}_activation"] for name in ("density", "scale", "rotation")]
    assert activations == ["sigmoid", "exp", "normalize"]


def test_the_volume_stands_upright_where_the_meshes_are(tmp_path):
    contents, file = written(tmp_path, mesh=room(), collision=room(False))
    stage, prim, _, tensors = volume_of(file)
    place = UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(Usd.TimeCode.Default())
    assert place.IsLeftHanded() is False
    assert np.allclose(np.array(place)[:3, :3] @ np.array(place)[:3, :3].T, np.eye(3))  # it turns and does not scale
    there = [place.Transform(Gf.Vec3d(*point)) for point in tensors["positions"].astype(float).tolist()]
    x, y, z = contents.splats.means.double().unbind(-1)
    assert np.allclose(there, torch.stack([2 * x, 2 * z, 3 - 2 * y], dim=-1), atol=5e-3)
    low, high = (np.array(prim.GetAttribute(f"omni:nurec:crop:{end}Bounds").Get()) for end in ("min", "max"))
    assert (low < tensors["positions"].min(0)).all()
    assert (high > tensors["positions"].max(0)).all()
    assert np.allclose(UsdVol.Volume(prim).GetExtentAttr().Get(), [low, high])
    assert {role: path.name for role, path in UsdVol.Volume(prim).GetFieldPaths().items()} == {
        "density": "density_field",
        "emissiveColor": "emissive_color_field",
    }
    (proxy,) = prim.GetRelationship("proxy").GetTargets()
    assert UsdPhysics.CollisionAPI(stage.GetPrimAtPath(proxy)).GetCollisionEnabledAttr().Get()
    points = np.array(UsdGeom.Mesh.Get(stage, proxy).GetPointsAttr().Get())
    assert np.allclose([points.min(0), points.max(0)], [[-4, -2, 0], [4, 10, 6]], atol=1e-5)
    for name in ("Visual", "Physics/scene", "Spawn", "Cameras/walk"):
        assert stage.GetPrimAtPath(f"/World/{name}")
    assert not stage.GetPrimAtPath("/World/Gaussians")
    assert stage.GetRootLayer().customLayerData["renderSettings"]["rtx:post:tonemap:op"] == 2


def test_packages_are_whole_and_valid(tmp_path):
    for parts in ({}, {"mesh": room(), "collision": room(False)}):
        _, file = written(tmp_path, **parts)
        package = zipfile.ZipFile(file)
        assert package.namelist()[:4] == ["default.usda", "splats.nurec", "gauss.usda", "world.usdc"]
        assert all(one.compress_type == zipfile.ZIP_STORED for one in package.infolist())
        layers, _, missing = UsdUtils.ComputeAllDependencies(str(file))
        assert (len(layers), missing) == (3, [])
        stage = Usd.Stage.Open(str(file))
        assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == ("Z", 1)
        assert stage.GetDefaultPrim().GetPath() == "/World"
        every = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
        said = {str(error.GetName()) for error in UsdValidation.ValidationContext(every).Validate(stage)}
        assert said <= UNKNOWN_TO_OPENUSD
        assert [one.name for one in tmp_path.iterdir()] == [file.name]


def test_what_half_floats_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ExportError, match="no more than 65504 m"):
        written(tmp_path, splats=some_splats(spread=50_000.0))
    assert not list(tmp_path.iterdir())


def test_newton_takes_its_ground(tmp_path):
    newton = pytest.importorskip("newton")
    _, file = written(tmp_path, collision=box((-2.0, 1.5, -1.0), (2.0, 1.7, 5.0), (0.5, 0.5, 0.5)))
    builder = newton.ModelBuilder(up_axis=newton.Axis.Z)
    builder.add_usd(str(file))
    ground = builder.shape_label.index("/World/Collision")
    assert builder.shape_flags[ground] & newton.ShapeFlags.COLLIDE_SHAPES
