"""The HTTP API with its typed client, around real networks, untrained and tiny, in the process that generates."""

import io
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from studio import CHUNK_FRAMES, HEIGHT, ONE_CHUNK, OTHER_CHUNK, WIDTH, load_tiny, make_photo
from worlds import assert_same_world

pytest.importorskip("fastapi", reason="the extra 'studio' is not installed")
from fastapi.testclient import TestClient

from photowalk import World
from photowalk.geometry import path_files
from photowalk.scene.images import write_atomically
from photowalk.studio import job_queue, scenery, schemas
from photowalk.studio.access import Access
from photowalk.studio.api import create_app
from photowalk.studio.client import Client, RefusedError
from photowalk.studio.errors import NotFoundError
from photowalk.studio.horizon import up_of
from photowalk.studio.planning import cameras_at, fov_deg
from photowalk.studio.service import PATH_FILES, Studio
from photowalk.world.store import WorldStore


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return make_photo(tmp_path_factory.mktemp("photo") / "room.png")


@contextmanager
def serving(studio):
    with TestClient(create_app(studio, Access({}, open_to="me")), base_url="http://localhost") as http:
        yield Client("", http=http)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A studio and two people's clients; the process that generates starts once for all tests of this file."""
    studio = Studio(tmp_path_factory.mktemp("studio"), load_tiny, "tiny", threads=1)
    studio.queue.prepare()
    app = create_app(studio, Access({"ann": "token-of-ann", "bob": "token-of-bob"}))
    with TestClient(app, base_url="http://localhost") as http:
        http.headers["authorization"] = "Bearer token-of-ann"
        bob = TestClient(app, base_url="http://localhost", headers={"authorization": "Bearer token-of-bob"})
        yield studio, Client("", http=http), Client("", http=bob)


@pytest.fixture(scope="module")
def ann(running):
    return running[1]


@pytest.fixture(scope="module")
def bob(running):
    return running[2]


@pytest.fixture(scope="module")
def walked(ann, photo):
    """A world of one photo and one chunk; tests branch it."""
    made = ann.create(photo, prompt="a room", seed=5)
    assert ann.wait(made.job).state == "done"
    assert ann.wait(ann.extend(made.world.id, ONE_CHUNK)).state == "done"
    return ann.world(made.world.id)


@pytest.fixture
def world(ann, walked):
    return ann.branch(walked.id).id


def test_a_photo_becomes_a_world_that_is_walked(walked):
    assert (walked.title, walked.ready, walked.height, walked.width) == ("room", True, HEIGHT, WIDTH)
    assert [chunk.frames for chunk in walked.chunks] == [1, CHUNK_FRAMES]
    assert [(chunk.prompt, chunk.seed) for chunk in walked.chunks] == [("a room", 5), ("a room", 6)]
    assert {"photo.png", "walk.mp4"} <= set(walked.files)


def test_the_studio_makes_the_same_frames_as_the_library(running, walked, photo, tmp_path):
    studio, *_ = running
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    own = World.create(photo, tmp_path / "own", path=ONE_CHUNK, prompt="a room", preset=load_tiny("tiny"), seed=5)
    torch.set_num_threads(threads)
    assert_same_world(World.open(studio.library.folder("ann", walked.id), own.generator).state, own.state)


def test_progress_names_every_stage_and_shows_pictures(ann, world):
    states = list(ann.watch(ann.extend(world, f"forward 0.01 in {2 * CHUNK_FRAMES} frames")))
    assert states[-1].state == "done"
    assert states[-1].progress.chunk == states[-1].progress.chunks == 2
    stages = {state.progress.stage for state in states}
    assert stages & {"denoise", "detail"}
    assert states[-1].progress.previews > 0
    picture = Image.open(io.BytesIO(ann._http.get(f"/api/jobs/{states[-1].id}/preview.jpg").content))
    assert picture.size == (WIDTH, HEIGHT)


