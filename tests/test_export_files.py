"""Every file of splats, points, meshes and cameras is read back by a program that is not ours."""

import errno
import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from disks import smallest_disk
from exports import box, gltf_problems, order_of, some_contents, some_splats, splat_transform, walk

from photowalk.export import conventions
from photowalk.export.contents import Contents, sound
from photowalk.export.conventions import ExportError
from photowalk.export.formats import FORMATS, format_of
from photowalk.export.ply import read_splats, write_ply
from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.kernels.rasterise import evaluate_harmonics
from photowalk.scene.ground import level
from photowalk.scene.render import render
from photowalk.scene.types import Mesh, Splats

TWO_WORDS = {".points.ply", ".mesh.glb", ".nurec.usdz"}
NO_ROOM_FOR = f"Errno ({errno.ENOSPC}|{errno.EFBIG})] .*: '{{}}'$"


def covariances(splats):
    axes = conventions.rotation_from_quaternion(splats.rotations) * splats.scales[:, None, :]
    return axes @ axes.mT


# ---- conventions


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_half_a_turn_turns_everything(degree):
    splats = some_splats(degree=degree)
    turned = conventions.half_turned(splats)
    turn = conventions.RUB_FROM_RDF.float()
    assert torch.equal(turned.means, splats.means @ turn)
    assert torch.allclose(covariances(turned), turn @ covariances(splats) @ turn, atol=1e-6)
    directions = torch.nn.functional.normalize(some_splats(count=50).means, dim=-1)
    seen = evaluate_harmonics(splats.colours, directions)
    assert torch.allclose(evaluate_harmonics(turned.colours, directions @ turn), seen, atol=1e-5)
    again = conventions.half_turned(turned)
    assert all(torch.equal(getattr(again, name), getattr(splats, name)) for name in ("means", "rotations", "colours"))


def test_axes_are_rotations_and_go_where_their_names_say():
    right, up, ahead = torch.eye(3, dtype=torch.float64) * torch.tensor([1.0, -1, 1], dtype=torch.float64)[:, None]
    for turn, up_there, ahead_there in (
        (conventions.RUB_FROM_RDF, [0, 1, 0], [0, 0, -1]),
        (conventions.Z_UP_FROM_RDF, [0, 0, 1], [0, 1, 0]),
    ):
        assert torch.linalg.det(turn) == pytest.approx(1)
        assert (turn @ right).tolist() == [1, 0, 0]
        assert (turn @ up).tolist() == up_there
        assert (turn @ ahead).tolist() == ahead_there
    assert torch.equal(conventions.Y_UP_FROM_Z_UP @ conventions.Z_UP_FROM_RDF, conventions.RUB_FROM_RDF)


def test_encodings_round_trip():
    splats = some_splats()
    assert torch.allclose(conventions.xyzw(splats.rotations)[:, [3, 0, 1, 2]], splats.rotations, atol=1e-6)
    assert conventions.xyzw(torch.tensor([1.0, 0, 0, 0])).tolist() == [0, 0, 0, 1]
    assert torch.allclose(conventions.log_scales(splats.scales).exp(), splats.scales)
    assert torch.allclose(conventions.logit_opacities(splats.opacities).sigmoid(), splats.opacities, atol=1e-6)
    assert conventions.logit_opacities(torch.tensor([0.0, 1.0])).isfinite().all()


@pytest.mark.parametrize("up", [None, [0.1, -1.0, 0.2]])
def test_level_puts_the_spawn_point_on_the_floor(up):
    first = walk()[3]
    matrix = level(first, None if up is None else torch.tensor(up), eye_height=1.5, metres=2.0)
    upward = torch.nn.functional.normalize(torch.tensor(up or [0.0, -1, 0], dtype=torch.float64), dim=0)
    eye = matrix[:3, :3] @ first.centres.double() + matrix[:3, 3]
    assert torch.allclose(eye, torch.tensor([0, 0, 3.0], dtype=torch.float64), atol=1e-6)
    assert torch.allclose(matrix[:3, :3] @ upward, torch.tensor([0, 0, 2.0], dtype=torch.float64), atol=1e-6)
    gaze = matrix[:3, :3] @ first.camera_from_world[2, :3].double()
    assert gaze[0].abs() < 1e-6
    assert gaze[1] > 0
    assert torch.allclose(matrix[:3, :3] @ matrix[:3, :3].T, 4 * torch.eye(3, dtype=torch.float64), atol=1e-6)


