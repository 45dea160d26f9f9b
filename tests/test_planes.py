"""Planes fitted around every pixel, against torch's least squares and against planes that are known."""

import pytest
import torch

from photowalk.kernels.planes import RIDGE, WINDOW, fit_planes

STEEP = 0.06


def fit_readably(values, i, j, steep):
    """One pixel: the ridge regression of its neighbours' change on a constant, which has no ridge, and two slopes."""
    rows, columns = values.shape
    here, steps, changes = values[i, j], [], []
    for row in range(max(i - WINDOW, 0), min(i + WINDOW + 1, rows)):
        for column in range(max(j - WINDOW, 0), min(j + WINDOW + 1, columns)):
            dx, dy, change = column - j, row - i, values[row, column] - here
            if values[row, column] > 0 and change.abs() < steep * max(abs(dx), abs(dy), 0.5) * here:
                steps.append((dx, dy))
                changes.append(change)
    steps, changes = torch.tensor(steps).double(), torch.stack(changes).double()
    centred = steps - steps.mean(0)
    covariance = centred.T @ centred / len(steps) + RIDGE * torch.eye(2, dtype=torch.float64)
    slope = torch.linalg.solve(covariance, centred.T @ (changes - changes.mean()) / len(steps))
    return torch.stack([here + changes.mean() - slope @ steps.mean(0), *slope])


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (9, 16), (7, 37)])
def test_planes_are_those_of_least_squares(shape):
    generator = torch.Generator().manual_seed(1)
    values = 1 + 0.1 * torch.rand(shape, generator=generator)  # some neighbours are a steep step away
    values[torch.rand(shape, generator=generator) < 0.2] = 0
    fitted = torch.stack(fit_planes(values, STEEP), dim=-1)
    for i in range(shape[0]):
        for j in range(shape[1]):
            wanted = fit_readably(values, i, j, STEEP) if values[i, j] > 0 else torch.zeros(3)
            torch.testing.assert_close(fitted[i, j].double(), wanted.double(), atol=2e-6, rtol=1e-4)


def test_a_plane_is_found_again_and_noise_goes():
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    plane = 1 + 0.004 * columns - 0.003 * rows
    height, across, down = fit_planes(plane, STEEP)
    inner = slice(WINDOW, -WINDOW)
    torch.testing.assert_close(height, plane, atol=1e-4, rtol=0)
    torch.testing.assert_close(across[inner, inner], torch.full((36, 46), 0.004), atol=5e-6, rtol=0)
    torch.testing.assert_close(down[inner, inner], torch.full((36, 46), -0.003), atol=5e-6, rtol=0)
    noise = 0.005 * torch.randn(40, 50, generator=torch.Generator().manual_seed(2))
    assert (fit_planes(plane + noise, STEEP)[0] - plane)[inner, inner].std() < 0.35 * noise.std()


def test_a_step_is_not_fitted_over():
    values = torch.cat([torch.full((20, 10), 1.0), torch.full((20, 10), 2.0)], dim=1)
    height, across, down = fit_planes(values, STEEP)
    assert torch.equal(height, values)
    assert not torch.stack([across, down]).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
def test_a_gpu_fits_the_same_planes():
    values = 1 + 0.1 * torch.rand(37, 50, generator=torch.Generator().manual_seed(3))
    for on_cpu, on_gpu in zip(fit_planes(values, STEEP), fit_planes(values.cuda(), STEEP), strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-6, rtol=1e-5)
