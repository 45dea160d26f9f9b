import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import Similarity

seeds = st.integers(0, 2**31)


def random_motions(seed, count=8, angle=1.0):
    generator = torch.Generator().manual_seed(seed)
    vectors = angle * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return motions.motion(
        motions.rotation_from_vector(vectors), torch.randn(count, 3, generator=generator, dtype=torch.float64)
    )


def close(a, b, tolerance=1e-12):
    return torch.allclose(a, b, rtol=0, atol=tolerance)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_inverse_and_compose(seed):
    a, b = random_motions(seed), random_motions(seed + 1)
    identity = torch.eye(4, dtype=torch.float64).expand_as(a)
    assert close(motions.compose(a, motions.inverse(a)), identity)
    product = motions.compose(a, b)
    assert close(motions.inverse(product), motions.inverse(b) @ motions.inverse(a))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 0.1, 1.0, 3.0, math.pi - 1e-9, math.pi])
def test_rotation_vectors_round_trip_at_every_angle(angle):
    axis = torch.nn.functional.normalize(
        torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )
    rotation = motions.rotation_from_vector(axis * angle)
    back = motions.rotation_from_vector(motions.vector_from_rotation(rotation))
    assert close(rotation, back, 1e-14)
    assert close(rotation, torch.from_numpy(Rotation.from_rotvec((axis * angle).numpy()).as_matrix()), 1e-14)
    assert close(
        motions.geodesic_angle(torch.eye(3).double(), rotation), torch.full((20,), angle, dtype=torch.float64), 1e-14
    )


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_quaternions_round_trip(seed):
    rotation = random_motions(seed, angle=3.0)[:, :3, :3]
    quaternion = motions.quaternion_from_rotation(rotation)
    assert close(motions.rotation_from_quaternion(quaternion), rotation)
    assert bool((quaternion[:, 0] >= 0).all())
    assert close(quaternion.norm(dim=-1), torch.ones(8, dtype=torch.float64))


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))
@settings(max_examples=50, deadline=None)
def test_euler_angles_round_trip(yaw, pitch, roll):
    angles = torch.tensor([yaw, pitch, roll], dtype=torch.float64)
    back = torch.stack(motions.euler_from_rotation(motions.rotation_from_euler(*angles)))
    assert close(back, angles, 1e-9)


@pytest.mark.parametrize("pitch", [-math.pi / 2, math.pi / 2])
def test_euler_angles_survive_looking_straight_up_and_down(pitch):
    rotation = motions.rotation_from_euler(*torch.tensor([0.4, pitch, 0.2], dtype=torch.float64))
    assert close(motions.rotation_from_euler(*motions.euler_from_rotation(rotation)), rotation, 1e-9)


def test_look_at_puts_the_target_ahead_and_keeps_the_horizon():
    generator = torch.Generator().manual_seed(0)
    centre, target = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    pose = motions.look_at(centre, target)
    seen = (pose[:, :3, :3] @ target[..., None])[..., 0] + pose[:, :3, 3]
    assert close(seen[:, :2], torch.zeros(30, 2).double())
    assert close(seen[:, 2], (target - centre).norm(dim=-1))
    assert close(motions.inverse(pose)[:, :3, 3], centre)
    assert close(pose[:, 0, 1], torch.zeros(30).double())  # the image's right is level
    assert close(torch.linalg.det(pose[:, :3, :3]), torch.ones(30).double())


@pytest.mark.parametrize("down", [1.0, -1.0])
def test_look_at_straight_up_and_down_is_still_rigid(down):
    pose = motions.look_at(torch.zeros(3).double(), torch.tensor([0, down, 0], dtype=torch.float64))
    assert close(pose @ motions.inverse(pose), torch.eye(4).double())
    assert close(torch.linalg.det(pose[:3, :3]), torch.ones(()).double())


def test_look_at_refuses_its_own_place():
    with pytest.raises(ValueError, match="away from the camera centre"):
        motions.look_at(torch.zeros(3), torch.zeros(3))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_slerp_has_constant_speed_and_exact_ends(seed):
    a, b = random_motions(seed)[:, :3, :3], random_motions(seed + 1)[:, :3, :3]
    share = torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    middle = motions.slerp(a, b, share)
    whole = motions.geodesic_angle(a, b)
    assert close(motions.geodesic_angle(a, middle), share * whole, 1e-9)
    assert close(motions.slerp(a, b, torch.zeros(8).double()), a)
    assert close(motions.slerp(a, b, torch.ones(8).double()), b)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_interpolation_moves_with_the_world(seed):
    a, b, world = random_motions(seed), random_motions(seed + 1), random_motions(seed + 2, count=1)
    share = torch.full((8,), 0.3, dtype=torch.float64)
    assert close(motions.interpolate(a @ world, b @ world, share), motions.interpolate(a, b, share) @ world, 1e-11)


def test_nearest_rotation_keeps_rotations_and_mends_rounded_ones():
    rotation = random_motions(0)[:, :3, :3]
    assert close(motions.nearest_rotation(rotation), rotation)
    mended = motions.nearest_rotation((rotation * 1e4).round() / 1e4)
    assert close(mended @ mended.mT, torch.eye(3).double().expand_as(mended))
    assert close(mended, rotation, 1e-3)


def random_similarity(seed):
    generator = torch.Generator().manual_seed(seed)
    rigid = random_motions(seed, count=1)[0]
    return Similarity(torch.rand((), generator=generator).double() * 3 + 0.1, rigid[:3, :3], rigid[:3, 3])


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_similarities_form_a_group_and_act_on_points(seed):
    a, b = random_similarity(seed), random_similarity(seed + 1)
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert close((a @ b)(points), a(b(points)), 1e-10)
    assert close(a.inverse()(a(points)), points, 1e-10)
    assert close(Similarity.identity()(points), points)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_moving_cameras_and_points_together_keeps_the_image(seed):
    world = random_similarity(seed)
    cameras = Cameras.from_fov(random_motions(seed + 1), 60.0, 40, 50)
    points = torch.randn(11, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    _, depth = cameras.project(points)
    moved_pixels, moved_depth = world.cameras(cameras).project(world(points))
    assert close(moved_depth, world.scale * depth, 1e-10)
    in_front = depth.abs() > 0.1
    assert close(moved_pixels[in_front], cameras.project(points)[0][in_front], 1e-7)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_fit_recovers_the_similarity(seed):
    truth = random_similarity(seed)
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(20, generator=generator, dtype=torch.float64)
    target = truth(source)
    target[0] += 100  # an outlier that weighs nothing
    weights[0] = 0
    fitted = Similarity.fit(source, target, weights)
    assert close(fitted(source)[1:], target[1:], 1e-9)
    assert close(fitted.scale, truth.scale, 1e-10)


def test_fit_never_mirrors():
    source = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fitted = Similarity.fit(source, source * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert float(torch.linalg.det(fitted.rotation)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("source", "weights", "message"),
    [
        (torch.ones(5, 3), None, "coincide"),
        (torch.ones(1, 3), None, "two equal sets"),
        (torch.rand(5, 3), torch.zeros(5), "not all 0"),
        (torch.rand(5, 3), -torch.ones(5), "not all 0"),
    ],
)
def test_fit_refuses_what_has_no_answer(source, weights, message):
    with pytest.raises(ValueError, match=message):
        Similarity.fit(source, source, weights)
