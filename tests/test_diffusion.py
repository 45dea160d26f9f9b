"""Rectified flow, samplers and guidance, against plain transcriptions and fields with a known solution."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from photowalk.diffusion.euler import Euler
from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.flow import TrainingSchedule, clean_estimate, interpolate, shifted, velocity_target
from photowalk.diffusion.guidance import guided
from photowalk.diffusion.noise import numpy_noise
from photowalk.diffusion.unipc import UniPC, unipc_sigmas

GOLDEN = load_file(Path(__file__).parent / "golden" / "schedulers.safetensors")
PUBLISHED_TIMESTEPS = [
    *(999, 993, 987, 981, 974, 967, 960, 952, 943, 935, 925, 915, 905, 894, 882, 869, 855, 840, 824, 807, 789, 768),
    *(746, 722, 695, 666, 633, 596, 555, 508, 454, 391, 318, 232, 128),
]
SAMPLERS = [UniPC(6), Euler(6), FewStep(3)]


def toy_velocity(x, timestep):
    slope = torch.tanh(0.7 * x + 0.1 * timestep.view(-1, 1, 1, 1, 1) / 1000) - 0.5 * GOLDEN["tgt"]
    slope[:, :, :2] = 0
    return slope


def test_the_line_from_clean_to_noise():
    clean, noise, sigma = torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.tensor([0.0, 0.3, 1.0])
    noisy = interpolate(clean, noise, sigma)
    torch.testing.assert_close(noisy[0], clean[0])
    torch.testing.assert_close(noisy[2], noise[2])
    torch.testing.assert_close(clean_estimate(noisy, velocity_target(clean, noise), sigma), clean)
    torch.testing.assert_close(interpolate(clean, noise, 0.3)[1], noisy[1])


def test_published_training_levels_and_weights():
    schedule = TrainingSchedule()
    sigma, weight = schedule.at(GOLDEN["train_u"])
    torch.testing.assert_close(sigma, GOLDEN["train_u_sigma"], atol=1e-6, rtol=0)
    torch.testing.assert_close(schedule.weights, GOLDEN["train_weights"], atol=5e-6, rtol=0)
    assert schedule.at(torch.tensor([0.0]))[0] == 1
    assert weight.shape == sigma.shape


def test_training_levels_are_logit_normal_before_the_shift():
    schedule = TrainingSchedule(shift=3.0)
    sigma, weight = schedule.draw(20_000, torch.Generator().manual_seed(0))
    middle = shifted(torch.tensor(0.5), 3.0)
    assert abs(float((sigma > middle).float().mean()) - 0.5) < 0.02
    above = shifted(1 - torch.sigmoid(torch.tensor(-1.0)), 3.0)  # one standard deviation
    assert abs(float((sigma > above).float().mean()) - 0.1587) < 0.02
    assert abs(float(schedule.weights.mean()) - 1) < 1e-5
    assert (weight >= 0).all()


def test_published_noise_and_seeds_of_any_size():
    torch.testing.assert_close(numpy_noise(1, (1, 16, 2, 3, 4)), GOLDEN["noise"], atol=0, rtol=0)
    assert torch.equal(numpy_noise(2**32 + 5, (3,)), numpy_noise(5, (3,)))
    assert not torch.equal(numpy_noise(-1, (3,)), numpy_noise(1, (3,)))


def test_published_timesteps_and_sample():
    seen = []

    def velocity(x, timestep):
        seen.append(timestep.item())
        return toy_velocity(x, timestep)

    final = UniPC(35).sample(velocity, GOLDEN["x0"])
    assert seen == PUBLISHED_TIMESTEPS
    torch.testing.assert_close(final, GOLDEN["final"], atol=5e-6, rtol=0)


def plain_unipc(velocity, x, levels):
    """The paper's algorithm with its linear systems solved by numpy, in float64."""
    lam = [math.log(1 - s) - math.log(s) if s > 0 else math.inf for s in levels]
    count = len(levels) - 1
    clean, used, start = [], 0, x
    for i in range(count):
        clean.append(x - levels[i] * velocity(x, levels[i]))
        if i > 0:
            x = _plain_update(start, clean[:i], clean[i], levels, lam, i, used)
        used, start = min(2, count - i, i + 1), x
        x = _plain_update(start, clean, None, levels, lam, i + 1, used)
    return x


def _plain_update(x, clean, corrected, levels, lam, to, order):
    """One step to level `to` from the level before; with `corrected`, the estimate at `to`, it is the corrector."""
    step = lam[to] - lam[to - 1]
    b_h = math.expm1(-step)
    ratios = [(lam[to - 1 - k] - lam[to - 1]) / step for k in range(1, order)]
    changes = [(clean[to - 1 - k] - clean[to - 1]) / r for k, r in enumerate(ratios, start=1)]
    if corrected is not None:
        ratios.append(1.0)
        changes.append(corrected - clean[to - 1])
    phi, right, factorial = b_h / -step - 1 if step < math.inf else 0.0, [], 1
    for k in range(1, len(ratios) + 1):
        right.append(phi * factorial / b_h)
        factorial *= k + 1
        phi = phi / -step - 1 / factorial
    rho = (
        [0.5] * len(ratios)
        if len(ratios) < 2
        else np.linalg.solve([[r**k for r in ratios] for k in range(len(ratios))], right)
    )
    x = levels[to] / levels[to - 1] * x - (1 - levels[to]) * b_h * clean[to - 1]
    return x - (1 - levels[to]) * b_h * sum((r * d for r, d in zip(rho, changes)), torch.zeros_like(x))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 12])
