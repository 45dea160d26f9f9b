"""Checkpoints of a training: one file, or a folder that many processes write at once (torch.distributed.checkpoint).

Either is complete or not there. A folder may be continued by another number of processes than wrote it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.tensor import DTensor

from photowalk.scene.images import write_atomically
from photowalk.train.parallel import processes, wait_for_all

FILE = "checkpoint.pt"
FOLDER = "checkpoint_{:07d}"
ABOUT = "run.json"  # written last


@dataclass
class Run:
    """Where a training is."""

    step: int = 0
    seconds: float = 0.0  # of work
    skipped: int = 0  # steps in a row, up to the last one
    noted: dict[str, list[float]] = field(default_factory=dict)  # since the last line of the log


@dataclass(frozen=True)
class Learner:
    """All that a training changes."""

    module: nn.Module
    average: dict[str, Tensor]  # by name in the module's state dict; empty: none is kept
    optimiser: torch.optim.Optimizer

    @property
    def split(self) -> bool:
        return any(isinstance(parameter, DTensor) for parameter in self.module.parameters())


def save(folder: Path, learner: Learner, run: Run) -> None:
    """Every process has to call it; afterwards older checkpoints are gone."""
    if learner.split:
        _save_together(folder, learner, run)
    elif processes().first:
        _save_file(folder / FILE, learner, run)
        _drop_folders(folder)


def resume(folder: Path, learner: Learner) -> Run:
    """Fill the learner from the folder's latest checkpoint. Raises ValueError for one that cannot be continued so."""
    together = sorted(path.parent for path in folder.glob(FOLDER.replace("{:07d}", "*") + f"/{ABOUT}"))
    if together:
        return _resume_together(together[-1], learner)
    if not (folder / FILE).exists():
        return Run()
    if learner.split:
        raise ValueError(
            f"{folder / FILE} was written by a training that did not split its weights; go on without --shard, or "
            "begin in another --work with --start and the weights"
        )
    return _resume_file(folder / FILE, learner)


def _save_file(path: Path, learner: Learner, run: Run) -> None:
    state = {
        "weights": {name: value.contiguous() for name, value in learner.module.state_dict().items()},
        "average": learner.average,
        "optimiser": learner.optimiser.state_dict(),
        **asdict(run),
    }
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def _resume_file(path: Path, learner: Learner) -> Run:
    state = torch.load(path, weights_only=True, map_location="cpu")
    learner.module.load_state_dict(state["weights"])
    for name, value in learner.average.items():
        value.copy_(state["average"].get(name, state["weights"][name]))
    learner.optimiser.load_state_dict(state["optimiser"])
    return Run(state["step"], state["seconds"], state.get("skipped", 0), state.get("noted", {}))


def _save_together(folder: Path, learner: Learner, run: Run) -> None:
    target = folder / FOLDER.format(run.step)
    if (target / ABOUT).exists():  # whole, and nothing was learnt since: to write it again would put it at risk
        return
    if processes().first and target.exists():
        shutil.rmtree(target)
    wait_for_all()
    dcp.save(_together(learner), checkpoint_id=target)
    wait_for_all()
    if not processes().first:
        return
    write_atomically(target / ABOUT, lambda temporary: temporary.write_text(json.dumps(asdict(run))))
    _drop_folders(folder, but=target)


def _drop_folders(folder: Path, but: Path | None = None) -> None:
    for older in folder.glob(FOLDER.replace("{:07d}", "*")):
        if older != but:
            shutil.rmtree(older)


def _resume_together(folder: Path, learner: Learner) -> Run:
    state = _together(learner)
    dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
    learner.module.load_state_dict(state["weights"])
    set_optimizer_state_dict(learner.module, learner.optimiser, optim_state_dict=state["optimiser"])
    return Run(**json.loads((folder / ABOUT).read_text()))


def _together(learner: Learner) -> dict:
    return {
        "weights": learner.module.state_dict(),
        "average": learner.average,
        "optimiser": get_optimizer_state_dict(learner.module, learner.optimiser),
    }
