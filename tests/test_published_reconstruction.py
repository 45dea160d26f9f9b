"""A video to splats as the published programs do it, around a network that sees a plane: choices, joints, ownership."""

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import Similarity, inverse, rotation_from_vector
from photowalk.models.depth_anything3.preprocess import bounded_size, patched_size, preprocess
from photowalk.reconstruct.frame_choice import even_windows, split_windows, spread
from photowalk.reconstruct.joining import closeness, join, moved, robust_similarity
from photowalk.reconstruct.ownership import opaque, owned, within_rim
from photowalk.reconstruct.published import Seen, reconstruct_at_once, reconstruct_in_windows
from photowalk.scene.types import Splats

HEIGHT, WIDTH = 48, 64
FRAMES = 40


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    """Along a curve before a plane at z = 4, looking at it and turning a little."""
    time = torch.linspace(0, 1, FRAMES)
    pose = torch.eye(4).repeat(FRAMES, 1, 1)
    pose[:, :3, :3] = rotation_from_vector(torch.stack([0.1 * time, 0.3 * time, 0 * time], dim=-1))
    pose[:, :3, 3] = torch.stack([2 * time, (3 * time).sin(), time * time], dim=-1)
    return Cameras.from_fov(inverse(pose), 60, HEIGHT, WIDTH)


