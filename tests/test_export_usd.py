"""USD files are opened by OpenUSD itself: validated, measured, and given to a physics engine."""

import zipfile

import numpy as np
import pytest
import torch
from exports import box, some_contents, some_splats, walk

pytest.importorskip("pxr")

from pxr import Gf, Usd, UsdGeom, UsdPhysics, UsdShade, UsdUtils, UsdValidation, UsdVol, Vt

from photowalk.export.contents import Contents
from photowalk.export.formats import format_of
from photowalk.scene.ground import level
from photowalk.scene.types import Mesh

SPLATS = "/World/Gaussians/splats"


def room(textured=True):
    plain = box((-2.0, -1.5, -1.0), (2.0, 1.5, 5.0), (0.8, 0.4, 0.2))
    if not textured:
        return plain
    texture = torch.zeros(3, 8, 16)
    texture[0, :4] = 1.0
    uv = torch.tensor([[0.25, 0.125]]).expand(8, 2).contiguous()
    return Mesh(plain.vertices, plain.faces, plain.colours, plain.invented, uv, texture)


def written(folder, name="Gäste (neu).usdz", **parts):
    contents = some_contents(**parts)
    format_of(name).write(folder / name, contents)
    return contents, Usd.Stage.Open(str(folder / name))


def complaints(stage):
    """What OpenUSD's own validators say, and what they do not look at: arrays of splats that are not equally long."""
    every = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(every) > 20
    said = [str(error.GetName()) for error in UsdValidation.ValidationContext(every).Validate(stage)]
    for prim in stage.Traverse():
        if prim.IsA(UsdVol.ParticleField3DGaussianSplat):
            field = UsdVol.ParticleField3DGaussianSplat(prim)
            count, degree = len(field.GetPositionsAttr().Get()), field.GetRadianceSphericalHarmonicsDegreeAttr().Get()
            coefficients = field.GetRadianceSphericalHarmonicsCoefficientsAttr()
            for attribute, wanted in (
                (field.GetScalesAttr(), count),
                (field.GetOrientationsAttr(), count),
                (field.GetOpacitiesAttr(), count),
                (coefficients, count * (degree + 1) ** 2),
            ):
                if len(attribute.Get()) != wanted:
                    said.append(f"{attribute.GetName()} has {len(attribute.Get())} values, not {wanted}")
            if coefficients.GetMetadata("elementSize") != (degree + 1) ** 2:
                said.append("elementSize")
    return said


@pytest.mark.parametrize("name", ["a.usdc", "Gäste (neu).usdz"])
@pytest.mark.parametrize("degree", [0, 2])
def test_stages_are_valid(tmp_path, name, degree):
    for parts in ({}, {"mesh": room(), "collision": room(False)}, {"mesh": room(False)}):
        _, stage = written(tmp_path, name, degree=degree, **parts)
        assert complaints(stage) == []
        assert stage.GetDefaultPrim().GetPath() == "/World"
        assert UsdGeom.GetStageUpAxis(stage) == "Z"
        assert UsdGeom.GetStageMetersPerUnit(stage) == 1


def test_the_checks_notice_what_is_broken(tmp_path):
    _, stage = written(tmp_path, "a.usdc")
    field = UsdVol.ParticleField3DGaussianSplat.Get(stage, SPLATS)
    field.GetOpacitiesAttr().Set(Vt.FloatArray([0.5]))
    field.GetRadianceSphericalHarmonicsDegreeAttr().Set(3)
    assert len(complaints(stage)) == 3


def test_splats_are_decoded_and_real_parts_come_first(tmp_path):
    contents, stage = written(tmp_path, degree=2)
    field, splats = UsdVol.ParticleField3DGaussianSplat.Get(stage, SPLATS), contents.splats
    assert np.allclose(field.GetPositionsAttr().Get(), splats.means)
    assert np.allclose(field.GetScalesAttr().Get(), splats.scales)
    assert np.allclose(field.GetOpacitiesAttr().Get(), splats.opacities)
    turns = [[turn.GetReal(), *turn.GetImaginary()] for turn in field.GetOrientationsAttr().Get()]
    assert np.allclose(turns, splats.rotations, atol=1e-6)
    coefficients = np.array(field.GetRadianceSphericalHarmonicsCoefficientsAttr().Get()).reshape(50, 9, 3)
    assert np.allclose(coefficients, splats.colours)
    assert field.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 2
    assert stage.GetPrimAtPath("/World").GetDisplayName() == contents.name


