"""The reconstruction network at a tiny size: its names, its rules and what a walk becomes."""

import copy
from dataclasses import replace

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_vector
from photowalk.models.depth_anything3 import metric
from photowalk.models.depth_anything3.backbone import BackboneConfig, rotate
from photowalk.models.depth_anything3.dense_heads import HeadConfig
from photowalk.models.depth_anything3.network import DepthAnything3, DepthAnything3Config
from photowalk.models.depth_anything3.pose_tokens import (
    CameraEncoderConfig,
    cameras_from_numbers,
    normalise_poses,
    numbers_from_cameras,
    rigid_inverse,
)
from photowalk.models.depth_anything3.splats import harmonics_rotation, place_splats
from photowalk.presets import depth_anything
from photowalk.reconstruct import reconstruct
from photowalk.reconstruct.feed_forward import NetworkLift
from photowalk.scene.surfaces import surface_of
from photowalk.scene.types import Clip, Splats

HEAD = HeadConfig(32, 8, (4, 8, 8, 8))
TINY = DepthAnything3Config(
    backbone=BackboneConfig(16, 6, 2, outputs=(2, 3, 4, 5), alternate_from=2, gated=True, trained_grid=4),
    head=HEAD,
    cameras=CameraEncoderConfig(16, heads=2, depth=1),
    splats=HEAD,
    metric_backbone=BackboneConfig(16, 4, 2, outputs=(0, 1, 2, 3), trained_grid=4),
    metric_head=HeadConfig(16, 8, (4, 8, 8, 8)),
)


@pytest.fixture(scope="module")
def network() -> DepthAnything3:
    torch.manual_seed(0)
    network = DepthAnything3(TINY).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "token")):  # such that every layer and token is heard
            torch.nn.init.normal_(parameter, mean=0.5)
    return network


def _cameras(count: int, height: int = 28, width: int = 42) -> Cameras:
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, 0, 3] = torch.linspace(0, -1, count)
    return Cameras.from_fov(pose, 60, height, width)


def test_published_size():
    with torch.device("meta"):
        network = DepthAnything3(depth_anything.lyra2_reconstruction())
    assert len(network.state_dict()) == 1383
    assert sum(p.numel() for p in network.parameters()) == 1_689_845_519


@torch.inference_mode()
def test_shapes_and_cameras(network: DepthAnything3):
    images, cameras = torch.randn(3, 3, 28, 42), _cameras(3)
    predicted = network(images, cameras.camera_from_world, cameras.intrinsics, down_ratio=2)
    assert predicted.depth.shape == predicted.confidence.shape == (3, 28, 42)
    assert predicted.splats is not None
    assert predicted.splats.shape == (3, 14, 21, 38)
    moved = cameras.camera_from_world.clone()
    moved[2, 0, 3] -= 3
    other = network(images, moved, cameras.intrinsics)
    assert not torch.allclose(other.depth, predicted.depth)  # what is known is listened to
    with pytest.raises(ValueError, match="divisible by 14"):
        network(torch.randn(1, 3, 30, 42))


@torch.inference_mode()
def test_the_order_of_unposed_views_does_not_matter(network: DepthAnything3):
    images = torch.randn(4, 3, 28, 42)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(network(images[order]).depth, network(images).depth[order], atol=1e-4, rtol=1e-4)


def test_nine_numbers_and_back():
    cameras = _cameras(4)
    numbers = numbers_from_cameras(cameras.camera_from_world, cameras.intrinsics, (28, 42))
    pose, lens = cameras_from_numbers(numbers, (28, 42))
    torch.testing.assert_close(pose, cameras.camera_from_world)
    torch.testing.assert_close(lens, cameras.intrinsics)
    far = cameras.camera_from_world.clone()
    far[:, :3, 3] *= 50
    torch.testing.assert_close(normalise_poses(far), normalise_poses(cameras.camera_from_world), atol=1e-4, rtol=1e-4)


def test_rotary_attention_depends_on_differences_only():
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    a, b = torch.tensor([[3, 5]]), torch.tensor([[1, 9]])
    here = (rotate(query, a) * rotate(key, b)).sum()
    torch.testing.assert_close((rotate(query, a + 4) * rotate(key, b + 4)).sum(), here)