def test_undo_redo_and_branches(ann, world):
    assert len(ann.undo(world).chunks) == 1
    assert ann.world(world).undone == 1
    assert len(ann.redo(world).chunks) == 2
    branch = ann.branch(world, at=0, title="another way")
    ann.wait(ann.extend(branch.id, OTHER_CHUNK, prompt="a garden"))
    branch = ann.world(branch.id)
    assert (branch.title, branch.parent, branch.branched_at) == ("another way", world, 0)
    assert branch.chunks[1].prompt == "a garden"
    with pytest.raises(RefusedError, match="nothing to redo"):
        ann.redo(world)
    with pytest.raises(RefusedError, match="there is no chunk 9"):
        ann.branch(world, at=9)


def test_a_running_job_is_cancelled_and_its_walk_continued(ann, world):
    job = ann.extend(world, f"right 20deg in {3 * CHUNK_FRAMES} frames")
    for state in ann.watch(job):
        if state.state == "running" and state.progress.chunk == 2:
            ann.cancel(job.id)
    assert ann.job(job.id).state == "cancelled"
    stopped = ann.world(world)
    assert len(stopped.chunks) == 3
    assert stopped.to_go == 2
    assert ann.wait(ann.go_on(world)).state == "done"
    assert len(ann.world(world).chunks) == 5


def test_errors_name_the_world_and_not_where_it_lies(running, ann, world, monkeypatch):
    studio, *_ = running
    monkeypatch.setattr(studio, "sceneries", scenery.SceneryCache())  # nothing was looked at before
    store = WorldStore(studio.library.folder("ann", world))
    messages = []
    for change in (lambda: ann.undo(world, 9), lambda: ann.redo(world, 9)):
        with pytest.raises(RefusedError) as refused:
            change()
        messages.append(str(refused.value))
    with store.locked(), pytest.raises(RefusedError, match="another process") as refused:
        ann.undo(world)
    assert refused.value.status == 409
    messages.append(str(refused.value))
    (store.folder / store.manifest.chunks[1].folder / "cameras.safetensors").unlink()
    for read in (
        lambda: ann.wait(ann.reconstruct(world)),
        lambda: ann.frame(world, CHUNK_FRAMES),
        lambda: ann.reroll(world),
    ):
        with pytest.raises(RefusedError, match="is missing or damaged") as refused:
            read()
        messages.append(str(refused.value))
    for message in messages:
        assert "room (branch)" in message
        assert str(studio.root) not in message


@pytest.mark.parametrize("stopped_as", ["interrupted", "cancelled"])
@pytest.mark.parametrize("change", ["walk on", "begin to walk on", "undo"])
def test_a_walk_is_not_resumed_in_a_world_that_changed_since(running, ann, world, stopped_as, change):
    studio, *_ = running
    job = stopped(ann, world, from_chunk=2 if change == "undo" else 1)
    with studio.queue._changed:
        studio.queue._put(job.model_copy(update={"state": stopped_as}))  # interrupted, as it is after a restart
    if change == "walk on":
        assert ann.wait(ann.extend(world, OTHER_CHUNK)).state == "done"
    elif change == "begin to walk on":
        stopped(ann, world, from_chunk=1)
    else:
        ann.undo(world)
    before = ann.world(world).chunks
    with pytest.raises(RefusedError, match="has changed since"):
        ann.resume(job.id)
    assert ann.job(job.id).state == "cancelled"
    assert ann.world(world).chunks == before


def test_walks_from_before_a_restart_wait_for_the_one_that_it_interrupted(tmp_path, photo):
    studio = Studio(tmp_path, load_tiny, "tiny", threads=1)
    with serving(studio) as ann:
        made = ann.create(photo)
        ann.wait(made.job)
        walk, world = stopped(ann, made.world.id, from_chunk=1), made.world.id
    behind = [walk.model_copy(update={"created": walk.created + later}) for later in (1e-3, 2e-3)]
    # as they lay when the power failed: one had begun, and two waited
    files = {walk.id: "running", **dict.fromkeys(("b" * len(walk.id), "c" * len(walk.id)), "waiting")}
    for (name, state), job in zip(files.items(), (walk, *behind)):
        job = job.model_copy(update={"id": name, "state": state, "base": walk.base if name == walk.id else None})
        (tmp_path / "jobs" / f"{name}.json").write_text(job.model_dump_json())
    with serving(Studio(tmp_path, load_tiny, "tiny", threads=1)) as ann:
        for held in list(files)[1:]:
            job = ann.job(held)
            assert (job.state, job.held) == ("waiting", True)
        new = ann.branch(world)
        assert ann.wait(ann.extend(new.id, ONE_CHUNK)).state == "done"  # other worlds do not wait
        assert ann.job(walk.id).state == "interrupted"
        ann.resume(walk.id)
        assert {ann.wait(ann.job(name)).state for name in files} == {"done"}
        assert len(ann.world(world).chunks) == 1 + 3 * 4