class Painter:
    """Sees the plane from the cameras as they are, but guesses them in a world of its own."""

    def __init__(self, cameras: Cameras) -> None:
        self.cameras = cameras

    def __call__(self, frames: torch.Tensor) -> Seen:
        chosen = self.cameras[frames]
        small = chosen.resized(HEIGHT // 2, WIDTH // 2)
        origins, directions = small.rays()
        distance = (4 - origins[:, None, None, 2]) / directions[..., 2]
        means = (origins[:, None, None] + distance[..., None] * directions).reshape(-1, 3)
        count = len(means)
        splats = Splats(
            means,
            torch.full((count, 3), 0.01),
            torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
            torch.linspace(0, 1, count),
            torch.zeros(count, 1, 3),
        )
        world = Similarity(torch.tensor(3.0), rotation_from_vector(torch.tensor([0.2, 1, 0])), torch.ones(3))
        guess = world.cameras(chosen)
        return Seen(splats, (HEIGHT // 2, WIDTH // 2), guess.camera_from_world)


def test_frames_are_spread_over_all():
    assert spread(5, 128).tolist() == [0, 1, 2, 3, 4]
    assert spread(100, 4).tolist() == [0, 33, 66, 99]
    plan = even_windows(100, windows=3, size=10, overlap=3)
    windows = plan.frames[plan.places]
    assert windows.shape == (3, 10)
    assert windows[0, -3:].equal(windows[1, :3])
    assert (windows[0, 0], windows[-1, -1]) == (0, 99)
    split = split_windows(100, (19,), size=10, overlap=4)
    assert split.frames[split.places][0].max() == 19
    assert split.frames[split.places][1, :4].equal(split.frames[split.places][0, -4:])


def test_too_short_a_video_is_said():
    with pytest.raises(ValueError, match="want 24 frames, the video has 20"):
        even_windows(20, windows=3, size=10, overlap=3)
    with pytest.raises(ValueError, match="frames 0 to 4 are 5 frames"):
        split_windows(100, (4,), size=10, overlap=4)
    with pytest.raises(ValueError, match="share at least 3"):
        even_windows(100, windows=3, size=10, overlap=2)


def test_sizes_go_to_the_nearest_patches():
    assert patched_size(bounded_size((480, 832), longest=832), 14) == (476, 826)
    assert patched_size((21, 35), 14) == (28, 42)  # ties go up
    assert patched_size((3, 3), 14) == (14, 14)
    grey = preprocess(torch.full((2, 3, 61, 107), 0.5), longest=84)
    assert grey.shape == (2, 3, 42, 84)
    assert float(grey[:, 0].std()) < 1e-6
    ramp = torch.linspace(0, 1, 112).expand(1, 3, 56, 112)
    assert (preprocess(ramp, longest=56)[0, 0, 0].diff() > 0).all()


def test_an_area_is_the_mean_of_its_pixels():
    checked = torch.rand(1, 3, 28, 28)
    mean, deviation = 0.485, 0.229
    shrunk = preprocess(checked, longest=14)[0, 0] * deviation + mean
    wanted = torch.nn.functional.avg_pool2d(checked, 2)[0, 0]
    torch.testing.assert_close(shrunk, wanted, atol=0.6 / 255, rtol=0)


def test_a_joint_survives_wrong_points():
    torch.manual_seed(0)
    truth = Similarity(
        torch.tensor(1.7, dtype=torch.float64),
        rotation_from_vector(torch.tensor([0.3, -0.2, 0.5]).double()),
        torch.tensor([1.0, 2, 3]).double(),
    )
    points, centres = torch.randn(2000, 3).double() * 3, torch.randn(5, 3).double()
    target = truth(points)
    target[:200] += 5
    found = robust_similarity(centres, truth(centres), points, target, torch.ones(2000))
    torch.testing.assert_close(found.scale, truth.scale, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.rotation, truth.rotation, atol=1e-9, rtol=0)


def test_few_points_leave_the_joint_to_the_cameras(cameras: Cameras):
    truth = Similarity(
        torch.tensor(2.0), rotation_from_vector(torch.tensor([0.0, 0.4, 0.1])), torch.tensor([1.0, 0, 2])
    )
    target = truth.cameras(cameras).world_from_camera
    nowhere = torch.zeros(10, 3)
    found = join(cameras.world_from_camera, target, nowhere, nowhere, torch.ones(10))
    torch.testing.assert_close(found.scale.float(), truth.scale, atol=1e-4, rtol=0)


def test_near_points_weigh_more():
    weights = closeness(torch.tensor([1.0, 2, 4, -1, 0]), clipped=1.0)
    torch.testing.assert_close(weights[:3] * torch.tensor([1.0, 2, 4]), weights[:1].expand(3))
    assert weights[3:].tolist() == [0, 0]
    assert closeness(torch.tensor([-1.0, -2])).tolist() == [1, 1]


def test_splats_move_with_their_world():
    torch.manual_seed(0)
    turn = Similarity(torch.tensor(2.0), rotation_from_vector(torch.tensor([0.3, 0.2, 0.1])), torch.ones(3))
    splats = Splats(
        torch.randn(4, 3),
        torch.rand(4, 3),
        torch.nn.functional.normalize(torch.randn(4, 4), dim=-1),
        torch.rand(4),
        torch.randn(4, 9, 3),
    )
    there = moved(splats, turn)
    back = moved(there, turn.inverse())
    for name in ("means", "scales", "opacities", "colours"):
        torch.testing.assert_close(getattr(back, name), getattr(splats, name), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(there.colours[:, 1:], splats.colours[:, 1:])
    assert there.colours[:, 0].equal(splats.colours[:, 0])


def test_rims_and_the_faintest_go():
    inside = within_rim(2, 64, 64).view(2, 64, 64)
    assert inside[:, 2:-2, 2:-2].all()
    assert int(inside.sum()) == 2 * 60 * 60
    assert within_rim(1, 20, 20).all()  # nothing is left out where the rim is narrower than a splat
    assert int(opaque(torch.arange(10.0), 0.3).sum()) == 8


def test_the_nearest_window_owns_a_splat():
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[1, 2, 3] = -3  # three metres ahead
    far, near = (Cameras.from_fov(each[None], 60, HEIGHT, WIDTH) for each in pose)
    point = torch.tensor([[0.0, 0, 5]])
    assert owned(point, [far, near], 1, tolerance=1).tolist() == [True]
    assert owned(point, [far, near], 0, tolerance=1).tolist() == [False]
    assert owned(point, [far, near], 0, tolerance=4).tolist() == [True]
    aside = torch.tensor([[-2.0, 0, 5]])  # in the first picture only
    assert owned(aside, [far, near], 1, tolerance=1).tolist() == [False]


def test_at_once(cameras: Cameras):
    made = reconstruct_at_once(Painter(cameras), cameras, most=8)
    torch.testing.assert_close(made.splats.means[:, 2], torch.full((len(made.splats),), 4.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        made.cameras.camera_from_world[made.frames], cameras[made.frames].camera_from_world, atol=1e-4, rtol=0
    )
    assert len(made.cameras) == FRAMES
    fewer = reconstruct_at_once(Painter(cameras), cameras, most=8, faint_share=0.5)
    assert float(fewer.splats.opacities.min()) >= 0.49


def test_windows_are_joined(cameras: Cameras):
    plan = even_windows(FRAMES, windows=3, size=12, overlap=4)
    made = reconstruct_in_windows(Painter(cameras), cameras, plan)
    torch.testing.assert_close(made.splats.means[:, 2], torch.full((len(made.splats),), 4.0), atol=1e-3, rtol=0)
    assert len(made.splats) < 3 * 12 * HEIGHT * WIDTH // 4
    assert len(made.similarities) == len(made.owned) == 3
    assert not all(bool(mask.all()) for mask in made.owned)
