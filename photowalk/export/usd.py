"""OpenUSD for simulators and film tools: splats, meshes, physics, a spawn point and the walk's cameras on one stage.

The stage is in metres, z up, with gravity; y is where the photo looks and the floor under its camera is the origin:

    /World/Gaussians/splats   ParticleField3DGaussianSplat (OpenUSD 26.03 and later)
    /World/Visual             Mesh to be seen, where the world has one
    /World/Collision          Mesh to be stood on, invisible and exact; a plane at height 0 where the world has none
    /World/Physics            PhysicsScene: gravity
    /World/Spawn              the floor under the photo's camera, x ahead as robots have it
    /World/Cameras/photo      the photo's camera, and `walk`, which moves as the walk did
"""

from __future__ import annotations

import errno
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from pxr import Gf, Sdf, Tf, Usd, UsdGeom, UsdPhysics, UsdShade, UsdUtils, UsdVol, Vt
from torch import Tensor

from photowalk.export import conventions
from photowalk.export.contents import Contents, in_metres
from photowalk.export.conventions import RUB_FROM_RDF, ExportError, array
from photowalk.geometry.cameras import Cameras
from photowalk.scene.images import NO_ROOM, write_atomically, write_png
from photowalk.scene.types import Mesh, Splats

FRAMES_PER_SECOND = 16
STATIC_FRICTION, DYNAMIC_FRICTION = 0.8, 0.6
_APERTURE = 20.955  # millimetres, the schema's own; only its ratio to the focal length matters
_PLANE_REACH = 50.0  # metres to each side that the stand-in for a floor is drawn; physics takes it as endless
_NEAR, _FAR = 0.05, 10_000.0  # metres


def write_usdc(path: Path, contents: Contents) -> None:
    """One binary layer; the visual mesh has its vertices' colours. Raises ExportError."""
    splats, contents = contents.need_splats(path), contents.with_sound_meshes(path)

    def fill(temporary: Path) -> None:
        temporary.unlink()  # a layer is only made where no file is
        write_stage(temporary, contents, splats, texture=None)

    write_atomically(path, fill)


def write_usdz(path: Path, contents: Contents) -> None:
    """The layer and the visual mesh's texture in one package. Raises ExportError."""
    splats, contents = contents.need_splats(path), contents.with_sound_meshes(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        layer = Path(folder) / "world.usdc"
        write_stage(layer, contents, splats, texture=add_texture(Path(folder), contents))

        def pack(temporary: Path) -> None:
            if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(temporary)):
                raise ExportError(f"{path} could not be packed; is it more than 4 GiB? Write a .usdc instead")
            check_whole(temporary)

        write_atomically(path, pack)


def add_texture(folder: Path, contents: Contents) -> str | None:
    """The name of the visual mesh's picture, written into `folder`; None where it has none."""
    if contents.mesh is None or contents.mesh.texture is None:
        return None
    write_png(folder / "texture.png", contents.mesh.texture)
    return "texture.png"


def new_stage(file: Path) -> Usd.Stage:
    """An empty /World in metres, z up."""
    with _disk_errors(file):
        stage = Usd.Stage.CreateNew(str(file))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
    return stage


def save(stage: Usd.Stage) -> None:
    """Raises OSError where the disk is full."""
    layer = stage.GetRootLayer()
    with _disk_errors(Path(layer.realPath)):
        layer.Save()


@contextmanager
def _disk_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except Tf.ErrorException as error:
        for number in NO_ROOM:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(file)) from None
        raise


def check_whole(package: Path) -> None:
    """The library does not notice when it cannot write. Raises OSError for a package that is cut short."""
    try:
        with zipfile.ZipFile(package) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        damaged = error
    if damaged is not None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(package))


def write_stage(file: Path, contents: Contents, splats: Splats | None, *, texture: str | None) -> None:
    """All of a world with sound meshes on one stage; `texture` is the name of the visual mesh's picture beside it."""
    stage = new_stage(file)
    stage.GetDefaultPrim().SetDisplayName(contents.name)
    for group in ("Physics", "Cameras", "Materials"):
        UsdGeom.Scope.Define(stage, f"/World/{group}")
    friction = _add_physics(stage)
    if splats is not None:
        _add_splats(stage, splats, contents.level_from_world)
    if contents.mesh is not None:
        _add_visual(stage, in_metres(contents.mesh, contents.level_from_world), texture)
    _add_ground(stage, contents, friction)
    UsdGeom.Xform.Define(stage, "/World/Spawn").AddRotateZOp().Set(90.0)
    _add_cameras(stage, contents)
    save(stage)