def stopped(client, world, from_chunk):
    """A walk that is cancelled when it is seen in that chunk or a later one."""
    job = client.extend(world, f"right 20deg in {4 * CHUNK_FRAMES} frames")
    for state in client.watch(job):
        if state.state == "running" and state.progress.chunk >= from_chunk:
            client.cancel(job.id)
    assert client.job(job.id).state == "cancelled"
    return client.job(job.id)


def test_a_waiting_job_is_cancelled_before_it_begins(ann, world):
    first, second = ann.extend(world, ONE_CHUNK), ann.extend(world, OTHER_CHUNK)
    assert ann.cancel(second.id).state == "cancelled"
    ann.wait(first)
    assert len(ann.world(world).chunks) == 3


def test_people_take_turns_between_chunks(ann, bob, world, photo):
    long = ann.extend(world, f"right 20deg in {4 * CHUNK_FRAMES} frames")
    next(state for state in ann.watch(long) if state.progress.stage)
    made = bob.create(photo)
    assert bob.wait(made.job).state == "done"
    assert ann.job(long.id).state in ("waiting", "running")
    assert ann.wait(long).state == "done"
    assert len(ann.world(world).chunks) == 6


def test_people_do_not_see_each_others_worlds(ann, bob, walked):
    assert walked.id not in [world.id for world in bob.worlds()]
    for call in (bob.world, bob.undo, bob.reconstruct, bob.delete, bob.branch):
        with pytest.raises(RefusedError, match="no world"):
            call(walked.id)
    job = ann.jobs()[0]
    for call in (bob.job, bob.cancel, bob.resume):
        with pytest.raises(RefusedError, match="no job"):
            call(job.id)


def test_a_plan_says_what_will_be_done(ann, walked):
    plan = ann.plan(walked.id, "left 5deg")
    assert plan.frames % CHUNK_FRAMES == 0
    assert len(plan.poses) == len(plan.blocked) == plan.frames + 1
    assert any("spread" in note for note in plan.notes)
    target = schemas.Pose(position=(0.0, 0.0, 0.0), wxyz=(2.0, 0.0, 0.0, 0.0))
    back = ann.plan(walked.id, keyframes=[target])
    assert back.poses[-1].position == pytest.approx(target.position, abs=1e-6)
    assert back.poses[-1].wxyz == pytest.approx((1, 0, 0, 0), abs=1e-5)


@pytest.mark.parametrize("spline", ["round", "straight"])
def test_the_lens_may_change_from_keyframe_to_keyframe(ann, walked, spline):
    here = ann.plan(walked.id, "wait 1").poses[-1]
    assert here.fov_deg == pytest.approx(walked.fov_deg, abs=1e-3)
    zoomed = ann.plan_walk(
        walked.id, schemas.PathRequest(keyframes=[here.model_copy(update={"fov_deg": 30.0})], spline=spline)
    )
    widths = [pose.fov_deg for pose in zoomed.poses]
    assert widths[0] == pytest.approx(walked.fov_deg, abs=1e-3)
    assert widths[-1] == pytest.approx(30, abs=1e-3)
    assert widths == sorted(widths, reverse=True)
    assert zoomed.length == pytest.approx(0, abs=1e-5)


def test_keyframes_are_walked_to(running, ann, world):
    studio, *_ = running
    pose = schemas.Pose(position=(0.0, 0.0, 0.0), wxyz=(1.0, 0.0, 0.0, 0.0), fov_deg=50.0)
    ann.wait(ann.extend(world, keyframes=[pose]))
    plan = ann.plan(world, "wait 1")
    assert plan.poses[0].position == pytest.approx((0, 0, 0), abs=1e-5)
    assert plan.poses[0].fov_deg == pytest.approx(50, abs=1e-3)
    assert float(fov_deg(studio.scenery("ann", world).cameras)[-1]) == pytest.approx(50, abs=1e-3)


