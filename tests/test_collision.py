"""Paths before walls of known depth."""

import time

import pytest
import torch

from photowalk.geometry import motions, paths
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.path_language import plan
from photowalk.scene.collision import blocked, known_surfaces, shorten
from photowalk.scene.types import View

HEIGHT, WIDTH = 128, 224


def camera(pose=None):
    return Cameras.from_fov(torch.eye(4) if pose is None else pose, 60.0, HEIGHT, WIDTH)


def view(depth, pose=None, frame=0):
    depth = torch.full((HEIGHT, WIDTH), depth) if isinstance(depth, float) else depth
    return View(torch.zeros(3, HEIGHT, WIDTH), depth, camera(pose), frame)


def walk(text, start=None):
    start = camera() if start is None else start
    return plan(text, start, start_of_walk=camera(), reference_depth=3.0).cameras


@pytest.mark.parametrize("text", ["forward 2", "back 5", "left 90deg, forward 9", "walk", "look around", "right 9"])
def test_free_paths_are_left_alone(text):
    path = walk(text)
    shortened, note = shorten(path, [view(3.0)])
    assert shortened is path
    assert note is None


def test_a_path_into_a_wall_stops_before_it():
    path = walk("forward 5")
    shortened, note = shorten(path, [view(3.0)], clearance=0.25)
    assert len(shortened) == len(path)
    assert float(shortened.centres[:, 2].max()) == pytest.approx(2.75, abs=0.02)
    assert torch.equal(shortened.camera_from_world[0], path.camera_from_world[0])
    assert note == "the path was shortened to 55 % because it would have run into something 3.0 m ahead"


def test_rotations_go_on():
    path = walk("forward 5, left 60deg")
    shortened, _ = shorten(path, [view(3.0)])
    turned = motions.geodesic_angle(path.camera_from_world, shortened.camera_from_world)
    assert float(turned.max()) < 1e-3


@pytest.mark.parametrize(
    "text", ["forward 5, back to start", "forward 4, right 1, forward 2, left 80deg, back to start"]
)
def test_a_path_that_returns_still_returns_exactly(text):
    path = walk(text)
    shortened, note = shorten(path, [view(3.0)])
    assert torch.equal(shortened.camera_from_world[-1], path.camera_from_world[0])
    assert float(shortened.centres[:, 2].max()) < 2.8
    assert "shortened" in note


def test_the_way_home_from_elsewhere_is_kept():
    away = walk("right 1, forward 1")[-1]
    path = walk("forward 4, back to start", start=away)
    shortened, _ = shorten(path, [view(3.0)])
    assert torch.equal(shortened.camera_from_world[0], away.camera_from_world)
    assert torch.equal(shortened.camera_from_world[-1], camera().camera_from_world)
    assert float(shortened.centres[:, 2].max()) < 2.8


def test_unknown_depth_and_sky_are_free():
    path = walk("forward 5")
    for depth in (0.0, float("inf")):
        assert shorten(path, [view(depth)]) == (path, None)
    assert shorten(path, []) == (path, None)


def test_stray_near_pixels_are_noise_but_a_pole_is_a_thing():
    generator = torch.Generator().manual_seed(0)
    noisy = torch.full((HEIGHT, WIDTH), 9.0)
    noisy[torch.rand(HEIGHT, WIDTH, generator=generator) < 0.08] = 1.5
    path = walk("forward 5")
    assert shorten(path, [view(noisy)], clearance=0.3)[1] is None
    pole = torch.full((HEIGHT, WIDTH), 9.0)
    pole[:, WIDTH // 2 - 3 : WIDTH // 2 + 3] = 1.5
    assert "1.5 m ahead" in shorten(path, [view(pole)], clearance=0.3)[1]


def test_what_lies_behind_a_thing_is_free_to_reach_around_it():
    pole = torch.full((HEIGHT, WIDTH), 9.0)
    pole[:, WIDTH // 2 - 6 : WIDTH // 2 + 6] = 1.5
    around = walk("right 1, forward 3, left 1")
    assert shorten(around, [view(pole)], clearance=0.3) == (around, None)


def test_views_vote():
    """One wrong depth map among several does not close a way that the others see through."""
    behind = torch.eye(4)
    behind[2, 3] = 0.5
    path = walk("forward 4")
    assert shorten(path, [view(3.0), view(9.0, behind), view(9.5)])[1] is None
    assert shorten(path, [view(3.0), view(3.5, behind), view(9.0)])[1] is not None


def test_a_walk_that_starts_close_to_something_may_leave():
    for text in ("back 2", "left 30deg", "right 0.4"):
        path = walk(text)
        assert shorten(path, [view(0.2), view(0.2, frame=1)], clearance=0.5)[1] is None
    forward, note = shorten(walk("forward 1"), [view(0.2)], clearance=0.5)
    assert note is not None
    assert float(forward.centres[:, 2].max()) < 0.2


def test_it_moves_with_the_world():
    generator = torch.Generator().manual_seed(2)
    rotation = motions.rotation_from_vector(torch.randn(3, generator=generator))
    world = motions.motion(rotation, torch.randn(3, generator=generator))
    start = camera(world)
    path = paths.forward(start, 81, distance=5)
    shortened, note = shorten(path, [view(3.0, world)], clearance=0.25)
    expected, same_note = shorten(paths.forward(camera(), 81, distance=5), [view(3.0)], clearance=0.25)
    assert note == same_note
    assert torch.allclose(shortened.relative_to(start).centres, expected.centres, atol=1e-4)


def test_a_long_memory_is_quick():
    views = [view(3.0, frame=frame) for frame in range(100)]
    path = walk("forward 5, left 60deg, forward 3, right 90deg, back to start")
    begin = time.process_time()  # of this process alone, whatever else the machine does
    assert shorten(path, views)[1] is not None
    assert time.process_time() - begin < 6


@pytest.mark.parametrize("clearance", [0.0, -1.0, float("nan")])
def test_clearance_must_be_positive(clearance):
    with pytest.raises(ValueError, match="clearance must be a positive distance"):
        shorten(walk("forward 5"), [view(3.0)], clearance=clearance)


def test_blocked_cameras_are_those_that_shorten_keeps_clear_of():
    surfaces = known_surfaces([view(3.0)])
    path = walk("forward 3")
    hits = blocked(path, surfaces)
    assert not bool(hits[0])
    assert bool(hits.any())
    kept, note = shorten(path, surfaces)
    assert note is not None
    assert not bool(blocked(kept, surfaces).any())
    assert not bool(blocked(path, known_surfaces([])).any())
