"""Up, floor and scale from what a walk saw."""

import math

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import motion, rotation_from_euler
from photowalk.perception.gravity import EYE_HEIGHT, find_ceiling, find_ground, photo_up
from photowalk.reconstruct.scale import scale_to
from photowalk.scene.ground import Ground, read_ground, write_ground
from photowalk.scene.types import View

SIZE = (48, 72)


def view_of_floor(pitch=0.0, roll=0.0, height=1.5, table=False, floor=True):
    """A camera pitched down and rolled, over a floor (and under a ceiling); its own axes are the world's."""
    pitch, roll = torch.tensor(math.radians(pitch)), torch.tensor(math.radians(roll))
    level_from_camera = rotation_from_euler(torch.zeros_like(pitch), -pitch, roll).float()
    camera = Cameras.from_fov(torch.eye(4), 80.0, *SIZE)
    down = camera.unproject(torch.ones(SIZE)) @ level_from_camera[1]
    depth = torch.where(down > 0.02, height / down.clamp_min(0.02), torch.inf)
    if table:  # a wide top halfway up in the left half
        depth[:, : SIZE[1] // 2] = torch.where(down > 0.02, 0.5 * height / down.clamp_min(0.02), torch.inf)[
            :, : SIZE[1] // 2
        ]
    if not floor:
        depth = torch.full(SIZE, 3.0)  # a wall
    depth = torch.where(depth > 30, torch.inf, depth)
    return View(torch.rand(3, *SIZE), depth, camera, 0), -level_from_camera[1].double()


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 0), (12, 8), (-8, -5)])
def test_the_floor_tells_up_however_the_camera_was_held(pitch, roll):
    view, up = view_of_floor(pitch, roll)
    ground = find_ground([view])
    assert math.degrees(math.acos(min(1.0, float(ground.up @ up)))) < 0.5
    assert float(ground.height(torch.zeros(3, dtype=torch.float64))) == pytest.approx(1.5, rel=0.01)
    assert "seen" in ground.up_from


def test_the_lowest_plane_is_the_floor_not_the_table():
    view, _ = view_of_floor(pitch=15, table=True)
    assert float(find_ground([view]).height(torch.zeros(3, dtype=torch.float64))) == pytest.approx(1.5, rel=0.02)


def test_a_slope_that_a_level_photo_does_not_want_is_no_floor():
    """A sofa fills most of the picture below; its seat leans to the side, and goes down to below the floor."""
    view, up = view_of_floor()
    lean = math.radians(18)
    rays = view.camera.unproject(torch.ones(SIZE))
    towards = rays @ torch.tensor([-math.sin(lean), math.cos(lean), 0.0])  # the slope's normal, downwards
    slope = torch.where(towards > 0.02, 1.0 / towards.clamp_min(0.02), torch.inf)
    columns = torch.arange(SIZE[1]) < 0.6 * SIZE[1]
    depth = torch.where(columns & (slope < 30), slope, view.depth)
    ground = find_ground([View(view.image, depth, view.camera, 0)])
    assert math.degrees(math.acos(min(1.0, float(ground.up @ up)))) < 1
    assert float(ground.height(torch.zeros(3, dtype=torch.float64))) == pytest.approx(1.5, rel=0.03)


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 0), (-5, 0), (15, 2)])
def test_a_photo_counts_as_tilted_as_its_floor_says_but_never_as_rolled(pitch, roll):
    view, up = view_of_floor(pitch, roll)
    told = photo_up(view)
    assert told is not None
    assert float(told.norm()) == pytest.approx(1)
    assert float(told[0]) == pytest.approx(0, abs=1e-6)
    assert math.degrees(math.acos(min(1.0, float(told @ up)))) < roll + 0.5


def test_a_photo_of_no_floor_or_one_that_is_rolled_does_not_tell_up():
    assert photo_up(view_of_floor(floor=False)[0]) is None
    assert photo_up(view_of_floor(15, 9)[0]) is None
    view, _ = view_of_floor()
    assert photo_up(View(view.image, torch.full(SIZE, torch.inf), view.camera, 0)) is None


def test_without_a_floor_the_cameras_say_where_up_is():
    view, _ = view_of_floor(floor=False)
    ground = find_ground([view])
    assert torch.allclose(ground.up, torch.tensor([0.0, -1, 0], dtype=torch.float64))
    assert float(ground.height(torch.zeros(3, dtype=torch.float64))) == pytest.approx(EYE_HEIGHT)
    assert "no floor was seen" in ground.up_from
    with pytest.raises(ValueError, match="no floor was seen"):
        scale_to("camera height 1.6m", ground, [view])
    with pytest.raises(ValueError, match="depth"):
        find_ground([])


