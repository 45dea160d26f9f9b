"""The training loop on a problem small enough to see through."""

import json
from dataclasses import replace

import torch
from safetensors.torch import load_file
from torch import nn

from photowalk.train.trainer import TrainingConfig, export_weights, train
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")


def draw(random: torch.Generator) -> torch.Tensor:
    return torch.randn(16, 3, generator=random)


def losses(module: nn.Module):
    return lambda x: {"loss": (module(x) - x.sum(1, keepdim=True)).square().mean()}


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def config(steps: int) -> TrainingConfig:
    return TrainingConfig(
        minutes=1e6, learning_rate=0.05, max_steps=steps, warmup_steps=5, log_every=1, average=0.9, weight_decay=0
    )


def logged(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_keeps_the_average(tmp_path):
    module = fresh()
    train(module, draw, losses(module), config(300), tmp_path, CPU)
    torch.testing.assert_close(module.weight, torch.ones(1, 3), atol=0.05, rtol=0)


def test_a_run_that_was_stopped_goes_on_with_the_same_losses(tmp_path):
    whole, cut = fresh(), fresh()
    train(
        whole, draw, losses(whole), TrainingConfig(**{**vars(config(40)), "final_rate": 1.0}), tmp_path / "whole", CPU
    )
    for steps in (15, 40):
        constant_rate = TrainingConfig(**{**vars(config(steps)), "final_rate": 1.0})
        train(cut, draw, losses(cut), constant_rate, tmp_path / "cut", CPU)
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")
    torch.testing.assert_close(cut.weight, whole.weight, rtol=0, atol=0)


def test_exported_weights_read_back(tmp_path):
    module = fresh()
    export_weights(module, tmp_path / "deep" / "part.safetensors", {"licence": "Apache-2.0"})
    read = load_file(tmp_path / "deep" / "part.safetensors")
    torch.testing.assert_close(read["weight"].float(), module.weight, atol=1e-3, rtol=1e-3)


def test_gentle_parameters_learn_at_a_tenth_of_the_rate(tmp_path):
    module = fresh()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    train(
        module, draw, losses(module), replace(config(1), warmup_steps=1, average=0.0, gentle=("bias",)), tmp_path, CPU
    )
    moved = {name: float((value.detach() - before[name]).abs().mean()) for name, value in module.named_parameters()}
    assert abs(moved["bias"] / moved["weight"] - 0.1) < 0.01  # Adam's first step is as long as the rate


def test_batches_drawn_ahead_by_other_processes_are_the_same(tmp_path):
    for workers in (0, 2):
        module = fresh()
        train(module, draw, losses(module), replace(config(10), workers=workers), tmp_path / str(workers), CPU)
    assert logged(tmp_path / "2") == logged(tmp_path / "0")


def test_a_batch_that_is_not_a_number_changes_nothing(tmp_path):
    def poisoned(x):
        return {"loss": losses(module)(x)["loss"] * float("nan")}

    module = fresh()
    before = module.weight.detach().clone()
    train(module, draw, poisoned, config(3), tmp_path, CPU)
    assert torch.equal(module.weight, before)
