"""Walks as they are planned from a photo, by the session and by the studio."""

import math
import re
from dataclasses import replace

import pytest
import torch
from worlds import make_chunk, make_world

from photowalk.geometry import paths
from photowalk.geometry.cameras import Cameras
from photowalk.memory.foresight import share_known
from photowalk.scene.types import Clip
from photowalk.world import planning, store
from photowalk.world.state import WorldState
from photowalk.world.store import WorldStore
from photowalk.world.wording import Wording

SIZE = HEIGHT, WIDTH = 48, 72
LOOKS_DOWN = math.radians(20)
UP = torch.tensor([0.0, -math.cos(LOOKS_DOWN), -math.sin(LOOKS_DOWN)], dtype=torch.float64)


@pytest.fixture
def above_a_floor(tmp_path):
    """A photo taken 1.5 above a floor by a camera that looks down on it."""
    photo = make_chunk(0)
    camera = Cameras.from_fov(torch.eye(4), 60.0, HEIGHT, WIDTH)
    depth = -1.5 / (camera.unproject(torch.ones(SIZE)).double() @ UP)
    depth = depth.where((depth > 0) & (depth < 20), torch.inf).half().float()
    photo = replace(photo, clip=Clip(torch.zeros(1, 3, *SIZE), camera[None], depth[None]), close_up=None)
    manifest = replace(make_world(tmp_path / "other").manifest, height=HEIGHT, width=WIDTH)
    with store.new_world(tmp_path / "world") as partial:
        store.create(partial, manifest, photo.clip.video[0], photo, None, None)
    return WorldStore(tmp_path / "world")


def planned(world, path):
    state = WorldState.from_chunks([world.chunk(0)])
    return planning.plan_walk(path, state, world.manifest, Wording("a hall"), 0, lambda note: None)[1]


def test_a_photo_that_looks_down_is_walked_into_level_and_its_horizon_stays_level(above_a_floor):
    walked = planned(above_a_floor, "forward 0.3, left 90deg, forward 0.3")
    assert float((walked.centres.double() @ UP).abs().max()) < 0.01
    assert float(walked.centres[-1].double().norm()) == pytest.approx(0.3 * 2**0.5, rel=0.02)
    rights = walked.camera_from_world[:, 0, :3].double()
    assert float((rights @ UP).abs().max()) < 0.02
    gaze = walked.camera_from_world[:, 2, :3].double() @ UP
    torch.testing.assert_close(gaze, torch.full_like(gaze, -math.sin(LOOKS_DOWN)), atol=0.02, rtol=0)
    back = planned(above_a_floor, "forward 0.3, left 90deg, back to start")
    torch.testing.assert_close(back.camera_from_world[-1], torch.eye(4), atol=1e-5, rtol=0)


def test_how_far_away_something_is_in_the_way_is_told_in_metres(above_a_floor):
    told = {}
    for metres in (1, 2):  # of a world unit: twice as many metres are the same way
        above_a_floor.manifest = replace(above_a_floor.manifest, metres_per_unit=metres)
        notes = []
        state = WorldState.from_chunks([above_a_floor.chunk(0)])
        path = f"forward {3 * metres}, down {1.6 * metres}"
        planning.plan_walk(path, state, above_a_floor.manifest, Wording("a hall"), 0, notes.append)
        told[metres] = float(re.search(r"run into something (.*) m ahead", " ".join(notes))[1])
    assert told[2] == pytest.approx(2 * told[1], abs=0.11)  # a decimal is told


@pytest.mark.parametrize("name", sorted(paths.PRESETS.keys() - paths.ALONG_GAZE - {"up_down"}))
def test_presets_go_level_too_and_keep_the_tilt_of_the_gaze(above_a_floor, name):
    walked = planned(above_a_floor, name)
    assert float((walked.centres.double() @ UP).abs().max()) < 0.01
    assert float((walked.camera_from_world[:, 0, :3].double() @ UP).abs().max()) < 0.02
    gaze = walked.camera_from_world[:, 2, :3].double() @ UP
    torch.testing.assert_close(gaze, torch.full_like(gaze, -math.sin(LOOKS_DOWN)), atol=0.02, rtol=0)
    if paths.PRESETS[name](walked[0], 3, 1.0)[2].camera_from_world.equal(
        walked[0].camera_from_world
    ):  # one that returns
        assert walked[-1].camera_from_world.equal(torch.eye(4))


def test_presets_along_the_gaze_stay_along_it(above_a_floor):
    centres = planned(above_a_floor, "zoom_in").centres
    assert float(centres[:, :2].abs().max()) < 1e-5
    assert float(centres[-1, 2]) > 0.1


def test_what_a_person_says_is_up_counts_for_more(above_a_floor):
    above_a_floor.correct(up=(0.0, -1.0, 0.0))
    walked = planned(above_a_floor, "forward 0.3, left 90deg, forward 0.3")
    assert float(walked.centres[:, 1].abs().max()) < 1e-5


def test_the_studio_plans_the_walk_that_the_session_takes(above_a_floor):
    pytest.importorskip("viser", reason="the extra 'studio' is not installed")
    from photowalk.studio.planning import plan_walk
    from photowalk.studio.scenery import SceneryCache
    from photowalk.studio.schemas import PathRequest

    path = "forward 0.3, right 40deg"
    shown = plan_walk(SceneryCache().get(above_a_floor.folder), PathRequest(path=path)).cameras
    assert torch.equal(shown.camera_from_world[1:], planned(above_a_floor, path).camera_from_world)


def test_a_walk_that_turns_its_back_on_all_that_is_known_is_told_where(above_a_floor):
    told = []
    state = WorldState.from_chunks([above_a_floor.chunk(0)])

    def walk(path):
        told.clear()
        return planning.plan_walk(path, state, above_a_floor.manifest, Wording("a hall"), 0, told.append)

    walk("forward 0.3, left 20deg, back to start")
    assert not any("made up" in note for note in told)
    job, cameras = walk("left 170deg, wait 1, back to start")
    note = next(note for note in told if "made up" in note)
    assert note in job.notes
    first, last = (int(number) for number in re.findall(r"frame (\d+)", note))
    turned = torch.rad2deg(
        torch.arccos((cameras.camera_from_world[:, 2] @ state.first.camera.camera_from_world[2]).clamp(-1, 1))
    )
    # the photo is 60 degrees wide, and every eighth frame was looked at
    assert min(turned[first - 1], turned[last - 1]) > 40
    assert max(turned[: first - 9].max(), turned[last + 7 :].max()) < 70


def test_what_is_known_fills_the_picture_that_saw_it_and_ones_from_nearer(above_a_floor):
    memory = WorldState.from_chunks([above_a_floor.chunk(0)]).memory
    photo = memory[0]
    floor = float((photo.depth.isfinite() & (photo.depth > 0)).float().mean())
    here, nearer = photo.camera, replace(photo.camera, intrinsics=photo.camera.intrinsics.clone())
    nearer.intrinsics[:2, :2] *= 2
    away = replace(here, camera_from_world=here.camera_from_world * torch.tensor([-1.0, 1, -1, 1])[:, None])
    shares = share_known(Cameras.cat([here[None], away[None]]), memory.candidates)
    assert float(shares[0]) >= floor
    assert float(shares[1]) == 0
    assert float(share_known(nearer[None], memory.candidates)) > 0.9