def test_keyframes_are_not_walked_to_from_elsewhere_than_they_were_planned_from(running, ann, world):
    studio, *_ = running
    poses = [schemas.Pose(position=(x, 0.0, 0.0), wxyz=(1.0, 0.0, 0.0, 0.0), fov_deg=50.0) for x in (0.1, 0.2)]
    first, second = (ann.extend(world, keyframes=[pose]) for pose in poses)
    files = [studio.library.upload(job.order.cameras) for job in (first, second)]
    assert ann.wait(first).state == "done"
    frames = ann.world(world).frames
    with pytest.raises(RefusedError, match="gone on since"):
        ann.wait(second)
    assert ann.world(world).frames == frames
    assert all(file.exists() for file in files), "a job that failed can be tried again"
    ann.delete(world)
    assert not any(file.exists() for file in files)


def test_the_last_chunk_is_made_again_along_the_same_cameras(running, ann, world):
    studio, *_ = running
    ann.wait(ann.extend(world, f"right 20deg in {2 * CHUNK_FRAMES} frames", seed=1))
    before, cameras = ann.world(world), studio.scenery("ann", world).cameras
    assert ann.wait(ann.reroll(world, seed=99)).state == "done"
    after = ann.world(world)
    assert [chunk.key for chunk in after.chunks[:-1]] == [chunk.key for chunk in before.chunks[:-1]]
    assert after.chunks[-1].key != before.chunks[-1].key
    torch.testing.assert_close(
        studio.scenery("ann", world).cameras.camera_from_world, cameras.camera_from_world, rtol=0, atol=1e-5
    )
    with pytest.raises(RefusedError, match="photo alone"):
        ann.reroll(ann.branch(world, 0).id)


def test_a_world_that_was_made_and_walked_is_not_made_again(running, ann, walked, world):
    studio, *_ = running
    order = schemas.Create(photo=studio.library.about("ann", walked.id).photo)
    assert ann.wait(studio.queue.submit("ann", world, order)).state == "done"  # as one that was never told of as done
    assert ann.world(world).frames == walked.frames


def test_a_disk_that_is_full_for_a_moment_does_not_end_the_queue(ann, world, monkeypatch):
    def full_for_the_queue(file, fill):
        if threading.current_thread().name == "job queue":
            raise OSError(28, "No space left on device")
        write_atomically(file, fill)

    with monkeypatch.context() as patch:
        patch.setattr(job_queue, "write_atomically", full_for_the_queue)
        job = ann.extend(world, ONE_CHUNK)
        with pytest.raises(RefusedError, match="No space left"):
            ann.wait(job)
    assert ann.wait(ann.resume(job.id)).state == "done"


def test_a_picture_wants_its_chunk_alone_and_a_long_world_is_read_once(running, world, monkeypatch):
    studio, *_ = running
    folder, cache = studio.library.folder("ann", world), scenery.SceneryCache()
    read = []
    prepared = scenery._prepared
    monkeypatch.setattr(scenery, "_prepared", lambda chunk: read.append(chunk) or prepared(chunk))
    monkeypatch.setattr(scenery, "MAX_CHUNKS_KEPT", 1)
    picture = cache.picture(folder, CHUNK_FRAMES)
    assert len(read) == 1
    assert cache.get(folder).chunks[1].pictures[-1] == picture
    cache.get(folder)
    assert len(read) == 2
    with pytest.raises(NotFoundError, match=f"frames 0 to {CHUNK_FRAMES}"):
        cache.picture(folder, CHUNK_FRAMES + 1)


def test_camera_files_become_keyframes_from_where_the_walk_stands(running, ann, walked, tmp_path):
    studio, *_ = running
    ann.wait(ann.export(walked.id, ".npz"))
    ann.download(walked.id, "world.npz", tmp_path / "cameras.npz")
    assert (
        len(path_files.read(tmp_path / "cameras.npz", lens=studio.scenery("ann", walked.id).cameras[-1]))
        == 1 + CHUNK_FRAMES
    )
    poses = ann.read_path(walked.id, tmp_path / "cameras.npz")
    assert len(poses) == CHUNK_FRAMES
    ann.wait(ann.export(walked.id, ".colmap.zip"))
    ann.download(walked.id, "world.colmap.zip", tmp_path / "model.zip")
    again = ann.read_path(walked.id, tmp_path / "model.zip")
    assert [pose.position for pose in again] == [pytest.approx(pose.position, abs=1e-5) for pose in poses]
    assert not [left for left in (studio.root / "uploads").iterdir() if left.is_dir()]


