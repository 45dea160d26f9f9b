"""Further pictures of the place: read, remembered, recalled, kept."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from tiny import HEIGHT, WIDTH, tiny_preset
from worlds import assert_same_world

from photowalk import World
from photowalk.geometry.paths import PathError
from photowalk.scene.images import PhotoError
from photowalk.scene.posed_pictures import read_posed_pictures


def save(path, seed):
    noise = torch.randint(0, 256, (8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    Image.fromarray(noise.numpy()).resize((192, 128), Image.Resampling.BICUBIC).save(path)


def pose(x):
    """Camera to world with OpenGL axes, looking along -z of that world, moved to the right by x."""
    return [[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.fixture
def place(tmp_path):
    for seed, name in enumerate(["photo.png", "left.png", "right.png"]):
        save(tmp_path / name, seed)
    frames = [
        {"file_path": name, "transform_matrix": pose(x)}
        for name, x in [("left.png", 0.7), ("photo.png", 1.0), ("right.png", 1.3)]
    ]
    content = {"fl_x": 150, "fl_y": 150, "w": 192, "h": 128, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    return tmp_path


def test_pictures_are_posed_as_seen_from_the_photo(place):
    left, right = read_posed_pictures(place / "transforms.json", HEIGHT, WIDTH, photo=place / "photo.png")
    assert left.camera.centres.tolist() == pytest.approx([-0.3, 0, 0])
    assert right.camera.centres.tolist() == pytest.approx([0.3, 0, 0])
    assert float(left.camera.intrinsics[0, 0]) == pytest.approx(150 * WIDTH / 192)
    assert left.image.shape == (3, HEIGHT, WIDTH)
    assert left.depth is None


def test_they_are_remembered_before_the_walk_and_on_disk(place):
    preset = tiny_preset()
    world = World.create(place / "photo.png", place / "w", views=place / "transforms.json", preset=preset)
    assert world.state.memory.frames == (0, -1, -2)
    assert world.state.memory[-1].camera.centres.tolist() == pytest.approx([-0.3, 0, 0])
    assert (world.state.memory[-2].depth > 0).any()
    again = World.open(place / "w", world.generator)
    assert_same_world(again.state, world.state)
    assert torch.equal(again.state.memory[-1].image, world.state.memory[-1].image)
    again.extend("left 10deg in 16 frames")
    branch = again.branch(place / "b", at=0)
    assert branch.state.memory.frames == (0, -1, -2)
    without = World.create(place / "photo.png", place / "v", path="left 10deg in 16 frames", preset=preset)
    assert not torch.equal(again.state.latents, without.state.latents)


def test_missing_pictures_and_names_are_said(place):
    (place / "left.png").unlink()
    with pytest.raises(PhotoError, match=r"left\.png"):
        World.create(place / "photo.png", place / "w", views=place / "transforms.json", preset=tiny_preset())
    content = json.loads((place / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["file_path"]
    (place / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(PathError, match="file_path"):
        read_posed_pictures(place / "transforms.json", HEIGHT, WIDTH, photo="photo.png")
    assert not (place / "w").exists()
