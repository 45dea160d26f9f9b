"""The session around real networks, untrained and tiny."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import HEIGHT, WIDTH, tiny_preset
from worlds import assert_same_chunk, assert_same_world, make_chunk, make_world

from photowalk import World
from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.perception.captions import TemplateCaptioner
from photowalk.scene.images import read_photo, write_png
from photowalk.world.disk import WorldError
from photowalk.world.placement import Placement
from photowalk.world.progress import Cancelled
from photowalk.world.state import WorldState
from photowalk.world.store import WorldStore

SIZE = (HEIGHT, WIDTH)
ONE_CHUNK, OTHER_CHUNK = "left 10deg in 16 frames", "right 10deg in 16 frames"
TWO_CHUNKS = "right 10deg in 32 frames"
PROMPT = "a room"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "room.png"
    noise = torch.randint(0, 256, (8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    Image.fromarray(noise.numpy()).resize((192, 128), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def walked(tmp_path_factory, photo):
    """A world of one photo and one chunk, and the generator that made it; tests copy it."""
    return World.create(
        photo, tmp_path_factory.mktemp("worlds") / "walked", path=ONE_CHUNK, prompt=PROMPT, preset=tiny_preset()
    )


@pytest.fixture
def world(tmp_path, walked):
    shutil.copytree(walked.folder, tmp_path / "world")
    return World.open(tmp_path / "world", walked.generator)


def reopened(world):
    return World.open(world.folder, world.generator)


def cancel_in(chunk, stage):
    def on_step(step):
        if (step.chunk, step.stage) == (chunk, stage):
            raise Cancelled

    return on_step


def test_a_created_world_starts_with_the_photo(world):
    manifest = world.manifest
    assert [entry.frames for entry in manifest.chunks] == [1, manifest.chunk_frames]
    assert [entry.seed for entry in manifest.chunks] == [0, 1]
    assert world.state.prompts == (PROMPT, PROMPT)
    assert world.state.cameras.centres[0].abs().max() == 0
    assert manifest.chunks[1].path == ONE_CHUNK
    assert (world.folder / "walk.mp4").exists()


def test_a_photo_with_more_pixels_than_the_frames_is_kept_in_them(world, photo):
    close_up = world.state.chunks[0].close_up
    assert torch.equal(close_up, read_photo(photo, 2 * HEIGHT, 2 * WIDTH).image)
    assert torch.equal(close_up, reopened(world).state.chunks[0].close_up)


def test_a_photo_of_few_pixels_is_kept_once(tmp_path):
    write_png(tmp_path / "small.png", torch.rand(3, HEIGHT, WIDTH))
    world = World.create(tmp_path / "small.png", tmp_path / "world", preset=tiny_preset())
    assert world.state.chunks[0].close_up is None
    assert not (world.folder / "chunks" / "0000" / "close_up.png").exists()


def test_extending_a_reopened_world_gives_the_same_frames(walked, world, tmp_path):
    """One world stays in memory, the other is read from its files before every step."""
    shutil.copytree(world.folder, tmp_path / "kept")
    kept = World.open(tmp_path / "kept", walked.generator)
    states = []
    for path in [OTHER_CHUNK, "back to start in 16 frames"]:
        kept.extend(path)
        reopened(world).extend(path)
        states.append(kept.state)
    assert_same_world(kept.state, reopened(world).state)
    assert_same_world(states[-1], WorldState.from_chunks(states[-1].chunks))
    assert torch.equal(kept.state.cameras.camera_from_world[-1], kept.state.cameras.camera_from_world[0])


def test_a_cancelled_walk_keeps_its_finished_chunks_and_continues_to_the_same_frames(world, tmp_path):
    shutil.copytree(world.folder, tmp_path / "whole")
    whole = World.open(tmp_path / "whole", world.generator).extend(TWO_CHUNKS)
    before = world.state
    with pytest.raises(Cancelled):
        world.extend(TWO_CHUNKS, on_step=cancel_in(2, "depth"))
    assert len(world.manifest.chunks) == len(before.chunks) + 1
    assert world.info()["interrupted"]["to_go"] == 1
    for words in ({"prompt": "a cellar"}, {"seed": 7}, {"negative_prompt": "fog"}, {"captions": {0: "a hall"}}):
        with pytest.raises(WorldError, match="give a path too"):
            world.extend(**words)
    continued = reopened(world).extend()
    assert_same_world(continued.state, whole.state)
    assert continued.manifest == whole.manifest
    with pytest.raises(WorldError, match="no interrupted walk"):
        continued.extend()


def test_cancelling_the_first_chunk_leaves_the_world_as_it_was(world):
    before = world.state
    with pytest.raises(Cancelled):
        world.extend("forward 0.1 in 16 frames", on_step=cancel_in(1, "denoise"))
    assert_same_world(reopened(world).state, before)
    world.undo()
    assert world.manifest.job is None


def test_a_new_path_replaces_an_interrupted_one(world):
    with pytest.raises(Cancelled):
        world.extend("forward 0.1 in 16 frames", on_step=cancel_in(1, "recall"))
    world.extend(OTHER_CHUNK)
    assert world.manifest.chunks[-1].path == OTHER_CHUNK
    assert world.manifest.job is None


def test_undo_then_the_same_walk_gives_the_same_chunk(world):
    chunk = world.state.chunks[1]
    world.undo()
    assert world.manifest.frames == 1
    world.extend(ONE_CHUNK)
    assert_same_chunk(world.state.chunks[1], chunk)
    with pytest.raises(WorldError, match=r"1 chunk\(s\) after the photo, 2 cannot be undone"):
        world.undo(2)
    with pytest.raises(WorldError, match="nothing to undo"):
        world.undo().undo()


def test_redo_takes_back_what_was_undone_until_a_new_chunk_is_made(world):
    before = world.state
    world.undo()
    with pytest.raises(WorldError, match=r"1 undone chunk\(s\), 2 cannot be taken back"):
        world.redo(2)
    with pytest.raises(Cancelled):
        world.extend(OTHER_CHUNK, on_step=cancel_in(1, "denoise"))
    world.redo()
    assert_same_world(reopened(world).state, before)
    assert (world.folder / "walk.mp4").exists()
    world.undo().extend(OTHER_CHUNK)
    with pytest.raises(WorldError, match="nothing to redo"):
        world.redo()


def test_branches_part_ways(world, tmp_path):
    branch = world.branch(tmp_path / "branch", at=0)
    assert branch.manifest.frames == 1
    branch.extend(OTHER_CHUNK, prompt="a garden")
    assert branch.state.prompts == (PROMPT, "a garden")
    assert world.state.prompts == (PROMPT, PROMPT)
    for at in (-1, 2):
        with pytest.raises(WorldError, match="chunks 0 to 1"):
            world.branch(tmp_path / "other", at=at)


def test_a_branch_is_walked_where_its_world_is(world, tmp_path):
    placement = Placement(torch.device("cpu"), torch.float32, "as the caller says")
    origin = World(WorldStore(world.folder), preset=tiny_preset(), placement=placement)
    assert origin.branch(tmp_path / "branch").generator.placement is placement


def test_seeds_change_what_is_drawn(world, tmp_path):
    other = world.branch(tmp_path / "other")
    world.extend(ONE_CHUNK)
    other.extend(ONE_CHUNK, seed=5)
    assert [entry.seed for entry in other.manifest.chunks] == [0, 1, 7]
    assert not torch.equal(world.state.latest.image, other.state.latest.image)


def test_creating_again_finishes_what_was_interrupted(photo, walked, tmp_path):
    options = {"path": ONE_CHUNK, "prompt": PROMPT, "preset": tiny_preset()}
    with pytest.raises(Cancelled):
        World.create(photo, tmp_path / "world", **options, on_step=cancel_in(1, "denoise"))
    assert World.open(tmp_path / "world").manifest.frames == 1
    notes = []
    world = World.create(photo, tmp_path / "world", **options, on_note=notes.append)
    assert_same_world(world.state, walked.state)
    again = World.create(photo, tmp_path / "world", **options, on_note=notes.append)
    assert again.manifest == world.manifest
    assert "interrupted" in notes[0]
    assert "finished already" in notes[-1]
    for name, change in [
        ("path", {"path": OTHER_CHUNK}),
        ("path", {"path": None}),
        ("prompt", {"prompt": "a shed"}),
        ("size", {"size": (64, 64)}),
        ("seed", {"seed": 1}),
        ("fov_deg", {"fov_deg": 70.0}),
    ]:
        with pytest.raises(WorldError, match=rf"made with other options \({name}\)"):
            World.create(photo, tmp_path / "world", **{**options, **change})


def test_creating_again_along_cameras_finishes_what_was_interrupted(photo, tmp_path):
    pose = torch.eye(4, dtype=torch.float64).repeat(32, 1, 1)
    pose[:, 2, 3] = -0.01 * torch.arange(1, 33)
    path, preset = Cameras.from_fov(pose, 60.0, *SIZE), tiny_preset()
    with pytest.raises(Cancelled):
        World.create(photo, tmp_path / "world", path=path, preset=preset, on_step=cancel_in(2, "denoise"))
    moved, wider = pose.clone(), Cameras.from_fov(pose, 61.0, *SIZE)
    moved[31, 0, 3] = 0.01
    others = [Cameras.from_fov(moved, 60.0, *SIZE), wider, path[:16], path.resized(32, 48), TWO_CHUNKS, None]
    for other in others:
        with pytest.raises(WorldError, match=r"made with other options \(path\)"):
            World.create(photo, tmp_path / "world", path=other, preset=preset)
    world = World.create(photo, tmp_path / "world", path=path, preset=preset)
    assert torch.equal(world.state.cameras[1:].camera_from_world, pose.float())
    notes = []
    World.create(photo, tmp_path / "world", path=path, preset=preset, on_note=notes.append)
    assert "finished already" in notes[-1]
    for other in others:
        with pytest.raises(WorldError, match=r"made with other options \(path\)"):
            World.create(photo, tmp_path / "world", path=other, preset=preset)


def test_creating_again_wants_the_same_words(photo, tmp_path):
    options = {"path": TWO_CHUNKS, "captions": {0: "a hall", 17: "a garden"}, "preset": tiny_preset()}
    with pytest.raises(Cancelled):
        World.create(photo, tmp_path / "world", **options, on_step=cancel_in(2, "denoise"))
    changes = [
        ("captions", {"captions": {0: "a hall"}}),
        ("captions", {"captions": {}}),
        ("negative prompt", {"negative_prompt": "fog"}),
        ("captioner", {"captioner": TemplateCaptioner()}),
    ]
    for name, change in changes:
        with pytest.raises(WorldError, match=rf"made with other options \({name}\)"):
            World.create(photo, tmp_path / "world", **{**options, **change})
    world = World.create(photo, tmp_path / "world", **options)
    assert world.state.prompts == ("", "a hall", "a garden")
    for name, change in changes:
        with pytest.raises(WorldError, match=rf"made with other options \({name}\)"):
            World.create(photo, tmp_path / "world", **{**options, **change})


def test_creating_again_does_not_call_finished_what_was_replaced(photo, tmp_path):
    options = {"path": TWO_CHUNKS, "preset": tiny_preset()}
    with pytest.raises(Cancelled):
        World.create(photo, tmp_path / "world", **options, on_step=cancel_in(2, "denoise"))
    World.open(tmp_path / "world", tiny_preset().build()).extend(OTHER_CHUNK)
    with pytest.raises(WorldError, match="undone, dropped or replaced since"):
        World.create(photo, tmp_path / "world", **options)


def test_cancelling_before_there_is_a_world_leaves_nothing(photo, tmp_path):
    with pytest.raises(Cancelled):
        World.create(photo, tmp_path / "world", path=ONE_CHUNK, preset=tiny_preset(), on_step=cancel_in(1, "photo"))
    assert not list(tmp_path.iterdir())


def test_info_says_what_is_in_the_world(world):
    info = world.info()
    assert info["frames"] == world.state.frames
    assert info["memory"]["frames"] == len(world.state.memory)
    assert info["scale"]["reference_depth"] == pytest.approx(world.state.reference_depth)
    assert info["cameras"]["walked"] == pytest.approx(0, abs=1e-5)
    assert [chunk["prompt"] for chunk in info["chunks"]] == [PROMPT, PROMPT]
    assert info["licences"]["weights"]


def test_cameras_may_be_given_instead_of_a_path(world):
    size, start = world.manifest.chunk_frames, world.state.cameras[-1:]
    path = Cameras.cat([start] * size)
    world.extend(path)
    assert torch.equal(world.state.cameras[-size:].camera_from_world, path.camera_from_world)
    nan = path.camera_from_world.clone()
    nan[3, 0, 3] = torch.nan
    flat = path.camera_from_world.clone()
    flat[5, :3, :3] = 0
    for bad, reason in [
        (Cameras.cat([start] * (size - 1)), "whole chunks of"),
        (path[:0], "whole chunks of"),
        (path.resized(32, 48), "whole chunks of"),
        (Cameras(nan, path.intrinsics, *SIZE), "camera 3 of .* not finite"),
        (Cameras(flat, path.intrinsics, *SIZE), "camera 5 of .* not rigid"),
    ]:
        with pytest.raises(ValueError, match=reason):
            world.extend(bad)
    assert world.manifest.frames == 1 + 2 * size


def test_given_depth_and_field_of_view_are_used(photo, walked, tmp_path):
    depth = torch.linspace(1, 3, 128)[:, None].expand(128, 192)
    depth = torch.where(torch.arange(128)[:, None] < 32, torch.inf, depth)
    np.save(tmp_path / "depth.npy", depth.numpy())
    world = World.create(photo, tmp_path / "world", preset=tiny_preset(), depth=tmp_path / "depth.npy", fov_deg=90.0)
    first = world.state.first
    assert first.depth[:16].isinf().all()
    assert (first.depth[17:] - torch.linspace(1, 3, 64)[17:, None]).abs().max() < 0.05
    assert float(first.camera.intrinsics[0, 0]) == pytest.approx(48)
    assert world.info()["cameras"]["fov_deg"] == pytest.approx(90)


def test_a_walk_into_a_wall_is_shortened_and_says_so(photo, walked, tmp_path):
    np.save(tmp_path / "depth.npy", np.full((128, 192), 2.0, np.float32))
    world = World.create(photo, tmp_path / "world", preset=tiny_preset(), depth=tmp_path / "depth.npy")
    notes = []
    with pytest.raises(Cancelled):
        world.extend("forward 5 in 16 frames", on_note=notes.append, on_step=cancel_in(1, "recall"))
    assert any("would have run into something" in note for note in notes)
    assert world._store.job_cameras().centres[-1, 2] < 2


def test_splats_without_meshes(tmp_path):
    make_world(tmp_path / "world", chunks=1)
    world = World.open(tmp_path / "world")
    with pytest.raises(WorldError, match="without --no-mesh"):
        world.reconstruct(scale_to="camera height 1.6m", mesh=False)
    world.reconstruct(mesh=False)
    assert {file.name for file in (world.folder / "scene").iterdir()} >= {"splats.ply", "preview.mp4"}
    assert not (world.folder / "scene" / "mesh.glb").exists()
    world.export([tmp_path / "a.ply"])
    assert (tmp_path / "a.ply").stat().st_size > 0


def test_reconstruction_and_exports(tmp_path):
    make_world(tmp_path / "world", chunks=2)
    world = World.open(tmp_path / "world")
    with pytest.raises(WorldError, match="photowalk reconstruct"):
        world.export([tmp_path / "a.ply"])
    world.reconstruct()
    assert world.info()["scene_frames"] == world.manifest.frames
    assert {file.name for file in (world.folder / "scene").iterdir()} >= {"splats.ply", "preview.mp4"}
    assert (world.folder / "preview.png").exists()
    files = [tmp_path / name for name in ("a.ply", "a.mp4", "a.npz", "a.json")]
    world.export(files)
    assert all(file.stat().st_size > 0 for file in files)
    for name in ("a.npz", "a.json"):
        assert len(path_files.read(tmp_path / name, lens=make_chunk(0).clip.cameras[0])) == world.manifest.frames
    for name, reason in [("a.obj", "no known format"), ("none/a.ply", "no folder")]:
        with pytest.raises(ValueError, match=reason):
            world.export([tmp_path / name])
