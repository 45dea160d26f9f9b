"""What a walk is told in words, and published conventions, through the session on tiny networks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_preset

from photowalk import World
from photowalk.cli import main
from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import PathError
from photowalk.geometry.published_paths import published_path
from photowalk.perception.captions import TemplateCaptioner
from photowalk.world.disk import WorldError
from photowalk.world.manifest import Job
from photowalk.world.store import WorldStore
from photowalk.world.wording import Wording, caption_scene, read_captions

TWO_CHUNKS = "right 10deg in 32 frames"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "room.png"
    noise = torch.randint(0, 256, (8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    Image.fromarray(noise.numpy()).resize((240, 128), Image.Resampling.BICUBIC).save(path)
    return path


def guided_preset():
    """Tiny, with guidance, whose network says more than zero."""
    tiny = tiny_preset()

    def assemble(placement):
        generator = tiny.assemble(placement)
        torch.nn.init.constant_(generator.denoiser.head.head.weight, 0.1)
        return replace(generator, config=replace(generator.config, guidance=3.0))

    return replace(tiny, assemble=assemble)


@pytest.fixture(scope="module")
def world(photo, tmp_path_factory):
    captions = {0: "a hall", 17: "a garden"}
    folder = tmp_path_factory.mktemp("worlds") / "told"
    return World.create(photo, folder, path=TWO_CHUNKS, prompt="a place", captions=captions, preset=tiny_preset())


def test_each_chunk_takes_the_caption_that_has_begun(world):
    assert world.state.prompts == ("a place", "a hall", "a garden")


def test_an_interrupted_walk_keeps_what_it_was_told(world, tmp_path):
    copy = world.branch(tmp_path / "copy", at=1)
    cameras = world.state.chunks[2].clip.cameras
    job = Job("a path", "a hall", 0, (), 1, 2, prompts=("a hall", "a garden"), negative_prompt="blur")
    with copy._store.locked():
        copy._store.begin(job, cameras)
    assert WorldStore(copy.folder).manifest.job == job


def test_captions_start_anew_with_every_walk(world):
    state, wording = world.state, Wording("a place", {0: "first", 17: "second"})
    cameras = state.cameras[:CHUNK_FRAMES]
    assert wording.prompts(state, cameras, CHUNK_FRAMES, 1.0) == ("first",)
    assert Wording("a place", {5: "later"}).prompts(state, cameras, CHUNK_FRAMES, 1.0) == ("a place",)


def test_a_captioner_sees_what_is_known_of_the_way(world):
    state = world.state
    scene = caption_scene(state, state.chunks[1].clip.cameras, "a hall", 1.0)
    assert torch.equal(scene.photo, state.first.image)
    assert torch.equal(scene.latest, state.latest.image)
    assert scene.upcoming.shape == (4, 3, HEIGHT, WIDTH)
    assert scene.upcoming.amax() > 0.2
    away = replace(state.cameras[-1:], camera_from_world=torch.diag(torch.tensor([-1.0, 1, -1, 1]))[None])
    behind = caption_scene(state, away, "", 1.0)
    assert (behind.upcoming == 0).float().mean() > 0.9


def test_a_captioner_begins_from_the_users_words(photo, tmp_path):
    world = World.create(
        photo,
        tmp_path / "w",
        path="right 40deg in 16 frames",
        prompt="a hall",
        captioner=TemplateCaptioner(),
        preset=tiny_preset(),
    )
    world.extend("left 40deg in 16 frames", captioner=TemplateCaptioner())
    assert world.state.prompts == ("a hall", "a hall. The camera turns right.", "a hall. The camera turns left.")


def test_a_negative_prompt_changes_a_guided_walk_and_is_noted(photo, tmp_path):
    walk = {"path": "right 10deg in 16 frames", "preset": guided_preset()}
    plain = World.create(photo, tmp_path / "plain", **walk)
    away = World.create(photo, tmp_path / "away", negative_prompt="a garden", **walk)
    assert not torch.equal(plain.state.latents[:, -4:], away.state.latents[:, -4:])
    assert away.manifest.chunks[1].notes[-1] == "guided away from: a garden"


def test_without_guidance_a_negative_prompt_is_refused_and_nothing_written(photo, tmp_path):
    with pytest.raises(WorldError, match="without guidance"):
        World.create(photo, tmp_path / "w", path=TWO_CHUNKS, negative_prompt="blur", preset=tiny_preset())
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": "b"}', '{"-3": "b"}', '{"0": 1}', "null"])
def test_wrong_caption_files_are_named(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValueError, match=r"c\.json"):
        read_captions(tmp_path / "c.json")


def test_captions_are_read_as_the_published_programs_write_them(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"81": "b", "0": "a"}))
    assert read_captions(tmp_path / "c.json") == {0: "a", 81: "b"}


def test_the_command_line_names_a_missing_caption_file(photo, tmp_path, capsys):
    assert main(["generate", str(photo), "-o", str(tmp_path / "w"), "--captions", str(tmp_path / "no.json")]) == 2
    assert "no.json" in capsys.readouterr().err


def test_a_legacy_world_walks_published_paths_and_stays_one(photo, tmp_path):
    world = World.create(photo, tmp_path / "w", path="horizontal right 0.3 17", legacy=True, preset=tiny_preset())
    start, depth = world.state.cameras[0], world.manifest.reference_depth
    expected = published_path("horizontal", start, 17, centre_depth=depth, strength=0.3, direction="right")
    torch.testing.assert_close(world.state.cameras.camera_from_world, expected.camera_from_world)
    again = World.open(world.folder, world.generator).extend("orbit_horizontal left 0.1 17")
    assert len(again.state.chunks) == 3
    assert "is read as direction left, strength 0.1, 17 frames" in again.manifest.chunks[2].notes[0]
    with pytest.raises(PathError, match="no published preset"):
        again.extend("walk")


def test_a_legacy_photo_is_squashed(photo, tmp_path):
    crop = World.create(photo, tmp_path / "crop", preset=tiny_preset())
    squashed = World.create(photo, tmp_path / "squashed", legacy=True, preset=tiny_preset())
    assert not torch.equal(crop.state.first.image, squashed.state.first.image)


def test_a_legacy_path_file_is_taken_as_it_is(photo, tmp_path):
    pose = torch.eye(4).repeat(40, 1, 1)
    pose[:, 2, 3] = -0.01 * torch.arange(40) - 0.5
    cameras = Cameras.from_fov(pose, 50.0, 2 * HEIGHT, 3 * WIDTH)
    path_files.write(tmp_path / "trajectory.npz", cameras)
    path = str(tmp_path / "trajectory.npz")
    world = World.create(photo, tmp_path / "w", path=path, legacy=True, preset=tiny_preset())
    walked = world.state.cameras
    assert len(walked) == 1 + 2 * CHUNK_FRAMES
    torch.testing.assert_close(walked.camera_from_world[:, 2, 3], 1.1 * pose[:33, 2, 3])
    torch.testing.assert_close(walked.intrinsics, cameras.resized(HEIGHT, WIDTH).intrinsics[:33])
    with pytest.raises(PathError, match="from the photo on"):
        world.extend(path)


def test_a_legacy_world_wants_a_published_path_from_the_start(photo, tmp_path):
    with pytest.raises(PathError, match="no published preset"):
        World.create(photo, tmp_path / "w", path="forward 2", legacy=True, preset=tiny_preset())
    assert not (tmp_path / "w").exists()
