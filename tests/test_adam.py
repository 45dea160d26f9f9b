"""Adam on some rows at a time, against torch's."""

import torch

from photowalk.kernels.adam import step_rows


def test_rows_step_as_torch_steps_them_each_by_its_own_count():
    chance = torch.Generator().manual_seed(0)
    values = torch.randn(7, 3, generator=chance)
    state = [torch.zeros_like(values), torch.zeros_like(values), torch.zeros(7)]
    alone = [torch.nn.Parameter(row.clone()) for row in values]
    torchs = [torch.optim.Adam([row], lr=0.05, betas=(0.9, 0.99), eps=0.02) for row in alone]
    for _ in range(6):
        rows = torch.randperm(7, generator=chance)[:4]
        slopes = torch.randn(4, 3, generator=chance)
        step_rows(rows, slopes, values, *state, rate=0.05, forget=(0.9, 0.99), unmoved=0.02, least=-float("inf"))
        for row, slope in zip(rows.tolist(), slopes):
            alone[row].grad = slope.clone()
            torchs[row].step()
    torch.testing.assert_close(values, torch.stack([row.detach() for row in alone]), atol=1e-6, rtol=1e-5)


def test_no_value_becomes_smaller_than_the_least():
    values, state = torch.zeros(2, 1), [torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2)]
    slopes = torch.tensor([[1.0], [-1.0]])
    step_rows(torch.arange(2), slopes, values, *state, rate=0.1, forget=(0.9, 0.99), unmoved=0.0, least=-0.01)
    torch.testing.assert_close(values, torch.tensor([[-0.01], [0.1]]))
