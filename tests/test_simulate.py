"""A robot on meshes whose floors are known: it drives on floor, stops at walls, and falls into no hole it can see."""

import numpy as np
import pytest
import torch
import trimesh

from photowalk.geometry.cameras import Cameras
from photowalk.scene.ground import Ground
from photowalk.scene.types import Mesh
from photowalk.scene.videos import read_lossless, write_lossless
from photowalk.simulate import WANTED, simulate
from photowalk.simulate.robot import drive
from photowalk.simulate.route import plan_route
from photowalk.simulate.terrain import HOLE, SIDE, STEP, Terrain, terrain_of

pytest.importorskip("mujoco")

PATH = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])


def boxes(*extents_and_centres, invented=False):
    """A mesh of boxes, z up."""
    made = trimesh.util.concatenate(
        [
            trimesh.creation.box(extents, trimesh.transformations.translation_matrix(centre))
            for extents, centre in extents_and_centres
        ]
    )
    count = len(made.faces)
    return Mesh(
        torch.from_numpy(made.vertices.copy()).float(),
        torch.from_numpy(made.faces.copy()).long(),
        torch.full((len(made.vertices), 3), 0.5),
        torch.full((count,), invented),
    )


def floor(length=14.0, width=6.0):
    return ((length, width, 0.2), (0, 0, -0.1))


def walk(scale=1.0, length=2.0, frames=3):
    """Cameras 1.5 m above the floor that go ahead, in the axes of a world: x right, y down, z ahead."""
    pose = torch.eye(4).repeat(frames, 1, 1)
    pose[:, 2, 3] = -scale * torch.linspace(0, length, frames)
    return Cameras.from_fov(pose, 60.0, 24, 32)


def in_world(mesh, scale=1.0):
    """Ahead, left, up -> x right, y down, z ahead; the camera 1.5 m above the floor."""
    x, y, z = mesh.vertices.unbind(1)
    return Mesh(scale * torch.stack([-y, 1.5 - z, x], dim=1), mesh.faces, mesh.colours, mesh.invented)


def ground(scale=1.0):
    return Ground(torch.tensor([0.0, -1, 0], dtype=torch.float64), -1.5 * scale, "made so", 1 / scale)


def run(mesh, scale=1.0, **options):
    return simulate(in_world(mesh, scale), ground(scale), walk(scale), **options)


def joined(one, other):
    return Mesh(
        torch.cat([one.vertices, other.vertices]),
        torch.cat([one.faces, other.faces + len(one.vertices)]),
        torch.cat([one.colours, other.colours]),
        torch.cat([one.invented, other.invented]),
    )


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_it_drives_five_metres_on_a_floor_of_any_unit(scale):
    report, _ = run(boxes(floor()), scale)
    assert report.passed
    assert report.stays_on_floor
    assert report.drove > WANTED - 0.3
    assert report.balls_fell_through == 0


def test_it_goes_around_what_stands_in_the_way():
    report, _ = run(boxes(floor(), ((0.4, 2.0, 1.0), (1.5, 0, 0.5))))
    assert report.passed
    assert report.route > WANTED


def test_a_small_room_ends_the_drive():
    walls = [((0.1, 3, 2), (2.5, 0, 1)), ((0.1, 3, 2), (-1, 0, 1)), ((4, 0.1, 2), (1, 1, 1)), ((4, 0.1, 2), (1, -1, 1))]
    report, _ = run(boxes(floor(), *walls))
    assert report.passed
    assert 1.5 < report.route < 3.6
    assert report.free_floor == pytest.approx(3.1 * 1.5, rel=0.15)


def test_an_invented_floor_is_told():
    report, _ = run(boxes(floor(), invented=True))
    assert report.invented_floor == 1.0
    assert report.seen_route == report.drove_seen == 0
    assert report.passed
    assert not report.passed_seen
    near, far = boxes(((3.0, 6.0, 0.2), (0, 0, -0.1))), boxes(((9.0, 6.0, 0.2), (6.0, 0, -0.1)), invented=True)
    report, _ = run(joined(near, far))
    assert 1.2 < report.seen_route < 2.2  # it begins in the middle of the floor that was seen
    assert report.drove_seen == pytest.approx(report.seen_route)
    assert report.passed_seen


def test_it_goes_on_to_floor_that_was_seen():
    near, far = boxes(((4.0, 6.0, 0.2), (0, 0, -0.1)), invented=True), boxes(((9.0, 6.0, 0.2), (6.5, 0, -0.1)))
    report, _ = run(joined(near, far))
    assert report.seen_route == pytest.approx(WANTED, abs=0.1)
    assert report.route == pytest.approx(WANTED + 2, abs=0.2)
    assert report.passed
    assert report.passed_seen
    assert report.drove_seen > WANTED - 0.3