def test_level_of_a_gaze_at_the_ground_has_the_top_of_the_picture_ahead():
    down = walk()[0]
    turned = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # z of the camera is y, down
    matrix = level(type(down)(turned, down.intrinsics, down.height, down.width))
    top = matrix[:3, :3] @ -turned[1, :3].double()
    assert torch.allclose(top, torch.tensor([0.0, 1, 0], dtype=torch.float64), atol=1e-6)


# ---- splats


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gsply_and_splat_transform_read_our_spz_alike(tmp_path, degree):
    gsply = pytest.importorskip("gsply")
    contents = some_contents(degree=degree)
    format_of("a.spz").write(tmp_path / "Gäste im Haus.spz", contents)
    splats = contents.splats
    turned = conventions.half_turned(splats)
    data = gsply.read_spz(str(tmp_path / "Gäste im Haus.spz"))
    order, off = order_of(data.means, turned.means.numpy()), splats.scales.median(1).values.numpy()[:, None] / 8
    assert (np.abs(data.means[order] - turned.means.numpy()) < off + 0.001).all()
    assert np.abs(data.scales[order] - turned.scales.log().numpy()).max() < 0.07
    assert np.abs((data.quats[order] * turned.rotations.numpy()).sum(-1)).min() > 0.999
    if degree:
        assert np.abs(np.reshape(data.shN, (50, -1, 3))[order] - turned.colours[:, 1:].numpy()).max() < 0.08
    splat_transform(tmp_path / "Gäste im Haus.spz", tmp_path / "back.ply")  # it brings .spz to .ply's axes
    back = read_splats(tmp_path / "back.ply")
    order = order_of(back.means.numpy(), splats.means.numpy())
    assert (np.abs(back.means.numpy()[order] - splats.means.numpy()) < off + 0.001).all()
    assert torch.allclose(covariances(back[order]), covariances(splats), atol=0.15)  # scales are rounded to 6 %
    assert torch.allclose(back.opacities[order], splats.opacities, atol=0.01)
    assert torch.allclose(back.colours[order], splats.colours, atol=0.08)


def test_a_picture_of_the_spz_is_the_picture_of_the_splats(tmp_path):
    splats = some_splats(count=300, degree=2, spread=0.5)
    splats = Splats(splats.means + torch.tensor([0, 0, 3.0]), 0.1 * splats.scales, *list(vars(splats).values())[2:])
    format_of("a.spz").write(tmp_path / "a.spz", some_contents(splats=splats))
    splat_transform(tmp_path / "a.spz", tmp_path / "a.ply")
    before, after = (render(some, walk()[0]).image for some in (splats, read_splats(tmp_path / "a.ply")))
    assert before.std() > 0.1
    assert (before - after).abs().mean() < 0.005


