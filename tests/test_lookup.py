"""Backward warping against a readable torch twin, and its axioms."""

import pytest
import torch

from photowalk.geometry import Cameras
from photowalk.kernels.lookup import SEEN_AS_SKY, SEEN_BY_NONE, look_up

HEIGHT, WIDTH = 20, 28


def camera(x: float, turn: float) -> Cameras:
    angle = torch.tensor(turn)
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = angle.cos()
    pose[0, 2], pose[2, 0] = angle.sin(), -angle.sin()
    pose[0, 3] = -x
    return Cameras.from_fov(pose[None], 70, HEIGHT, WIDTH)


def plane_depth(cameras: Cameras, distance: float) -> torch.Tensor:
    """Exact z-depth [F, H, W] of the plane z = distance."""
    rays = cameras.unproject(torch.ones(len(cameras), HEIGHT, WIDTH)) - cameras.centres[:, None, None]
    return (distance - cameras.centres[:, 2])[:, None, None] / rays[..., 2]


def twin(target_depth, target, images, depths, sources, tolerance=0.05):
    """The first source whose four neighbours agree with the expected depth gives its bilinear mix."""
    values = torch.zeros(3, HEIGHT, WIDTH)
    found = torch.full((HEIGHT, WIDTH), SEEN_BY_NONE)
    points = target.unproject(target_depth)[0]
    for i in range(HEIGHT):
        for j in range(WIDTH):
            for v in range(len(sources)):
                pixel, z = sources[v].project(points[i, j][None])
                if z[0] <= 1e-4:
                    continue
                x, y = (pixel[0] - 0.5).tolist()
                total, mix = 0.0, torch.zeros(3)
                for cx, cy in ((int(x // 1) + a, int(y // 1) + b) for b in (0, 1) for a in (0, 1)):
                    if 0 <= cx < WIDTH and 0 <= cy < HEIGHT and abs(depths[v, cy, cx] - z[0]) < tolerance * z[0]:
                        weight = (1 - abs(x - cx)) * (1 - abs(y - cy))
                        total, mix = total + weight, mix + weight * images[v, :, cy, cx]
                if total > 0.25:
                    values[:, i, j], found[i, j] = mix / total, v
                    break
    return values, found


@pytest.mark.parametrize("turn", [0.0, 0.2, -0.3])
def test_matches_the_readable_twin(turn):
    torch.manual_seed(0)
    target = camera(0.4, turn)
    sources = Cameras.cat([camera(-0.5, 0.0), camera(0.7, 0.1)])
    images, depths = torch.rand(2, 3, HEIGHT, WIDTH), plane_depth(sources, 3.0)
    depths[0, :, 14:] = 1.0  # the first source sees something else there
    depth = plane_depth(target, 3.0)
    values, source = look_up(
        depth,
        target.camera_from_world,
        target.intrinsics,
        images,
        depths,
        sources.camera_from_world,
        sources.intrinsics,
    )
    expected, found = twin(depth, target, images, depths, sources)
    same = source[0] == found
    assert same.float().mean() > 0.99  # a pixel on a border may fall to either side
    assert {0, 1, SEEN_BY_NONE} >= set(source.unique().tolist())
    torch.testing.assert_close(values[0][:, same], expected[:, same], atol=1e-4, rtol=0)


def test_the_same_camera_gives_the_picture_back():
    here = camera(0.0, 0.1)
    image, depth = torch.rand(1, 3, HEIGHT, WIDTH), plane_depth(here, 2.0)
    values, source = look_up(depth, *_pose(here), image, depth, *_pose(here))
    torch.testing.assert_close(values, image, atol=1e-4, rtol=0)
    assert (source == 0).all()


def test_sky_is_found_by_its_direction_however_far_the_camera_moved():
    near, far = camera(0.0, 0.0), camera(100.0, 0.0)
    image, sky = torch.rand(1, 3, HEIGHT, WIDTH), torch.full((1, HEIGHT, WIDTH), torch.inf)
    values, source = look_up(torch.zeros(1, HEIGHT, WIDTH), *_pose(far), image, sky, *_pose(near))
    torch.testing.assert_close(values, image, atol=1e-4, rtol=0)
    assert (source == SEEN_AS_SKY).all()


def test_nothing_is_found_where_depth_disagrees():
    here = camera(0.0, 0.0)
    image, depth = torch.rand(1, 3, HEIGHT, WIDTH), plane_depth(here, 2.0)
    values, source = look_up(depth * 1.2, *_pose(here), image, depth, *_pose(here))
    assert (source == SEEN_BY_NONE).all()
    assert (values == 0).all()


def _pose(cameras: Cameras):
    return cameras.camera_from_world, cameras.intrinsics