@pytest.mark.parametrize("length", [1.0, 500.0])
def test_walks_of_a_metre_and_of_half_a_kilometre(length):
    mesh = boxes(((length + 14, 6.0, 0.2), (length / 2, 0, -0.1)), ((0.4, 2.0, 1.0), (1.5, 0, 0.5)))
    report, _ = simulate(in_world(mesh), ground(), walk(length=length, frames=41))
    assert report.passed, "the robot goes around what stands in its way, however long the walk is"
    assert report.drove > WANTED - 0.3
    assert report.balls_fell_through == 0


def test_balls_fall_through_holes():
    mesh = boxes(((14, 0.8, 0.2), (0, 0, -0.1)))  # a narrow bridge; half of the balls fall beside it
    report, _ = run(mesh)
    assert report.stays_on_floor
    terrain = terrain_of(mesh, PATH)
    assert float(terrain.height.min()) == -HOLE
    assert not terrain.floor[tuple(terrain.place(np.array([[0.0, 2.0]]))[0])]


def test_no_floor_is_a_clear_message():
    with pytest.raises(ValueError, match="free floor"):
        run(boxes(((1, 1, 0.2), (30, 30, 5))))
    nothing = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, 3), torch.zeros(0) > 0)
    with pytest.raises(ValueError, match="no faces"):
        simulate(nothing, ground(), walk())
    with pytest.raises(ValueError, match="positive"):
        run(boxes(floor()), seconds=0)


def test_terrain_knows_floor_and_obstacles():
    mesh = boxes(floor(), ((0.5, 0.5, 0.3), (1, 1, 0.15)), ((1, 1, 0.1), (-2, 0, 1.5)))
    terrain = terrain_of(mesh, PATH)
    at = terrain.place(np.array([[1.0, 1.0], [0.0, 0.0], [-2.0, 0.0]]))
    assert terrain.height[tuple(at[0])] == pytest.approx(0.3, abs=0.02)
    assert terrain.height[tuple(at[1])] == pytest.approx(0, abs=0.01)
    assert terrain.floor[tuple(at.T)].tolist() == [False, True, True], "what hangs above the robot is not in its way"
    assert np.allclose(terrain.point(terrain.place(PATH)), PATH, atol=terrain.side)


def test_faces_without_area_or_place_spoil_nothing():
    good = boxes(floor(), ((0.5, 0.5, 0.3), (1, 1, 0.15)))
    corners = torch.tensor([[0.0, 0, 0], [0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [torch.nan, 0, 0]])
    bad = Mesh(corners, torch.tensor([[0, 0, 1], [0, 1, 2], [0, 1, 3]]), corners, torch.zeros(3, dtype=torch.bool))
    terrain, plain = terrain_of(joined(good, bad), PATH), terrain_of(good, PATH)
    here = terrain.place(np.array([[0.5, -0.5], [1.0, 1.0]]))
    assert np.array_equal(terrain.height[tuple(here.T)], plain.height[tuple(here.T)])
    assert np.isfinite(terrain.height).all()


def test_routes_keep_their_distance():
    terrain = terrain_of(boxes(floor(), ((0.4, 2.0, 1.0), (1.5, 0, 0.5))), PATH)
    route = plan_route(terrain, PATH, 0.2, 5.0)
    off = np.abs(route.points - [1.5, 0]) - [0.2, 1.0]
    assert np.linalg.norm(np.maximum(off, 0), axis=1).min() > 0.15
    steps = np.linalg.norm(np.diff(route.points, axis=0), axis=1)
    assert steps.max() < 2 * terrain.side
    assert steps.sum() >= 5.0


@pytest.mark.parametrize("slant", [0.0, 0.7])
def test_wheels_climb_the_largest_step_that_counts_as_floor(slant):
    x, y = np.meshgrid((np.arange(80) + 0.5) * SIDE, (np.arange(50) - 24.5) * SIDE, indexing="ij")
    height = np.where(x + slant * y > 1.2, STEP, -STEP)  # around the step the floor is at 0
    terrain = Terrain(np.array([0, -25 * SIDE]), SIDE, height, np.ones_like(height) > 0, np.zeros_like(height) > 0)
    route = np.stack([np.linspace(0.4, 2.6, 56), np.zeros(56)], axis=1)
    moments = list(drive(terrain, route, np.zeros((0, 2)), seconds=20, fps=16))
    assert moments[-1].to_go < 0.15
    assert moments[-1].robot[2, 3] > STEP
    assert min(moment.robot[2, 2] for moment in moments) > 0.5, "it stays upright"
    there, back = moments[-1].wheels[:2, :3, 3]
    assert np.linalg.norm(there - back) == pytest.approx(0.19, abs=0.02)


def test_the_film_shows_the_robot(tmp_path):
    _, frames = run(boxes(floor()), seconds=0.5)
    write_lossless(tmp_path / "film.mkv", ((frame * 255).byte() for frame in frames))
    film = read_lossless(tmp_path / "film.mkv").float() / 255
    assert len(film) == 8
    orange = (film[:, 0] > 0.4) & (film[:, 2] < 0.2)
    assert int(orange.flatten(1).sum(1).min()) > 50
