"""Meshes of walks: grid, fusion, cracks, floors, files; judged on shapes that are known exactly."""

import math

import numpy as np
import pytest
import torch
import trimesh

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import look_at
from photowalk.reconstruct.meshing import mesh_walk
from photowalk.reconstruct.meshing.atlas import unwrap
from photowalk.reconstruct.meshing.cleaning import decimated, without_small_parts
from photowalk.reconstruct.meshing.fusion import Field, fuse, looks_of, sizing_for
from photowalk.reconstruct.meshing.grid import Sizing, grid_of_keys, keys_at, sides_at, widened
from photowalk.reconstruct.meshing.surface import extract
from photowalk.scene.mesh_files import read_mesh, write_mesh
from photowalk.scene.types import Mesh, View

SIZE = (48, 72)
HALF = torch.tensor([3.0, 1.5, 4.0])  # of the room that most tests look at; y down


def room_views(count=4, turn=2 * math.pi, noise=0.0, size=SIZE):
    """Cameras that turn round in a box-shaped room, with exact depth; walls are coloured by their axis."""
    views = []
    random = torch.Generator().manual_seed(0)
    for frame in range(count):
        angle = turn * frame / count
        centre = torch.tensor([0.3 * math.sin(angle), 0.2, 0.4 * frame / count])
        pose = look_at(centre, centre + torch.tensor([math.sin(angle), 0.25, math.cos(angle)]))
        camera = Cameras.from_fov(pose.float(), 100.0, *size)
        directions = camera.unproject(torch.ones(size)) - centre
        walls = (HALF * directions.sign() - centre) / directions
        depth, axis = walls.min(-1)
        depth = depth * (1 + noise * torch.randn(1, generator=random)) if noise else depth
        image = torch.nn.functional.one_hot(axis, 3).movedim(-1, 0).float()
        views.append(View(image, depth, camera, frame))
    return views


def fused(views, **options):
    looks = looks_of(views)
    sizing, noise = sizing_for(looks, **{"finest": None, "cells": 60_000, **options})
    return fuse(looks, sizing, noise)


def ball_field(growth, values=None, plain=0.0):
    """Cells in a thick shell about the unit sphere, coarser away from a camera beside it and, where `plain` is a side,
    to the left, with exact distances."""
    sizing = Sizing(0.06, growth, torch.tensor([[0.0, 0.0, 0.9]]))
    directions = torch.nn.functional.normalize(
        torch.randn(40_000, 3, generator=torch.Generator().manual_seed(1)), dim=1
    )
    if plain:
        sizing = sizing.plain_beyond(keys_at(directions[directions[:, 0] > 0], sizing), plain)
    keys = torch.unique(torch.cat([keys_at(directions * (1 + 0.05 * step), sizing) for step in range(-3, 4)]))
    grid = grid_of_keys(widened(keys, sizing), sizing)
    distance = grid.middles.norm(dim=1) - 1
    if values is not None:
        distance = torch.where(distance.abs() < 0.08, values(len(grid)), distance)
    ones = torch.ones(len(grid))
    return Field(grid, distance, ones, ones[:, None].expand(-1, 3), torch.zeros(len(grid), dtype=torch.bool))


def open_edges(mesh):
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(dim=1).values
    count = torch.unique(edges, dim=0, return_counts=True)[1]
    return int((count % 2).sum())


def off_the_walls(points):
    return (HALF - points.abs()).abs().amin(1)


def test_cells_hold_their_points_and_grow_with_distance():
    sizing = Sizing(0.05, 0.02, torch.zeros(1, 3))
    points = 40 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    grid = grid_of_keys(torch.unique(keys_at(points, sizing)), sizing)
    cell = grid.find((points.double() / sizing.finest).floor().long())
    assert bool((cell >= 0).all())
    off = (points - grid.middles[cell]).abs().amax(1) / grid.sides[cell]
    assert float(off.max()) <= 0.5001
    wanted = (0.02 * points.norm(dim=1)).clamp(0.05, 0.8)
    ratio = grid.sides[cell] / wanted
    assert float(ratio.min()) > 0.3
    assert float(ratio.max()) < 1.001
    assert set(grid.levels.unique().tolist()) == {0, 1, 2, 3, 4}


def test_no_cells_overlap():
    sizing = Sizing(0.1, 0.05, torch.zeros(1, 3))
    grid = grid_of_keys(torch.unique(keys_at(6 * torch.rand(5000, 3) - 3, sizing)), sizing)
    middles = (grid.middles.double() / sizing.finest).floor().long()
    assert torch.equal(grid.find(middles), torch.arange(len(grid)))


