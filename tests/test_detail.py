"""The stage that mixes decoded and warped frames."""

import torch

from photowalk.models.detail import DetailNetwork


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
