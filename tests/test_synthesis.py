"""Pictures continued out of their own pieces, and the holes of a chunk that are filled so."""

from dataclasses import replace

import pytest
import torch
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
    answer = synthesise(truth * known, known, guess)
    assert torch.equal(answer[:, known], truth[:, known])
    assert psnr(answer[:, :, 60:], truth[:, :, 60:]) > psnr(guess[:, :, 60:], truth[:, :, 60:]) + 6
    above, below = answer[:, :28, 64:].mean(), answer[:, 36:, 64:].mean()
    assert above > 1.5 * below  # what stands above the floor is not taken for floor
    assert torch.equal(answer, synthesise(truth * known, known, guess))


def test_what_continues_a_darker_corner_begins_as_dark():
    """A sky that fades towards the photo's edge goes on without an edge; a wall that ends there still ends."""
    columns = torch.arange(96.0)
    sky = (0.8 - 0.12 * ((columns - 30) / 30).clamp_min(0).square()).expand(3, 64, 96)
    grain = 0.02 * torch.rand(1, 64, 96, generator=torch.Generator().manual_seed(1))
    known = columns.expand(64, 96) < 60
    picture = (sky + grain) * known
    answer = synthesise(picture, known, fill_smoothly(picture[None], known[None, None].float())[0])
    profile = answer.mean((0, 1))
    assert float(profile[56:].diff().abs().max()) < 0.03
    assert abs(float(profile[60] - profile[59])) < 0.02
    assert float(profile[60:].max()) < 0.85
    picture[:, :, 52:60] = 0.1
    answer = synthesise(picture, known, fill_smoothly(picture[None], known[None, None].float())[0])
    assert float(answer.mean((0, 1))[59:62].diff().abs().max()) > 0.3


@pytest.mark.parametrize("share", [0.0, 0.02, 1.0])
def test_nothing_or_all_known_leaves_the_guess_or_the_picture(share):
    picture, guess = torch.rand(3, 21, 30), torch.rand(3, 21, 30)
    known = torch.zeros(21, 30, dtype=torch.bool)
    known[:, : round(30 * share)] = True
    assert torch.equal(synthesise(picture * known, known, guess), torch.where(known, picture, guess))


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