def test_unipc_is_the_papers_algorithm(steps):
    def field(x, sigma):
        return torch.tanh(0.7 * x + sigma) - 0.3 * x.roll(1, -1)

    levels = unipc_sigmas(steps, 5.0).tolist()
    calls = iter(levels)
    noise = numpy_noise(3, (2, 40))
    ours = UniPC(steps).sample(lambda x, timestep: field(x, next(calls)), noise)
    torch.testing.assert_close(ours.double(), plain_unipc(field, noise.double(), levels), atol=5e-6, rtol=1e-5)


def gaussian_error(sampler, levels):
    """Error on Gaussian data of mean 2 and deviation 0.4, whose flow is known: every sample keeps its quantile."""
    mean, deviation = 2.0, 0.4
    quantile = torch.linspace(-2, 2, 33, dtype=torch.float64)[None]
    calls = iter(levels)

    def spread(sigma):
        return math.hypot((1 - sigma) * deviation, sigma)

    def velocity(x, timestep):
        sigma = next(calls)
        standard = (x.double() - (1 - sigma) * mean) / spread(sigma)
        growth = (sigma - (1 - sigma) * deviation**2) / spread(sigma)
        return standard * growth - mean

    start = (1 - levels[0]) * mean + spread(levels[0]) * quantile
    return float((sampler.sample(velocity, start).double() - (mean + deviation * quantile)).abs().max())


def test_order_of_convergence():
    def euler(steps):
        return gaussian_error(Euler(steps, 1.0), shifted(torch.linspace(1, 0, steps + 1), 1.0).tolist())

    def unipc(steps):
        return gaussian_error(UniPC(steps, 1.0), unipc_sigmas(steps, 1.0).tolist())

    euler_errors, unipc_errors = [euler(n) for n in (32, 64, 128)], [unipc(n) for n in (32, 64, 128)]
    assert all(1.7 < a / b < 2.6 for a, b in pairwise(euler_errors))
    assert all(a / b > 3.2 for a, b in pairwise(unipc_errors))
    assert unipc_errors[0] < euler_errors[0] / 5


def test_few_step_guesses_and_adds_fresh_noise():
    noise, seen = numpy_noise(0, (2, 3, 4)), []
    fresh = [numpy_noise(10 + i, (2, 3, 4)) for i in range(4)]

    def velocity(x, timestep):
        seen.append(timestep[0].item())
        return torch.sin(x) * 0.5

    ours = FewStep(4, 5.0).sample(velocity, noise, renoise=lambda i, x: fresh[i])
    x = noise
    levels = [1.0, 15 / 16, 5 / 6, 0.625, None]
    for i, (here, there) in enumerate(pairwise(levels)):
        clean = x - here * torch.sin(x) * 0.5
        x = clean if there is None else (1 - there) * clean + there * fresh[i + 1]
    torch.testing.assert_close(ours, x)
    np.testing.assert_allclose(seen, [1000, 937.5, 2500 / 3, 625], rtol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_noise_gives_the_same_sample(sampler):
    noise = GOLDEN["x0"]
    assert torch.equal(sampler.sample(toy_velocity, noise), sampler.sample(toy_velocity, noise))
    assert not torch.equal(sampler.sample(toy_velocity, noise), sampler.sample(toy_velocity, noise + 1e-3))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_ends_at_the_data_when_the_velocity_is_exact(sampler):
    clean, noise = numpy_noise(1, (2, 3, 4)), numpy_noise(2, (2, 3, 4))
    velocity = lambda x, timestep: (x - clean) / (timestep / 1000).view(-1, 1, 1)  # noqa: E731
    torch.testing.assert_close(sampler.sample(velocity, noise), clean, atol=0.02, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_progress_and_cancelling(sampler):
    noise, seen = GOLDEN["x0"], []

    def stop(done, total, clean):
        seen.append((done, total, clean.shape))
        if done == 2:
            raise KeyboardInterrupt

    final = sampler.sample(toy_velocity, noise, on_step=lambda done, total, clean: seen.append((done, total, clean)))
    assert [entry[:2] for entry in seen] == [(i + 1, sampler.steps) for i in range(sampler.steps)]
    torch.testing.assert_close(seen[-1][2], final)
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        sampler.sample(toy_velocity, noise, on_step=stop)
    assert len(seen) == 2


@pytest.mark.parametrize("sampler", [UniPC(0), Euler(0), FewStep(0)])
def test_no_steps_are_refused(sampler):
    with pytest.raises(ValueError, match="at least one step"):
        sampler.sample(toy_velocity, GOLDEN["x0"])


class CountingDenoiser:
    """A denoiser whose velocity is its conditioning."""

    def __init__(self):
        self.asked, self.prepared = [], []

    def prepare(self, conditioning, like=None):
        self.prepared.append((conditioning, like))
        return conditioning

    def __call__(self, noisy, timestep, conditioning):
        self.asked.append(conditioning)
        return torch.full_like(noisy, conditioning)


def test_guidance_extrapolates_and_runs_one_branch_when_it_is_one():
    denoiser, noisy, timestep = CountingDenoiser(), torch.zeros(1, 2), torch.ones(1)
    assert guided(denoiser, 3.0, 1.0, 5.0)(noisy, timestep).eq(1 + 5 * (3 - 1)).all()
    assert sorted(denoiser.asked) == [1.0, 3.0]
    assert denoiser.prepared == [(3.0, None), (1.0, 3.0)]
    denoiser = CountingDenoiser()
    assert guided(denoiser, 3.0, None, 1.0)(noisy, timestep).eq(3).all()
    assert denoiser.asked == [3.0]
    with pytest.raises(ValueError, match="negative"):
        guided(denoiser, 3.0, None, 2.0)
