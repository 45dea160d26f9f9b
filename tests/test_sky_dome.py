"""The dome of sky splats is closed: no seam between views, no dot of black, from whatever direction it is seen."""

import math

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.reconstruct.sky_dome import add_sky, build_dome
from photowalk.scene.render import render
from photowalk.scene.types import View

BLUE = torch.tensor([0.4, 0.6, 1.0])


def turned(degrees, fov=70.0, height=64, width=96):
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pose = torch.eye(4)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = cosine, -sine, sine, cosine
    return Cameras.from_fov(pose, fov, height, width)


@pytest.fixture(scope="module")
def dome():
    sky = None
    for index, degrees in enumerate((0, 7, 14.5, 23)):
        image = BLUE[:, None, None].expand(3, 64, 96)
        sky = add_sky(sky, View(image, torch.full((64, 96), torch.inf), turned(degrees), index))
    return build_dome(sky, torch.tensor([1.0, 2.0, 3.0]), 100.0)


@pytest.mark.parametrize("degrees", [-4, 0, 3.3, 11, 20, 26])
@pytest.mark.parametrize("fov", [58.0, 50.0])
def test_sky_has_no_gaps(dome, degrees, fov):
    camera = turned(degrees, fov)
    seen = render(dome, camera)
    assert seen.alpha[6:-6].min() > 0.98
    assert (seen.image[:, 6:-6] - BLUE[:, None, None]).abs().max() < 0.02