def test_axes_are_metres_z_up_over_the_floor(tmp_path):
    contents, stage = written(tmp_path, mesh=room(), collision=room(False))
    place = UsdGeom.Xformable(stage.GetPrimAtPath(SPLATS)).ComputeLocalToWorldTransform(Usd.TimeCode.Default())
    x, y, z = contents.splats.means.double().unbind(-1)
    there = [place.Transform(Gf.Vec3d(*point)) for point in contents.splats.means.double().tolist()]
    assert np.allclose(there, torch.stack([2 * x, 2 * z, 3 - 2 * y], dim=-1), atol=1e-5)
    for name in ("Visual", "Collision"):
        points = np.array(UsdGeom.Mesh.Get(stage, f"/World/{name}").GetPointsAttr().Get())
        assert np.allclose([points.min(0), points.max(0)], [[-4, -2, 0], [4, 10, 6]], atol=1e-5)
    cache = UsdGeom.BBoxCache(Usd.TimeCode.Default(), ["default"], useExtentsHint=False)
    box_of_splats = cache.ComputeWorldBound(stage.GetPrimAtPath(SPLATS)).ComputeAlignedRange()
    assert all(box_of_splats.Contains(Gf.Vec3d(*point)) for point in there)


def test_a_ray_from_the_spawn_point_meets_the_room(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    _, stage = written(tmp_path, collision=room(False))
    prim = UsdGeom.Mesh.Get(stage, "/World/Collision")
    assert prim.GetSubdivisionSchemeAttr().Get() == "none"
    faces = np.array(prim.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    mesh = trimesh.Trimesh(np.array(prim.GetPointsAttr().Get()), faces, process=False)
    assert mesh.volume == pytest.approx(8 * 6 * 12)  # faces look outwards, as those that were given
    spawn = UsdGeom.Xformable(stage.GetPrimAtPath("/World/Spawn"))
    place = spawn.ComputeLocalToWorldTransform(Usd.TimeCode.Default())
    assert place.Transform(Gf.Vec3d(0, 0, 0)) == Gf.Vec3d(0, 0, 0)
    assert Gf.IsClose(place.TransformDir(Gf.Vec3d(1, 0, 0)), Gf.Vec3d(0, 1, 0), 1e-9)
    assert mesh.bounds[0][2] == pytest.approx(0)  # the floor that the spawn point stands on


def test_physics(tmp_path):
    _, stage = written(tmp_path, collision=room(False))
    scene = UsdPhysics.Scene.Get(stage, "/World/Physics/scene")
    assert scene.GetGravityDirectionAttr().Get() == Gf.Vec3f(0, 0, -1)
    assert scene.GetGravityMagnitudeAttr().Get() == pytest.approx(9.81)
    prim = stage.GetPrimAtPath("/World/Collision")
    assert UsdPhysics.CollisionAPI(prim).GetCollisionEnabledAttr().Get()
    assert UsdPhysics.MeshCollisionAPI(prim).GetApproximationAttr().Get() == "none"
    assert UsdGeom.Imageable(prim).ComputeVisibility() == "invisible"
    assert not prim.HasAPI(UsdPhysics.RigidBodyAPI)  # it does not fall
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial("physics")
    assert UsdPhysics.MaterialAPI(material.GetPrim()).GetStaticFrictionAttr().Get() == pytest.approx(0.8)


def test_without_a_mesh_there_is_still_ground(tmp_path):
    _, stage = written(tmp_path)
    prim = stage.GetPrimAtPath("/World/Collision")
    assert prim.GetTypeName() == "Plane"
    assert UsdPhysics.CollisionAPI(prim).GetCollisionEnabledAttr().Get()
    assert not stage.GetPrimAtPath("/World/Visual")


def test_cameras_see_what_ours_see(tmp_path):
    contents, stage = written(tmp_path)
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, 4, 16)
    splats = stage.GetPrimAtPath(SPLATS)
    for name, frame in (("photo", 0), ("walk", 0), ("walk", 4)):
        camera = UsdGeom.Camera.Get(stage, f"/World/Cameras/{name}").GetCamera(Usd.TimeCode(frame))
        ours = contents.cameras[frame]
        points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0, 0, 4.0])
        pixels, depth = ours.project(points)
        place = UsdGeom.Xformable(splats).ComputeLocalToWorldTransform(Usd.TimeCode.Default())
        seen = camera.frustum.ComputeViewMatrix() * camera.frustum.ComputeProjectionMatrix()
        device = np.array([seen.Transform(place.Transform(Gf.Vec3d(*point))) for point in points.double().tolist()])
        expected = torch.stack([2 * pixels[:, 0] / 64 - 1, 1 - 2 * pixels[:, 1] / 48], dim=-1)
        assert np.allclose(device[:, :2], expected, atol=1e-4)
        there = [place.Transform(Gf.Vec3d(*point)) for point in points.double().tolist()]
        away = [-camera.frustum.ComputeViewMatrix().Transform(point)[2] for point in there]
        assert np.allclose(away, 2 * depth, atol=1e-4)


