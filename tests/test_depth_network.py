"""The depth network and what surrounds it: scales, shapes, trust in what is known. Random weights unless said."""

import pytest
import torch
from rooms import look, path

from photowalk.geometry.cameras import Cameras
from photowalk.models.depth_network import DepthNetwork
from photowalk.perception.depth import NanoDepth
from photowalk.presets.nano import nano_depth_network
from photowalk.scene.filling import fill_smoothly
from photowalk.scene.types import View
from photowalk.scene.warping import composite
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld
from photowalk.world.placement import choose_placement


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    torch.manual_seed(0)
    network = DepthNetwork(DepthNetwork.Config())
    torch.nn.init.normal_(network.answer.weight, std=0.02)
    return network.eval()


@pytest.fixture(scope="module")
def trained() -> NanoDepth:
    return NanoDepth(nano_depth_network(choose_placement("cpu")))


def _cameras(count: int, height: int, width: int) -> Cameras:
    return Cameras.from_fov(torch.eye(4).repeat(count, 1, 1), 60, height, width)


def _half_known(height: int = 64, width: int = 96) -> torch.Tensor:
    known = torch.linspace(2, 4, height)[:, None].repeat(1, width)
    known[:, width // 2 :] = 0
    return known


def test_twice_the_known_depth_is_twice_the_answer(network):
    video, cameras, known = torch.rand(1, 3, 64, 96), _cameras(1, 64, 96), _half_known()[None]
    once = NanoDepth(network).estimate_frames(video, cameras, known)
    twice = NanoDepth(network).estimate_frames(video, cameras, 2 * known)
    torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=0)


def test_pictures_of_a_batch_do_not_mix(network):
    images, cameras = torch.rand(2, 3, 32, 48), _cameras(2, 32, 48)
    with torch.no_grad():
        both = network(images, cameras.intrinsics).log_depth
        alone = network(images[1:], cameras.intrinsics[1:]).log_depth
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 48), (64, 96)])
def test_attention_works_at_any_size_and_is_learnt(size):
    network = DepthNetwork(DepthNetwork.Config(attention=2))
    torch.nn.init.normal_(network.answer.weight, std=0.02)
    answer = network(torch.rand(1, 3, *size), _cameras(1, *size).intrinsics).log_depth
    answer.square().sum().backward()
    assert answer.shape == (1, *size)
    assert all(float(p.grad.abs().sum()) > 0 for name, p in network.context.named_parameters() if "bias" not in name)


def test_other_shapes_are_refused(network):
    with pytest.raises(ValueError, match="divisible by 16"):
        network(torch.rand(1, 3, 30, 48), _cameras(1, 30, 48).intrinsics)


def test_gaps_take_what_is_around_and_known_values_stay():
    values = torch.zeros(1, 1, 16, 24)
    weight = torch.zeros(1, 1, 16, 24)
    values[..., :4], weight[..., :4] = 5.0, 1.0
    torch.testing.assert_close(fill_smoothly(values, weight), torch.full_like(values, 5.0))
    values[..., -1], weight[..., -1] = 1.0, 1.0
    filled = fill_smoothly(values, weight)
    assert torch.equal(filled[weight > 0], values[weight > 0])
    assert 1 < float(filled[0, 0, 8, 14]) < 5
    assert torch.equal(fill_smoothly(values, torch.zeros_like(weight)), torch.zeros_like(values))


def test_known_depth_is_kept_and_sets_the_scale_of_the_rest(network):
    video = torch.rand(2, 3, 60, 90)
    known = torch.full((2, 60, 90), 7.0)
    known[:, :, 60:] = 0
    depth = NanoDepth(network).estimate_frames(video, _cameras(2, 60, 90), known)
    surface = depth.isfinite()
    assert depth.shape == known.shape
    assert bool((depth > 0).all())
    kept = (depth[:, :, :60] == 7.0).float().mean()
    assert kept > 0.5
    assert bool((depth[surface] > 1).all())
    assert bool((depth[surface] < 50).all())


def test_what_a_chunk_shows_first_has_one_depth_in_all_its_frames(trained):
    """Of which nothing is known; alone, frames of a room differ by more."""
    cameras = path(4, height=96, width=160)
    video = torch.stack([look(camera)[0] for camera in cameras])
    nothing = torch.zeros(4, 96, 160)
    together = trained.estimate_frames(video, cameras, nothing)
    alone = torch.cat([trained.estimate_frames(video[[i]], cameras[[i]], nothing[[i]]) for i in range(4)])
    torch.testing.assert_close(together[-1], alone[-1])

    def disagreement(depth: torch.Tensor) -> float:
        """Between the first frame and what the last one shows of it."""
        shown = composite([View(video[-1], depth[-1], cameras[-1], 0)], cameras[:1]).depth[0]
        both = (shown > 0) & shown.isfinite() & depth[0].isfinite()
        assert both.float().mean() > 0.3
        return float((shown[both] / depth[0][both]).log().abs().mean())

    assert disagreement(together) < 0.01
    assert disagreement(together) < 0.2 * disagreement(alone)


def test_frames_and_known_depth_must_fit(network):
    with pytest.raises(ValueError, match="want F cameras"):
        NanoDepth(network).estimate_frames(torch.rand(2, 3, 32, 48), _cameras(1, 32, 48), torch.zeros(2, 32, 48))


def test_a_photo_without_focal_length_gets_a_usual_one(network):
    estimate = NanoDepth(network, usual_fov_x_deg=90).estimate_photo(torch.rand(3, 40, 70))
    assert estimate.focal_px == pytest.approx(35)
    assert estimate.depth.shape == (40, 70)
    assert NanoDepth(network).estimate_photo(torch.rand(3, 40, 70), 50.0).focal_px == 50.0
    with pytest.raises(ValueError, match="photo"):
        NanoDepth(network).estimate_photo(torch.rand(1, 3, 40, 70))


def test_the_trained_network_continues_a_wall_behind_a_hole(trained):
    image = torch.nn.functional.interpolate(
        torch.rand(1, 3, 16, 28, generator=torch.Generator().manual_seed(0)), (128, 224)
    )
    known = torch.full((1, 128, 224), 4.0)
    known[:, 30:90, 80:150] = 0
    depth = trained.estimate_frames(image, _cameras(1, 128, 224), known)
    assert torch.equal(depth[known > 0], known[known > 0])
    torch.testing.assert_close(depth, torch.full_like(depth, 4.0), rtol=0.15, atol=0)


def test_the_trained_network_knows_a_place_that_it_has_never_seen(trained):
    world = SyntheticWorld.sample(HELD_OUT_SEEDS[0])
    view = world.render(world.walk(3, 0, size=(256, 448))).view(0)
    estimate = trained.estimate_photo(view.image, float(view.camera.intrinsics[0, 0])).depth
    both = view.depth.isfinite() & estimate.isfinite()
    ratio = estimate[both] / view.depth[both]
    assert (ratio / ratio.median() - 1).abs().mean() < 0.25  # 0.5 and more for a constant