@pytest.mark.parametrize(("growth", "plain"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.13), (0.0, 0.25)])
def test_a_ball_is_closed_whatever_the_levels(growth, plain):
    field = ball_field(growth, plain=plain)
    mesh = extract(field)
    judge = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert (len(field.grid.levels.unique()) > 1) == (growth > 0 or plain > 0)
    assert judge.is_watertight
    assert judge.euler_number == 2
    assert judge.volume == pytest.approx(4 / 3 * math.pi, rel=0.02)  # positive: faces look outwards
    assert float((mesh.vertices.norm(dim=1) - 1).abs().max()) < 0.01


@pytest.mark.parametrize("growth", [0.0, 0.2])
def test_noise_leaves_no_cracks_between_levels(growth):
    random = torch.Generator().manual_seed(2)
    field = ball_field(growth, lambda count: torch.randn(count, generator=random))
    assert open_edges(extract(field)) == 0


def test_cells_are_plain_where_nothing_asks_for_detail():
    sizing = Sizing(0.05, 0.02, torch.zeros(1, 3))
    asked = torch.tensor([[0.4, 0.4, 0.4]])
    plain = sizing.plain_beyond(keys_at(asked, sizing), 0.3)
    points = torch.tensor([[0.41, 0.39, 0.4], [-0.4, 0.4, 0.4], [0.0, 30.0, 0.0]])
    torch.testing.assert_close(sides_at(points, plain), torch.tensor([0.05, 0.2, 0.4]))  # far ones are coarse anyway


def test_planes_are_exact_across_levels():
    field = ball_field(0.2)
    normal = torch.nn.functional.normalize(torch.tensor([0.3, 0.9, 0.2]), dim=0)
    tilted = Field(field.grid, field.grid.middles @ normal - 0.1, field.weight, field.colour, field.invented)
    assert float((extract(tilted).vertices @ normal - 0.1).abs().max()) < 1e-4


