import errno
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from disks import smallest_disk
from worlds import CHUNK_FRAMES, HEIGHT, WIDTH, assert_same_chunk, assert_same_world, make_chunk, make_world

from photowalk.reconstruct.windows import stream_views
from photowalk.scene.videos import read_lossless
from photowalk.world import store
from photowalk.world.chunk_files import write_frames
from photowalk.world.disk import WorldError
from photowalk.world.manifest import VERSION, Job
from photowalk.world.state import WorldState
from photowalk.world.store import WorldStore

JOB = Job("forward 1", "a hall", seed=0, notes=("spread evenly",), first_chunk=1, chunks=2)


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_loaded_world_is_the_one_that_was_written(tmp_path):
    make_world(tmp_path / "world", chunks=3)
    loaded = WorldStore(tmp_path / "world").load()
    assert_same_world(loaded, WorldState.from_chunks([make_chunk(index) for index in range(3)]))
    walk = loaded.video * 255
    assert torch.equal(walk.byte(), torch.stack(list(WorldStore(tmp_path / "world").video())))
    assert (tmp_path / "world" / "walk.mp4").stat().st_size > 0


def test_frames_are_read_as_the_whole_walk_has_them(tmp_path):
    make_world(tmp_path / "world", chunks=3)
    world = WorldStore(tmp_path / "world")
    whole = WorldState.from_chunks([make_chunk(index) for index in range(3)])
    frames = list(range(0, world.manifest.frames, 3))
    clips = list(world.clips(frames))
    assert torch.equal(torch.cat([clip.video for clip in clips]), whole.video[frames])
    poses = torch.cat([clip.cameras.camera_from_world for clip in clips])
    assert torch.equal(poses, world.cameras().camera_from_world[frames])
    walk = [world.chunk(index).clip for index in range(3)]
    for given, stored in zip(world.clips(), walk, strict=True):
        assert torch.equal(given.video, stored.video)
        assert torch.equal(given.depth, stored.depth)
    for given, streamed in zip(world.views(), stream_views(walk), strict=True):
        assert given.frame == streamed.frame
        assert torch.equal(given.image, streamed.image)
        assert torch.equal(given.depth, streamed.depth)
        assert torch.equal(given.camera.camera_from_world, streamed.camera.camera_from_world)