def test_turned_harmonics_look_the_same_from_turned_directions():
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    rotation = rotation * torch.linalg.det(rotation)
    coefficients = torch.randn(9, dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.randn(3, dtype=torch.float64), dim=0)
    turned = harmonics_rotation(rotation) @ coefficients
    torch.testing.assert_close(turned @ _basis(rotation @ direction), coefficients @ _basis(direction))


def _basis(d: torch.Tensor) -> torch.Tensor:
    x, y, z = d
    second = [x * y, -y * z, (2 * z * z - x * x - y * y) / 12**0.5, -x * z, (x * x - y * y) / 2]
    return torch.stack([torch.ones_like(x), -y, z, -x, *second])


def test_splats_keep_the_rules_of_the_weights():
    raw, depth = torch.zeros(1, 2, 2, 38), torch.arange(1.0, 17).reshape(1, 4, 4)
    raw[..., 5:9] = torch.tensor([1.0, 0, 0, 0])
    lens = torch.tensor([[[2.0, 0, 2], [0, 2, 2], [0, 0, 1]]])
    placed = place_splats(raw, depth, torch.eye(4)[None], lens)
    torch.testing.assert_close(placed.means.norm(dim=-1), torch.tensor([1.0, 3, 9, 11]))  # top left, along the ray
    torch.testing.assert_close(placed.rotations.abs(), torch.tensor([[0.0, 1, 0, 0]]).expand(4, 4))
    raw[..., 36] = -20
    assert (place_splats(raw, depth, torch.eye(4)[None], lens).scales < 0).all()


def test_metres_from_the_surer_half():
    depth, raw = torch.rand(2, 20, 20) + 1, torch.zeros(2, 20, 20)
    raw[:] = 2 * depth
    sky, lens = torch.zeros_like(depth), 300 * torch.eye(3).expand(2, 3, 3)
    confidence = torch.rand_like(depth) + 1
    raw[confidence < 1.4] = 99
    sky[0, :5] = 1
    found = metric.in_metres(depth, confidence, metric.own_sky(raw, sky), sky, lens)
    assert float(found.scale) == pytest.approx(2, rel=1e-5)
    assert len(found.depth[0, :5].unique()) == 1
    assert bool((found.confidence[0, :5] == 1).all())
    with pytest.raises(ValueError, match="nothing but sky"):
        metric.in_metres(depth, confidence, raw, torch.ones_like(sky), lens)


@pytest.mark.parametrize(("frames", "ratio"), [(1, 1), (7, 2)])
def test_a_walk_becomes_splats_at_its_own_scale(network: DepthAnything3, frames: int, ratio: int):
    video, cameras = torch.rand(frames, 3, 30, 44), _cameras(frames, 30, 44)
    depth = torch.full((frames, 30, 44), 5.0)
    depth[0, 0, 0] = torch.nan
    made = {}
    for metres in (1.0, 2.0):
        lifter = NetworkLift(network, ratio, window=4, overlap=2)
        made[metres] = [
            lifter(view, surface_of(view.depth, view.camera), view.depth > 0, ())
            for view in lifter.views([Clip(video, cameras, metres * depth)])
        ]
    assert len(made[1.0]) == frames
    small, large = (Splats.cat(each) for each in made.values())
    assert 0 < len(small) <= frames * 28 * 42 // ratio**2
    assert bool(small.means.isfinite().all())
    assert bool((small.scales.diff(dim=-1) <= 0).all())
    near, far = ((each.means - cameras.centres[0]).norm(dim=-1).median() for each in (small, large))
    assert 1.5 < float(far / near) < 2.5


