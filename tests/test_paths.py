import math

import pytest
import torch

from photowalk.geometry import motions, paths
from photowalk.geometry.cameras import Cameras

DEPTH = 3.0


def photo(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    rotation = motions.rotation_from_vector(torch.randn(3, generator=generator, dtype=torch.float64))
    pose = motions.motion(rotation, torch.randn(3, generator=generator, dtype=torch.float64))
    return Cameras.from_fov(pose, 65.0, 64, 112).to(dtype)


def origin():
    return Cameras.from_fov(torch.eye(4, dtype=torch.float64), 65.0, 64, 112)


def same(a, b, tolerance=1e-9):
    return torch.allclose(a.camera_from_world, b.camera_from_world, rtol=0, atol=tolerance)


@pytest.fixture(params=sorted(paths.PRESETS))
def preset(request):
    return paths.PRESETS[request.param]


@pytest.mark.parametrize("frames", [1, 2, 80, 81, 161])
def test_presets_begin_at_the_photo_bit_for_bit(preset, frames):
    start = photo()
    path = preset(start, frames, DEPTH).check()
    assert path.shape == (frames,)
    assert path.camera_from_world.dtype == start.camera_from_world.dtype
    assert torch.equal(path.camera_from_world[0], start.camera_from_world)
    assert torch.equal(path.intrinsics, start.intrinsics.expand(frames, 3, 3))


def test_presets_move_with_the_world(preset):
    world = photo(seed=5, dtype=torch.float64).camera_from_world
    start = photo(dtype=torch.float64)
    moved_start = Cameras(start.camera_from_world @ world, start.intrinsics, start.height, start.width)
    path, moved = preset(start, 33, DEPTH), preset(moved_start, 33, DEPTH)
    assert torch.allclose(moved.camera_from_world, path.camera_from_world @ world, atol=1e-10)


def test_presets_scale_with_the_depth(preset):
    near, far = preset(origin(), 33, DEPTH), preset(origin(), 33, 2 * DEPTH)
    assert torch.allclose(2 * near.centres, far.centres, atol=1e-9)
    assert torch.allclose(near.camera_from_world[:, :3, :3], far.camera_from_world[:, :3, :3], atol=1e-9)


def test_presets_are_the_same_curve_at_any_number_of_frames(preset):
    few, many = preset(origin(), 41, DEPTH), preset(origin(), 81, DEPTH)
    assert same(few, many[::2])


def test_presets_are_deterministic_and_gentle(preset):
    path = preset(origin(), 161, DEPTH)
    assert torch.equal(path.camera_from_world, preset(origin(), 161, DEPTH).camera_from_world)
    step = path.centres.diff(dim=0).norm(dim=-1)
    turn = motions.geodesic_angle(path.camera_from_world[:-1], path.camera_from_world[1:])
    assert float(step.max()) < 0.02 * DEPTH
    assert math.degrees(float(turn.max())) < 2
    assert max(float(step.diff().abs().max()), DEPTH * float(turn.diff().abs().max())) < 2e-3 * DEPTH  # no jerks


@pytest.mark.parametrize("name", ["forward_back", "look_around", "spiral", "up_down", "walk"])
@pytest.mark.parametrize("frames", [80, 161])
def test_returning_presets_end_at_the_photo_bit_for_bit(name, frames):
    start = photo()
    path = paths.PRESETS[name](start, frames, DEPTH)
    assert torch.equal(path.camera_from_world[-1], start.camera_from_world)
    assert not same(path[frames // 2], start, 1e-3) or name in ("look_around", "spiral")


def ends(path):
    return [round(value, 9) for value in path.centres[-1].tolist()]


def test_straight_paths_reach_their_ends():
    assert ends(paths.forward(origin(), 9, distance=2)) == [0, 0, 2]
    assert ends(paths.backward(origin(), 9, distance=2)) == [0, 0, -2]
    assert ends(paths.strafe(origin(), 9, distance=2)) == [2, 0, 0]
    assert ends(paths.crane(origin(), 9, distance=2)) == [0, -2, 0]
    assert ends(paths.zoom_in(origin(), 9, depth=4)) == [0, 0, 2]
    assert ends(paths.zoom_out(origin(), 9, depth=4)) == [0, -0.9, -6]
    assert paths.forward_back(origin(), 9, distance=2).centres[4].tolist() == [0, 0, 2]


@pytest.mark.parametrize("sweep", [40.0, -40.0, 360.0])
def test_orbit_keeps_its_distance_and_its_point_in_the_middle(sweep):
    path = paths.orbit(origin(), 33, depth=2.5, sweep_deg=sweep)
    pixels, depth = path.project(torch.tensor([[0, 0, 2.5]], dtype=torch.float64).expand(33, 1, 3))
    assert torch.allclose(depth, torch.tensor(2.5, dtype=torch.float64))
    assert torch.allclose(pixels[:, 0], torch.tensor([56.0, 32.0], dtype=torch.float64))
    turned = math.degrees(float(motions.geodesic_angle(path.camera_from_world[0], path.camera_from_world[-1])))
    assert turned == pytest.approx(abs(sweep) % 360, abs=1e-5)
    if abs(sweep) < 180:
        assert float(path.centres[-1, 0]) * sweep > 0  # positive goes right


def test_turns_go_the_way_they_say():
    gaze = paths.turn(origin(), 9, yaw_deg=30).world_from_camera[-1, :3, 2]
    assert gaze.tolist() == pytest.approx([0.5, 0, math.sqrt(0.75)])
    glances = paths.look_around(origin(), 81, sweep_deg=35).world_from_camera[:, 0, 2]
    assert float(glances.min()) == pytest.approx(-math.sin(math.radians(35)), abs=1e-3)
    assert float(glances.max()) == pytest.approx(math.sin(math.radians(35)), abs=1e-3)
    assert float(glances[20]) < 0  # left first


def test_ease_is_symmetric_smooth_and_limited():
    time = torch.linspace(0, 1, 1001, dtype=torch.float64)
    share = paths.ease(time)
    speed = share.diff() * 1000
    assert share[0] == 0
    assert share[-1] == 1
    assert torch.allclose(share, 1 - share.flip(0))
    assert float(speed.min()) > 0
    assert float(speed.max()) == pytest.approx(4 / 3)
    assert float(speed.diff().abs().max()) < 0.01


def key_cameras():
    generator = torch.Generator().manual_seed(3)
    vectors = 0.3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    centres = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    pose = motions.motion(motions.rotation_from_vector(vectors), centres)
    return Cameras.from_fov(pose, 65.0, 64, 112)


def test_keyframes_are_passed_through_at_their_times():
    keys = key_cameras()
    path = paths.keyframes(origin(), 11, keys=keys, times=torch.tensor([0.2, 0.3, 0.7, 1.0], dtype=torch.float64))
    for frame, key in zip([2, 3, 7, 10], keys):
        assert same(path[frame], key, 1e-7)
    assert torch.equal(path.camera_from_world[-1], keys.camera_from_world[-1])


def test_keyframe_path_is_smooth_and_moves_with_the_world():
    keys, world = key_cameras(), photo(dtype=torch.float64).camera_from_world
    path = paths.keyframes(origin(), 401, keys=keys).check()
    speed = path.centres.diff(dim=0)
    assert float(speed.diff(dim=0).norm(dim=-1).max()) < 0.05 * float(speed.norm(dim=-1).max())
    start = origin()
    moved = paths.keyframes(
        Cameras(world, start.intrinsics, 64, 112),
        401,
        keys=Cameras(keys.camera_from_world @ world, keys.intrinsics, 64, 112),
    )
    assert torch.allclose(moved.camera_from_world, path.camera_from_world @ world, atol=1e-8)


def test_keyframes_at_constant_speed_take_equal_steps():
    path = paths.keyframes(origin(), 81, keys=key_cameras(), constant_speed=True)
    steps = path.centres.diff(dim=0).norm(dim=-1)
    assert float(steps.max() / steps.min()) < 1.05


def test_keyframes_in_place_turn_evenly():
    keys = paths.turn(origin(), 3, yaw_deg=60)[1:]
    path = paths.keyframes(origin(), 9, keys=keys)
    turned = motions.geodesic_angle(path.camera_from_world[0], path.camera_from_world)
    assert torch.allclose(turned, torch.linspace(0, math.pi / 3, 9).double(), atol=1e-6)


@pytest.mark.parametrize("times", [[0.5, 0.5, 0.7, 1.0], [0.1, 0.2, 0.3, 0.9], [0.5, 1.0]])
def test_keyframes_refuse_bad_times(times):
    with pytest.raises(paths.PathError, match="keyframe times want 4 numbers"):
        paths.keyframes(origin(), 9, keys=key_cameras(), times=torch.tensor(times))


def test_there_and_back_is_a_mirror():
    path = paths.PRESETS["orbit_left"](photo(), 9, DEPTH)
    whole = paths.there_and_back(path)
    assert len(whole) == 17
    assert torch.equal(whole.camera_from_world, whole.camera_from_world.flip(0))
    assert torch.equal(whole.camera_from_world[:9], path.camera_from_world)


def test_concatenate_goes_on_where_it_ended():
    start = photo()
    joined = paths.concatenate(
        [paths.turn(start, 9, yaw_deg=90), paths.forward(start, 9, distance=1), paths.turn(start, 9, yaw_deg=-90)]
    )
    expected = paths.strafe(start, 9, distance=1)
    assert len(joined) == 25
    assert same(joined[-1], expected[-1], 1e-5)


def test_reanchor_keeps_relative_motion_and_scales_distances():
    foreign = key_cameras()
    path = paths.reanchor(foreign, photo(dtype=torch.float64), scale=2.0)
    assert torch.equal(path.camera_from_world[0], photo(dtype=torch.float64).camera_from_world)
    expected, found = foreign.relative_to(foreign[0]), path.relative_to(path[0])
    assert torch.allclose(found.centres, 2 * expected.centres, atol=1e-10)
    assert torch.allclose(found.camera_from_world[:, :3, :3], expected.camera_from_world[:, :3, :3], atol=1e-10)


def test_reanchor_keeps_the_photos_lens_and_the_paths_zoom():
    foreign, start = key_cameras(), photo(dtype=torch.float64)
    assert torch.equal(paths.reanchor(foreign, start).intrinsics, start.intrinsics.expand(4, 3, 3))
    foreign.intrinsics[2, [0, 1], [0, 1]] *= 1.5
    zoomed = paths.reanchor(foreign, start).intrinsics
    assert torch.allclose(zoomed[2, 0, 0], 1.5 * start.intrinsics[0, 0])
    assert torch.equal(zoomed[2, :2, 2], start.intrinsics[:2, 2])


@pytest.mark.parametrize("frames", [2, 9, 17, 81])
def test_resample_keeps_the_ends_and_the_curve(frames):
    path = paths.PRESETS["walk"](photo(), 9, DEPTH)
    again = paths.resample(path, frames).check()
    assert torch.equal(again.camera_from_world[[0, -1]], path.camera_from_world[[0, -1]])
    if frames == 9:
        assert torch.equal(again.camera_from_world, path.camera_from_world)
    if frames == 17:
        assert torch.equal(again.camera_from_world[::2], path.camera_from_world)
        middle = (path.centres[:-1] + path.centres[1:]) / 2
        assert torch.allclose(again.centres[1::2], middle, atol=1e-5)


def test_a_path_wants_a_frame():
    with pytest.raises(paths.PathError, match="at least 1 frame"):
        paths.forward(origin(), 0, distance=1)
