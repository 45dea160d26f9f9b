"""The stage that mixes decoded and warped frames."""

import pytest
import torch

from photowalk.models.detail import LEEWAY_ELSEWHERE, LEEWAY_WHERE_KNOWN, DetailNetwork, stay_near


def network() -> DetailNetwork:
    torch.manual_seed(0)
    return DetailNetwork(DetailNetwork.Config(widths=(8, 12, 16)))


def test_untrained_it_shows_the_warp_where_known_and_the_decoded_frame_elsewhere():
    decoded, warped = torch.rand(2, 3, 30, 44) * 2 - 1, torch.rand(2, 3, 30, 44) * 2 - 1
    known = torch.zeros(2, 1, 30, 44)
    known[..., :20] = 1
    restored = network().restore(decoded, warped, known)
    torch.testing.assert_close(restored[..., 20:], decoded[..., 20:])
    assert (restored[..., :20] - warped[..., :20]).abs().max() < 0.05


def test_it_learns_to_distrust_a_warp_that_disagrees():
    net = network()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    torch.manual_seed(1)
    for _ in range(60):
        truth = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4) * 2 - 1, size=(32, 32))
        warped, known = truth.clone(), torch.ones(4, 1, 32, 32)
        warped[:, :, :, 16:] = truth[:, :, :, 16:].roll(1, dims=0)  # another picture's pixels
        loss = (net.restore(truth, warped, known) - truth).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    restored = net.restore(truth, warped, known)
    assert (restored - truth)[..., 16:].abs().mean() < 0.5 * (warped - truth)[..., 16:].abs().mean()


def test_what_is_remembered_is_drawn_as_it_is_and_the_rest_not_far_from_the_fill():
    generator = torch.Generator().manual_seed(3)
    drawn, warped = (2 * torch.rand(2, 3, 8, 24, generator=generator) - 1 for _ in range(2))
    known = (torch.rand(2, 1, 8, 24, generator=generator) > 0.5).float()
    depth = torch.full((2, 1, 8, 24), 3.0)
    depth[..., 16:] = torch.inf  # the sky behind a roof
    off = (stay_near(drawn, warped, known, depth) - warped).abs()
    edge = torch.zeros(8, 24, dtype=torch.bool)
    edge[:, 14:18] = True
    assert torch.allclose(off[..., edge], (drawn - warped).abs()[..., edge])
    assert float((off * known)[..., ~edge].max()) == pytest.approx(LEEWAY_WHERE_KNOWN, abs=1e-6)
    assert float((off * (1 - known))[..., ~edge].max()) == pytest.approx(LEEWAY_ELSEWHERE, abs=1e-6)
    assert torch.equal(stay_near(warped + 0.03, warped, known, depth), warped + 0.03)
