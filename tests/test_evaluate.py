"""Scores: a camera that was moved is found where it was put."""

import math

import pytest
import skimage.data
import torch
import torch.nn.functional as F

from photowalk.evaluate.cameras import camera_error
from photowalk.evaluate.images import sharpness_where
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_euler
from photowalk.scene.types import View
from photowalk.scene.warping import composite

DEPTH = 4.0


@pytest.fixture(scope="module")
def truth() -> View:
    pixels = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(pixels, (192, 192), mode="bilinear", antialias=True)[0]
    rows = torch.linspace(0, 1, 192)[:, None].expand(192, 192)
    return View(image, DEPTH + rows, Cameras.from_fov(torch.eye(4), 50, 192, 192), 0)


def moved(truth: View, degrees: float, metres: float) -> torch.Tensor:
    """What a camera turned to the side and moved ahead sees."""
    pose = torch.eye(4)
    turn = torch.tensor(math.radians(degrees), dtype=torch.float64)
    pose[:3, :3] = rotation_from_euler(turn, torch.zeros_like(turn), torch.zeros_like(turn)).float()
    pose[2, 3] = -metres
    camera = Cameras(pose, truth.camera.intrinsics, truth.camera.height, truth.camera.width)
    return composite([truth], camera[None]).video[0]


@pytest.mark.parametrize(("degrees", "metres"), [(0.0, 0.0), (1.5, 0.0), (0.0, 0.3), (2.0, 0.2)])
def test_the_error_of_a_camera_is_found(truth, degrees, metres):
    turned, walked = camera_error(moved(truth, degrees, metres), truth)
    assert turned == pytest.approx(degrees, abs=0.15)
    assert walked == pytest.approx(metres, abs=0.04)


def test_a_strange_picture_has_no_camera(truth):
    assert camera_error(torch.rand(3, 192, 192, generator=torch.Generator().manual_seed(0)), truth) is None
    assert camera_error(torch.full((3, 192, 192), 0.5), truth) is None


def test_sharpness_is_that_of_the_chosen_pixels():
    picture = torch.zeros(3, 8, 8)
    picture[:, :, 4::2] = 0.5  # stripes on the right
    left = torch.zeros(8, 8, dtype=torch.bool)
    left[:, :4] = True
    assert sharpness_where(picture, left) == 0
    assert sharpness_where(picture, ~left) == pytest.approx(0.25)  # 0.5 across, nothing down
