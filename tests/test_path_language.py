import math

import pytest
import torch

from photowalk.geometry import motions, path_files, paths
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.path_language import SPEED, TURN_SPEED_DEG, Command, parse, plan
from photowalk.geometry.paths import PathError


def photo(seed=None, dtype=torch.float32):
    pose = torch.eye(4, dtype=torch.float64)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        rotation = motions.rotation_from_vector(torch.randn(3, generator=generator, dtype=torch.float64))
        pose = motions.motion(rotation, torch.randn(3, generator=generator, dtype=torch.float64))
    return Cameras.from_fov(pose, 65.0, 64, 112).to(dtype)


def walk(text, start=None, start_of_walk=None, **options):
    start_of_walk = photo() if start_of_walk is None else start_of_walk
    start = start_of_walk if start is None else start
    return plan(text, start, start_of_walk=start_of_walk, **{"reference_depth": 3.0, **options})


def end(text, **options):
    """Where a sentence from the origin leads: (x, y, z) and gaze."""
    last = walk(text, **options).cameras.world_from_camera[-1]
    return last[:3, 3].tolist(), last[:3, 2].tolist()


@pytest.mark.parametrize(
    ("text", "centre"),
    [
        ("forward 2", (0, 0, 2)),
        ("forward 2m", (0, 0, 2)),
        ("back 2", (0, 0, -2)),
        ("backward .5", (0, 0, -0.5)),
        ("right 0.5", (0.5, 0, 0)),
        ("left 0.5 m", (-0.5, 0, 0)),
        ("up 0.3", (0, -0.3, 0)),
        ("down 0.3", (0, 0.3, 0)),
        ("left 90deg, forward 2", (-2, 0, 0)),
        ("right 90 degrees then forward 2", (2, 0, 0)),
        ("turn right 180deg; forward 2", (0, 0, -2)),
        ("look up 60deg\nforward 2", (0, 0, 2)),  # walking stays level
        ("look up 90deg, forward 2", (0, 0, 2)),
        ("look up 30deg, zoom in 0.5", (0, -0.75, 1.5 * math.sqrt(0.75))),
        ("zoom out 1", (0, 0, -3)),
        ("orbit left 90deg around 2", (-2, 0, 2)),
        ("orbit right 90deg", (3, 0, 3)),
        ("orbit up 90deg around 2", (0, -2, 2)),
        ("orbit down 30deg around 2", (0, 1, 2 - math.sqrt(3))),
        ("forward 2, left 60deg, forward 1.5, up 0.3, look at start, back to start", (0, 0, 0)),
        ("Forward 1, WAIT 10, speed 0.1, forward 1 in 30 frames", (0, 0, 2)),
        ("roll left 20deg, forward 1", (0, 0, 1)),
    ],
)
def test_sentences_lead_where_they_say(text, centre):
    assert end(text)[0] == pytest.approx(centre, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "gaze"),
    [
        ("left 30deg", (-0.5, 0, math.sqrt(0.75))),
        ("look right 30deg", (0.5, 0, math.sqrt(0.75))),
        ("up 30deg", (0, -0.5, math.sqrt(0.75))),
        ("look down 30deg", (0, 0.5, math.sqrt(0.75))),
        ("look down 30deg, look ahead", (0, 0, 1)),
        ("right 2, look at start", (-1, 0, 0)),
        ("forward 1, up 1, look at start", (0, math.sqrt(0.5), -math.sqrt(0.5))),
        ("left 50deg, look at start", (0, 0, 1)),  # standing at the start: its view
        ("orbit left 90deg around 2", (1, 0, 0)),
        ("orbit up 90deg around 2", (0, 1, 0)),
        ("roll right 30deg", (0, 0, 1)),
    ],
)
def test_sentences_look_where_they_say(text, gaze):
    assert end(text)[1] == pytest.approx(gaze, abs=1e-6)


def test_the_walk_begins_at_its_camera_and_moves_with_the_world():
    start = photo(seed=3)
    text = "right 0.5, orbit left 40deg, forward 1, look up 10deg"
    path = walk(text, start_of_walk=start).cameras.check()
    assert torch.equal(path.camera_from_world[0], start.camera_from_world)
    expected = walk(text).cameras.camera_from_world @ start.camera_from_world
    assert torch.allclose(path.camera_from_world, expected, atol=1e-5)