def _add_splats(stage: Usd.Stage, splats: Splats, level: Tensor) -> None:
    """Decoded values. The parent turns the world upright, so that harmonics need no turning."""
    UsdGeom.Xform.Define(stage, "/World/Gaussians").AddTransformOp().Set(Gf.Matrix4d(level.T.tolist()))
    prim = UsdVol.ParticleField3DGaussianSplat.Define(stage, "/World/Gaussians/splats")
    low, high = conventions.bounds(splats)
    prim.CreatePositionsAttr(Vt.Vec3fArray.FromNumpy(array(splats.means)))
    prim.CreateScalesAttr(Vt.Vec3fArray.FromNumpy(array(splats.scales)))
    prim.CreateOrientationsAttr(Vt.QuatfArray.FromNumpy(array(conventions.xyzw(splats.rotations))))
    prim.CreateOpacitiesAttr(Vt.FloatArray.FromNumpy(array(splats.opacities)))
    prim.CreateRadianceSphericalHarmonicsDegreeAttr(conventions.sh_degree(splats))
    coefficients = prim.CreateRadianceSphericalHarmonicsCoefficientsAttr()
    coefficients.Set(Vt.Vec3fArray.FromNumpy(array(splats.colours).reshape(-1, 3)))
    coefficients.SetMetadata("elementSize", splats.colours.shape[1])
    prim.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([low, high]).astype(np.float32)))
    prim.CreateProjectionModeHintAttr(UsdVol.Tokens.perspective)
    prim.CreateSortingModeHintAttr(UsdVol.Tokens.zDepth)
    Usd.ColorSpaceAPI.Apply(prim.GetPrim()).CreateColorSpaceNameAttr("srgb_rec709_display")


def _add_visual(stage: Usd.Stage, mesh: Mesh, texture: str | None) -> None:
    prim = _define_mesh(stage, "/World/Visual", mesh)
    primvars = UsdGeom.PrimvarsAPI(prim)
    if texture is None or mesh.uv is None:
        colours = Vt.Vec3fArray.FromNumpy(array(conventions.linear(mesh.colours)))
        prim.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex).Set(colours)
        return
    uv = array(mesh.uv) * np.array([1, -1], np.float32) + np.array(
        [0, 1], np.float32
    )  # USD's v goes up from the lower left corner
    st = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
    st.Set(Vt.Vec2fArray.FromNumpy(uv))
    _bind_texture(stage, prim.GetPrim(), texture)