def test_the_folder_holds_what_is_documented(tmp_path):
    make_world(tmp_path / "world", chunks=2)
    chunk = ["cameras.safetensors", "chunk.json", "decoder.safetensors", "depth.safetensors", "encoder.safetensors"]
    chunk += ["frames.mkv", "latents.safetensors"]
    expected = [".lock", "photo.png", "walk.mp4", "world.json"]
    expected += [f"chunks/{name}/{file}" for name in ("0000", "0001") for file in chunk] + ["chunks/0000/close_up.png"]
    assert files_of(tmp_path / "world") == sorted(expected)
    manifest = json.loads((tmp_path / "world" / "world.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("photowalk world", VERSION)
    documented = (Path(__file__).parent.parent / "docs" / "world_folder.md").read_text()
    assert all(f"`{name}`" in documented for name in [*chunk, "close_up.png", "world.json", "photo.png", "walk.mp4"])
    assert all(f"`{key}`" in documented for key in [*manifest, *manifest["chunks"][0]])


def test_what_would_be_stored_with_a_loss_is_refused(tmp_path):
    world = make_world(tmp_path / "world")
    chunk = make_chunk(1)
    unrounded = replace(chunk, clip=replace(chunk.clip, video=chunk.clip.video * 0.999))
    too_fine = replace(chunk, clip=replace(chunk.clip, depth=chunk.clip.depth * 1.0001))
    between_bytes = replace(chunk, close_up=torch.full((3, 2 * HEIGHT, 2 * WIDTH), 0.3))
    with world.locked():
        for lossy, reason in [(unrounded, "n / 255"), (too_fine, "float16"), (between_bytes, "close-up .* n / 255")]:
            with pytest.raises(ValueError, match=reason):
                world.append(lossy)
    assert WorldStore(tmp_path / "world").manifest.frames == 1
    assert not list((tmp_path / "world" / "chunks").glob(".*"))


def test_a_new_chunk_replaces_undone_ones_and_their_files(tmp_path):
    world = make_world(tmp_path / "world", chunks=4)
    with world.locked():
        world.truncate(2)
    assert WorldStore(tmp_path / "world").manifest.frames == 1 + CHUNK_FRAMES
    with world.locked():
        world.append(make_chunk(7))
    assert sorted(path.name for path in (tmp_path / "world" / "chunks").iterdir()) == ["0000", "0001", "0002"]
    assert_same_chunk(world.load().chunks[2], make_chunk(7))
    assert world.manifest.undone == ()


def test_undone_chunks_are_taken_back_in_order(tmp_path):
    world = make_world(tmp_path / "world", chunks=4)
    before = world.load()
    for count in (3, 1):
        with world.locked():
            world.truncate(count)
    for count in (1, 2):
        again = WorldStore(tmp_path / "world")
        with again.locked():
            again.restore(count)
    assert_same_world(again.load(), before)
    again.verify()


def test_a_scene_of_frames_that_were_replaced_is_out_of_date(tmp_path):
    world = make_world(tmp_path / "world", chunks=3)
    with world.locked():
        with world.new_scene():
            pass
        assert world.manifest.scene_frames == world.manifest.frames == 1 + 2 * CHUNK_FRAMES
        world.truncate(2)
        world.append(make_chunk(7))
    assert world.manifest.frames == 1 + 2 * CHUNK_FRAMES
    assert world.manifest.scene_frames == 1 + CHUNK_FRAMES


def test_a_branch_lives_on_its_own(tmp_path):
    world = make_world(tmp_path / "world", chunks=3)
    photo = (world.folder / "photo.png").read_bytes()
    (world.folder / "photo.png").unlink()  # which is there for people
    branch = world.branch(tmp_path / "branch", 2)
    assert branch.manifest.frames == 1 + CHUNK_FRAMES
    assert (branch.folder / "photo.png").read_bytes() == photo
    with branch.locked():
        branch.append(make_chunk(7))
    with world.locked():
        world.truncate(1)
    assert_same_world(branch.load(), WorldState.from_chunks([make_chunk(0), make_chunk(1), make_chunk(7)]))
    branch.verify()
    with pytest.raises(WorldError, match="exists already and holds a world"):
        world.branch(tmp_path / "branch", 1)


def test_a_job_is_kept_until_its_last_chunk(tmp_path):
    world = make_world(tmp_path / "world")
    cameras = make_chunk(1).clip.cameras
    with world.locked():
        world.begin(JOB, cameras)
        world.append(make_chunk(1))
    reopened = WorldStore(tmp_path / "world")
    assert reopened.manifest.job == JOB
    assert reopened.manifest.chunks_to_go == 1
    assert torch.equal(reopened.job_cameras().camera_from_world, cameras.camera_from_world)
    with reopened.locked():
        reopened.append(make_chunk(2))
    assert WorldStore(tmp_path / "world").manifest.job is None
    assert not (tmp_path / "world" / "job.safetensors").exists()


@pytest.mark.parametrize("file", ["frames.mkv", "depth.safetensors", "latents.safetensors", "cameras.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
def test_damage_is_named_with_a_way_out(tmp_path, file, damage):
    world = make_world(tmp_path / "world", chunks=3)
    path = tmp_path / "world" / "chunks" / "0001" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "short" else bytes(len(content)))
    with pytest.raises(WorldError, match=r"chunks/0001 is missing or damaged .*photowalk undo .* 2"):
        WorldStore(tmp_path / "world").verify()
    with pytest.raises(WorldError, match=r"go back to the 1 frames before it with: photowalk undo .* 2"):
        WorldStore(tmp_path / "world").load()
    with world.locked():
        world.truncate(1)
    assert world.load().frames == 1


def test_verify_finds_a_single_flipped_bit(tmp_path):
    world = make_world(tmp_path / "world", chunks=2)
    path = tmp_path / "world" / "chunks" / "0001" / "latents.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WorldError, match=r"latents.safetensors holds other bytes"):
        world.verify()


def test_a_damaged_photo_cannot_be_undone(tmp_path):
    world = make_world(tmp_path / "world")
    (tmp_path / "world" / "chunks" / "0000" / "frames.mkv").unlink()
    with pytest.raises(WorldError, match="generated again"):
        world.load()


def test_folders_that_are_no_world(tmp_path):
    with pytest.raises(WorldError, match="no folder"):
        WorldStore(tmp_path / "nothing")
    with pytest.raises(WorldError, match="not a world"):
        WorldStore(tmp_path)
    (tmp_path / "file").write_text("x")
    for target in [tmp_path, tmp_path / "file"]:
        with pytest.raises(WorldError, match="holds something else"), store.new_world(target):
            pass
    make_world(tmp_path / "world")
    manifest = tmp_path / "world" / "world.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(WorldError, match="version 2, this photowalk reads version 1"):
        WorldStore(tmp_path / "world")
    del content["chunks"]
    for damaged in ["", "[]", "{", json.dumps(content)]:
        manifest.write_text(damaged)
        with pytest.raises(WorldError, match=r"world.json is damaged"):
            WorldStore(tmp_path / "world")


def test_an_empty_folder_may_become_a_world(tmp_path, monkeypatch):
    (tmp_path / "world").mkdir()
    make_world(tmp_path / "world")
    assert WorldStore(tmp_path / "world").load().frames == 1
    for name in ("empty", "later"):
        (tmp_path / f"link to {name}").symlink_to(tmp_path / name)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "later"):
        make_world(tmp_path / f"link to {name}")
        assert WorldStore(tmp_path / name).load().frames == 1
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(WorldError, match="in use; name a new folder"):
        make_world(".")


def test_nothing_is_left_of_a_world_that_could_not_be_made(tmp_path):
    def fail():
        with store.new_world(tmp_path / "world") as partial:
            (partial / "photo.png").write_text("x")
            raise RuntimeError("no photo")

    with pytest.raises(RuntimeError, match="no photo"):
        fail()
    assert not list(tmp_path.iterdir())


def test_two_processes_cannot_change_one_world(tmp_path):
    world = make_world(tmp_path / "world")
    hold = (
        "import sys; from photowalk.world.store import WorldStore\n"
        "with WorldStore(sys.argv[1]).locked(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "world")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(WorldError, match=f"pid {other.pid}"), world.locked():
            pass
        other.kill()
    with world.locked():  # the lock dies with its process
        world.append(make_chunk(1))


def test_a_writer_sees_what_another_has_written(tmp_path):
    stale, other = make_world(tmp_path / "world"), WorldStore(tmp_path / "world")
    with other.locked():
        other.append(make_chunk(1))
    with stale.locked():
        stale.append(make_chunk(2))
    assert WorldStore(tmp_path / "world").manifest.frames == 1 + 2 * CHUNK_FRAMES


KILLED_AT_EVERY_STEP = """
import os, shutil, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
os.fsync = lambda handle: None  # what a dead process has written is there; only dead computers lose it
from worlds import HEIGHT, WIDTH, make_chunk, make_world, assert_same_world
from photowalk.world.manifest import Job
from photowalk.world.store import WorldStore
from photowalk.world.state import WorldState

STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
steps_left, armed = 0, False

def count(event, arguments):
    global steps_left
    if not armed or event not in STEPS or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    steps_left -= 1
    if steps_left < 0:
        os._exit(9)

def walk(folder):
    world = WorldStore(folder)
    with world.locked():
        if world.manifest.job is None and world.manifest.frames == 9:
            world.truncate(1)
        if world.manifest.job is None and len(world.manifest.chunks) < 3:
            world.begin(Job("forward 1", "a hall", 0, ("spread evenly",), 1, 2), make_chunk(1).clip.cameras)
        while world.manifest.job is not None:
            world.append(make_chunk(len(world.manifest.chunks)))
        world.write_walk()

sys.addaudithook(count)
expected = WorldState.from_chunks([make_chunk(index) for index in range(3)])
killed = 0
make_world(Path(sys.argv[1]) / "whole", chunks=2)
for number in range(1000):
    folder = Path(sys.argv[1]) / str(number)
    shutil.copytree(Path(sys.argv[1]) / "whole", folder)
    child = os.fork()
    if child == 0:
        steps_left, armed = number, True
        walk(folder)
        os._exit(0)
    dead = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    killed += dead
    after_crash = WorldStore(folder)
    after_crash.verify()
    after_crash.load()
    walk(folder)
    assert (folder / "walk.mp4").exists()
    assert_same_world(WorldStore(folder).load(), expected)
    WorldStore(folder).verify()
    strays = [path.name for path in folder.rglob(".*") if path.name != ".lock"]
    assert not strays, strays
    if not dead:
        break
print(killed)
"""


def test_a_walk_killed_at_any_file_operation_continues_to_the_same_world(tmp_path):
    """Undo, then a walk of two chunks: killed before each of its file operations in turn, then run again."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 25


@pytest.mark.parametrize("bytes_left", [0, 100, 1000])
def test_a_full_disk_loses_only_the_chunk_in_work(tmp_path, bytes_left):
    world = make_world(tmp_path / "world", chunks=2)
    before = files_of(tmp_path / "world")
    with pytest.raises(WorldError, match=r"no space is left .*photowalk extend"), smallest_disk(bytes_left):  # noqa: SIM117
        with world.locked():
            world.append(make_chunk(2))
    assert set(files_of(tmp_path / "world")) <= set(before)
    assert_same_world(WorldStore(tmp_path / "world").load(), WorldState.from_chunks([make_chunk(0), make_chunk(1)]))
    with pytest.raises(WorldError, match="no space is left"), smallest_disk(bytes_left):
        make_world(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_frame_file_that_was_not_written_in_full_is_noticed(tmp_path):
    with pytest.raises(OSError, match=f"Errno ({errno.ENOSPC}|{errno.EFBIG})"), smallest_disk(2000):
        write_frames(tmp_path / "frames.mkv", make_chunk(1).clip.video)
    write_frames(tmp_path / "frames.mkv", make_chunk(1).clip.video)
    assert len(read_lossless(tmp_path / "frames.mkv")) == CHUNK_FRAMES


@contextmanager
def as_nobody():
    """Root may write everywhere; the tests may run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder_is_said_to_be_one():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        world = make_world(Path(folder) / "world", chunks=2)
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = files_of(Path(folder))
        with as_nobody():
            assert world.load().frames == 1 + CHUNK_FRAMES
            with pytest.raises(WorldError, match="cannot be written"), world.locked():
                pass
            with pytest.raises(WorldError, match="cannot be written"):
                make_world(Path(folder) / "other")
        assert files_of(Path(folder)) == before
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o755)