@pytest.mark.parametrize("ending", PATH_FILES)
def test_a_plan_is_saved_in_every_format_and_read_again(running, ann, walked, tmp_path, ending):
    studio, *_ = running
    plan = ann.plan(walked.id, "left 20deg, forward 0.3")
    lens = studio.scenery("ann", walked.id).cameras[-1]
    file = tmp_path / f"plan{ending}"
    file.write_bytes(studio.path_file(cameras_at(plan.poses, lens), ending))
    read = ann.read_path(walked.id, file)
    assert read[-1].position == pytest.approx(plan.poses[-1].position, abs=1e-4)
    assert abs(np.dot(read[-1].wxyz, plan.poses[-1].wxyz)) == pytest.approx(1, abs=1e-5)
    assert read[-1].fov_deg == pytest.approx(plan.poses[-1].fov_deg, abs=1e-3)


def test_scale_and_horizon_are_corrected_at_any_time(running, ann, world):
    studio, *_ = running
    before, plan = ann.world(world), ann.plan(world, "forward 1")
    wish = schemas.CorrectRequest(scale=2.0, roll_deg=3.0, pitch_deg=-10.0)
    corrected = ann.correct(world, wish)
    assert corrected.job is None
    after = corrected.world
    assert after.reference_depth == pytest.approx(2 * before.reference_depth, rel=1e-5)
    assert after.walked == pytest.approx(2 * before.walked, abs=1e-9)
    assert (after.roll_deg, after.pitch_deg) == pytest.approx((3, -10))
    again = ann.plan(world, "forward 1")
    assert again.length == pytest.approx(plan.length, rel=1e-2)  # metres; half as far in world units
    ends = [torch.tensor(made.poses[-1].position) - torch.tensor(made.poses[0].position) for made in (plan, again)]
    assert float(ends[1].norm()) == pytest.approx(float(ends[0].norm()) / 2, rel=1e-2)
    assert float(ends[1] @ torch.tensor(up_of(3, -10))) == pytest.approx(0, abs=1e-3)  # it stays level
    assert ann.wait(ann.extend(world, f"up 0.1 in {CHUNK_FRAMES} frames")).state == "done"
    cameras = studio.scenery("ann", world).cameras
    risen = (cameras.centres[-1] - cameras.centres[CHUNK_FRAMES]).tolist()
    assert risen == pytest.approx([0.05 * axis for axis in up_of(3, -10)], abs=1e-3)
    known = ann.correct(world, schemas.CorrectRequest(scale_to="12m from 10,10 to 50,30")).world
    assert known.metres_per_unit > 2
    assert (known.roll_deg, known.pitch_deg) == pytest.approx((3, -10))
    with pytest.raises(RefusedError, match="write 'door height 2m from X,Y to X,Y'"):
        ann.correct(world, schemas.CorrectRequest(scale_to="door height 2m"))


def test_the_lens_is_corrected_before_the_walk(running, ann, photo):
    made = ann.create(photo)
    ann.wait(made.job)
    folder = running[0].library.folder("ann", made.world.id)
    before = WorldStore(folder).chunk(0)
    ann.correct(made.world.id, schemas.CorrectRequest(scale=3.0))
    assert ann.wait(ann.correct(made.world.id, schemas.CorrectRequest(fov_deg=90.0)).job).state == "done"
    after = ann.world(made.world.id)
    assert after.fov_deg == pytest.approx(90, abs=1e-3)
    assert after.metres_per_unit == 3  # what was corrected before is kept
    seen = WorldStore(folder).chunk(0)
    assert torch.equal(seen.close_up, before.close_up)
    torch.testing.assert_close(seen.clip.video, before.clip.video, atol=3 / 255, rtol=0)  # resampled once more
    assert torch.equal(seen.clip.depth, before.clip.depth)
    ann.wait(ann.extend(made.world.id, ONE_CHUNK))
    with pytest.raises(RefusedError, match="branch at the photo"):
        ann.correct(made.world.id, schemas.CorrectRequest(fov_deg=80.0))