def _bind_texture(stage: Usd.Stage, prim: Usd.Prim, texture: str) -> None:
    """The photo's light is in the picture already, so the surface glows with it and reflects nothing."""
    material = UsdShade.Material.Define(stage, "/World/Materials/walk")
    reader = UsdShade.Shader.Define(stage, "/World/Materials/walk/uv")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    picture = UsdShade.Shader.Define(stage, "/World/Materials/walk/texture")
    picture.CreateIdAttr("UsdUVTexture")
    picture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(texture)
    picture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    picture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
    picture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    surface = UsdShade.Shader.Define(stage, "/World/Materials/walk/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set(Gf.Vec3f(0))
    surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
    glow = surface.CreateInput("emissiveColor", Sdf.ValueTypeNames.Color3f)
    glow.ConnectToSource(picture.ConnectableAPI(), "rgb")
    surface.CreateOutput("surface", Sdf.ValueTypeNames.Token)
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    UsdShade.MaterialBindingAPI.Apply(prim).Bind(material)


def _add_physics(stage: Usd.Stage) -> UsdShade.Material:
    """Gravity, and the material of the floor."""
    scene = UsdPhysics.Scene.Define(stage, "/World/Physics/scene")
    scene.CreateGravityDirectionAttr(Gf.Vec3f(0, 0, -1))
    scene.CreateGravityMagnitudeAttr(9.81)
    material = UsdShade.Material.Define(stage, "/World/Materials/floor")
    friction = UsdPhysics.MaterialAPI.Apply(material.GetPrim())
    friction.CreateStaticFrictionAttr(STATIC_FRICTION)
    friction.CreateDynamicFrictionAttr(DYNAMIC_FRICTION)
    friction.CreateRestitutionAttr(0.0)
    return material


def _add_ground(stage: Usd.Stage, contents: Contents, friction: UsdShade.Material) -> None:
    if contents.collision is None:
        plane = UsdGeom.Plane.Define(stage, "/World/Collision")
        plane.CreateAxisAttr(UsdGeom.Tokens.z)
        plane.CreateWidthAttr(2 * _PLANE_REACH)
        plane.CreateLengthAttr(2 * _PLANE_REACH)
        corner = Gf.Vec3f(_PLANE_REACH, _PLANE_REACH, 0)
        plane.CreateExtentAttr([-corner, corner])
        prim = plane.GetPrim()
    else:
        prim = _define_mesh(
            stage, "/World/Collision", in_metres(contents.collision, contents.level_from_world)
        ).GetPrim()
        UsdPhysics.MeshCollisionAPI.Apply(prim).CreateApproximationAttr(UsdPhysics.Tokens.none)
    UsdPhysics.CollisionAPI.Apply(prim).CreateCollisionEnabledAttr(True)
    UsdGeom.Imageable(prim).CreateVisibilityAttr(UsdGeom.Tokens.invisible)
    binding = UsdShade.MaterialBindingAPI.Apply(prim)
    binding.Bind(friction, UsdShade.Tokens.weakerThanDescendants, "physics")


def _add_cameras(stage: Usd.Stage, contents: Contents) -> None:
    stage.SetTimeCodesPerSecond(FRAMES_PER_SECOND)
    stage.SetFramesPerSecond(FRAMES_PER_SECOND)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(max(0, len(contents.cameras) - 1))
    poses = _camera_poses(contents.cameras, contents.level_from_world)
    for name, frames in (("photo", poses[:1]), ("walk", poses)):
        camera = UsdGeom.Camera.Define(stage, f"/World/Cameras/{name}")
        operation = camera.AddTransformOp()
        for frame, pose in enumerate(frames.mT.tolist()):
            time = Usd.TimeCode.Default() if name == "photo" else Usd.TimeCode(frame)
            operation.Set(Gf.Matrix4d(pose), time)
        _set_lens(camera, contents.cameras[: len(frames)])


def _camera_poses(cameras: Cameras, level: Tensor) -> Tensor:
    """[F, 4, 4] of the stage from each camera, which looks along -z with y up as USD's do; rigid."""
    cameras = cameras.to("cpu", torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(len(cameras), 1, 1)
    turn = level[:3, :3] / torch.linalg.det(level[:3, :3]) ** (1 / 3)
    poses[:, :3, :3] = turn @ cameras.world_from_camera[:, :3, :3] @ RUB_FROM_RDF
    poses[:, :3, 3] = cameras.centres @ level[:3, :3].T + level[:3, 3]
    return poses


def _set_lens(camera: UsdGeom.Camera, seen: Cameras) -> None:
    """The lens of the first frame, and that of every frame [F] where the walk zooms."""
    camera.CreateHorizontalApertureAttr(_APERTURE)
    camera.CreateClippingRangeAttr(Gf.Vec2f(_NEAR, _FAR))
    told = [
        camera.CreateFocalLengthAttr(),
        camera.CreateVerticalApertureAttr(),
        camera.CreateHorizontalApertureOffsetAttr(),
        camera.CreateVerticalApertureOffsetAttr(),
    ]
    lenses = seen.intrinsics.double()
    zooms = not torch.equal(lenses, lenses[:1].expand_as(lenses))
    for frame, intrinsics in enumerate(lenses.tolist() if zooms else lenses[:1].tolist()):
        (fx, _, cx), (_, fy, cy), _ = intrinsics
        focal = _APERTURE * fx / seen.width
        height, up = focal * seen.height / fy, focal * (cy - seen.height / 2) / fy
        for attribute, value in zip(told, (focal, height, _APERTURE * (0.5 - cx / seen.width), up)):
            if frame == 0:
                attribute.Set(value)
            if zooms:
                attribute.Set(value, Usd.TimeCode(frame))


def _define_mesh(stage: Usd.Stage, place: str, mesh: Mesh) -> UsdGeom.Mesh:
    prim = UsdGeom.Mesh.Define(stage, place)
    prim.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(array(mesh.vertices)))
    prim.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh), 3, dtype=np.int32)))
    prim.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.cpu().numpy().astype(np.int32).reshape(-1)))
    prim.CreateDoubleSidedAttr(True)
    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    prim.CreateExtentAttr(UsdGeom.PointBased.ComputeExtent(prim.GetPointsAttr().Get()))
    return prim
