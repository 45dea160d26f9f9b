"""Clip folders and RGB-D walks: what is written is read, faults have names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from photowalk.cli import main
from photowalk.data.clips import ClipError, find_clips, read_clip, validate, write_clip
from photowalk.data.rgbd_walk import WalkError, read_rgbd_walk
from photowalk.geometry.cameras import Cameras
from photowalk.scene.types import Clip

FRAMES, HEIGHT, WIDTH = 5, 24, 32


@pytest.fixture
def clip() -> Clip:
    random = torch.Generator().manual_seed(0)
    poses = torch.eye(4).repeat(FRAMES, 1, 1)
    poses[:, 2, 3] = torch.arange(FRAMES) * 0.1
    depth = torch.rand(FRAMES, HEIGHT, WIDTH, generator=random).half().float() + 1
    depth[0, 0], depth[0, 1] = torch.inf, 0
    video = torch.randint(0, 256, (FRAMES, 3, HEIGHT, WIDTH), generator=random) / 255
    return Clip(video, Cameras.from_fov(poses, 70, HEIGHT, WIDTH), depth.half().float(), "a small place")


@pytest.fixture
def folder(tmp_path: Path, clip: Clip) -> Path:
    write_clip(tmp_path / "clip", clip, source="a test", licence="CC0-1.0")
    return tmp_path / "clip"


def test_a_clip_comes_back_exactly(folder: Path, clip: Clip) -> None:
    read = read_clip(folder)
    assert torch.equal(read.video, clip.video)
    assert torch.equal(read.depth, clip.depth)
    assert torch.equal(read.cameras.camera_from_world, clip.cameras.camera_from_world)
    assert torch.equal(read.cameras.intrinsics, clip.cameras.intrinsics)
    assert read.prompt == clip.prompt


def test_a_part_is_read_alone(folder: Path, clip: Clip) -> None:
    part = read_clip(folder, slice(1, 3))
    assert torch.equal(part.video, clip.video[1:3])
    assert torch.equal(part.cameras.centres, clip.cameras.centres[1:3])


def test_captions_that_change_on_the_way_come_back(tmp_path: Path, clip: Clip) -> None:
    captions = ("", "a door", "a door", "a wall", "a door")
    write_clip(tmp_path, replace(clip, captions=captions), source="a test", licence="CC0-1.0")
    assert json.loads((tmp_path / "clip.json").read_text())["captions"] == {
        "0": "",
        "1": "a door",
        "3": "a wall",
        "4": "a door",
    }
    assert read_clip(tmp_path).captions == captions
    part = read_clip(tmp_path, slice(0, 4, 3))
    assert (part.captions, part.prompt_at(0), part.prompt_at(1)) == (("", "a wall"), clip.prompt, "a wall")


def test_unknown_depth_is_zero(tmp_path: Path, clip: Clip) -> None:
    write_clip(tmp_path, replace(clip, depth=None), source="a test", licence="CC0-1.0")
    assert read_clip(tmp_path).depth.eq(0).all()


def test_only_complete_clips_are_found(folder: Path, clip: Clip) -> None:
    write_clip(folder.parent / "cut_short", clip, source="a test", licence="CC0-1.0")
    (folder.parent / "cut_short" / "clip.json").unlink()
    assert find_clips(folder.parent) == [folder]


def _edit_description(folder: Path, **changes: object) -> None:
    about = json.loads((folder / "clip.json").read_text()) | changes
    (folder / "clip.json").write_text(json.dumps({key: value for key, value in about.items() if value is not None}))


def _edit_tensors(folder: Path, name: str, change) -> None:
    tensors = load_file(folder / "clip.safetensors")
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, folder / "clip.safetensors")


def _without_frames(folder: Path) -> None:
    tensors = load_file(folder / "clip.safetensors")
    save_file({name: value[:0].clone() for name, value in tensors.items()}, folder / "clip.safetensors")


def _without_depth(folder: Path) -> None:
    tensors = load_file(folder / "clip.safetensors")
    del tensors["depth"]
    save_file(tensors, folder / "clip.safetensors")


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda folder: (folder / "clip.json").unlink(), "clip.json is missing"),
        (lambda folder: (folder / "clip.safetensors").unlink(), "clip.safetensors is missing"),
        (lambda folder: (folder / "clip.safetensors").write_bytes(b"short"), "cannot be read"),
        (lambda folder: (folder / "clip.json").write_text("{"), "cannot be read"),
        (lambda folder: _edit_description(folder, version=99), "version 99 instead of 1"),
        (lambda folder: _edit_description(folder, licence=None), "licence is missing"),
        (lambda folder: _edit_description(folder, captions=["a hall"]), r"texts by frame.*got \['a hall'\]"),
        (lambda folder: _edit_description(folder, captions={"first": "a hall"}), "captions in clip.json want"),
        (lambda folder: _edit_tensors(folder, "depth", lambda depth: depth[1:]), "depth has shape"),
        (lambda folder: _edit_tensors(folder, "video", lambda video: video[:, 0]), r"wanted is \[F, 3, H, W\]"),
        (_without_frames, r"video in clip.safetensors has shape \(0, 3, 24, 32\), wanted .* a frame"),
        (_without_depth, "depth is missing in clip.safetensors"),
        (
            lambda folder: _edit_tensors(folder, "video", lambda video: video.float() / 255),
            "video in clip.safetensors is kept in F32, wanted is U8",
        ),
        (
            lambda folder: _edit_tensors(folder, "depth", lambda depth: depth.nan_to_num(posinf=0).short()),
            "depth in clip.safetensors is kept in I16, wanted is F16 or BF16 or F32 or F64",
        ),
        (
            lambda folder: _edit_tensors(folder, "intrinsics", lambda lenses: lenses.long()),
            "intrinsics in clip.safetensors is kept in I64, wanted is F32",
        ),
        (lambda folder: _edit_tensors(folder, "camera_from_world", lambda pose: pose * torch.nan), "not finite"),
        (lambda folder: _edit_tensors(folder, "camera_from_world", lambda pose: 2 * pose), "not rigid"),
    ],
)
def test_faults_have_names(folder: Path, harm, fault: str) -> None:
    assert validate(folder) == []
    harm(folder)
    assert re.search(fault, "; ".join(validate(folder)))
    with pytest.raises(ClipError, match=fault):
        read_clip(folder)


def test_finer_numbers_are_read_as_ours_are(folder: Path, clip: Clip) -> None:
    for name in ("depth", "camera_from_world", "intrinsics"):
        _edit_tensors(folder, name, torch.Tensor.double)
    assert validate(folder) == []
    read = read_clip(folder)
    assert torch.equal(read.depth, clip.depth)
    assert torch.equal(read.cameras.camera_from_world, clip.cameras.camera_from_world)


def _write_walk(folder: Path, clip: Clip) -> None:
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(len(clip)):
        picture = (clip.video[i].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(picture).save(folder / "rgb" / f"{i:04d}.png")
        metres = clip.depth[i].nan_to_num(posinf=0).numpy()
        Image.fromarray((metres * 1000).round().astype(np.uint16)).save(folder / "depth" / f"{i:04d}.png")
    np.savetxt(folder / "poses_c2w.txt", clip.cameras.world_from_camera.flatten(1).numpy())
    focal = clip.cameras.intrinsics[0]
    lens = {"fx": focal[0, 0], "fy": focal[1, 1], "cx": focal[0, 2] - 0.5, "cy": focal[1, 2] - 0.5}
    lens = {key: float(value) for key, value in lens.items()} | {"width": WIDTH, "height": HEIGHT}
    (folder / "intrinsics.json").write_text(json.dumps(lens))


def test_a_walk_at_its_own_size_comes_back(tmp_path: Path, clip: Clip) -> None:
    _write_walk(tmp_path, clip)
    walk = read_rgbd_walk(tmp_path, HEIGHT, WIDTH, frames=slice(1, None, 2), prompt="a test")
    assert torch.allclose(walk.video, clip.video[1::2], atol=1e-6)
    assert torch.allclose(walk.depth, clip.depth[1::2], atol=6e-4)
    assert torch.allclose(walk.cameras.intrinsics, clip.cameras.intrinsics[1::2], atol=1e-4)
    assert torch.allclose(walk.cameras.camera_from_world, clip.cameras.camera_from_world[1::2], atol=1e-5)
    assert walk.prompt == "a test"


def test_cropping_keeps_the_rays(tmp_path: Path, clip: Clip) -> None:
    _write_walk(tmp_path, clip)
    half = read_rgbd_walk(tmp_path, HEIGHT // 2, HEIGHT // 2)  # the middle square, at half the size
    point = clip.cameras.centres[0] + torch.tensor([[0.2, -0.1, 2.0]])
    pixel, whole = half.cameras[0].project(point)[0][0], clip.cameras[0].project(point)[0][0]
    assert torch.allclose(pixel, (whole - torch.tensor([(WIDTH - HEIGHT) / 2, 0])) / 2, atol=1e-3)


def test_a_walk_with_a_missing_picture_is_refused(tmp_path: Path, clip: Clip) -> None:
    _write_walk(tmp_path, clip)
    (tmp_path / "rgb" / "0002.png").unlink()
    with pytest.raises(WalkError, match="4 pictures, 5 depth pictures and 5 poses"):
        read_rgbd_walk(tmp_path, HEIGHT, WIDTH)
    with pytest.raises(WalkError, match=r"poses_c2w\.txt"):
        read_rgbd_walk(tmp_path / "nowhere", HEIGHT, WIDTH)


def test_a_walk_becomes_clips_on_the_command_line(tmp_path: Path, clip: Clip, capsys: pytest.CaptureFixture) -> None:
    walk, clips = tmp_path / "walk", tmp_path / "clips"
    _write_walk(walk, clip)
    size = f"{HEIGHT}x{WIDTH}"
    arguments = ["data", "prepare", str(walk), "-o", str(clips), "--size", size, "--clip-frames", "2"]
    assert main([*arguments, "--frames", "1:5", "--licence", "CC0-1.0", "--prompt", "a test"]) == 0
    assert [len(read_clip(folder)) for folder in find_clips(clips)] == [2, 2]
    assert torch.allclose(read_clip(find_clips(clips)[1]).video, clip.video[3:5], atol=1e-2)
    assert main(["data", "validate", str(clips)]) == 0
    assert "2 clips" in capsys.readouterr().out
    (find_clips(clips)[0] / "clip.safetensors").write_bytes(b"short")
    assert main(["data", "validate", str(clips)]) == 2
    assert "walk_0000: cannot be read" in capsys.readouterr().err
    assert main([*arguments, "--frames", "7:9"]) == 2
    assert "5 frames" in capsys.readouterr().err