@pytest.mark.parametrize("degree", [0, 1])
def test_spz_packs_what_ply_does_not_and_looks_the_same(tmp_path, degree):
    """A wall and a floor, as walks have them: of neighbours that look alike."""
    x, y = (axis.flatten() for axis in torch.meshgrid(*(0.02 * torch.arange(150.0),) * 2, indexing="ij"))
    zero, half = torch.zeros_like(x), 0.5**0.5
    means = torch.cat([torch.stack([x, y, zero], 1), torch.stack([x, zero, y], 1)]) + torch.tensor([0.313, 0.1, 2.0])
    rotations = torch.tensor([[1.0, 0, 0, 0], [half, half, 0, 0]]).repeat_interleave(len(x), 0)
    colours = torch.zeros(len(means), (degree + 1) ** 2, 3)
    colours[:, 0] = (means * torch.tensor([3.0, 5.0, 4.0])).sin()
    scales = torch.tensor([0.01, 0.01, 0.002]).expand(len(means), 3)
    splats = Splats(means, scales, rotations, torch.full((len(means),), 0.98), colours)
    for name in ("a.ply", "a.spz"):
        format_of(name).write(tmp_path / name, some_contents(splats=splats))
    assert (tmp_path / "a.spz").stat().st_size < 0.1 * (tmp_path / "a.ply").stat().st_size
    splat_transform(tmp_path / "a.spz", tmp_path / "back.ply")
    before, after = (render(some, walk()[0]).image for some in (splats, read_splats(tmp_path / "back.ply")))
    assert before.std() > 0.1
    assert float((before - after).square().mean()) < 10**-4.5  # 45 dB


def test_spz_refuses_what_it_cannot_hold(tmp_path):
    far = some_splats(spread=5000.0)
    with pytest.raises(ExportError, match="no more than 4096 m"):
        format_of("a.spz").write(tmp_path / "a.spz", some_contents(splats=far))
    assert not list(tmp_path.iterdir())


def accessor(model, index):
    found = model.accessors[index]
    view = model.bufferViews[found.bufferView]
    kind = {5126: np.float32, 5121: np.uint8, 5125: np.uint32}[found.componentType]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[found.type]
    return np.frombuffer(model.binary_blob(), kind, found.count * width, view.byteOffset).reshape(-1, width)


def test_glb_holds_decoded_splats_under_their_ratified_names(tmp_path):
    gltf = pytest.importorskip("pygltflib")
    contents = some_contents(degree=2)
    format_of("a.glb").write(tmp_path / "a.glb", contents)
    model, splats = gltf.GLTF2().load_binary(str(tmp_path / "a.glb")), contents.splats
    primitive = model.meshes[0].primitives[0]
    named = {key: accessor(model, index) for key, index in vars(primitive.attributes).items() if index is not None}
    assert primitive.mode == gltf.POINTS
    assert primitive.extensions["KHR_gaussian_splatting"]["kernel"] == "ellipse"
    assert model.extensionsUsed == ["KHR_gaussian_splatting"]
    assert np.allclose(named["POSITION"], splats.means)
    for name, values in (
        ("SCALE", splats.scales),
        ("OPACITY", splats.opacities[:, None]),
        ("ROTATION", splats.rotations[:, [1, 2, 3, 0]]),
        ("SH_DEGREE_0_COEF_0", splats.colours[:, 0]),
        ("SH_DEGREE_1_COEF_2", splats.colours[:, 3]),
        ("SH_DEGREE_2_COEF_0", splats.colours[:, 4]),
    ):
        assert np.allclose(named[f"KHR_gaussian_splatting:{name}"], values, atol=1e-6), name
    assert model.nodes[-1].name == contents.name


def test_the_names_in_glb_are_those_that_splat_transform_writes(tmp_path):
    gltf = pytest.importorskip("pygltflib")
    contents = some_contents(degree=1)
    format_of("ours.glb").write(tmp_path / "ours.glb", contents)
    write_ply(tmp_path / "plain.ply", contents.splats)
    splat_transform(tmp_path / "plain.ply", tmp_path / "theirs.glb")
    models = [gltf.GLTF2().load_binary(str(tmp_path / name)) for name in ("ours.glb", "theirs.glb")]
    ours, theirs = (model.meshes[0].primitives[0] for model in models)
    names = [{key for key, index in vars(one.attributes).items() if index is not None} for one in (ours, theirs)]
    assert names[0] == names[1]
    assert ours.extensions["KHR_gaussian_splatting"] == theirs.extensions["KHR_gaussian_splatting"]


