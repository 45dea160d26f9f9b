"""The examples run, one after the other on one small world."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

from photowalk import World

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = (64, 128)


def run(name, *arguments, **options):
    runpy.run_path(str(EXAMPLES / name))["main"](*map(str, arguments), **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of a world that the first example made."""
    folder = tmp_path_factory.mktemp("examples") / "world"
    run("01_walk_into_a_photo.py", EXAMPLES / "photo" / "hall.jpg", folder, size=SMALL)
    return folder


def test_a_photo_becomes_a_walk(world):
    assert (world / "walk.mp4").stat().st_size > 0
    assert World.open(world).manifest.frames > 1


def test_a_walk_is_continued_undone_and_branched(world, capsys):
    run("02_continue_undo_branch.py", world, world.parent / "other")
    assert World.open(world.parent / "other").manifest.frames > World.open(world).manifest.frames
    assert "undone" in capsys.readouterr().out


def test_memory_recalls_the_first_frame_from_where_it_was_taken(world, capsys):
    run("03_what_memory_recalls.py", world)
    assert "step 0: frames" in capsys.readouterr().out


def test_splats_are_drawn_from_a_new_camera(world, tmp_path):
    run("04_splats_from_a_new_camera.py", world, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == SMALL[::-1]