def test_a_prompt_is_written_out_for_the_walk_that_is_planned(running, ann, world, monkeypatch):
    written = ann.expand(world, "forward 1", "a bright hall")
    assert written == "a bright hall. The camera moves forward."
    studio, *_ = running
    monkeypatch.setattr(studio, "captioner", "no such model")
    with pytest.raises(RefusedError, match="cannot be loaded"):  # by the process that generates
        ann.expand(world, "forward 1", "a bright hall")
    kept = set((studio.root / "uploads").iterdir())
    monkeypatch.setattr(job_queue, "MAX_WAITING", 0)
    with pytest.raises(RefusedError, match="wait already"):
        ann.expand(world, "forward 1", "a bright hall")
    assert set((studio.root / "uploads").iterdir()) == kept  # nothing is left of what was refused


def test_keyframes_are_joined_round_or_straight_and_back_to_the_start(ann, walked):
    start = ann.plan(walked.id, "wait 1").poses[-1]
    x, y, z = start.position
    keys = [start.model_copy(update={"position": place}) for place in ((x + 0.3, y, z), (x + 0.3, y, z + 0.3))]
    wish = {"keyframes": keys, "avoid": False}
    straight = ann.plan_walk(walked.id, schemas.PathRequest(**wish, spline="straight"))
    round_ = ann.plan_walk(walked.id, schemas.PathRequest(**wish))
    assert straight.length == pytest.approx(0.6, abs=1e-4)
    assert round_.length > straight.length
    on_a_leg = [min(abs(pose.position[0] - x - 0.3), abs(pose.position[2] - z)) for pose in straight.poses]
    assert max(on_a_leg) < 1e-5
    loop = ann.plan_walk(walked.id, schemas.PathRequest(**wish, loop=True))
    assert loop.poses[-1].position == pytest.approx(start.position, abs=1e-5)
    slow = ann.plan_walk(walked.id, schemas.PathRequest(**wish, speed=0.25))
    assert slow.frames == pytest.approx(4 * round_.frames, abs=4 * CHUNK_FRAMES)
    assert slow.frames > 2 * round_.frames


def test_memory_says_what_it_knows_of_a_view(ann, walked):
    here = ann.recall(walked.id, schemas.Pose(position=(0.0, 0.0, 0.0), wxyz=(1.0, 0.0, 0.0, 0.0)))
    behind = ann.recall(walked.id, schemas.Pose(position=(0.0, 0.0, 0.0), wxyz=(0.0, 0.0, 1.0, 0.0)))
    assert here.coverage > 0.95
    assert here.recalled_coverage <= here.coverage
    assert behind.never_seen > 0.95


def test_files_come_whole_and_by_range(ann, walked, tmp_path):
    ann.download(walked.id, "walk.mp4", tmp_path / "walk.mp4")
    whole = (tmp_path / "walk.mp4").read_bytes()
    part = ann._http.get(f"/api/worlds/{walked.id}/files/walk.mp4", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    past = ann._http.get(f"/api/worlds/{walked.id}/files/walk.mp4", headers={"range": f"bytes={len(whole)}-"})
    assert past.status_code == 416
    assert Image.open(io.BytesIO(ann.frame(walked.id, CHUNK_FRAMES))).size == (WIDTH, HEIGHT)
    with pytest.raises(RefusedError, match="frames 0 to 16"):
        ann.frame(walked.id, CHUNK_FRAMES + 1)


def test_worlds_are_renamed_and_deleted(running, ann, world):
    studio, *_ = running
    assert ann.rename(world, "the hall").title == "the hall"
    folder = studio.library.folder("ann", world)
    ann.delete(world)
    assert not folder.exists()
    with pytest.raises(RefusedError, match="no world"):
        ann.world(world)


def test_a_photo_that_cannot_be_used_says_why(ann, tmp_path):
    (tmp_path / "note.jpg").write_text("no picture")
    with pytest.raises(RefusedError, match="no picture that can be read"):
        ann.create(tmp_path / "note.jpg")