def test_an_off_centre_lens_keeps_its_centre(tmp_path):
    cameras = walk()
    cameras.intrinsics[:, 0, 2] += 5.0
    cameras.intrinsics[:, 1, 2] -= 3.0
    contents = Contents("shifted", cameras, level(cameras[0]), some_splats())
    format_of("a.usdc").write(tmp_path / "a.usdc", contents)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    camera = UsdGeom.Camera.Get(stage, "/World/Cameras/photo").GetCamera(Usd.TimeCode(0))
    seen = camera.frustum.ComputeViewMatrix() * camera.frustum.ComputeProjectionMatrix()
    place = UsdGeom.Xformable(stage.GetPrimAtPath(SPLATS)).ComputeLocalToWorldTransform(Usd.TimeCode.Default())
    point = torch.tensor([0.3, -0.2, 3.0])
    (u, v), _ = (value[0] for value in cameras[0].project(point[None]))
    x, y, _ = seen.Transform(place.Transform(Gf.Vec3d(*point.tolist())))
    assert (x, y) == pytest.approx((2 * float(u) / 64 - 1, 1 - 2 * float(v) / 48), abs=1e-4)


def test_the_walks_lens_zooms_as_the_walk_did(tmp_path):
    cameras = walk()
    cameras.intrinsics[:, 0, 0] *= torch.linspace(1, 2, len(cameras)).to(cameras.intrinsics)
    contents = Contents("zoomed", cameras, level(cameras[0]), some_splats())
    format_of("a.usdc").write(tmp_path / "a.usdc", contents)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    lens = UsdGeom.Camera.Get(stage, "/World/Cameras/walk")
    for frame, (fx, *_) in enumerate(cameras.intrinsics[:, 0].tolist()):
        seen = lens.GetCamera(Usd.TimeCode(frame))
        assert seen.horizontalAperture / seen.focalLength == pytest.approx(cameras.width / fx, rel=1e-4)
    assert UsdGeom.Camera.Get(stage, "/World/Cameras/photo").GetFocalLengthAttr().GetNumTimeSamples() == 0


def test_the_package_carries_its_texture_the_right_way_up(tmp_path):
    _, stage = written(tmp_path, mesh=room())
    file = str(tmp_path / "Gäste (neu).usdz")
    names = zipfile.ZipFile(file).namelist()
    assert names[0].endswith(".usdc")
    assert sum(name.endswith(".png") for name in names) == 1
    layers, assets, missing = UsdUtils.ComputeAllDependencies(file)
    assert (len(layers), len(assets), missing) == (1, 1, [])
    prim = stage.GetPrimAtPath("/World/Visual")
    st = np.array(UsdGeom.PrimvarsAPI(prim).GetPrimvar("st").Get())
    assert np.allclose(st, [0.25, 0.875])  # near the top, where the picture is red
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    source = material.ComputeSurfaceSource()[0]
    assert source.GetIdAttr().Get() == "UsdPreviewSurface"


def test_newton_takes_the_collision_mesh_for_ground(tmp_path):
    newton = pytest.importorskip("newton")
    written(tmp_path, "a.usdc", collision=room(False))
    builder = newton.ModelBuilder(up_axis=newton.Axis.Z)
    builder.add_usd(str(tmp_path / "a.usdc"))
    shapes = dict(zip(builder.shape_label, range(builder.shape_count)))
    assert shapes.keys() == {"/World/Gaussians/splats", "/World/Collision"}
    ground, splats = shapes["/World/Collision"], shapes["/World/Gaussians/splats"]
    assert builder.shape_flags[ground] & newton.ShapeFlags.COLLIDE_SHAPES
    assert not builder.shape_flags[ground] & newton.ShapeFlags.VISIBLE
    assert not builder.shape_flags[splats] & newton.ShapeFlags.COLLIDE_SHAPES
    assert builder.body_count == 0  # nothing of it moves
    assert len(builder.shape_source[ground].indices) == 36
    assert builder.shape_material_mu[ground] == pytest.approx(0.6)
    assert np.allclose(builder.gravity, [0, 0, -9.81])
