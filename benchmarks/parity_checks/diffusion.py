"""Sampling and noise levels against the published schedulers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule, shifted
from photowalk.diffusion.noise import numpy_noise
from photowalk.diffusion.unipc import UniPC, unipc_sigmas

TOLERANCE = 5e-6  # float32 and another order of additions


def check_schedulers(folder: Path) -> Iterable[tuple[str, float, float]]:
    golden = load_file(folder / "schedulers.safetensors")
    stated = json.loads((folder / "schedulers.json").read_text())
    shift = float(re.findall(r"shift ([\d.]*\d)", stated["unipc"])[0])
    yield from _compare(_unipc(golden, shift), golden)
    yield from _compare(_distilled(golden, shift), golden)
    yield from _compare(_training(golden, shift), golden)
    yield from _compare(_noise(golden), golden)


def _compare(ours: Iterable[tuple[str, Tensor]], golden: dict[str, Tensor]) -> Iterator[tuple[str, float, float]]:
    """Errors relative to max(1, |value|): timesteps go up to 1000."""
    for name, value in ours:
        wanted = golden[name].double()
        error = (value.double() - wanted).abs() / wanted.abs().clamp_min(1)
        yield name, float(error.max()), 0.0 if not golden[name].is_floating_point() else TOLERANCE


def _unipc(golden: dict[str, Tensor], shift: float) -> Iterator[tuple[str, Tensor]]:
    for steps in sorted(
        int(name.split("_")[1]) for name in golden if name.startswith("unipc_") and name.endswith("x0")
    ):
        sigmas = unipc_sigmas(steps, shift)
        yield f"unipc_{steps}_sigmas", sigmas
        yield f"unipc_{steps}_timesteps", (sigmas[:-1] * TIMESTEPS).long()
        target, noise = golden[f"unipc_{steps}_tgt"], golden[f"unipc_{steps}_x0"]
        visited: list[Tensor] = []

        def velocity(x: Tensor, timestep: Tensor, target: Tensor = target, visited: list[Tensor] = visited) -> Tensor:
            visited.append(x)
            slope = torch.tanh(0.7 * x + 0.1 * timestep.view(-1, 1, 1, 1, 1) / TIMESTEPS) - 0.5 * target
            slope[:, :, : slope.shape[2] // 2] = 0  # history
            return slope

        final = UniPC(steps, shift).sample(velocity, noise)
        trajectory = golden[f"unipc_{steps}_traj"]
        yield f"unipc_{steps}_traj", torch.stack([*visited[1:], final][: len(trajectory)])
        yield f"unipc_{steps}_final", final


def _distilled(golden: dict[str, Tensor], shift: float) -> Iterator[tuple[str, Tensor]]:
    table = shifted(torch.linspace(1, 0, len(golden["dmd_sigmas_all"]) + 1)[:-1], shift)
    yield "dmd_sigmas_all", table
    yield "dmd_timesteps_all", table * TIMESTEPS
    yield "dmd_timesteps", FewStep(len(golden["dmd_timesteps"]), shift).sigmas * TIMESTEPS


def _training(golden: dict[str, Tensor], shift: float) -> Iterator[tuple[str, Tensor]]:
    schedule = TrainingSchedule(shift, len(golden["train_sigmas"]))
    yield "train_sigmas", schedule.sigmas
    yield "train_timesteps", schedule.sigmas * TIMESTEPS
    yield "train_weights", schedule.weights
    sigma, _ = schedule.at(golden["train_u"])
    yield "train_u_sigma", sigma
    yield "train_u_timestep", sigma * TIMESTEPS
    yield "selfaug_timesteps", (golden["selfaug_sigmas"][:-1] * TIMESTEPS).long()  # as `drawn_again` tells them


def _noise(golden: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, noise in golden.items():
        if name.startswith("arch_invariant_rand_seed"):
            yield name, numpy_noise(int(name.removeprefix("arch_invariant_rand_seed")), noise.shape)


CHECKS = {"schedulers": check_schedulers}
