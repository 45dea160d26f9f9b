"""What a training is said to take of a GPU, against published figures and against what a small one takes."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_preset

from photowalk.cli import main
from photowalk.models.world_transformer import WorldTransformer
from photowalk.presets.nano import nano_denoiser
from photowalk.presets.published import lyra2_14b_denoiser
from photowalk.train.budget import GIB, Layout, denoiser_budget
from photowalk.train.full_size import LYRA2_14B
from photowalk.world.placement import Placement

NANO_GRID = (16, 28)
ALONE = Layout(gpus=1, shard=1, batch=1, average=True)


def test_the_published_size_comes_out():
    budget = denoiser_budget(lyra2_14b_denoiser(), (60, 104), Layout(64, LYRA2_14B.shard, 1, False))
    assert round(budget.parameters / 1e9, 2) == 17.03
    assert budget.tokens == 38246
    assert budget.parts["optimiser, two moments in float32"] == 17_029_871_424  # 8 bytes each among 8 GPUs
    assert budget.parts["what enters each block"] == 40 * 38246 * 5120 * 2
    assert 60 < budget.total / GIB < 75


def test_weights_and_optimiser_take_what_they_really_take():
    generator = tiny_preset().build(Placement(torch.device("cpu"), torch.float32, "test"))
    network = generator.denoiser
    optimiser = torch.optim.AdamW(network.parameters())
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimiser.step()
    moments = sum(value.nbytes for state in optimiser.state.values() for name, value in state.items() if name != "step")
    budget = denoiser_budget(network.config, (4, 6), ALONE)
    assert budget.parts["weights, float32"] == sum(value.nbytes for value in network.parameters())
    assert budget.parts["optimiser, two moments in float32"] == moments
    assert budget.parts["gradients, float32"] == sum(value.grad.nbytes for value in network.parameters())


def test_shards_divide_what_is_kept_and_batches_multiply_what_is_passed_through():
    alone = denoiser_budget(nano_denoiser(), NANO_GRID, ALONE)
    split = denoiser_budget(nano_denoiser(), NANO_GRID, replace(ALONE, gpus=4, shard=4))
    double = denoiser_budget(nano_denoiser(), NANO_GRID, replace(ALONE, batch=2))
    for name in ("weights, float32", "gradients, float32", "average of the weights, float32"):
        assert split.parts[name] == alone.parts[name] // 4
    for name in ("what enters each block", "inside the block that is computed again"):
        assert split.parts[name] == alone.parts[name]
        assert double.parts[name] == pytest.approx(2 * alone.parts[name], rel=0.02)  # angles are shared
    assert double.sample == alone.sample


def test_recomputing_saves_most_of_what_blocks_keep():
    kept = denoiser_budget(nano_denoiser(), NANO_GRID, replace(ALONE, recompute=False))
    again = denoiser_budget(nano_denoiser(), NANO_GRID, ALONE)
    depth = nano_denoiser().depth
    assert kept.parts["activations: all blocks"] == depth * again.parts["inside the block that is computed again"]
    assert again.total < 0.6 * kept.total


def test_attention_is_counted_without_its_scores():
    """Scores of all pairs would grow with the square of the tokens."""
    config = replace(nano_denoiser(), depth=1)
    assert isinstance(config, WorldTransformer.Config)
    small, large = (denoiser_budget(config, grid, ALONE) for grid in ((16, 28), (32, 56)))
    name = "inside the block that is computed again"
    assert large.parts[name] < 1.1 * small.parts[name] * large.tokens / small.tokens


def test_the_command_line_prints_it(capsys):
    assert main(["train", "denoiser", "--dry-run", "--gpus", "2", "--shard", "2"]) == 0
    printed = capsys.readouterr().out
    assert "nano on 2 GPUs: " in printed
    assert "GiB  in all" in printed


def test_what_cannot_be_planned_is_refused(capsys):
    assert main(["train", "denoiser", "--dry-run", "--gpus", "3", "--shard", "2"]) == 2
    assert "shards of 2" in capsys.readouterr().err
    assert main(["train", "denoiser", "--dry-run", "--preset", "huge"]) == 2
    assert "lyra2-14b" in capsys.readouterr().err
    assert main(["train", "codec", "--dry-run"]) == 2