def room():
    """A box of 4 x 3 x 6 around the walk, with a picture on it."""
    plain = box((-2.0, -1.5, -1.0), (2.0, 1.5, 5.0), (0.8, 0.4, 0.2))
    texture = torch.zeros(3, 8, 16)
    texture[0, :4], texture[1, 4:] = 1.0, 1.0
    uv = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    return Mesh(plain.vertices, plain.faces, plain.colours, plain.invented, uv, texture)


@pytest.mark.parametrize("textured", [True, False])
def test_trimesh_and_khronos_accept_the_mesh_in_metres_y_up(tmp_path, textured):
    trimesh = pytest.importorskip("trimesh")
    mesh = room() if textured else box((-2.0, -1.5, -1.0), (2.0, 1.5, 5.0), (0.8, 0.4, 0.2))
    contents = some_contents(mesh=mesh, collision=mesh)
    for name in ("both.glb", "only.mesh.glb"):
        format_of(name).write(tmp_path / name, contents)
    scene = trimesh.load_scene(str(tmp_path / "only.mesh.glb"))
    (geometry,) = scene.geometry.values()
    placed = scene.to_mesh()
    assert len(placed.faces) == 12
    # twice as large, 1.5 units above the floor; ahead (+z) is glTF's -z
    assert np.allclose(placed.bounds, [[-4, 0, -10], [4, 6, 2]], atol=1e-4)
    assert placed.is_winding_consistent
    assert placed.volume == pytest.approx(8 * 6 * 12, rel=1e-4)
    if textured:
        assert np.allclose(np.asarray(geometry.visual.uv), [[u, 1 - v] for u, v in mesh.uv.tolist()], atol=1e-6)
        picture = np.asarray(geometry.visual.material.baseColorTexture)
        assert picture[1, 8, 0] > 200 > picture[1, 8, 1]
        assert picture[6, 8, 1] > 200 > picture[6, 8, 0]
    assert set(trimesh.load_scene(str(tmp_path / "both.glb")).geometry) == {"mesh", "splats"}
    problems = gltf_problems(tmp_path / "both.glb")
    namespaced = [one for one in problems if "KHR_gaussian_splatting" in one[2]]  # the validator predates the extension
    assert [one for one in problems if one[0] < 2 and one not in namespaced] == []