def test_only_chosen_pixels_become_splats(network: DepthAnything3):
    walk = [Clip(torch.rand(1, 3, 28, 42), _cameras(1, 28, 42), torch.full((1, 28, 42), 3.0))]

    def lifted(chosen: torch.Tensor, stretch: float = 1.0) -> Splats:
        lifter = NetworkLift(network, 1)
        (view,) = lifter.views(walk)
        return lifter(replace(view, depth=stretch * view.depth), surface_of(view.depth, view.camera), chosen, ())

    chosen = torch.zeros(28, 42, dtype=torch.bool)
    assert len(lifted(chosen)) == 0
    assert len(lifted(~chosen)) > 0
    chosen[:, :21] = True
    half = lifted(chosen)
    assert 0 < len(half) < len(lifted(torch.ones_like(chosen)))
    torch.testing.assert_close(lifted(chosen, 2).means, 2 * half.means, atol=1e-4, rtol=1e-4)  # seen from the origin


@pytest.fixture
def flat_network(network: DepthAnything3) -> DepthAnything3:
    """It sees one depth everywhere, and small, opaque splats there."""
    flat = copy.deepcopy(network)
    splat = torch.zeros(38)
    splat[2:5], splat[5], splat[37] = -3, 1, 3
    for head, bias in ((flat.da3.head, torch.zeros(2)), (flat.da3.gs_head, splat)):
        torch.nn.init.zeros_(head.scratch.output_conv2[-1].weight)
        head.scratch.output_conv2[-1].bias.data = bias
    return flat


def test_walks_of_the_network_are_fused_as_others(flat_network: DepthAnything3):
    walk = Clip(torch.rand(5, 3, 28, 42), _cameras(5, 28, 42), torch.full((5, 28, 42), 4.0))
    lifter = NetworkLift(flat_network, 2, window=3, overlap=1)
    scene = reconstruct(lifter.views([walk]), budget=400, lifter=lifter)
    assert 0 < len(scene.splats) <= 400
    assert float((scene.splats.means[:, 2] - 4).abs().median()) < 0.6  # depth is taken for distance, see splats.py
    sky = Clip(walk.video, walk.cameras, torch.full((5, 28, 42), torch.inf))
    with pytest.raises(ValueError, match="all sky or unknown"):
        reconstruct(lifter.views([sky]), lifter=lifter)


def _poses(kind: str, count: int) -> torch.Tensor:
    """world_from_camera [count, 4, 4]"""
    pose = torch.eye(4).repeat(count, 1, 1)
    if kind == "dolly":
        pose[:, 2, 3] = torch.linspace(0, 1, count)
    if kind == "turn":
        pose[:, :3, :3] = rotation_from_vector(torch.linspace(0, 1, count)[:, None] * torch.tensor([0.0, 0.5, 0]))
    return pose


@pytest.mark.parametrize("kind", ["dolly", "turn", "still"])
def test_paths_on_which_centres_say_nothing_keep_their_place(flat_network: DepthAnything3, kind: str):
    """Every view sees a surface at distance 4, and the splats are there, whatever the path."""
    pose = _poses(kind, 6)
    cameras = Cameras.from_fov(rigid_inverse(pose), 60, 28, 42)
    lifter = NetworkLift(flat_network, 2)
    for view in lifter.views([Clip(torch.rand(6, 3, 28, 42), cameras, torch.full((6, 28, 42), 4.0))]):
        splats = lifter(view, surface_of(view.depth, view.camera), view.depth > 0, ())
        away = splats.means - view.camera.centres
        torch.testing.assert_close(away.norm(dim=-1), torch.full((len(away),), 4.0), atol=1e-3, rtol=0)
        ahead = away @ view.camera.world_from_camera[:3, 2]
        assert bool((ahead > 0).all())


def test_weights_without_splats_are_refused():
    with pytest.raises(ValueError, match="no splats"):
        NetworkLift(DepthAnything3(replace(TINY, splats=None)))


@torch.inference_mode()
def test_nano_takes_frames_as_they_are():
    network = DepthAnything3(depth_anything.nano_reconstruction()).eval()
    cameras = _cameras(2, 64, 112)
    predicted = network(torch.rand(2, 3, 64, 112), cameras.camera_from_world, cameras.intrinsics, down_ratio=2)
    assert predicted.depth.shape == (2, 64, 112)
    assert predicted.splats is not None
    assert predicted.splats.shape == (2, 32, 56, 38)
    assert sum(parameter.numel() for parameter in network.parameters()) < 4_000_000
