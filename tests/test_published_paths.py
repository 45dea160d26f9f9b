"""Published camera presets as they are asked for; their numbers are compared in test_parity.py."""

from __future__ import annotations

import math

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import PathError
from photowalk.geometry.published_paths import (
    DIRECTIONS,
    PUBLISHED_PATHS,
    plan_published,
    published_path,
    published_zoom,
    reading_note,
)

START = Cameras.from_fov(torch.eye(4), 60.0, 64, 96)
MORE_FRAMES = {"back": 33, "back_simple": 33}


@pytest.mark.parametrize("name", PUBLISHED_PATHS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_preset_gives_cameras(name, direction):
    path = published_path(name, START, 17, centre_depth=2.0, direction=direction)
    assert len(path) == MORE_FRAMES.get(name, 17)
    path.check(name)


@pytest.mark.parametrize(
    ("words", "frames"),
    [("zoom_in", 81), ("zoom-out", 241), ("horizontal", 161), ("horizontal right 0.5 100", 161), ("spiral 17", 81)],
)
def test_plans_are_whole_chunks(words, frames):
    assert len(plan_published(words, START, centre_depth=2.0, chunk=80)) == frames


def test_words_may_come_in_any_order():
    one = plan_published("horizontal right 0.5 81", START, centre_depth=2.0, chunk=80)
    other = plan_published("horizontal 81 0.5 right", START, centre_depth=2.0, chunk=80)
    assert torch.equal(one.camera_from_world, other.camera_from_world)
    assert one.centres[-1, 0] == pytest.approx(0.5 * 2.0 * 80 / 81)  # the end is never reached


@pytest.mark.parametrize("words", ["walk", "horizontal sideways", "zoom_in 3", "horizontal -1"])
def test_what_is_not_understood_is_named(words):
    with pytest.raises(PathError, match=words.split()[-1] if " " in words and "zoom" not in words else "zoom|walk"):
        plan_published(words, START, centre_depth=2.0, chunk=80)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_path_is_told_what_is_known(empty):
    with pytest.raises(PathError, match=r"the path is empty; give zoom_in, .*rotate_spot"):
        plan_published(empty, START, centre_depth=2.0, chunk=80)


def test_how_numbers_are_read_is_noted():
    """A whole number counts frames even where degrees are meant."""
    assert reading_note("rotate_spot right 30", 80) == (
        "'rotate_spot right 30' is read as direction right, strength 0.2, 81 frames"
    )
    assert "strength 30, 161 frames" in reading_note("rotate_spot right 30.0", 80)
    assert reading_note("rotate_spot right", 80) is None
    turned = plan_published("rotate_spot right 30.0", START, centre_depth=2.0, chunk=80).camera_from_world
    assert float(turned[-1, 0, 0]) == pytest.approx(math.cos(math.radians(30)), abs=1e-6)


def test_zooming_out_rises_and_zooming_in_does_not():
    out, into = (published_zoom(START, way, centre_depth=2.0) for way in ("out", "in"))
    assert out.centres[-1, 1] < -0.2  # y points down
    assert out.centres[-1, 2] < -2.5
    assert into.centres[-1].tolist() == pytest.approx([0, 0, 0.5 * 2.0 * 80 / 81])


def test_a_path_along_the_ground_keeps_the_length_of_its_steps():
    normal = torch.nn.functional.normalize(torch.tensor([0.1, -0.9, 0.3]), dim=0)
    flat = published_zoom(START, "in", centre_depth=2.0, ground_normal=normal)
    free = published_zoom(START, "in", centre_depth=2.0)
    lengths = [path.camera_from_world[:, :3, 3].norm(dim=-1) for path in (flat, free)]
    torch.testing.assert_close(lengths[0], lengths[1])
    assert float((flat.camera_from_world[:, :3, 3] @ normal).abs().max()) < 1e-6


def test_a_zoom_along_the_ground_wants_a_ground():
    normal = torch.nn.functional.normalize(torch.tensor([0.0, -0.9, 0.3]), dim=0)
    flat = plan_published("zoom_out ground", START, centre_depth=2.0, chunk=80, ground_normal=normal)
    wanted = published_zoom(START, "out", centre_depth=2.0, ground_normal=normal)
    torch.testing.assert_close(flat.camera_from_world, wanted.camera_from_world)
    free = plan_published("zoom_out", START, centre_depth=2.0, chunk=80, ground_normal=normal)
    assert not torch.allclose(free.camera_from_world, flat.camera_from_world)
    with pytest.raises(PathError, match="shows none"):
        plan_published("zoom_in ground", START, centre_depth=2.0, chunk=80)