def test_back_to_start_is_exact_from_anywhere():
    start = photo(seed=4)
    first = walk("right 1, left 200deg, left 200deg, look up 20deg, roll left 10deg", start_of_walk=start).cameras
    again = walk("left 40deg, back to start", start=first[-1], start_of_walk=start).cameras
    assert torch.equal(again.camera_from_world[0], first.camera_from_world[-1])
    assert torch.equal(again.camera_from_world[-1], start.camera_from_world)
    waiting = walk("back to start, wait 20", start=first[-1], start_of_walk=start).cameras
    assert torch.equal(waiting.camera_from_world[-10:], start.camera_from_world.expand(10, 4, 4))


def test_back_to_start_turns_the_short_way():
    path = walk("left 350deg, back to start").cameras
    turns = motions.geodesic_angle(path.camera_from_world[:-1].double(), path.camera_from_world[1:].double())
    assert math.degrees(float(turns.sum())) == pytest.approx(360, abs=1)


def test_a_foreign_camera_goes_on_smoothly():
    start, tilted = photo(), photo(seed=8)
    path = walk("forward 0.1", start=tilted, start_of_walk=start).cameras
    jump = motions.geodesic_angle(path.camera_from_world[0].double(), path.camera_from_world[1].double())
    assert float(jump) < 1e-3
    assert float((path.centres[1] - path.centres[0]).norm()) < 0.01


def test_default_speeds_set_the_length():
    assert len(walk(f"forward {160 * SPEED}").cameras) == 161
    assert len(walk(f"left {80 * TURN_SPEED_DEG}deg").cameras) == 81
    assert len(walk("wait 240").cameras) == 241
    assert len(walk("speed 0.01, forward 0.8").cameras) == 81
    assert len(walk("forward 1 in 160 frames").cameras) == 161
    assert len(walk("forward 1", unit=4.8).cameras) == 81  # a unit is the step of the speed, too
    assert end("forward 1", unit=4.8)[0] == pytest.approx((0, 0, 4.8))


def test_speed_limits_hold():
    path = walk("forward 2, left 60deg, right 1, orbit left 50deg, up 1, back to start").cameras.to(torch.float64)
    steps = path.centres.diff(dim=0).norm(dim=-1)
    turns = motions.geodesic_angle(path.camera_from_world[:-1], path.camera_from_world[1:])
    peak = 4 / 3 * 1.1  # easing, and the hurry that saves a chunk
    assert float(steps.max()) <= peak * SPEED
    assert math.degrees(float(turns.max())) <= peak * TURN_SPEED_DEG


def test_whole_chunks_without_still_frames():
    planned = walk("forward 2")
    steps = planned.cameras.centres.diff(dim=0).norm(dim=-1)
    assert len(planned.cameras) == 81
    assert planned.notes == ["a motion of 67 frames was spread evenly over 80 frames, whole chunks of 80"]
    assert float(steps.min()) > 0
    assert walk("forward 2.5").cameras.shape == (81,)  # 83 frames: a little faster rather than twice as long
    assert walk("forward 3").cameras.shape == (161,)


@pytest.mark.parametrize("text", ["walk", "forward 1, back to start"])
def test_lengths_can_be_asked_for(text):
    assert len(walk(text, frames=241).cameras) == 241
    assert len(walk(text, frames=100).cameras) == 161
    assert "100 frames were asked for" in walk(text, frames=100).notes[0]
    assert len(walk(text, min_frames=321).cameras) == 321
    assert len(walk(text, frames=9, chunk=4).cameras) == 9


def test_presets_are_named_freely():
    expected = paths.PRESETS["orbit_left"](photo(), 161, 3.0)
    for name in ("orbit_left", "Orbit-Left", "orbit left"):
        assert torch.equal(walk(name).cameras.camera_from_world, expected.camera_from_world)


def test_straight_above_the_start_one_looks_down_at_it_without_a_turn():
    looked, turned = walk("left 30deg, up 1, look at start"), walk("left 30deg, up 1, look down 90deg")
    assert len(looked.cameras) == len(turned.cameras)
    torch.testing.assert_close(
        looked.cameras.camera_from_world[-1], turned.cameras.camera_from_world[-1], rtol=0, atol=1e-5
    )


def test_standing_still_says_so():
    planned = walk("back to start")
    assert torch.equal(planned.cameras.camera_from_world, photo().camera_from_world.expand(81, 4, 4))
    assert "stands still" in planned.notes[0]


