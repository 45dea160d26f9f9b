"""The zoom program on tiny networks."""

import pytest
import torch
from PIL import Image
from tiny import tiny_preset

from photowalk import World
from photowalk.cli import main
from photowalk.scene.images import PhotoError
from photowalk.world.disk import WorldError
from photowalk.world.zoom import zoom


@pytest.fixture
def photo(tmp_path):
    noise = torch.randint(0, 256, (8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    Image.fromarray(noise.numpy()).resize((240, 128), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_two_walks_begin_at_one_photo(photo, tmp_path):
    video = zoom(photo, tmp_path / "both", captions={0: "a hall"}, preset=tiny_preset())
    ahead, back = (World.open(tmp_path / "both" / name) for name in ("zoom_in", "zoom_out"))
    assert (ahead.manifest.frames, back.manifest.frames) == (81, 241)
    shared = [world.manifest.chunks[0].files["latents.safetensors"].sha256 for world in (ahead, back)]
    assert shared[0] == shared[1]
    assert ahead.manifest.chunks[-1].prompt == back.manifest.chunks[-1].prompt == "a hall"
    assert ahead.info()["cameras"]["from_start"] > 0
    assert back._store.cameras().centres[-1, 2] < 0 < ahead._store.cameras().centres[-1, 2]
    assert video.stat().st_size > 10_000


def test_nothing_is_left_of_a_bad_start(tmp_path):
    with pytest.raises(PhotoError):
        zoom(tmp_path / "missing.png", tmp_path / "both", preset=tiny_preset())
    assert not (tmp_path / "both").exists()


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["zoom", str(tmp_path / "missing.png"), "-o", str(tmp_path / "both")]) == 2
    assert "missing.png" in capsys.readouterr().err


def test_a_folder_that_is_there_is_left_alone(photo, tmp_path):
    (tmp_path / "both").mkdir()
    with pytest.raises(WorldError, match="exists already"):
        zoom(photo, tmp_path / "both", preset=tiny_preset())