def test_trimesh_reads_the_collision_mesh_in_metres_z_up(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    mesh = box((-2.0, -1.5, -1.0), (2.0, 1.5, 5.0), (0.8, 0.4, 0.2))
    format_of("a.stl").write(tmp_path / "a.stl", some_contents(collision=mesh))
    read = trimesh.load_mesh(str(tmp_path / "a.stl"))
    assert np.allclose(read.bounds, [[-4, -2, 0], [4, 10, 6]], atol=1e-5)
    assert read.is_watertight
    assert read.volume == pytest.approx(8 * 6 * 12)


def test_faces_without_area_are_left_out(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    good = room()
    vertices = torch.cat([good.vertices, torch.tensor([[0.0, 0, 0], [1, 1, 1], [2, 2, 2], [torch.nan, 0, 0]])])
    bad = torch.tensor([[0, 0, 1], [8, 9, 10], [0, 1, 11]])
    mesh = Mesh(
        vertices,
        torch.cat([bad, good.faces]),
        torch.cat([good.colours, good.colours[:4]]),
        torch.zeros(15, dtype=torch.bool),
        torch.cat([good.uv, good.uv[:4]]),
        good.texture,
    )
    kept = sound(mesh, "here")
    assert len(kept) == 12
    assert torch.equal(kept.vertices[kept.faces], good.vertices[good.faces])
    format_of("a.mesh.glb").write(tmp_path / "a.mesh.glb", some_contents(mesh=mesh))
    assert trimesh.load_scene(str(tmp_path / "a.mesh.glb")).to_mesh().is_watertight


def test_points_open_elsewhere(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    contents = some_contents()
    shown = contents.splats.opacities >= 0.1
    assert 0 < int((~shown).sum()) < 10
    for name in ("points.ply", "Halle.points.ply", "halle.xyz"):
        format_of(name).write(tmp_path / name, contents)
    cloud = trimesh.load(str(tmp_path / "points.ply"))
    # the photo's camera is 3 m above the floor, and a unit is two metres
    x, y, z = contents.splats.means[shown].double().unbind(-1)
    assert np.allclose(cloud.vertices, torch.stack([2 * x, 2 * z, 3 - 2 * y], dim=-1), atol=1e-5)
    colours = 255 * (contents.splats.colours[shown, 0] * 0.28209479 + 0.5).clamp(0, 1)
    assert np.abs(cloud.colors[:, :3] - colours.numpy()).max() <= 0.5 + 1e-3
    text = np.loadtxt(tmp_path / "halle.xyz")
    assert np.allclose(text[:, :3], cloud.vertices, atol=1e-4)
    assert np.array_equal(text[:, 3:], cloud.colors[:, :3])
    assert (tmp_path / "points.ply").read_bytes() == (tmp_path / "Halle.points.ply").read_bytes()


# ---- cameras


@pytest.mark.parametrize("name", ["transforms.json", "walk.npz", "Gäste.colmap"])
def test_cameras_come_back(tmp_path, name):
    contents = some_contents()
    format_of(name).write(tmp_path / name, contents)
    format_of(name).write(tmp_path / name, contents)  # over itself
    again = path_files.read(tmp_path / name, lens=walk(1)[0])
    assert torch.allclose(again.camera_from_world.float(), contents.cameras.camera_from_world, atol=1e-6)
    assert torch.allclose(again.intrinsics.float(), contents.cameras.intrinsics, atol=1e-4)
    assert (again.height, again.width) == (48, 64)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_of_other_things_is_no_camera_model(tmp_path):
    (tmp_path / "a.colmap").mkdir()
    (tmp_path / "a.colmap" / "thesis.doc").write_text("years of work")
    with pytest.raises(ExportError, match="is no camera model"):
        format_of("a.colmap").write(tmp_path / "a.colmap", some_contents())
    assert (tmp_path / "a.colmap" / "thesis.doc").exists()


# ---- all formats


def test_names_choose_formats():
    for known in FORMATS:
        plain = "." + known.ending.rsplit(".", 1)[1]
        assert format_of("world" + known.ending.upper()) is known
        assert format_of("a/b.c" + known.ending) is known
        assert (known.ending == plain) != (known.ending in TWO_WORDS)
    assert format_of("mypoints.ply").ending == ".ply"
    with pytest.raises(ExportError, match=r"\.obj.*\.points\.ply \(coloured points\)"):
        format_of("a.obj")


SCENE_FORMATS = [known for known in FORMATS if known.scene]
BAD_VALUES = list(itertools.product(("means", "scales", "rotations", "opacities", "colours"), (torch.nan, torch.inf)))


@pytest.mark.parametrize("known", SCENE_FORMATS, ids=lambda known: known.ending)
def test_nothing_is_written_of_nothing_or_of_nan(tmp_path, known):
    old = tmp_path / f"old{known.ending}"
    old.write_bytes(b"something of mine")
    empty = some_contents(splats=some_splats(count=0))
    for contents in (empty, some_contents(splats=None), Contents("none", walk(), torch.eye(4).double())):
        with pytest.raises(ExportError, match=r"no splats|reconstruct"):
            known.write(old, contents)
    if known.ending not in (".mesh.glb", ".stl"):  # which hold no splats
        for name, value in BAD_VALUES:
            splats = some_splats(count=3)
            getattr(splats, name)[1] = value
            with pytest.raises(ExportError, match=f"{name} of 1 of 3 splats is not a finite number"):
                known.write(old, some_contents(splats=splats))
    assert old.read_bytes() == b"something of mine"
    assert [file.name for file in tmp_path.iterdir()] == [old.name]


@pytest.mark.parametrize("value", [0.0, torch.nan])
@pytest.mark.parametrize("ending", [".glb", ".mesh.glb", ".stl", ".usdc", ".usdz", ".nurec.usdz", ".html"])
def test_a_mesh_without_a_sound_face_is_refused(tmp_path, ending, value):
    broken = replace(room(), vertices=torch.full((8, 3), value))
    target = tmp_path / f"hall{ending}"
    with pytest.raises(ExportError, match="none of the mesh's 12 faces has an area and finite corners; reconstruct"):
        format_of(target).write(target, some_contents(mesh=broken, collision=broken))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("known", SCENE_FORMATS, ids=lambda known: known.ending)
def test_a_file_that_is_there_is_replaced_as_a_whole(tmp_path, known):
    target = tmp_path / f"Über uns{known.ending}"
    target.write_bytes(b"older")
    known.write(target, some_contents(mesh=room(), collision=room()))
    assert target.stat().st_size > 200
    assert [file.name for file in tmp_path.iterdir()] == [target.name]
    shutil.copy(target, tmp_path / "copy")
    known.write(target, some_contents(mesh=room(), collision=room()))
    assert target.stat().st_size == (tmp_path / "copy").stat().st_size


@pytest.mark.parametrize("known", SCENE_FORMATS, ids=lambda known: known.ending)
def test_a_full_disk_keeps_the_older_file(tmp_path, known):
    target, contents = tmp_path / f"hall{known.ending}", some_contents(mesh=room(), collision=room())
    known.write(target, contents)
    older = target.read_bytes()
    for bytes_left in (300, len(older) - 10):
        with pytest.raises(OSError, match=NO_ROOM_FOR.format(target)), smallest_disk(bytes_left):
            known.write(target, contents)
    assert target.read_bytes() == older
    assert [file.name for file in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("known", [known for known in FORMATS if not known.scene], ids=lambda known: known.ending)
def test_a_disk_that_is_full_of_cameras_is_named_by_the_file_that_was_wanted(tmp_path, known):
    target = tmp_path / f"hall{known.ending}"
    with pytest.raises(OSError, match=NO_ROOM_FOR.format(target)), smallest_disk(100):
        known.write(target, some_contents())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [1.0, 500.0])
def test_walks_of_a_metre_and_of_half_a_kilometre(tmp_path, length):
    poses = torch.eye(4).repeat(81, 1, 1)
    poses[:, 2, 3] = -torch.linspace(0, length, 81)
    gsply = pytest.importorskip("gsply")
    cameras = Cameras.from_fov(poses, 70.0, 48, 64)
    splats = some_splats(count=200)
    splats.means[:, 2] = torch.linspace(0, length, 200)
    floor = box((-2.0, 1.5, -1.0), (2.0, 1.7, length + 1.0), (0.5, 0.5, 0.5))
    contents = Contents("walk", cameras, level(cameras[0], eye_height=1.5), splats, floor, floor)
    for known in FORMATS:
        known.write(tmp_path / f"walk{known.ending}", contents)
    assert len(list(tmp_path.iterdir())) == len(FORMATS)
    for ending in (".ply", ".spz"):
        read = (gsply.plyread if ending == ".ply" else gsply.read_spz)(str(tmp_path / f"walk{ending}"))
        off = 2e-3 if ending == ".ply" else float(splats.scales.amax()) / 4
        assert np.ptp(np.asarray(read.means)[:, 2]) == pytest.approx(length, abs=off)
    solid = trimesh.load(tmp_path / "walk.stl")
    assert solid.bounds[1] - solid.bounds[0] == pytest.approx([4, length + 2, 0.2], abs=1e-3)
    for ending in (".json", ".npz"):
        again = path_files.read(tmp_path / f"walk{ending}", lens=cameras[0])
        assert float((again.centres[-1] - again.centres[0]).norm()) == pytest.approx(length, rel=1e-5)