def test_files_are_brought_to_the_photo(tmp_path):
    start = photo(seed=2)
    foreign = paths.PRESETS["walk"](photo(seed=6), 100, 2.0)
    path_files.write(tmp_path / "walk.npz", foreign)
    planned = walk(str(tmp_path / "walk.npz"), start_of_walk=start, scale=3.0)
    path = planned.cameras.check()
    assert len(path) == 161
    assert torch.equal(path.camera_from_world[0], start.camera_from_world)
    assert torch.allclose(path.relative_to(start).centres[::20], 3 * walk_of(foreign, 161)[::20], atol=1e-4)
    assert "100 poses in walk.npz" in planned.notes[0]


def walk_of(path, frames):
    return paths.resample(path, frames).relative_to(path[0]).centres


def test_parse_gives_commands():
    assert parse("forward 2, left 60deg in 40 frames") == [
        Command("move", "forward", 2.0),
        Command("turn", "left", 60.0, True, frames=40.0),
    ]
    assert parse("orbit up 10deg around 2.5; back to start") == [
        Command("orbit", "up", 10.0, True, around=2.5),
        Command("return"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the path is empty.*forward_back"),
        (" , ;", "the path is empty"),
        ("orbitt", "neither a preset.*did you mean 'orbit_left'|neither a preset"),
        ("forwrd 2", "'forwrd' at column 1 is not a command \\(did you mean 'forward'"),
        ("forward 1, hop 2", "'hop' at column 12 is not a command"),
        ("forward 2deg", "'2deg' at column 9 is not a distance"),
        ("left", "the command ends after 'left' \\(column 1\\)"),
        ("look left 2", "'2' at column 11 is not an angle"),
        ("look at moon", "'moon' at column 9 is not a place; wanted: start"),
        ("forward -1", "'-1' at column 9 is negative"),
        ("forward 1 2", "'2' at column 11 does not belong here"),
        ("forward nan", "'nan' at column 9"),
        ("roll up 3deg", "'up' at column 6 is not a direction; wanted: left, right"),
        ("zoom around 2", "wanted: in, out"),
        ("speed 0", "is no speed"),
        ("speed 5frames, forward 1", "'5frames' at column 7 is not a distance or an angle"),
        ("zoom in 0.5m", "'0.5m' at column 9 is not a share of the depth"),
        ("forward 10frames", "'10frames' at column 9 is not a distance"),
        ("left 3 frames", "'3' at column 6 is not a distance"),
        ("orbit left 30deg around 5frames", "'5frames' at column 25 is not a distance"),
        ("wait 5m", "'5m' at column 6 is not a number of frames"),
        ("forward 2 in 3m", "'3m' at column 14 is not a number of frames"),
        ("forward 2 in 0 frames", "is too few; wanted: more frames than 0"),
        ("speed 1", "only sets a speed"),
        ("forward 99999999", "more than 100000"),
        ("walk.csv", "no such file"),
        ("some/where.npz", "no such file"),
    ],
)
def test_errors_name_the_word_and_what_is_known(text, message):
    with pytest.raises(PathError, match=message):
        walk(text)


@pytest.mark.parametrize("options", [{"frames": 1}, {"frames": 10**9}, {"chunk": 0}, {"reference_depth": math.nan}])
def test_bad_numbers_are_refused(options):
    with pytest.raises(PathError):
        walk("walk", **options)


def test_a_bad_camera_is_refused():
    bad = photo()
    bad.camera_from_world[0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        walk("walk", start_of_walk=bad)


def test_a_walk_from_a_camera_held_askew_goes_along_the_true_vertical():
    roll, pitch = math.radians(10), math.radians(-20)  # the camera looks down
    askew = motions.rotation_from_euler(*(torch.tensor(angle, dtype=torch.float64) for angle in (0.0, pitch, roll)))
    up = askew.mT @ torch.tensor([0.0, -1, 0], dtype=torch.float64)  # in the camera's axes, which are the world's
    start = photo()
    walked = walk("forward 2, up 1", up=up).cameras
    steps = walked.centres[-1].double() @ torch.stack([up, walked.centres[-1].double() / 5**0.5]).T
    assert steps[0] == pytest.approx(1.0, abs=1e-5)  # forward was level
    assert steps[1] == pytest.approx(5**0.5, abs=1e-5)
    ahead = walk("look ahead", up=up).cameras[-1]
    assert float(ahead.world_from_camera[:3, 1].double() @ up) == pytest.approx(-1, abs=1e-5)
    for text in ("forward 1, left 30deg, back to start", "look up 20deg, look at start"):
        back = walk(text, up=up).cameras[-1]
        torch.testing.assert_close(back.camera_from_world, start.camera_from_world, atol=1e-5, rtol=0)
    with pytest.raises(PathError, match="straight up or down"):
        walk("forward 1", up=torch.tensor([0.0, 0.0, 1.0]))
