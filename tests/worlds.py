"""Small worlds made by hand, for tests of what is kept rather than of what is generated."""

from pathlib import Path

import torch

from photowalk.geometry.cameras import Cameras
from photowalk.scene.images import quantise
from photowalk.scene.types import Clip
from photowalk.world import store
from photowalk.world.manifest import Job, Manifest
from photowalk.world.state import Chunk

HEIGHT, WIDTH, CHUNK_FRAMES = 16, 24, 8


def make_chunk(index: int, prompt: str = "a hall") -> Chunk:
    """Chunk 0 is a photo, later ones have 8 frames of which two have depth, sky and unknown pixels among it."""
    random = torch.Generator().manual_seed(index)
    frames = CHUNK_FRAMES if index else 1
    depth = torch.zeros(frames, HEIGHT, WIDTH)
    depth[3::4] = (1 + torch.rand(HEIGHT, WIDTH, generator=random)).half().float()
    depth[0 if index == 0 else 3, :2] = torch.inf
    depth[0 if index == 0 else 3, 4:] = 2.5
    pose = torch.eye(4).repeat(frames, 1, 1)
    pose[:, 2, 3] = -0.1 * (torch.arange(frames) + index * CHUNK_FRAMES)
    return Chunk(
        Clip(
            quantise(torch.rand(frames, 3, HEIGHT, WIDTH, generator=random)),
            Cameras.from_fov(pose, 60.0, HEIGHT, WIDTH),
            depth,
            prompt,
        ),
        torch.randn(4, max(1, frames // 4), 2, 3, generator=random),
        prompt,
        seed=index,
        path="forward 1" if index else "",
        notes=("spread evenly",) if index else (),
        encoder={"past": torch.randn(2, 3, generator=random).bfloat16()},
        decoder={"past": torch.randn(2, 3, generator=random)},
        close_up=None if index else quantise(torch.rand(3, 2 * HEIGHT, 2 * WIDTH, generator=random)),
    )


def make_world(folder: Path, chunks: int = 1, job: Job | None = None) -> store.WorldStore:
    photo = make_chunk(0)
    manifest = Manifest("nano", HEIGHT, WIDTH, CHUNK_FRAMES, 0, {"photo": "hall.jpg"}, {"weights": "Apache-2.0"}, 2.5)
    cameras = None if job is None else make_chunk(1).clip.cameras
    with store.new_world(folder) as partial:
        store.create(partial, manifest, photo.clip.video[0], photo, job, cameras)
    world = store.WorldStore(folder)
    with world.locked():
        for index in range(1, chunks):
            world.append(make_chunk(index))
        if chunks > 1:
            world.write_walk()
    return world


def assert_same_chunk(a: Chunk, b: Chunk) -> None:
    assert torch.equal(a.clip.video, b.clip.video)
    assert torch.equal(a.clip.depth, b.clip.depth)
    assert torch.equal(a.clip.cameras.camera_from_world, b.clip.cameras.camera_from_world)
    assert torch.equal(a.clip.cameras.intrinsics, b.clip.cameras.intrinsics)
    assert torch.equal(a.latents, b.latents)
    assert (a.close_up is None) == (b.close_up is None)
    assert a.close_up is None or torch.equal(a.close_up, b.close_up)
    for one, other in [(a.encoder, b.encoder), (a.decoder, b.decoder)]:
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert (a.prompt, a.seed, a.path, a.notes) == (b.prompt, b.seed, b.path, b.notes)


def assert_same_world(a, b) -> None:
    assert len(a.chunks) == len(b.chunks)
    for one, other in zip(a.chunks, b.chunks):
        assert_same_chunk(one, other)
    assert a.memory.frames == b.memory.frames
    assert all(
        torch.equal(x.points.nan_to_num(7), y.points.nan_to_num(7)) for x, y in zip(a.memory.entries, b.memory.entries)
    )
    assert torch.equal(a.latest.image, b.latest.image)
    assert torch.equal(a.latest.depth, b.latest.depth)
    assert a.latest.frame == b.latest.frame
