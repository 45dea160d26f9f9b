"""Synthetic worlds: exact geometry, seeds, walks that come back."""

import pytest
import torch

from photowalk.geometry import Cameras
from photowalk.kernels.lookup import look_up
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld, training_seeds
from photowalk.synthetic.places import _BUILDERS, sample_place
from photowalk.synthetic.render import _meet_box, _meet_ellipsoid, render_frame

SIZE = (48, 84)
KINDS = tuple(_BUILDERS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_all_and_seeds_differ(kind):
    world = SyntheticWorld.sample(5, kind)
    camera = world.walk(3, 5, size=SIZE)[:1]
    clip, again = world.render(camera), SyntheticWorld.sample(5, kind).render(camera)
    other = SyntheticWorld.sample(6, kind).render(camera)
    assert torch.equal(clip.video, again.video)
    assert torch.equal(clip.depth, again.depth)
    assert (clip.video - other.video).abs().mean() > 0.02
    assert world.place.kind == kind
    assert clip.prompt


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_exact(kind):
    """A frame redrawn from another frame's colours by both frames' depth is that frame, wherever both see it."""
    world = SyntheticWorld.sample(11, kind)
    cameras = world.walk(40, 3, size=(96, 168), style="onward")[[0, 20]]
    clip = world.render(cameras)
    assert clip.depth is not None
    redrawn, source = look_up(
        clip.depth[1:],
        cameras.camera_from_world[1:],
        cameras.intrinsics[1:],
        clip.video[:1],
        clip.depth[:1],
        cameras.camera_from_world[:1],
        cameras.intrinsics[:1],
        tolerance=0.02,
    )
    seen = source[0] == 0
    assert seen.float().mean() > 0.2
    difference = (redrawn[0] - clip.video[1]).abs().mean(0)[seen]
    assert difference.median() < 0.02  # texture filtering and highlights differ a little between distances


def test_rays_meet_solids_where_algebra_says():
    origin = torch.tensor([0.0, 0.0, -5.0])
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.1, 0.0, 1.0], [0.5, 0.0, 1.0]])
    box, ball = _meet_box(origin, directions), _meet_ellipsoid(origin, directions)
    torch.testing.assert_close(box[:2], torch.tensor([4.0, 4.0]))
    assert box[2].isinf()
    assert ball[2].isinf()
    torch.testing.assert_close(ball[0], torch.tensor(4.0))
    torch.testing.assert_close((origin + ball[1] * directions[1]).norm(), torch.tensor(1.0))


def test_the_floor_of_a_place_is_flat_and_at_the_height_of_the_eyes():
    place = sample_place(3, "street")
    down = torch.eye(4)
    down[1, 1] = down[2, 2] = 0
    down[1, 2], down[2, 1] = -1, 1  # the gaze goes straight down
    camera = Cameras.from_fov(down, 30, *SIZE)
    _, depth = render_frame(place, camera)
    torch.testing.assert_close(depth.median(), torch.tensor(place.eye), atol=1e-4, rtol=0)


def test_sky_is_infinitely_far_and_only_outdoors():
    for kind, open_air in (("hills", True), ("room", False)):
        depth = SyntheticWorld.sample(2, kind).render(Cameras.from_fov(torch.eye(4)[None], 80, *SIZE)).depth
        assert bool(depth.isinf().any()) == open_air
        assert (depth > 0).all()


@pytest.mark.parametrize("style", ["there_and_back", "loop", "look_around"])
@pytest.mark.parametrize("frames", [40, 41])
def test_walks_come_back_and_are_smooth(style, frames):
    world = SyntheticWorld.sample(8)
    cameras = world.walk(frames, 8, size=SIZE, style=style)
    assert len(cameras) == frames
    assert (cameras.centres[-1] - cameras.centres[0]).norm() < 0.1
    assert cameras.centres.diff(dim=0).norm(dim=1).max() < 0.3
    if style == "there_and_back" and frames % 2:
        assert torch.equal(cameras.camera_from_world, cameras.camera_from_world.flip(0))


def test_held_out_seeds_are_never_trained_on():
    seeds = training_seeds(HELD_OUT_SEEDS[0] - 2)
    drawn = [next(seeds) for _ in range(4)]
    assert not set(drawn) & set(HELD_OUT_SEEDS)
    assert drawn[:2] == [HELD_OUT_SEEDS[0] - 2, HELD_OUT_SEEDS[0] - 1]
