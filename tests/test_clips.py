"""Clip folders: written, read in part, and their faults named."""

import json

import pytest
import torch

from photowalk.data.clips import ClipError, find_clips, read_clip, validate, write_clip
from photowalk.geometry import Cameras
from photowalk.scene.types import Clip


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    cameras = Cameras.from_fov(torch.eye(4).repeat(5, 1, 1), 60, 16, 24)
    depth = (torch.rand(5, 16, 24) * 5).half().float()
    depth[:, :4] = torch.inf
    video = (torch.rand(5, 3, 16, 24) * 255).round() / 255
    write_clip(tmp_path / "a" / "clip", Clip(video, cameras, depth, "a hall"), source="test", licence="CC0-1.0")
    return tmp_path / "a" / "clip"


def test_what_was_written_is_read_whole_and_in_part(folder):
    clip, part = read_clip(folder), read_clip(folder, slice(1, 3))
    assert clip.prompt == "a hall"
    assert clip.depth is not None
    assert clip.depth.isinf().sum() == 5 * 4 * 24
    assert torch.equal(part.video, clip.video[1:3])
    assert torch.equal(part.cameras.camera_from_world, clip.cameras.camera_from_world[1:3])
    assert find_clips(folder.parent.parent) == [folder]


def test_faults_are_named(folder):
    assert validate(folder) == []
    about = json.loads((folder / "clip.json").read_text())
    (folder / "clip.json").write_text(json.dumps({**about, "version": 99}))
    assert "version 99" in validate(folder)[0]
    with pytest.raises(ClipError, match="version 99 instead of 1"):
        read_clip(folder)
    (folder / "clip.safetensors").write_bytes(b"\x00" * 100)
    assert "cannot be read" in validate(folder)[0]
    (folder / "clip.safetensors").unlink()
    assert validate(folder) == ["clip.safetensors is missing"]
    assert find_clips(folder) == [folder]
