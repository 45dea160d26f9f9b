"""Pictures continued out of their own pieces, and the holes of a chunk that are filled so."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from rooms import look

from photowalk.evaluate.images import psnr
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import motion, rotation_from_vector
from photowalk.scene.filling import fill_smoothly
from photowalk.scene.synthesis import synthesise
from photowalk.scene.types import View
from photowalk.scene.warping import composite
from photowalk.world.preview import PreviewConfig, preview_chunk

CONFIG = PreviewConfig(warp_from="latest and recalled", fill_holes=True, pixel_centre=0.5, continued=True, fill_wide=8)


def stripes(height=48, width=96, period=8):
    """Upright stripes over a floor that is darker."""
    columns = torch.arange(width) // (period // 2) % 2
    picture = (0.2 + 0.6 * columns).expand(3, height, width).clone()
    picture[:, 32:] *= 0.5
    return picture


def test_a_pattern_goes_on_where_nothing_is_known():
    truth = stripes()
    known = torch.ones(48, 96, dtype=torch.bool)
    known[:, 60:] = False
    guess = fill_smoothly((truth * known)[None], known[None, None].float())[0]
    answer, places = synthesise(truth * known, known, guess)
    assert known[places[..., 0], places[..., 1]].all()
    assert torch.equal(answer[:, known], truth[:, known])
    assert psnr(answer[:, :, 60:], truth[:, :, 60:]) > psnr(guess[:, :, 60:], truth[:, :, 60:]) + 6
    above, below = answer[:, :28, 64:].mean(), answer[:, 36:, 64:].mean()
    assert above > 1.5 * below  # what stands above the floor is not taken for floor
    assert torch.equal(answer, synthesise(truth * known, known, guess)[0])


def test_a_slanted_shore_goes_on_at_its_slope():
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(192.0), indexing="ij")
    land = rows > 16 + 0.35 * columns
    grain = 0.1 * torch.rand(3, 96, 192, generator=torch.Generator().manual_seed(2))
    truth = torch.where(land, 0.2, 0.8) + grain
    known = columns < 128
    guess = fill_smoothly((truth * known)[None], known[None, None].float())[0]
    answer, _ = synthesise(truth * known, known, guess)
    right = (answer.mean(0) < 0.55) == land
    assert right[~known].float().mean() > 0.9


def test_things_are_repeated_whole():
    """Out of few large pieces, so that a picture on a wall is one again, and not crumbs of it."""
    random = torch.Generator().manual_seed(3)
    truth = 0.7 + 0.02 * torch.rand(3, 96, 192, generator=random)
    for left in (12, 72):
        truth[:, 28:60, left : left + 40] = torch.rand(3, 32, 40, generator=random)
    known = torch.arange(192).expand(96, 192) < 128
    _, places = synthesise(truth * known, known, truth * known)
    offsets = (places - torch.stack(torch.meshgrid(torch.arange(96), torch.arange(192), indexing="ij"), -1))[~known]
    _, counts = offsets.unique(dim=0, return_counts=True)
    assert counts.sort(descending=True).values[:4].sum() > 0.7 * len(offsets)


def test_sky_that_is_invented_beyond_a_near_thing_is_as_far_as_the_sky():
    """Pieces bring their depth along: a step to the side does not move what was taken from the sky."""
    random = torch.Generator().manual_seed(4)
    height, width = 64, 128
    clouds = F.interpolate(torch.rand(1, 3, 8, 16, generator=random), (height, width), mode="bilinear")[0]
    picture, depth = 0.6 + 0.3 * clouds, torch.full((height, width), torch.inf)
    picture[:, 40:], depth[40:] = 0.3, 1.0 / torch.linspace(0.05, 0.5, 24)[:, None]
    picture[:, :, 116:], depth[:, 116:] = 0.05, 1.0  # a post, up to the rim
    start = Cameras.from_fov(torch.eye(4)[None], 70.0, height, width)
    turn = rotation_from_vector(torch.tensor([[0.0, -math.radians(25), 0.0]]).expand(6, 3))
    places = torch.stack([torch.linspace(0, 0.2, 6), torch.zeros(6), torch.zeros(6)], dim=-1)
    cameras = Cameras.from_fov(motion(turn, places), 70.0, height, width)
    preview = preview_chunk(View(picture, depth, start[0], 0), (), cameras, CONFIG)
    invented_sky = (preview.known == 0).all(0) & (preview.video.mean(1) > 0.55).all(0)
    assert invented_sky.float().mean() > 0.1
    assert psnr(preview.video[0][:, invented_sky][:, None], preview.video[-1][:, invented_sky][:, None]) > 30


def test_what_continues_a_darker_corner_begins_as_dark():
    """A sky that fades towards the photo's edge goes on without an edge; a wall that ends there still ends."""
    columns = torch.arange(96.0)
    sky = (0.8 - 0.12 * ((columns - 30) / 30).clamp_min(0).square()).expand(3, 64, 96)
    grain = 0.02 * torch.rand(1, 64, 96, generator=torch.Generator().manual_seed(1))
    known = columns.expand(64, 96) < 60
    picture = (sky + grain) * known
    answer = synthesise(picture, known, fill_smoothly(picture[None], known[None, None].float())[0])[0]
    profile = answer.mean((0, 1))
    assert float(profile[56:].diff().abs().max()) < 0.03
    assert abs(float(profile[60] - profile[59])) < 0.02
    assert float(profile[60:].max()) < 0.85
    picture[:, :, 52:60] = 0.1
    answer = synthesise(picture, known, fill_smoothly(picture[None], known[None, None].float())[0])[0]
    assert float(answer.mean((0, 1))[59:62].diff().abs().max()) > 0.3


