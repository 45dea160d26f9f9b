"""One factor between estimated and known depth, edges without in-between pixels, sky without specks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photowalk.perception.alignment import align_scale
from photowalk.perception.sky import clean_sky, remembered_sky
from photowalk.scene.edges import sharpen_edges


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.05, 20), seed=st.integers(0, 100))
def test_finds_a_scale_under_noise_outliers_sky_and_holes(scale, seed):
    random = _random(seed)
    estimated = 1 + 5 * torch.rand(40, 60, generator=random)
    known = estimated * scale * torch.exp(0.02 * torch.randn(40, 60, generator=random))
    draw = torch.rand(40, 60, generator=random)
    known = torch.where(draw < 0.1, known * 3, known)
    known = torch.where(draw > 0.6, 0.0, known)
    known = torch.where((draw > 0.5) & (draw < 0.6), torch.inf, known)
    alignment = align_scale(estimated, known)
    assert alignment.reliable
    assert alignment.scale == pytest.approx(scale, rel=0.01)
    assert alignment.share == pytest.approx(0.5, abs=0.05)
    assert alignment.agreement == pytest.approx(0.8, abs=0.05)


def test_says_so_when_too_little_is_in_common():
    estimated = torch.ones(40, 60)
    known = torch.zeros(40, 60)
    known[0, :20] = 7.0
    alignment = align_scale(estimated, known)
    assert (alignment.scale, alignment.reliable) == (1.0, False)
    assert align_scale(estimated, torch.full((40, 60), torch.inf)).reliable is False


def test_refuses_depths_of_two_shapes():
    with pytest.raises(ValueError, match="one shape"):
        align_scale(torch.ones(4, 5), torch.ones(5, 4))


def _blurred_step(near: float, far: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A blurred depth edge between columns 29 and 30, the picture with the sharp edge, the true depth."""
    truth = torch.full((40, 60), near)
    truth[:, 30:] = far
    inverse = 1 / truth
    ramp = torch.linspace(1 / near, 1 / far, 6)[1:-1]
    inverse[:, 28:32] = ramp
    image = torch.where(truth == near, 0.2, 0.8).expand(3, -1, -1)
    return 1 / inverse, image, truth


@pytest.mark.parametrize(("near", "far"), [(1.0, 2.0), (2.0, 30.0), (3.0, math.inf)])
def test_a_blurred_edge_becomes_the_edge_of_the_picture(near, far):
    blurred, image, truth = _blurred_step(near, far)
    sharp = sharpen_edges(blurred, image)
    torch.testing.assert_close(sharp, truth, rtol=0.02, atol=0)


def test_planes_stay_as_they_are():
    rows = torch.arange(1, 41)[:, None].expand(-1, 60).float()
    floor = 40 / rows  # inverse depth grows linearly towards the viewer
    assert torch.equal(sharpen_edges(floor, torch.rand(3, 40, 60, generator=_random(0))), floor)


def test_unknown_depth_stays_unknown():
    blurred, image, _ = _blurred_step(1.0, 3.0)
    blurred[10:14, 20:40] = 0
    assert torch.equal(sharpen_edges(blurred, image) == 0, blurred == 0)


def test_specks_of_sky_and_in_the_sky_go():
    logit = torch.full((64, 64), -3.0)
    logit[:32] = 3.0
    logit[50:52, 10:12] = 6.0
    logit[10:12, 40:42] = -6.0
    sky = clean_sky(logit)
    assert torch.equal(sky, (torch.arange(64) < 32)[:, None].expand(64, 64))


def test_a_pole_in_front_of_the_sky_stays():
    logit = torch.full((64, 64), 3.0)
    logit[:, 30:36] = -3.0
    assert not clean_sky(logit)[:, 31:35].any()


def test_what_hangs_in_the_sky_is_sky_and_what_stands_in_it_stays():
    logit = torch.full((64, 64), 3.0)
    logit[40:] = -3.0
    logit[10:18, 40:48] = -3.0  # hangs
    logit[15:40, 8:16] = -3.0  # stands
    sky = clean_sky(logit)
    assert sky[:40, 20:].all()
    assert not sky[16:, 9:15].any()


def test_memory_decides_where_the_network_is_not_sure_of_the_sky():
    known = torch.zeros(32, 32)
    known[:16, :24], known[16:, :24] = torch.inf, 4.0
    weakly_wrong = torch.where(known.isinf(), -1.0, 1.0)
    logit = remembered_sky(weakly_wrong, known)
    assert (logit[:16, :24] > 0).all()
    assert (logit[16:, :24] < 0).all()
    unknown = remembered_sky(torch.full((32, 32), -0.5), known)[:, 26:]
    assert (unknown[:12] > 0).all()
    assert (unknown[20:] < 0).all()
    surely = remembered_sky(torch.full((32, 32), 8.0), known)
    assert (surely > 0).all()
