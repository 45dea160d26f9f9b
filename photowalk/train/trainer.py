"""One training loop for every part: it knows optimisers, averages and checkpoints, not what is being learnt.

A step's random numbers hang on the seed and the step alone, so a run that was stopped goes on with the losses that it
would have had.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from photowalk.scene.images import write_atomically
from photowalk.world.placement import Placement

Losses = dict[str, Tensor]  # "loss" is minimised, the others are logged
ENDLESS = 10**9  # steps
GENTLE = 0.1  # of the learning rate
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainingConfig:
    minutes: float  # of work, pauses between runs not counted
    learning_rate: float
    weight_decay: float = 0.01
    warmup_steps: int = 50
    final_rate: float = 0.05  # of the learning rate, reached by a cosine over the minutes
    gradient_norm: float = 1.0  # gradients longer than this are shortened
    average: float = 0.998  # decay of the moving average of the weights, which is the result
    seed: int = 0
    log_every: int = 20  # steps
    checkpoint_every: float = 120  # seconds
    max_steps: int | None = None
    workers: int = 0  # processes that draw batches ahead; 0 draws them between the steps
    gentle: tuple[str, ...] = ()  # prefixes of parameters that know much already and learn at a tenth of the rate


@dataclass
class _Run:
    """Where a run is."""

    step: int = 0
    seconds: float = 0.0


def train(
    module: nn.Module,
    draw: Callable[[torch.Generator], Batch],
    loss_of: Callable[[Batch], Losses],
    config: TrainingConfig,
    folder: Path,
    placement: Placement,
) -> None:
    """Train `module` in place; afterwards it holds the averaged weights. `folder` takes checkpoint and log.jsonl.

    draw(random) makes the batch of one step on the CPU, with all its chance from `random`, perhaps in another process;
    loss_of(batch) computes the losses with `module`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    parameters = list(named.values())
    gentle = [named[name] for name in named if name.startswith(config.gentle)]
    others = [named[name] for name in named if not name.startswith(config.gentle)]
    groups = [{"params": others}, {"params": gentle}] if gentle else [{"params": others}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    average = {name: value.detach().clone() for name, value in module.state_dict().items()}
    run = _resume(folder, module, average, optimiser)
    logged: dict[str, list[float]] = {}
    batches = _batches(draw, config, run.step)
    last_save = started = time.perf_counter()
    while run.seconds < config.minutes * 60 and (config.max_steps is None or run.step < config.max_steps):
        rate = _learning_rate(config, run)
        for group, pace in zip(optimiser.param_groups, (1.0, GENTLE)):
            group["lr"] = rate * pace
        batch = next(batches)
        torch.manual_seed(_seed(config, run.step))  # for what networks draw themselves
        with placement.autocast():
            losses = loss_of(batch)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, config.gradient_norm)
        if bool(norm.isfinite()):
            optimiser.step()
        run.step += 1
        _follow(average, module, min(config.average, run.step / (run.step + 10)))
        for name, value in {**losses, "gradient_norm": norm}.items():
            logged.setdefault(name, []).append(float(value.detach()))
        started, before = time.perf_counter(), started
        run.seconds += started - before
        if run.step % config.log_every == 0:
            _log(folder, run, rate, logged)
        if time.perf_counter() - last_save > config.checkpoint_every:
            _save(folder, module, average, optimiser, run)
            last_save = time.perf_counter()
    if logged:
        _log(folder, run, _learning_rate(config, run), logged)
    _save(folder, module, average, optimiser, run)
    module.load_state_dict(average)


@dataclass(frozen=True)
class _Steps(Dataset, Generic[Batch]):
    """The batch of every step, by its number."""

    draw: Callable[[torch.Generator], Batch]
    config: TrainingConfig

    def __getitem__(self, index: int) -> Batch:
        return self.draw(torch.Generator().manual_seed(_seed(self.config, index)))


def _batches(draw: Callable[[torch.Generator], Batch], config: TrainingConfig, first: int) -> Iterator[Batch]:
    steps = range(first, config.max_steps or ENDLESS)
    return iter(DataLoader(_Steps(draw, config), batch_size=None, sampler=steps, num_workers=config.workers))


def _seed(config: TrainingConfig, step: int) -> int:
    return config.seed * 1_000_003 + step


def export_weights(module: nn.Module, path: Path, about: dict[str, str]) -> None:
    """Write the state dict as safetensors, parameters in float16; `about` is kept as the file's metadata.

    Buffers keep their format: a codec's bases would no longer be orthonormal.
    """
    parameters = {name for name, _ in module.named_parameters()}
    tensors = {
        name: (value.half() if name in parameters else value).detach().contiguous().cpu()
        for name, value in module.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, about))


def _learning_rate(config: TrainingConfig, run: _Run) -> float:
    warm = min((run.step + 1) / config.warmup_steps, 1.0)
    share = min(run.seconds / (config.minutes * 60), 1.0)
    if config.max_steps is not None:
        share = max(share, run.step / config.max_steps)
    cosine = 0.5 + 0.5 * math.cos(math.pi * share)
    return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * cosine)


@torch.no_grad()
def _follow(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _log(folder: Path, run: _Run, rate: float, logged: dict[str, list[float]]) -> None:
    means = {name: sum(values) / len(values) for name, values in logged.items()}
    logged.clear()
    with (folder / "log.jsonl").open("a") as file:
        line = {"step": run.step, "minutes": round(run.seconds / 60, 3), "rate": rate, **means}
        file.write(json.dumps(line) + "\n")


def _save(
    folder: Path, module: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer, run: _Run
) -> None:
    """One file, so that a kill leaves either the old or the new checkpoint."""
    state = {
        "weights": {name: value.contiguous() for name, value in module.state_dict().items()},
        "average": average,
        "optimiser": optimiser.state_dict(),
        "step": run.step,
        "seconds": run.seconds,
    }
    write_atomically(folder / "checkpoint.pt", lambda temporary: torch.save(state, temporary))


def _resume(folder: Path, module: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> _Run:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return _Run()
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["weights"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    optimiser.load_state_dict(state["optimiser"])
    return _Run(state["step"], state["seconds"])
