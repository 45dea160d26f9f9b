"""Waves are taken out of planes, and of nothing else."""

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.perception.flat_surfaces import flattened
from photowalk.scene.types import View

HEIGHT, WIDTH = 96, 160
FRONT = torch.tensor([0.1, 0.15, 1.0])
FLOOR = torch.tensor([0.0, 1.0, 0.15])


def rays(camera: Cameras) -> torch.Tensor:
    return camera.unproject(torch.ones(HEIGHT, WIDTH))


def wall(camera: Cameras, normal: torch.Tensor, distance: float) -> torch.Tensor:
    depth = distance / (rays(camera) @ (normal / normal.norm()))
    return torch.where((depth > 0) & (depth < 100), depth, torch.inf)


def waves(size: float = 0.03) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return 1 + size * torch.sin(x / 9) * torch.cos(y / 11)


def bricks(camera: Cameras, depth: torch.Tensor) -> torch.Tensor:
    """A picture [3, H, W] of squares that lie on what is seen."""
    x, y, _ = camera.unproject(depth.nan_to_num(posinf=0)).unbind(-1)
    return (((x * 2).floor() + (y * 2).floor()) % 2 * 0.6 + 0.2).expand(3, -1, -1).contiguous()


def leaves() -> torch.Tensor:
    """A picture without any straight edge."""
    torch.manual_seed(0)
    noise = torch.nn.functional.avg_pool2d(torch.rand(1, 3, HEIGHT + 4, WIDTH + 4), 5, 1)[0]
    return ((noise - 0.5) * 5 + 0.5).clamp(0, 1)


@pytest.fixture
def camera() -> Cameras:
    return Cameras.from_fov(torch.eye(4), 65.0, HEIGHT, WIDTH)


def error(depth: torch.Tensor, truth: torch.Tensor) -> float:
    return float((depth / truth).log().square().mean().sqrt())


def test_a_wavy_wall_of_bricks_becomes_flat(camera):
    truth = wall(camera, FRONT, 3.0)
    view = View(bricks(camera, truth), truth * waves(), camera, 0)
    assert error(flattened(view), truth) < 0.2 * error(view.depth, truth)


def test_half_the_digits_of_networks_are_not_enough_for_planes(camera):
    truth = wall(camera, FRONT, 3.0)
    view = View(bricks(camera, truth), truth * waves(), camera, 0)
    with torch.autocast("cpu", torch.bfloat16):
        within = flattened(view)
    torch.testing.assert_close(within, flattened(view), atol=0, rtol=1e-6)


def test_a_floor_needs_no_lines(camera):
    truth = wall(camera, FLOOR, 1.5)
    view = View(leaves(), truth * waves(), camera, 0)
    ground = truth.isfinite()
    assert error(flattened(view)[ground], truth[ground]) < 0.5 * error(view.depth[ground], truth[ground])


def test_a_slope_of_leaves_keeps_its_shape(camera):
    view = View(leaves(), wall(camera, FRONT, 3.0) * waves(), camera, 0)
    torch.testing.assert_close(flattened(view), view.depth, atol=0, rtol=0.01)
    assert error(flattened(view), view.depth) < 0.1 * error(view.depth, wall(camera, FRONT, 3.0))


def test_two_walls_keep_their_corner(camera):
    left, right = (wall(camera, torch.tensor([x, 0.0, 1.0]), 3.0) for x in (-1.0, 1.0))
    truth = torch.minimum(left, right)
    picture = torch.where(left < right, bricks(camera, left), bricks(camera, right))
    flat = flattened(View(picture, truth * waves(), camera, 0))
    assert error(flat, truth) < 0.4 * error(truth * waves(), truth)


def test_nothing_is_torn_where_a_plane_ends(camera):
    """A wall of bricks that bends towards the camera at one side, as estimates do above floors."""
    truth = wall(camera, FRONT, 3.0)
    bend = 1 - 0.2 * ((torch.arange(WIDTH) - 100) / 60).clamp_min(0).square()
    view = View(bricks(camera, truth), truth * bend * waves(0.01), camera, 0)
    flat = flattened(view)
    rippled, smooth = (depth.log().diff(n=2, dim=1)[:, :80].square().mean() for depth in (view.depth, flat))
    assert smooth < 0.1 * rippled
    assert flat.log().diff(dim=1).abs().max() < 0.02  # neighbours; 0.009 in what it was made of


def test_steps_stay_and_so_do_sky_and_the_unknown(camera):
    truth = wall(camera, FRONT, 3.0)
    truth[20:60, 30:80] *= 0.6
    truth[:10], truth[-5:] = torch.inf, 0.0
    flat = flattened(View(bricks(camera, wall(camera, FRONT, 3.0)), truth, camera, 0))
    torch.testing.assert_close(flat, truth, atol=0, rtol=1e-3)


def test_nothing_moves_farther_than_it_may(camera):
    torch.manual_seed(1)
    depth = 2 + 3 * torch.rand(HEIGHT, WIDTH)
    flat = flattened(View(leaves(), depth, camera, 0))
    assert float((flat / depth).log().abs().max()) < 2 * 0.062
    assert torch.equal(flattened(View(leaves(), torch.zeros_like(depth), camera, 0)), torch.zeros_like(depth))


def test_the_answer_is_as_large_as_the_world(camera):
    truth = wall(camera, FRONT, 3.0) * waves()
    picture = bricks(camera, truth)
    torch.testing.assert_close(
        flattened(View(picture, 10 * truth, camera, 0)), 10 * flattened(View(picture, truth, camera, 0))
    )
