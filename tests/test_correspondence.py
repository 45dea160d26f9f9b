"""Correspondence features: where the pixels of new frames lie in recalled views."""

from __future__ import annotations

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.memory.correspondence import canonical_map, correspondence_features
from photowalk.models.conditioning import memory_correspondence
from photowalk.scene.types import View
from photowalk.scene.warping import warp

HEIGHT, WIDTH, SIDE = 32, 48, 4
LATENT = (HEIGHT // SIDE, WIDTH // SIDE)
SLOTS = 5


def path(*shifts: float) -> Cameras:
    pose = torch.eye(4).repeat(len(shifts), 1, 1)
    pose[:, 0, 3] = -torch.tensor(shifts)
    return Cameras.from_fov(pose, 60.0, HEIGHT, WIDTH)


def wall(frame: int, shift: float, distance: float = 2.0) -> View:
    return View(torch.zeros(3, HEIGHT, WIDTH), torch.full((HEIGHT, WIDTH), distance), path(shift)[0], frame)


def features(recalled, targets, **kwargs) -> torch.Tensor:
    """[slots, 4, T, H, W], the blocks unfolded."""
    settings = {"latent_size": LATENT, "side": SIDE, "every": 4, "inverse_depth": True} | kwargs
    blocks = correspondence_features(recalled, targets, slots=SLOTS, **settings)
    pictures = torch.nn.functional.pixel_shuffle(blocks.transpose(0, 1), settings["side"])
    return pictures.unflatten(1, (SLOTS, 4)).permute(1, 2, 0, 3, 4)


def test_shape_order_and_absent_slots():
    found = features([wall(0, 0.3), wall(8, 0.0)], path(*[0.0] * 8))
    assert found.shape == (SLOTS, 4, 2, HEIGHT, WIDTH)
    assert (found[2:, :3] == -1).all()
    assert (found[2:, 3] == 1).all()
    # the best view comes first and carries the last slot's value
    assert (found[0, 2] == 1).all()
    assert set(found[1, 2].unique().tolist()) <= {-1.0, 0.5}


@pytest.mark.parametrize("mode", ["soft", "nearest"])
def test_a_camera_that_did_not_move_sees_the_canonical_map(mode):
    found = features([wall(0, 0.0)], path(*[0.0] * 4), mode=mode, clean=None)
    torch.testing.assert_close(found[0, :3, 0], canonical_map(SLOTS - 1, SLOTS, (HEIGHT, WIDTH)), atol=1e-3, rtol=0)


def test_only_the_last_frame_of_each_group_counts():
    targets = path(0.9, -0.7, 0.4, 0.0, 0.1, 0.2, 0.3, 0.1)
    found = features([wall(0, 0.0)], targets, clean=None)
    alone = features([wall(0, 0.0)], targets[3::4], every=1, clean=None)
    torch.testing.assert_close(found[:, :3], alone[:, :3], atol=1e-5, rtol=0)


def test_published_depth_is_scaled_by_all_frames_views_and_holes():
    recalled, targets = [wall(0, 0.0, distance=4.0), wall(8, 0.2)], path(*[0.1 * i for i in range(8)])
    found = features(recalled, targets, inverse_depth=False, clean=None, group=8)
    depths = []
    for view in reversed(recalled):
        canonical = canonical_map(0, SLOTS, (HEIGHT, WIDTH))[None]
        depths.append(warp(canonical, view.depth[None], view.camera[None], targets, group=8).depth)
    lowest, highest = min(d.min() for d in depths), max(d.max() for d in depths)
    for rank, depth in enumerate(depths):
        expected = 2 * (depth[3::4] - lowest) / (highest - lowest) - 1
        torch.testing.assert_close(found[rank, 3], expected, atol=1e-5, rtol=0)


def test_inverse_depth_does_not_hang_on_one_far_pixel():
    near, far = wall(0, 0.0), wall(0, 0.0)
    far.depth[0, 0] = 1e4
    kwargs = {"clean": None, "mode": "nearest"}
    first, second = (features([view], path(*[0.0] * 4), **kwargs)[0, 3, 0] for view in (near, far))
    assert (first - second).abs()[4:, 4:].max() < 1e-4
    assert first[10, 10].abs() < 1e-4  # the median
    assert second[0, 0] < -0.99


def test_a_coarse_condition_samples_the_same_surface():
    """At a quarter of the size a still camera sees the coordinates of the pixels that were sampled."""
    found = features([wall(0, 0.0)], path(*[0.0] * 4), latent_size=(4, 6), side=2, clean=None)
    assert found.shape == (SLOTS, 4, 1, 8, 12)
    canonical = canonical_map(SLOTS - 1, SLOTS, (8, 12))
    # samples sit half a source pixel beside the middle of their block, an eighth of a condition pixel
    assert (found[0, :2, 0] - canonical[:2])[:, 1:-1, 1:-1].abs().max() < 0.3 * 2 / 7
    assert (found[0, 2] == 1).all()


def test_slots_carry_their_own_map_in_every_group():
    own = memory_correspondence(SLOTS, SIDE, *LATENT, device=torch.device("cpu"))[0]
    assert own.shape == (SLOTS * 4 * SIDE * SIDE, SLOTS, *LATENT)
    pictures = torch.nn.functional.pixel_shuffle(own.transpose(0, 1), SIDE).unflatten(1, (SLOTS, 4))
    for slot in range(SLOTS):
        expected = canonical_map(slot, SLOTS, (HEIGHT, WIDTH)).expand(SLOTS, 3, HEIGHT, WIDTH)
        torch.testing.assert_close(pictures[slot, :, :3], expected)
    assert (pictures[:, 0, 3] == -1).all()
    assert (pictures[:, 1:, 3] == 1).all()


def test_nothing_recalled_is_all_absent():
    found = features([], path(*[0.0] * 4), inverse_depth=False)
    assert (found[:, :3] == -1).all()
    assert (found[:, 3] == 1).all()


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="at most 5 views"):
        features([wall(i, 0.0) for i in range(6)], path(*[0.0] * 4))
    with pytest.raises(ValueError, match="multiple of 4"):
        features([wall(0, 0.0)], path(*[0.0] * 5))
    with pytest.raises(ValueError, match="multiple of"):
        features([wall(0, 0.0)], path(*[0.0] * 4), latent_size=(5, 7))