def test_a_room_is_found_where_it_is_with_its_colours():
    mesh = extract(fused(room_views(8)))
    assert float(off_the_walls(mesh.vertices).mean()) < 0.01
    corners = mesh.vertices[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert float(((normal * corners.mean(1)).sum(1) < 0).float().mean()) > 0.97  # they look into the room
    axis = (HALF - mesh.vertices.abs()).abs().argmin(1)
    inner = (HALF - mesh.vertices.abs()).abs().sort(dim=1).values[:, 1] > 0.2
    assert float((mesh.colours.argmax(1) == axis)[inner].float().mean()) > 0.98


def test_one_wrong_view_is_outvoted():
    views = room_views(8, turn=0.2)
    wrong = View(views[3].image, 0.8 * views[3].depth, views[3].camera, 3)
    mesh = extract(fused([*views[:3], wrong, *views[4:]], finest=0.08))
    front = mesh.vertices[(mesh.vertices[:, :2].abs() < 0.5).all(1)]
    assert float((front[:, 2] - 4).abs().median()) < 0.02
    assert not bool((front[:, 2] < 3.5).any()), "free space that seven views look through is carved"


def test_views_that_disagree_get_coarser_cells():
    exact, noisy = room_views(8, turn=0.2), room_views(8, turn=0.2, noise=0.05)
    assert sizing_for(looks_of(noisy), finest=None, cells=10**7)[0].growth > 1.5 * (
        sizing_for(looks_of(exact), finest=None, cells=10**7)[0].growth
    )


def test_cells_keep_to_their_budget():
    assert len(fused(room_views(6), cells=30_000).grid) < 60_000


def test_a_walk_becomes_two_meshes_with_an_invented_floor():
    meshes = mesh_walk(room_views(3, turn=0.3), cells=30_000, texture=256, faces=1500, collision_faces=800)
    assert len(meshes.visual) <= 1500
    assert len(meshes.collision) <= 800
    assert float(meshes.ground.up @ torch.tensor([0.0, -1, 0], dtype=torch.float64)) > 0.999
    invented = meshes.collision.vertices[meshes.collision.faces[meshes.collision.invented]].flatten(0, 1)
    assert len(invented) > 0
    assert float((invented[:, 1] - HALF[1]).abs().median()) < 0.03, "the guess continues the floor"
    below = invented[invented[:, [0, 2]].norm(dim=1) < 0.7]
    assert len(below) > 0, "it reaches under the camera, where nobody saw"
    seen = meshes.collision.vertices[meshes.collision.faces[~meshes.collision.invented]].flatten(0, 1)
    assert float(seen[:, 2].max()) > 3.9


def test_an_atlas_keeps_the_faces_and_says_when_it_cannot_be_made():
    corners = np.array([[x, y, 0.1 * x * y] for x in range(4) for y in range(4)], dtype=np.float32)
    start = np.array([4 * x + y for x in range(3) for y in range(3)])[:, None]
    faces = np.concatenate([np.add(start, [0, 4, 1]), np.add(start, [1, 4, 5])])
    old, new, uv = unwrap(corners, faces, 64)
    assert np.array_equal(old[new], faces)
    assert uv.min() >= 0
    assert uv.max() <= 1
    for turned, same in zip(unwrap(np.asfortranarray(corners), np.asfortranarray(faces), 64), (old, new, uv)):
        assert np.array_equal(turned, same)
    with pytest.raises(RuntimeError, match="could not be unwrapped"):
        unwrap(corners, faces + 100, 64)


def test_the_texture_shows_the_frames():
    visual = mesh_walk(room_views(8), cells=30_000, texture=256, faces=1500).visual
    assert visual.uv is not None
    assert visual.texture is not None
    middle = visual.uv[visual.faces].mean(1)
    assert bool(visual.invented.any())
    assert float(visual.uv[visual.faces[visual.invented]][..., 1].min()) > 0.9, "what is invented takes few texels"
    texel = (middle * torch.tensor(visual.texture.shape[:0:-1])).long().clamp_max(visual.texture.shape[-1] - 1)
    colour = visual.texture[:, texel[:, 1], texel[:, 0]].T
    centre = visual.vertices[visual.faces].mean(1)
    inner = (HALF - centre.abs()).abs().sort(dim=1).values[:, 1] > 0.3
    right = colour.argmax(1) == (HALF - centre.abs()).abs().argmin(1)
    assert float(right[inner & ~visual.invented].float().mean()) > 0.97


def test_the_texture_is_that_of_a_picture_in_more_pixels_where_there_is_one():
    view = room_views(1)[0]
    size = [2 * side for side in SIZE]
    depth = view.depth.repeat_interleave(2, 0).repeat_interleave(2, 1)
    close_up = View(torch.ones(3, *size), depth, view.camera.resized(*size), view.frame)
    textures = []
    for given in (None, close_up):
        visual = mesh_walk([view], cells=15_000, texture=128, faces=1500, close_up=given).visual
        assert visual.uv is not None
        assert visual.texture is not None
        texel = (visual.uv[visual.faces[~visual.invented]].mean(1) * visual.texture.shape[-1]).long()
        textures.append(visual.texture[:, texel[:, 1], texel[:, 0]])
    plain, finer = ((1 - texture).amax(0) for texture in textures)
    assert float((plain > 0.3).float().mean()) > 0.5
    assert float((finer < 0.1).float().mean()) > 0.9


def test_small_parts_go_and_the_largest_stays():
    mesh = extract(ball_field(0.0))
    far = Mesh(mesh.vertices[:3] + 9, torch.tensor([[0, 1, 2]]), mesh.colours[:3], torch.zeros(1, dtype=torch.bool))
    both = Mesh(
        torch.cat([mesh.vertices, far.vertices]),
        torch.cat([mesh.faces, far.faces + len(mesh.vertices)]),
        torch.cat([mesh.colours, far.colours]),
        torch.cat([mesh.invented, far.invented]),
    )
    assert len(without_small_parts(both)) == len(mesh)
    assert len(without_small_parts(far)) == 1


def test_decimation_keeps_shape_and_marks():
    mesh = extract(ball_field(0.0))
    marked = Mesh(mesh.vertices, mesh.faces, mesh.colours, mesh.vertices[mesh.faces].mean(1)[:, 0] > 0)
    few = decimated(marked, 400)
    assert len(few) <= 400
    assert float((few.vertices.norm(dim=1) - 1).abs().max()) < 0.05
    side = few.vertices[few.faces].mean(1)[:, 0]
    assert bool((few.invented == (side > 0))[side.abs() > 0.15].all())


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_flat_places_leave_the_faces_to_others_in_scenes_of_any_size(scale):
    side = 80
    x, y = (part.flatten() for part in torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij"))
    hilly = 0.05 * torch.sin(12 * x) * torch.sin(12 * y) * (x > 0)
    corner = torch.arange(side * side).view(side, side)[:-1, :-1].flatten()
    upper = torch.stack([corner, corner + side, corner + side + 1], dim=1)
    faces = torch.cat([upper, torch.stack([corner, corner + side + 1, corner + 1], dim=1)])
    flat = (x[faces] < 0).all(1)
    mesh = Mesh(scale * torch.stack([x, y, hilly], dim=1), faces, torch.zeros(len(x), 3), flat)
    few = decimated(mesh, 1000)
    assert 900 < len(few) <= 1000
    assert int(few.invented.sum()) < 150
    places = few.vertices / scale
    heights = 0.05 * torch.sin(12 * places[:, 0]) * torch.sin(12 * places[:, 1]) * (places[:, 0] > 0)
    assert float((places[:, 2] - heights).abs().max()) < 0.01


@pytest.mark.parametrize("ending", ["glb", "ply"])
def test_files_give_back_what_was_written(tmp_path, ending):
    meshes = mesh_walk(room_views(3, turn=0.3), cells=15_000, texture=128, faces=400, collision_faces=400)
    mesh = meshes.visual if ending == "glb" else meshes.collision
    file = tmp_path / f"Häuser und Gärten.{ending}"
    pose = torch.diag(torch.tensor([2.0, -2, -2, 1]))
    write_mesh(file, mesh, pose if ending == "glb" else None)
    again = read_mesh(file)
    assert torch.equal(again.faces, mesh.faces)
    assert torch.equal(again.invented, mesh.invented)
    assert torch.allclose(again.vertices, mesh.vertices, atol=1e-6)
    assert torch.allclose(again.colours, mesh.colours, atol=1 / 255)
    if ending == "glb":
        assert torch.allclose(again.uv, mesh.uv, atol=1e-6)
        assert again.texture.shape == mesh.texture.shape
        upright = trimesh.load_scene(file).bounds[:, 1]  # viewers apply the motion that the file carries
        assert upright[0] == pytest.approx(-2 * float(mesh.vertices[:, 1].max()), abs=1e-4)
        assert upright[1] == pytest.approx(-2 * float(mesh.vertices[:, 1].min()), abs=1e-4)


def test_damaged_files_are_named(tmp_path):
    for name in ("a.glb", "b.ply"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ValueError, match=name):
            read_mesh(tmp_path / name)
    with pytest.raises(ValueError, match="reconstruct"):
        read_mesh(tmp_path / "c.glb")
    with pytest.raises(ValueError, match=r"\.obj"):
        write_mesh(tmp_path / "d.obj", extract(ball_field(0.0)))


def test_bad_views():
    views = room_views(3, turn=0.3)
    with pytest.raises(ValueError, match="known depth"):
        mesh_walk([])
    sky = View(views[0].image, torch.full(SIZE, torch.inf), views[0].camera, 0)
    with pytest.raises(ValueError, match="known depth"):
        mesh_walk([sky])
    with pytest.raises(ValueError, match="positive"):
        mesh_walk(views, finest=0.0)
    depth = views[0].depth.clone()
    depth[::3], depth[1::3, ::2] = torch.nan, -1
    holed = [View(views[0].image, depth, views[0].camera, 0), *views[1:]]
    assert bool(mesh_walk(holed, cells=15_000, texture=128, faces=400).visual.vertices.isfinite().all())


def test_a_walk_of_500_metres_keeps_to_its_budget():
    views = []
    for frame in range(60):  # along a corridor; y down, floor and ceiling and two walls, open ahead
        centre = torch.tensor([0.0, 0, 8.5 * frame])
        camera = Cameras.from_fov(look_at(centre, centre + torch.tensor([0, 0.1, 1.0])).float(), 90.0, 24, 36)
        directions = camera.unproject(torch.ones(24, 36)) - centre
        half = torch.tensor([2.0, 1.5, 1e9])
        depth = ((half * directions.sign() - centre * torch.tensor([1.0, 1, 0])) / directions).amin(-1)
        views.append(View(torch.rand(3, 24, 36), torch.where(depth > 40, torch.inf, depth), camera, frame))
    field = fused(views, cells=100_000)
    mesh = extract(field)
    assert len(field.grid) < 200_000
    assert float(mesh.vertices[:, 2].max()) > 480
    assert float((mesh.vertices[:, 1].abs() - 1.5).abs().median().clamp_max(9)) < 1.6
