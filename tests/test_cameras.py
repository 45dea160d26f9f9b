import pytest
import torch

from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras


def random_cameras(count, seed=0, height=60, width=80):
    generator = torch.Generator().manual_seed(seed)
    rotation = motions.rotation_from_vector(torch.randn(count, 3, generator=generator, dtype=torch.float64))
    centres = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return Cameras.from_fov(motions.motion(rotation, centres), 70.0, height, width)


def test_world_from_camera_inverts():
    cameras = random_cameras(7)
    product = cameras.camera_from_world @ cameras.world_from_camera
    assert torch.allclose(product, torch.eye(4, dtype=torch.float64).expand(7, 4, 4), atol=1e-14)


def test_project_undoes_unproject():
    cameras = random_cameras(3)
    depth = torch.rand(3, 60, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    pixels, seen = cameras.project(cameras.unproject(depth).flatten(1, 2))
    rows, columns = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    grid = torch.stack([columns, rows], -1).flatten(0, 1).double()
    assert torch.allclose(pixels, grid.expand(3, -1, -1), atol=1e-9)
    assert torch.allclose(seen, depth.flatten(1), atol=1e-12)


def test_rays_hit_the_unprojected_points():
    cameras = random_cameras(2)
    origins, directions = cameras.rays()
    points = cameras.unproject(torch.full((2, 60, 80), 2.0, dtype=torch.float64))
    along = torch.nn.functional.normalize(points - origins[:, None, None], dim=-1)
    assert torch.allclose(along, directions, atol=1e-12)


def test_relative_to_does_not_depend_on_the_world():
    cameras = random_cameras(4)
    world = random_cameras(1, seed=9)[0].camera_from_world
    moved = Cameras(cameras.camera_from_world @ world, cameras.intrinsics, cameras.height, cameras.width)
    before, after = cameras.relative_to(cameras[0]), moved.relative_to(moved[0])
    assert torch.allclose(before.camera_from_world, after.camera_from_world, atol=1e-13)


def test_resizing_keeps_relative_image_positions():
    cameras = random_cameras(1)[0]
    points = cameras.unproject(torch.ones(60, 80, dtype=torch.float64))[::20, ::20].flatten(0, 1)
    pixels, _ = cameras.project(points)
    resized, _ = cameras.resized(30, 160).project(points)
    assert torch.allclose(resized, pixels * torch.tensor([2.0, 0.5], dtype=torch.float64))


def test_indexing_joining_and_length():
    cameras = random_cameras(5)
    joined = Cameras.cat([cameras[:2], cameras[2:]])
    assert len(cameras) == 5
    assert torch.equal(joined.camera_from_world, cameras.camera_from_world)
    assert cameras[3].shape == ()
    with pytest.raises(ValueError, match="different image sizes"):
        Cameras.cat([cameras, cameras.resized(10, 10)])


def test_check_accepts_good_cameras():
    cameras = random_cameras(5)
    assert cameras.check() is cameras


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pose, _: pose[2].fill_(float("nan")), "camera 2 of 5 has a number that is not finite"),
        (lambda pose, _: pose[1, :3, 3].fill_(float("inf")), "camera 1 of 5 has a number that is not finite"),
        (lambda pose, _: pose[3, :3, :3].zero_(), "camera 3 of 5 has a pose that is not rigid"),
        (lambda pose, _: pose[0, 0, :3].neg_(), "camera 0 of 5 has a pose that is not rigid"),
        (lambda pose, _: pose[4, :3, :3].mul_(1.1), "camera 4 of 5 has a pose that is not rigid"),
        (lambda pose, _: pose[4, 3].fill_(1), "camera 4 of 5 has a pose that is not rigid"),
        (lambda _, lens: lens[2, 0, 0].zero_(), "camera 2 of 5 has a focal length that is not positive"),
        (lambda _, lens: lens[2, 1, 1].neg_(), "camera 2 of 5 has a focal length that is not positive"),
    ],
)
def test_check_names_the_first_bad_camera(change, message):
    cameras = random_cameras(5)
    change(cameras.camera_from_world, cameras.intrinsics)
    with pytest.raises(ValueError, match=f"the walk: {message}"):
        cameras.check("the walk")


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="equal leading axes"):
        Cameras(torch.eye(4).expand(3, 4, 4), torch.eye(3).expand(2, 3, 3), 4, 4)
    with pytest.raises(ValueError, match="positive image size"):
        Cameras(torch.eye(4), torch.eye(3), 0, 4)
