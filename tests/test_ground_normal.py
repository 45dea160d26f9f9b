"""The ground of one picture: a tilted floor with things on it, a wall, nothing at all."""

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.perception.ground import ground_normal
from photowalk.scene.types import View

HEIGHT, WIDTH = 60, 80
CAMERA = Cameras.from_fov(torch.eye(4), 70, HEIGHT, WIDTH)


def floor(normal: torch.Tensor, height: float = 1.5) -> torch.Tensor:
    """[H, W] depth of a floor below the camera, sky where there is none."""
    _, directions = CAMERA.rays()
    ahead = directions / directions[..., 2:]
    depth = -height / (ahead @ normal)
    return torch.where(depth > 0, depth, torch.inf)


@pytest.mark.parametrize("tilt", [(0.0, -1, 0), (0.2, -0.9, 0.3), (-0.1, -0.8, -0.2)])
def test_a_floor_is_found_among_other_things(tilt: tuple[float, float, float]):
    normal = torch.nn.functional.normalize(torch.tensor(tilt), dim=0)
    torch.manual_seed(0)
    depth = floor(normal) * (1 + 0.005 * torch.randn(HEIGHT, WIDTH))
    depth[40:, 10:25] = 1.0  # a box
    depth[50:55, 60:] = 0  # unknown
    found = ground_normal(View(torch.zeros(3, HEIGHT, WIDTH), depth, CAMERA, 0))
    assert found is not None
    assert float(found @ normal.double()) > 0.999


def test_it_does_not_matter_where_the_camera_is():
    moved = Cameras(CAMERA.camera_from_world.clone(), CAMERA.intrinsics, HEIGHT, WIDTH)
    moved.camera_from_world[:3, 3] = torch.tensor([5.0, -2, 7])
    depth, image = floor(torch.tensor([0.0, -1, 0])), torch.zeros(3, HEIGHT, WIDTH)
    here, there = (ground_normal(View(image, depth, camera, 0)) for camera in (CAMERA, moved))
    torch.testing.assert_close(here, there)


def test_nothing_seen_is_no_ground():
    for depth in (torch.zeros(HEIGHT, WIDTH), torch.full((HEIGHT, WIDTH), torch.inf)):
        assert ground_normal(View(torch.zeros(3, HEIGHT, WIDTH), depth, CAMERA, 0)) is None
