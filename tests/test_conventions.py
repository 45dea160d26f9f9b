"""The conventions that everything else relies on, each as one assertion about a camera at the origin."""

import pytest
import torch

from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras


@pytest.fixture
def camera():
    return Cameras.from_fov(torch.eye(4, dtype=torch.float64), 90.0, 100, 200)


def at(camera, *point):
    pixels, depth = camera.project(torch.tensor([point], dtype=torch.float64))
    return pixels[0].tolist(), float(depth[0])


def test_axes_are_right_down_forward(camera):
    (u, v), depth = at(camera, 0, 0, 2)
    assert (u, v, depth) == (100, 50, 2)
    assert at(camera, 1, 0, 2)[0][0] > u
    assert at(camera, 0, 1, 2)[0][1] > v


def test_pixel_zero_covers_zero_to_one(camera):
    corner = camera.unproject(torch.ones(100, 200, dtype=torch.float64))[0, 0]
    assert at(camera, *corner.tolist())[0] == pytest.approx([0.5, 0.5])
    integer = camera.unproject(torch.ones(100, 200, dtype=torch.float64), pixel_centre=0.0)[0, 0]
    assert at(camera, *integer.tolist())[0] == pytest.approx([0, 0])


def test_depth_is_along_the_optical_axis_not_the_ray(camera):
    points = camera.unproject(torch.full((100, 200), 3.0, dtype=torch.float64))
    assert torch.allclose(points[..., 2], torch.tensor(3.0, dtype=torch.float64))
    assert points[0, 0].norm() > 3.5


def test_unknown_depth_unprojects_to_the_camera_centre(camera):
    assert torch.equal(camera.unproject(torch.zeros(100, 200, dtype=torch.float64)), torch.zeros(100, 200, 3).double())


def test_poses_are_camera_from_world(camera):
    pose = camera.camera_from_world.clone()
    pose[2, 3] = 5  # the world's origin lies 5 ahead
    moved = Cameras(pose, camera.intrinsics, 100, 200)
    assert at(moved, 0, 0, 0)[1] == 5
    assert moved.centres.tolist() == [0, 0, -5]


def test_resizing_scales_intrinsics_without_a_half_pixel(camera):
    half = camera.resized(50, 100)
    assert half.intrinsics[0, 2] == 50
    assert half.intrinsics[1, 2] == 25
    assert half.intrinsics[0, 0] == camera.intrinsics[0, 0] / 2
    assert half.intrinsics[2, 2] == 1


def test_turning_right_then_up_shows_what_is_right_and_above():
    yaw, pitch, zero = torch.tensor([0.3, 0.2, 0.0], dtype=torch.float64)
    gaze = motions.rotation_from_euler(yaw, pitch, zero)[:, 2]
    assert gaze[0] > 0  # right
    assert gaze[1] < 0  # up: y points down


def test_rolling_clockwise_lowers_the_right_side():
    zero = torch.zeros((), dtype=torch.float64)
    right = motions.rotation_from_euler(zero, zero, zero + 0.3)[:, 0]
    assert right[1] > 0


def test_quaternions_are_wxyz():
    quarter = motions.rotation_from_vector(torch.tensor([0.0, 0, torch.pi / 2]))
    expected = torch.tensor([0.5**0.5, 0, 0, 0.5**0.5])
    assert torch.allclose(motions.quaternion_from_rotation(quarter), expected, atol=1e-6)


def test_poses_keep_their_digits_under_autocast():
    """On machines that multiply bfloat16 the generator runs under autocast, which rounds every matrix product."""
    cameras = Cameras.from_fov(torch.eye(4).repeat(3, 1, 1), 60.0, 16, 24)
    cameras.camera_from_world[:, :3, 3] = torch.tensor([0.123456789, 1.23456789, -12.3456789])
    turned = cameras.relative_to(cameras[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cameras.centres, -cameras.camera_from_world[:, :3, 3])
        assert torch.equal(cameras.relative_to(cameras[0]).camera_from_world, turned.camera_from_world)
