"""The zoom program on tiny networks."""

import pytest
import torch
from PIL import Image
from tiny import tiny_preset

from photowalk import World
from photowalk.cli import main
from photowalk.evaluate.images import psnr
from photowalk.scene.images import PhotoError
from photowalk.scene.videos import read_lossless
from photowalk.world.disk import WorldError
from photowalk.world.progress import Cancelled
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


def test_a_folder_of_other_things_is_left_alone(photo, tmp_path):
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "letter.txt").touch()
    with pytest.raises(WorldError, match="holds something else"):
        zoom(photo, tmp_path / "both", preset=tiny_preset())
    assert [file.name for file in (tmp_path / "both").iterdir()] == ["letter.txt"]


def test_folders_on_the_way_are_made(photo, tmp_path):
    with pytest.raises(Cancelled):
        zoom(photo, tmp_path / "new" / "both", preset=tiny_preset(), on_step=cancel_after("photo", 0))
    with pytest.raises(Cancelled):
        zoom(photo, tmp_path / "new" / "both", preset=tiny_preset(), on_step=cancel_after("recall", 0))
    assert World.open(tmp_path / "new" / "both" / "zoom_in").manifest.frames == 1


def test_what_was_interrupted_is_continued_to_the_same_frames(photo, tmp_path):
    """Cancelled in the photo, in the walk ahead and twice in the walk back."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"captions": {0: "a hall"}, "preset": tiny_preset()}
    zoom(photo, whole, **options)
    for stage, chunks in (("photo", 0), ("recall", 2), ("recall", 3), ("recall", 4)):
        with pytest.raises(Cancelled):
            zoom(photo, parts, **options, on_step=cancel_after(stage, chunks))
        assert not (parts / "zoom.mp4").exists()
    with pytest.raises(WorldError, match=r"made with other options \(captions\)"):
        zoom(photo, parts, **{**options, "captions": {0: "a shed"}})
    with pytest.raises(WorldError, match=r"made with other options \(path\)"):
        zoom(photo, parts, ground=True, **options)
    zoom(photo, parts, **options)
    for name in ("zoom_in", "zoom_out"):
        chunks = [World.open(folder / name).manifest.chunks for folder in (whole, parts)]
        assert chunks[0] == chunks[1]
    again, once = (read_lossless(folder / "zoom.mp4") for folder in (parts, whole))
    assert again.shape == once.shape
    assert psnr(again, once).min() > 40  # the encoder rounds frames differently now and then on a busy machine


def cancel_after(stage, chunks):
    """`on_step` that cancels in that stage, once it has been there that many times."""
    seen = []

    def on_step(step):
        if step.stage == stage and step.done == 0:
            seen.append(step)
            if len(seen) > chunks:
                raise Cancelled

    return on_step
