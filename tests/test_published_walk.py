"""The published arrangement, from a photo through two chunks, on tiny untrained networks of the real classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from worlds import assert_same_world

from photowalk import World
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import forward
from photowalk.world.placement import Placement
from photowalk.world.state import WorldState

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_published import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_published, tiny_published_preset

PLACEMENT = Placement(torch.device("cpu"), torch.float32, "a test")
PROMPT = "a hall of stone"


def photo() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    return torch.stack([rows, columns, (9 * rows * columns).sin() / 2 + 0.5])


def slope() -> torch.Tensor:
    return torch.linspace(3, 2, HEIGHT)[:, None].expand(HEIGHT, WIDTH).contiguous()


def ahead(start: Cameras) -> Cameras:
    return forward(start, CHUNK_FRAMES + 1, distance=0.4)[1:]


def silent(progress) -> None:
    return None


@pytest.fixture(scope="module")
def generator():
    return tiny_published(PLACEMENT)


@pytest.fixture(scope="module")
def started(generator):
    return generator.start(photo(), depth=slope(), focal_px=40.0, prompt=PROMPT)


@pytest.fixture(scope="module")
def walked(generator, started):
    state = started
    for seed in (1, 2):
        state = generator.extend(state, ahead(state.cameras[-1]), PROMPT, seed=seed)
    return state


def test_a_photo_becomes_two_chunks(walked, started):
    assert walked.video.shape == (1 + 2 * CHUNK_FRAMES, 3, HEIGHT, WIDTH)
    assert walked.video.isfinite().all()
    assert walked.latents.shape == (16, 25 + 40, HEIGHT // 8, WIDTH // 8)
    assert walked.memory.frames == tuple(range(0, 161, 8))
    assert torch.equal(walked.video[0], started.video[0])
    assert (walked.video[1:].std(0) > 0).any()


def test_memory_keeps_the_published_conventions_when_a_state_is_built_again(walked, generator):
    again = WorldState.from_chunks(walked.chunks, generator.config.memory)
    assert_same_world(again, walked)
    assert again.memory.pixel_centre == 0.0
    plain = WorldState.from_chunks(walked.chunks)
    assert not torch.equal(plain.memory.entries[0].points, walked.memory.entries[0].points)


def test_the_denoiser_is_told_what_the_published_one_is(walked, generator):
    conditioning, _ = generator.condition(walked, ahead(walked.cameras[-1]), PROMPT, silent)
    assert conditioning.history.shape == (1, 16, 25, HEIGHT // 8, WIDTH // 8)
    assert conditioning.rays.shape[1:3] == (384, 45)
    assert conditioning.correspondence.shape[1:3] == (1280, 20)
    assert (conditioning.known == 1).all()
    assert conditioning.text.shape == (1, 32, 16)
    assert (conditioning.text[0, 5:] == 0).all()  # four words and the end
    assert conditioning.image.shape == (1, 5, 16)


def test_what_to_be_guided_away_from_is_a_text_or_its_features(started, generator):
    one_step = replace(generator, sampler=replace(generator.sampler, steps=1))
    conditioning, _ = generator.condition(started, ahead(started.cameras[-1]), PROMPT, silent)
    text = replace(one_step, config=replace(generator.config, negative_prompt="blurry"))
    features = replace(one_step, negative=generator.text.encode(["blurry"]))
    sampled = [candidate._sample(conditioning, 1, silent) for candidate in (one_step, text, features)]
    assert torch.equal(sampled[1], sampled[2])
    assert not torch.equal(sampled[0], sampled[1])


def test_a_world_on_disk_goes_on_as_the_one_in_memory(tmp_path):
    Image.fromarray((photo() * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    preset = tiny_published_preset()
    world = World.create(
        tmp_path / "photo.png", tmp_path / "world", path="forward 0.2 in 80 frames", prompt=PROMPT, preset=preset
    )
    state = world.state
    reopened = World.open(tmp_path / "world", world.generator).state
    assert_same_world(reopened, state)
    cameras = ahead(state.cameras[-1])
    on, off = (world.generator.condition(s, cameras, PROMPT, silent)[0] for s in (state, reopened))
    assert all(torch.equal(getattr(on, name), getattr(off, name)) for name in vars(on))