def test_a_moved_world_has_its_floor_moved():
    view, up = view_of_floor(pitch=10)
    turn = rotation_from_euler(torch.tensor(0.4), torch.tensor(0.0), torch.tensor(0.1)).float()
    pose = motion(turn, torch.tensor([1.0, 2, 3]))
    moved = View(view.image, view.depth, Cameras(pose, view.camera.intrinsics, *SIZE), 0)
    ground, before = find_ground([moved]), find_ground([view])
    assert float(ground.up @ (turn.double().T @ up)) > 0.9999
    assert float(ground.height(moved.camera.centres.double())) == pytest.approx(
        float(before.height(view.camera.centres.double())), rel=1e-3
    )


def test_scale_is_corrected_by_what_a_person_knows():
    view, _ = view_of_floor(pitch=10)
    ground = find_ground([view])
    known = scale_to("camera height 1.8m", ground, [view])
    assert known.metres_per_unit == pytest.approx(1.2, rel=0.01)
    assert "camera height" in known.scale_from
    points = view.camera.unproject(view.depth)
    apart = float((points[40, 20] - points[44, 50]).norm())
    for text in ("door height 200cm from 20,40 to 50,44", "2m from 20,40 to 50,44"):
        told = scale_to(text, ground, [view])
        assert told.metres_per_unit == pytest.approx(2.0 / apart, rel=1e-4)
    for text, message in [
        ("door height 2.0m", "write 'door height 2.0m from X,Y to X,Y'"),
        ("floor to ceiling 2.5m", "no level ceiling was seen"),
        ("tall", "camera height 1.6m"),
        ("door 2m from 20,40 to 500,44", "outside"),
        ("door 2m from 20,1 to 50,44", "not known"),
        ("camera height 0m", "corrects nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            scale_to(text, ground, [view])


def test_a_room_is_as_high_as_its_floor_is_below_its_ceiling():
    height, width = SIZE
    camera = Cameras.from_fov(torch.eye(4), 100.0, height, width)
    down = camera.unproject(torch.ones(SIZE))[..., 1]
    depth = torch.where(down > 0, 1.5 / down.clamp_min(0.02), 1.1 / (-down).clamp_min(0.02)).clamp_max(9.0)
    view = View(torch.rand(3, *SIZE), depth, camera, 0)
    ground = find_ground([view])
    assert find_ceiling([view], ground) == pytest.approx(2.6, rel=0.02)
    assert scale_to("floor to ceiling 2.4m", ground, [view]).metres_per_unit == pytest.approx(2.4 / 2.6, rel=0.02)
    assert find_ceiling([view_of_floor(pitch=10)[0]], ground) is None


def test_a_person_knows_better_where_up_is():
    view, up = view_of_floor(pitch=0)
    tilted = up + torch.tensor([0.03, 0.0, 0.02]).double()
    ground = find_ground([view], up=tilted)
    assert torch.allclose(ground.up, tilted / tilted.norm())
    assert float(ground.height(torch.zeros(3, dtype=torch.float64))) == pytest.approx(1.5, rel=0.1)
    assert "by hand" in ground.up_from
    blind, _ = view_of_floor(floor=False)
    assert "by hand" in find_ground([blind], up=tilted).up_from


def test_the_ground_is_kept_in_a_file(tmp_path):
    ground = Ground(torch.tensor([0.0, -0.6, 0.8], dtype=torch.float64), -1.25, "the floor", 1.1, "a door")
    write_ground(tmp_path / "scene.json", ground, {"spawn": [0, 1, 2]})
    again = read_ground(tmp_path / "scene.json")
    assert torch.equal(again.up, ground.up)
    assert (again.floor, again.up_from, again.metres_per_unit, again.scale_from) == (-1.25, "the floor", 1.1, "a door")
    for damage in ("{", "{}", '{"ground": {"up": [1, 2, 3], "floor": 0, "up_from": ""}}'):
        (tmp_path / "scene.json").write_text(damage)
        with pytest.raises(ValueError, match="damaged"):
            read_ground(tmp_path / "scene.json")
    with pytest.raises(ValueError, match="there is no"):
        read_ground(tmp_path / "other.json")
