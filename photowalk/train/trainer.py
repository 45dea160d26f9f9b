"""One training loop for every part: it knows optimisers, averages and steps, not what is being learnt.

A step's random numbers hang on the seed and the step alone, so a run that was stopped goes on with the losses that it
would have had, and so does one that other processes share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from photowalk.scene.images import write_atomically
from photowalk.train import checkpoints
from photowalk.train.batches import (
    Drawn,
    MicroBatches,
    OnFault,
    TrainingError,
    death_of_drawers,
    load,
    numbers,
    seed_of,
    shown,
)
from photowalk.train.checkpoints import Learner, Run
from photowalk.train.logs import Log
from photowalk.train.parallel import (
    average_gradients,
    drawers,
    mean_over_processes,
    processes,
    recompute_blocks,
    spread,
    wait_for_all,
    whole,
)
from photowalk.world.placement import Placement

Losses = dict[str, Tensor]  # "loss" is minimised, the others are logged
GENTLE = 0.1  # of the learning rate
DEATHS = 3  # of processes that draw batches, after one checkpoint, before a training stops
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainingConfig:
    minutes: float  # of work, pauses between runs not counted
    learning_rate: float
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 50
    final_rate: float = 0.05  # of the learning rate, reached by a cosine over the minutes or the steps
    gradient_norm: float = 1.0  # gradients longer than this are shortened
    average: float = 0.998  # decay of the moving average of the weights, which is the result; 0: the weights are
    seed: int = 0
    log_every: int = 20  # steps
    checkpoint_every: float = 120  # seconds
    max_steps: int | None = None
    micro_batches: int | None = None  # whose gradients make a step, all processes together; None: one each
    workers: int = 0  # processes that draw batches ahead; 0 draws them between the steps
    gentle: tuple[str, ...] = ()  # prefixes of parameters that know much already and learn at a tenth of the rate
    master_weights: bool = True  # weights are kept in float32, whatever computes
    shard: int = 1  # among how many processes the weights are split; 1: each has all of them
    context: int = 1  # how many processes work on the tokens of one batch together, where `loss_of` shares them
    checkpoint_activations: bool = False  # blocks are computed again in the backward pass, for less memory
    on_fault: OnFault = "stop"  # at what cannot be read; "skip" draws something else and says so
    patience: int = 10  # steps in a row that may be skipped, because a gradient is not a number
    picture_every: int = 500  # steps
    tensorboard: bool = False


def train(
    module: nn.Module,
    draw: Callable[[torch.Generator], Batch],
    loss_of: Callable[[Batch], Losses],
    config: TrainingConfig,
    folder: Path,
    placement: Placement,
    picture: Callable[[Batch], Tensor] | None = None,
) -> None:
    """Train `module` in place; afterwards it holds the averaged weights. `folder` takes checkpoint, logs and pictures.

    draw(random) makes one micro-batch on the CPU, with all its chance from `random`, perhaps in another process;
    loss_of(batch) computes the losses with `module`; picture(batch) [3, H, W] in [0, 1] shows what `module` makes now
    of a batch that is the same each time. A step is the mean gradient of `config.micro_batches`, shared out among the
    processes, so their number changes nothing but rounding. Raises TrainingError for data that cannot be drawn and for
    gradients that stay no numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    here = drawers(config.context)
    micro_batches = config.micro_batches or here.count
    if micro_batches % here.count:
        raise ValueError(
            f"{micro_batches} micro-batches a step cannot be shared out among {here.count} "
            f"{'processes' if config.context == 1 else 'groups of processes'}; give a multiple"
        )
    spread(module, config.shard, placement)
    if config.master_weights:
        module.float()  # after they are split: the whole might not fit
    if config.checkpoint_activations:
        recompute_blocks(module)
    learner = _learner(module, config)
    run = checkpoints.resume(folder, learner)
    log = Log(folder, run.step, run.noted, tensorboard=config.tensorboard)
    survives = config.workers > 0 and processes().count == 1  # others would wait for a process that goes back
    if survives and run.step == 0:
        checkpoints.save(folder, learner, run)

    def take_steps() -> None:
        order = numbers(run.step, config.max_steps, micro_batches, here)
        drawn = load(MicroBatches(draw, config.seed, config.on_fault), order, config.workers)
        steps = _Steps(learner, drawn, loss_of, config, placement, log, micro_batches // here.count)
        saved = run.seconds
        while run.seconds < config.minutes * 60 and (config.max_steps is None or run.step < config.max_steps):
            steps.take(run)
            if run.step % config.log_every == 0:
                log.write(run.step, run.seconds / 60, _learning_rate(config, run))
            if picture and run.step % config.picture_every == 0:
                batch = _told(shown(draw, config.on_fault), "the batch of the picture", run.step, log)
                with torch.no_grad(), placement.autocast():
                    log.picture(run.step, picture(batch))
            if run.seconds - saved > config.checkpoint_every:
                checkpoints.save(folder, learner, run)
                saved = run.seconds

    fallen_back_to, deaths = -1, 0
    while died := death_of_drawers(take_steps):
        reached = run.step
        if not survives or deaths == DEATHS:
            raise TrainingError(
                f"a process that draws batches ended unasked: {died} Killed processes mostly lacked memory. The "
                "checkpoint is whole: call again with fewer --workers, and the training goes on from there"
            )
        run = checkpoints.resume(folder, learner)  # the step may have been half taken
        fallen_back_to, deaths = run.step, deaths + 1 if run.step == fallen_back_to else 1
        log = Log(folder, run.step, run.noted, tensorboard=config.tensorboard)
        log.fault(run.step, f"a process that draws batches ended unasked at step {reached}; went on from here: {died}")
    if run.noted:
        log.write(run.step, run.seconds / 60, _learning_rate(config, run))
    checkpoints.save(folder, learner, run)
    log.close()
    wait_for_all()
    if learner.average:
        module.load_state_dict(learner.average)


def _learner(module: nn.Module, config: TrainingConfig) -> Learner:
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    gentle = [named[name] for name in named if name.startswith(config.gentle)]
    others = [named[name] for name in named if not name.startswith(config.gentle)]
    groups = [{"params": others}, {"params": gentle}] if gentle else [{"params": others}]
    optimiser = torch.optim.AdamW(groups, config.learning_rate, config.betas, weight_decay=config.weight_decay)
    kept = module.state_dict() if config.average else {}
    return Learner(module, {name: value.detach().clone() for name, value in kept.items()}, optimiser)


@dataclass(frozen=True)
class _Steps(Generic[Batch]):
    learner: Learner
    drawn: Iterator[Drawn[Batch]]
    loss_of: Callable[[Batch], Losses]
    config: TrainingConfig
    placement: Placement
    log: Log
    share: int  # micro-batches that this process takes a step

    def take(self, run: Run) -> None:
        """One step. Nothing is learnt where the gradient is not a number. Raises TrainingError."""
        started, optimiser = time.perf_counter(), self.learner.optimiser
        for group, pace in zip(optimiser.param_groups, (1.0, GENTLE)):
            group["lr"] = _learning_rate(self.config, run) * pace
        run.step += 1
        optimiser.zero_grad(set_to_none=True)
        losses = dict(self._backward(next(self.drawn), run.step) for _ in range(self.share))
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        average_gradients(parameters)
        norm = float(whole(nn.utils.clip_grad_norm_(parameters, self.config.gradient_norm)))
        if math.isfinite(norm):
            optimiser.step()
            _follow(self.learner, min(self.config.average, run.step / (run.step + 10)))
        means = {name: sum(each[name] for each in losses.values()) / self.share for name in next(iter(losses.values()))}
        measured = torch.tensor([*means.values(), time.perf_counter() - started], dtype=torch.float64)
        *values, seconds = mean_over_processes(measured).tolist()
        run.seconds += seconds
        run.skipped = 0 if math.isfinite(norm) else run.skipped + 1
        if run.skipped:
            self._tell_skipped(run, losses)
        else:
            self.log.note({**dict(zip(means, values)), "gradient_norm": norm})

    def _backward(self, drawn: Drawn[Batch], step: int) -> tuple[int, dict[str, float]]:
        """Add a micro-batch's part of the gradient; its number and losses."""
        batch = _told(drawn, f"micro-batch {drawn.number}", step, self.log)
        torch.manual_seed(seed_of(self.config.seed, drawn.number))  # for what networks draw themselves
        with self.placement.autocast():
            losses = self.loss_of(batch)
        (losses["loss"] / self.share).backward()
        return drawn.number, {name: float(value.detach()) for name, value in losses.items()}

    def _tell_skipped(self, run: Run, losses: dict[int, dict[str, float]]) -> None:
        each = ", ".join(f"{number}: {values['loss']:.4g}" for number, values in losses.items())
        self.log.fault(
            run.step, f"skipped, since its gradient is not a number; losses of this process by batch: {each}"
        )
        if run.skipped >= self.config.patience:
            raise TrainingError(
                f"the gradients of {run.skipped} steps in a row, up to step {run.step}, were not numbers, and nothing "
                f"was learnt from them (losses of the last, by micro-batch: {each}); try a lower learning rate. The "
                "last checkpoint is whole"
            )


def _told(drawn: Drawn[Batch], name: str, step: int, log: Log) -> Batch:
    """The batch; what was met on the way to it is logged. Raises TrainingError where there is none."""
    for fault in drawn.faults:
        log.fault(step, f"{name}: {fault}")
    if drawn.batch is None:
        raise TrainingError(
            f"step {step}: {name} cannot be drawn: {'; '.join(drawn.faults)}. Mend or remove what is named (photowalk "
            "data validate finds more), or go on with --on-fault skip"
        )
    return drawn.batch


def export_weights(module: nn.Module, path: Path, about: dict[str, str]) -> None:
    """Write the state dict as safetensors, parameters in float16; `about` is kept as the file's metadata.

    Buffers keep their format: a codec's bases would no longer be orthonormal. Every process has to call it.
    """
    parameters = {name for name, _ in module.named_parameters()}
    tensors = {}
    for name, value in module.state_dict().items():
        value = whole(value)
        if processes().first:  # the others have helped to put it together
            tensors[name] = (value.half() if name in parameters else value).detach().contiguous().cpu()
    if processes().first:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: save_file(tensors, temporary, about))


def _learning_rate(config: TrainingConfig, run: Run) -> float:
    warm = min((run.step + 1) / config.warmup_steps, 1.0)
    share = min(run.seconds / (config.minutes * 60), 1.0)
    if config.max_steps is not None:
        share = max(share, run.step / config.max_steps)
    cosine = 0.5 + 0.5 * math.cos(math.pi * share)
    return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * cosine)


@torch.no_grad()
def _follow(learner: Learner, decay: float) -> None:
    for name, value in learner.module.state_dict().items() if learner.average else ():
        if value.is_floating_point():
            learner.average[name].lerp_(value, 1 - decay)
        else:
            learner.average[name].copy_(value)