@pytest.mark.parametrize("share", [0.0, 0.02, 1.0])
def test_nothing_or_all_known_leaves_the_guess_or_the_picture(share):
    picture, guess = torch.rand(3, 21, 30), torch.rand(3, 21, 30)
    known = torch.zeros(21, 30, dtype=torch.bool)
    known[:, : round(30 * share)] = True
    assert torch.equal(synthesise(picture * known, known, guess)[0], torch.where(known, picture, guess))


def turning(frames=10, degrees=30.0, size=(48, 80)):
    angles = torch.deg2rad(torch.linspace(0, degrees, frames + 1))
    vectors = torch.stack([0 * angles, -angles, 0 * angles], dim=-1)
    return Cameras.from_fov(motion(rotation_from_vector(vectors), torch.zeros(frames + 1, 3)), 70.0, *size)


def test_what_is_invented_is_one_place_in_all_frames_of_a_chunk():
    cameras = turning()
    view = View(*look(cameras[0]), cameras[0], 0)
    preview = preview_chunk(view, (), cameras[1:], CONFIG)
    seen = composite([view], cameras[1:], pixel_centre=0.5)
    assert torch.equal(preview.known, seen.known.float())
    assert torch.allclose(preview.video.movedim(1, -1)[seen.known], seen.video.movedim(1, -1)[seen.known])
    last, before = preview.video[-1], preview.video[-4]
    turn = View(last, torch.full_like(last[0], torch.inf), cameras[-1], 1)  # a turn moves all depths alike
    moved = composite([turn], cameras[[-4]], pixel_centre=0.5)
    both = moved.known[0] & (preview.known[-4] == 0)
    both[:, -4:] = False  # at the rim, the last crumbs of holes are filled frame by frame
    assert both.float().mean() > 0.1
    assert psnr(moved.video[0][:, both][:, None], before[:, both][:, None]) > 28
    flat = preview_chunk(view, (), cameras[1:], replace(CONFIG, continued=False)).video[-4]
    assert before[:, both].std() > flat[:, both].std()


def test_a_turn_to_where_nothing_is_known_goes_on_from_frame_to_frame():
    cameras = turning(frames=8, degrees=100.0)
    view = View(*look(cameras[0]), cameras[0], 0)
    video = preview_chunk(view, (), cameras[1:], CONFIG).video
    assert video[-1].mean() > 0.25  # nothing of the view is left in it, and yet it is not black
    assert video[-1].std() > 0.03


def test_a_jump_to_where_little_is_known_is_continued_as_well():
    cameras = turning(frames=8, degrees=50.0)[[0, 0, 8]]
    view = View(*look(cameras[0]), cameras[0], 0)
    preview = preview_chunk(view, (), cameras[1:], CONFIG)
    flat = preview_chunk(view, (), cameras[1:], replace(CONFIG, continued=False))
    unseen = preview.known[-1] == 0
    assert unseen.float().mean() > 0.6
    assert torch.equal(preview.video[0], flat.video[0])  # nothing is lacking there
    assert preview.video[-1][:, unseen].std() > 1.1 * flat.video[-1][:, unseen].std()


def test_who_walks_through_a_wall_goes_on_seeing_it():
    cameras = Cameras.from_fov(
        motion(torch.eye(3).expand(5, 3, 3), -torch.eye(3)[2] * torch.arange(5.0)[:, None]), 70.0, 48, 80
    )
    wall = View(0.3 + 0.4 * torch.rand(3, 48, 80), torch.full((48, 80), 2.5), cameras[0], 0)
    preview = preview_chunk(wall, (), cameras[1:], CONFIG)
    assert preview.known[-2:].sum() == 0
    assert preview.video[-2:].mean() > 0.4
