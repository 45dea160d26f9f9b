"""Splats and meshes of a world are made in two threads at once; nothing of the result shows it."""

import time

import pytest
import torch
from worlds import HEIGHT, WIDTH, make_world

from photowalk import World
from photowalk.export.ply import read_splats, write_ply
from photowalk.reconstruct import closed_from_nearer, fit_colours, looked_at, reconstruct
from photowalk.reconstruct.ahead import ahead
from photowalk.reconstruct.fuse import views_with_depth
from photowalk.reconstruct.meshing import mesh_walk
from photowalk.scene.close_up import CloseUp
from photowalk.scene.mesh_files import read_mesh, write_mesh
from photowalk.world.progress import Cancelled


def test_splats_and_meshes_are_those_that_are_made_one_after_the_other(tmp_path):
    store = make_world(tmp_path / "world", chunks=1)
    stages = []
    world = World.open(tmp_path / "world").reconstruct(
        pixel_aligned=True, on_step=lambda step: stages.append(step.stage)
    )
    photo = store.chunk(0)
    clips, close_up = [photo.clip], CloseUp(photo.clip.view(0), photo.close_up).twice()
    meshes = mesh_walk(views_with_depth(clips), close_up=close_up)
    write_mesh(tmp_path / "collision.ply", meshes.collision)
    texture = read_mesh(world.folder / "scene" / "mesh.glb").texture
    torch.testing.assert_close(texture, meshes.visual.texture, atol=1 / 255, rtol=0)
    scene = fit_colours(closed_from_nearer(reconstruct(clips, close_up=close_up)), clips, frames=len(clips[0]))
    write_ply(tmp_path / "splats.ply", scene.everything)
    for name in ("collision.ply", "splats.ply"):
        assert (world.folder / "scene" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert list(dict.fromkeys(stages)) == ["splats", "colours", "preview", "mesh"]


def test_splats_of_the_frames_that_are_read_are_those_of_the_whole_walk(tmp_path):
    store = make_world(tmp_path / "world", chunks=4)
    clips, frames = list(store.clips()), store.manifest.frames
    chosen = looked_at(frames)
    assert 8 <= len(chosen) < frames
    world = World.open(tmp_path / "world").reconstruct(pixel_aligned=True, mesh=False, splats=1000)
    scene = fit_colours(closed_from_nearer(reconstruct(clips, budget=1000)), clips, frames=frames)
    write_ply(tmp_path / "splats.ply", scene.everything)
    assert (world.folder / "scene" / "splats.ply").read_bytes() == (tmp_path / "splats.ply").read_bytes()


@pytest.mark.parametrize("wish", [{"splats": 4 * HEIGHT * WIDTH - 1}, {"down_ratio": 2}])
def test_no_splats_are_made_of_a_close_up_where_fewer_are_asked_for(tmp_path, wish):
    make_world(tmp_path / "world", chunks=1)
    counts = {}
    for name, options in (("all", {"splats": None}), ("fewer", wish)):
        World.open(tmp_path / "world").reconstruct(pixel_aligned=True, mesh=False, **options)
        counts[name] = len(read_splats(tmp_path / "world" / "scene" / "splats.ply"))
    assert counts["fewer"] < 0.3 * counts["all"]


def test_a_cancelled_reconstruction_leaves_nothing(tmp_path):
    make_world(tmp_path / "world", chunks=1)

    def cancel(step):
        raise Cancelled

    with pytest.raises(Cancelled):
        World.open(tmp_path / "world").reconstruct(on_step=cancel)
    assert not (tmp_path / "world" / "scene").exists()


def test_what_is_made_ahead_comes_whole_and_in_order_with_its_error():
    assert list(ahead(iter(range(5)))) == list(range(5))
    assert list(ahead([])) == []
    assert list(ahead([[], None, 0])) == [[], None, 0]
    made = []

    def items():
        for number in range(4):
            made.append(number)
            yield number
        raise OSError("the disk is gone")

    taken = ahead(items())
    assert next(taken) == 0
    deadline = time.monotonic() + 5
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1]  # one ahead, and no more
    with pytest.raises(OSError, match="the disk is gone"):
        list(taken)
