"""Splats of a world from a reconstruction network of the store, by command, with a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_files import DEPTH_ALONE, RECONSTRUCTION
from safetensors.torch import save_file
from worlds import make_world

from photowalk import World
from photowalk.checkpoints.load import stored_shapes
from photowalk.cli import main
from photowalk.export.ply import read_splats
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.presets import depth_anything
from photowalk.reconstruct import published
from photowalk.world.disk import WorldError


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It holds a network that sees one depth everywhere, no sky, and small, opaque splats."""
    configs = {"lyra2-reconstruction": lambda: RECONSTRUCTION, "da3-base": lambda: DEPTH_ALONE}
    monkeypatch.setattr(depth_anything, "DEPTH_ANYTHING", configs)
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path / "weights"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DepthAnything3(RECONSTRUCTION)
    splat = torch.zeros(38)
    splat[2:5], splat[5], splat[37] = -3, 1, 3
    metric = network.da3_metric.head.scratch
    for last, bias in (
        (network.da3.head.scratch.output_conv2[-1], torch.zeros(2)),
        (network.da3.gs_head.scratch.output_conv2[-1], splat),
        (metric.sky_output_conv2[-1], torch.full((1,), -1.0)),
    ):
        torch.nn.init.zeros_(last.weight)
        last.bias.data = bias
    folder = tmp_path / "weights" / "lyra2-reconstruction"
    folder.mkdir(parents=True)
    kept = network.state_dict()
    save_file({name: kept[name].clone() for name in stored_shapes(network)}, folder / "weights-00001.safetensors")
    (folder / "manifest.json").write_text(json.dumps({"name": "lyra2-reconstruction"}))
    return folder.parent


def test_splats_from_the_network_are_merged_and_kept(store: Path, tmp_path: Path):
    make_world(tmp_path / "world", chunks=3)
    assert main(["reconstruct", str(tmp_path / "world"), "--network", "--no-mesh", "--splats", "60"]) == 0
    splats = read_splats(tmp_path / "world" / "scene" / "splats.ply")
    assert len(splats) > 0
    assert (tmp_path / "world" / "preview.png").is_file()
    with_network = splats.means
    assert main(["reconstruct", str(tmp_path / "world"), "--no-mesh", "--splats", "60"]) == 0
    without = read_splats(tmp_path / "world" / "scene" / "splats.ply").means
    assert with_network.shape != without.shape or not torch.allclose(with_network, without)


def test_a_world_of_the_networks_depth_gets_its_splats_too(store: Path, tmp_path: Path, monkeypatch):
    world = make_world(tmp_path / "world", chunks=2)
    with world.locked():
        world._replace_manifest(depth_network="lyra2-reconstruction")
    asked = []
    given = depth_anything.depth_anything_network

    def noting(name, *rest):
        asked.append(name)
        return given(name, *rest)

    monkeypatch.setattr(depth_anything, "depth_anything_network", noting)
    World.open(tmp_path / "world").reconstruct(mesh=False)
    assert asked == ["lyra2-reconstruction"]
    World.open(tmp_path / "world").reconstruct(mesh=False, pixel_aligned=True)
    assert len(asked) == 1


def test_as_the_published_programs_do(store: Path, tmp_path: Path):
    make_world(tmp_path / "world", chunks=3)
    World.open(tmp_path / "world").reconstruct(mesh=False, network="da3", legacy=True, down_ratio=1)
    splats = read_splats(tmp_path / "world" / "scene" / "splats.ply")
    assert len(splats) == 17 * 14 * 28  # every pixel of every frame, nothing merged
    with pytest.raises(WorldError, match="with a network"):
        World.open(tmp_path / "world").reconstruct(mesh=False, legacy=True)


def test_long_walks_as_the_published_programs_do(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_world(tmp_path / "world", chunks=3)
    for name, number in (("LONG", 16), ("WINDOWS", 2), ("FRAMES_AT_ONCE", 7), ("OVERLAP", 3)):
        monkeypatch.setattr(published, name, number)
    World.open(tmp_path / "world").reconstruct(mesh=False, network="da3", legacy=True, down_ratio=1)
    splats = read_splats(tmp_path / "world" / "scene" / "splats.ply")
    assert 0 < len(splats) <= 11 * 14 * 28  # each frame's once
    monkeypatch.setattr(published, "WINDOWS", 9)
    with pytest.raises(ValueError, match="the video has 17"):
        World.open(tmp_path / "world").reconstruct(mesh=False, network="da3", legacy=True)


def test_wrong_choices_are_said(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_world(tmp_path / "world", chunks=2)
    command = ["reconstruct", str(tmp_path / "world"), "--no-mesh"]
    assert main([*command, "--network", "da3-base"]) == 2
    assert "gives no splats" in capsys.readouterr().err
    assert main([*command, "--network", "--pixel-aligned"]) == 2
    assert "choose one of the two" in capsys.readouterr().err
    (store / "lyra2-reconstruction" / "manifest.json").unlink()
    assert main([*command, "--network"]) == 2
    assert "photowalk weights get" in capsys.readouterr().err
