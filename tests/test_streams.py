"""The codec's streams are large: a world keeps those of its newest chunks, and works the others out again exactly."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny import tiny_preset

from photowalk import World
from photowalk.geometry.paths import forward
from photowalk.models.wan_codec import WanCodec
from photowalk.world.placement import Placement
from photowalk.world.store import WorldStore

CHUNK, PATH = 16, "right 20deg in 64 frames"


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Five chunks, the photo among them."""
    folder = tmp_path_factory.mktemp("worlds")
    noise = torch.randint(0, 256, (8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    Image.fromarray(noise.numpy()).resize((96, 64), Image.Resampling.BICUBIC).save(folder / "room.png")
    return World.create(folder / "room.png", folder / "walked", path=PATH, prompt="a room", preset=tiny_preset())


@pytest.fixture
def world(tmp_path, walked):
    shutil.copytree(walked.folder, tmp_path / "world")
    return World.open(tmp_path / "world", walked.generator)


def kept(world):
    """The chunks whose streams lie on the disk."""
    return [int(file.parent.name) for file in sorted((world.folder / "chunks").glob("*/encoder.safetensors"))]


def test_the_two_newest_chunks_keep_their_streams_and_all_is_whole(world):
    assert kept(world) == [3, 4]
    assert sorted(file.parent.name for file in (world.folder / "chunks").glob("*/decoder.safetensors")) == [
        "0003",
        "0004",
    ]
    world.verify()
    assert WorldStore(world.folder).load().decoder


@pytest.mark.parametrize("undone", [1, 3])
def test_undone_chunks_are_made_again_bit_for_bit(world, undone):
    cameras, video = world.state.cameras, world.state.video
    world.undo(undone)
    assert World.open(world.folder)._store.is_open == (undone == 1)
    start = 1 + CHUNK * (4 - undone)
    again = World.open(world.folder, world.generator).extend(cameras[start : start + CHUNK])
    assert torch.equal(again.state.video[start:], video[start : start + CHUNK])


def test_a_branch_from_an_old_chunk_goes_on_bit_for_bit(world, tmp_path):
    cameras, video = world.state.cameras, world.state.video
    branch = World.open(world.branch(tmp_path / "other", at=1).folder, world.generator)
    assert kept(branch) == []
    start = 1 + CHUNK
    branch.extend(cameras[start : start + 2 * CHUNK])
    assert torch.equal(branch.state.video[start:], video[start : start + 2 * CHUNK])
    assert kept(branch) == [2, 3]
    assert kept(world) == [3, 4]


def test_undone_chunks_come_back_with_their_streams(world):
    world.undo(4).redo(4)
    assert kept(world) == [3, 4]
    assert world.state.decoder


def test_streams_that_a_crash_left_are_cleared_away(world):
    stray = world.folder / "chunks" / "0001" / "encoder.safetensors"
    stray.write_bytes(b"left")
    with world._store.locked():
        assert not stray.exists()


def test_worlds_of_an_earlier_program_keep_their_streams(world):
    """Theirs lack what the frames were decoded from."""
    with world._store.locked():
        first, *others = world._store.manifest.chunks
        named = [
            replace(entry, files={name: file for name, file in entry.files.items() if "sampled" not in name})
            for entry in others
        ]
        world._store._replace_manifest(chunks=(first, *named))
    cameras = forward(world.state.cameras[-1], CHUNK + 1, distance=0.1)[1:]
    world.extend(cameras)
    assert kept(world) == [3, 4, 5]


def test_the_published_codec_is_opened_again_with_the_same_numbers():
    pytest.importorskip("diffusers")
    from tiny_published import HEIGHT, WIDTH, tiny_published

    generator = tiny_published(Placement(torch.device("cpu"), torch.float32, "a test"))
    assert isinstance(generator.codec, WanCodec)
    photo = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    state = generator.start(photo, depth=torch.full((HEIGHT, WIDTH), 2.0), focal_px=40.0)
    state = generator.extend(state, forward(state.cameras[-1], 81, distance=0.2)[1:], "a hall", seed=1)
    again = generator.opened(state.with_streams({}, {}))
    for name in ("encoder", "decoder"):
        one, other = getattr(state, name), getattr(again, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
