"""The tilt of a photo, told by what stands upright in it."""

import math

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_euler
from photowalk.perception.gravity import photo_up
from photowalk.perception.upright_lines import camera_tilt
from photowalk.scene.types import View

SIZE = HEIGHT, WIDTH = 192, 336


def colonnade(looks_down, rolled=0.0, size=SIZE, fov_deg=65.0):
    """A picture [3, H, W] of upright stripes on a cylinder around the camera, and the camera."""
    camera = Cameras.from_fov(torch.eye(4), fov_deg, *size)
    angles = (torch.deg2rad(torch.tensor(float(angle))) for angle in (0, -looks_down, rolled))
    x, _, z = (camera.unproject(torch.ones(size)) @ rotation_from_euler(*angles).float().T).unbind(-1)
    heading = torch.atan2(x, z)
    return (0.5 + 0.2 * torch.sin(37 * heading) + 0.2 * torch.sin(61 * heading)).expand(3, -1, -1), camera


@pytest.mark.parametrize("looks_down", [-22, -8, 0, 3, 15, 28])
@pytest.mark.parametrize("rolled", [0, 2])
def test_upright_stripes_tell_how_far_a_picture_looks_down(looks_down, rolled):
    picture, camera = colonnade(looks_down, rolled)
    assert camera_tilt(picture, float(camera.intrinsics[1, 1])) == pytest.approx(looks_down, abs=1.5)


def test_the_answer_does_not_hang_on_the_size_of_the_picture():
    small, camera = colonnade(12)
    large, near = colonnade(12, size=(2 * HEIGHT, 2 * WIDTH))
    told = camera_tilt(small, float(camera.intrinsics[1, 1]))
    assert told == pytest.approx(camera_tilt(large, float(near.intrinsics[1, 1])), abs=0.6)


def test_where_nothing_stands_upright_nothing_is_told():
    chance = torch.Generator().manual_seed(0)
    assert camera_tilt(torch.full((3, *SIZE), 0.5), 300.0) is None
    assert camera_tilt(torch.rand(3, *SIZE, generator=chance), 300.0) is None
    assert camera_tilt(colonnade(10)[0].transpose(1, 2), 300.0) is None  # stripes that lie


def test_upright_lines_count_for_more_than_a_floor_that_is_guessed():
    picture, camera = colonnade(10)
    steep = torch.tensor([0.0, math.cos(math.radians(25)), math.sin(math.radians(25))])
    depth = 1.5 / (camera.unproject(torch.ones(SIZE)) @ steep)
    view = View(picture, depth.where((depth > 0) & (depth < 30), torch.inf), camera, 0)
    for photo, looks_down in ((view, 10), (View(torch.zeros(3, *SIZE), view.depth, camera, 0), 25)):
        up = photo_up(photo)
        assert up is not None
        assert math.degrees(math.atan2(-float(up[2]), -float(up[1]))) == pytest.approx(looks_down, abs=1.5)
