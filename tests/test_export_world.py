"""The command `photowalk export`, on a world of two chunks."""

import shutil

import numpy as np
import pytest
import torch
import trimesh
from worlds import make_world

from photowalk import World
from photowalk.cli import main
from photowalk.export.contents import sound
from photowalk.export.formats import FORMATS
from photowalk.export.ply import read_splats
from photowalk.scene.ground import read_ground
from photowalk.scene.mesh_files import read_mesh
from photowalk.world.disk import WorldError
from photowalk.world.store import WorldStore


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds") / "Haus am Fluß"
    make_world(folder, chunks=2)
    return World.open(folder).reconstruct()


def test_every_format_by_the_command(world, tmp_path, capsys):
    files = [tmp_path / f"Küche & Bad{known.ending}" for known in FORMATS] + [tmp_path / "walk.mp4"]
    assert main(["export", str(world.folder), *map(str, files)]) == 0
    assert capsys.readouterr().out.strip() == ", ".join(map(str, files))
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size > 100 for file in files)
    assert main(["export", str(world.folder), *map(str, files)]) == 0  # and again, over what is there


def test_a_ply_is_the_reconstruction(world, tmp_path):
    world.export([tmp_path / "a.ply"])
    exported, kept = read_splats(tmp_path / "a.ply"), read_splats(world.folder / "scene" / "splats.ply")
    assert len(exported) == len(kept) > 0
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(vars(exported).values(), vars(kept).values()))


@pytest.mark.parametrize("name", ["world.json", "photo.png.ply", "scene/splats.ply", "chunks/0001/a.ply", "walk.mp4"])
def test_no_part_of_the_world_is_overwritten(world, name, capsys):
    before = {file: file.read_bytes() for file in world.folder.rglob("*") if file.is_file()}
    code = main(["export", str(world.folder), str(world.folder / name)])
    if name == "photo.png.ply":  # which is nobody's
        assert code == 0
        (world.folder / name).unlink()
    else:
        assert code == 2
        assert "is a part of the world" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in world.folder.rglob("*") if file.is_file()} == before


def test_a_format_that_is_unknown_stops_before_anything_is_written(world, tmp_path, capsys):
    assert main(["export", str(world.folder), str(tmp_path / "a.ply"), str(tmp_path / "a.obj")]) == 2
    assert "'.obj' is no known format; known endings: .ply (splats)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_cameras_need_no_reconstruction(tmp_path, capsys):
    make_world(tmp_path / "world", chunks=2)
    assert main(["export", str(tmp_path / "world"), str(tmp_path / "a.colmap"), str(tmp_path / "a.mp4")]) == 0
    assert main(["export", str(tmp_path / "world"), str(tmp_path / "a.html")]) == 2
    assert "make them with: photowalk reconstruct" in capsys.readouterr().err


def test_a_scene_that_is_out_of_date_is_told(world, tmp_path, capsys):
    shutil.copytree(world.folder, tmp_path / "world")
    World.open(tmp_path / "world").undo()
    for name, told in (("a.ply", True), ("a.json", False), ("a.mp4", False)):
        assert main(["export", str(tmp_path / "world"), str(tmp_path / name)]) == 0
        assert ("the scene is of" in capsys.readouterr().err) == told


def test_what_a_person_corrects_turns_and_scales_what_is_made_from_then_on(world, tmp_path):
    world.correct(metres_per_unit=2.0, up=(0.0, -2.0, -0.2))
    world.export([tmp_path / "after.stl"])
    up = torch.tensor(world.manifest.up)
    assert up.tolist() == pytest.approx((0.0, -0.995, -0.0995), abs=1e-3)
    mesh = sound(read_mesh(world.folder / "scene" / "collision.ply"), "here")
    here = mesh.vertices[mesh.faces].reshape(-1, 3)
    there = torch.from_numpy(np.array(trimesh.load(tmp_path / "after.stl", process=False).vertices)).float()
    torch.testing.assert_close(there[:, 2].diff(), 2 * (here @ up).diff(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(there.diff(dim=0).norm(dim=1), 2 * here.diff(dim=0).norm(dim=1), atol=1e-3, rtol=1e-3)
    assert World.open(world.folder).info()["scale"]["from"] == "metres as they were corrected by hand"
    stale = read_ground(world.folder / "scene" / "scene.json")
    first = WorldStore(world.folder).cameras()[0]
    ground = stale.corrected(first, up.double(), 2.0)
    assert (ground.metres_per_unit, ground.up.tolist()) == (2.0, pytest.approx(up.tolist()))
    assert float(ground.height(first.centres.double())) == pytest.approx(float(stale.height(first.centres.double())))
    world.reconstruct()
    ground = read_ground(world.folder / "scene" / "scene.json")
    assert ground.metres_per_unit == 2.0
    assert ground.up.tolist() == pytest.approx(world.manifest.up)
    with pytest.raises(WorldError, match="positive"):
        world.correct(metres_per_unit=-1.0)
    with pytest.raises(WorldError, match="not all 0"):
        world.correct(up=(0.0, 0.0, 0.0))
