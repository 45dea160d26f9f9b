"""What goes wrong in a long training is survived or named: bad gradients, bad files, processes that die."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from photowalk.scene.images import read_png
from photowalk.train.batches import SHOWN, TrainingError, seed_of
from photowalk.train.trainer import TrainingConfig, train
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")
CONFIG = TrainingConfig(1e6, 0.05, max_steps=12, warmup_steps=1, log_every=1, final_rate=1.0)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def draw(random):
    return torch.randn(16, 3, generator=random)


def draw_bad_numbers(random):
    batch = draw(random)
    return batch * float("nan") if random.initial_seed() in (4, 5) else batch


def draw_from_a_bad_file(random):
    if random.initial_seed() in (3, 7):
        raise SafetensorError(f"clips/0000{random.initial_seed()} is damaged")
    return draw(random)


def draw_from_a_bad_file_for_the_picture(random):
    if random.initial_seed() == seed_of(SHOWN, 0):
        raise SafetensorError("clips/shown is damaged")
    return draw(random)


def draw_and_die(random):
    if random.initial_seed() == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(random)


def draw_and_die_once(marker, random):
    if random.initial_seed() == 6 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(random)


def run(folder, draw, config=CONFIG):
    torch.manual_seed(0)
    module = nn.Linear(3, 1)

    def loss_of(batch):
        return {"loss": (module(batch) - batch.sum(1, True)).square().mean()}

    def picture(batch):
        return batch.sigmoid().expand(3, -1, -1)

    train(module, draw, loss_of, config, folder, CPU, picture)
    return module


def test_a_batch_that_is_no_number_is_skipped_and_named(tmp_path):
    module = run(tmp_path, draw_bad_numbers)
    assert all(bool(value.isfinite().all()) for value in module.parameters())
    assert [line["step"] for line in lines(tmp_path / "log.jsonl") if "loss" in line] == [
        1,
        2,
        3,
        4,
        7,
        8,
        9,
        10,
        11,
        12,
    ]
    faults = lines(tmp_path / "faults.jsonl")
    assert [fault["step"] for fault in faults] == [5, 6]
    assert "4: nan" in faults[0]["fault"]


def test_training_stops_when_gradients_stay_no_numbers(tmp_path):
    with pytest.raises(TrainingError, match=r"2 steps in a row, up to step 6.*lower learning rate"):
        run(tmp_path, draw_bad_numbers, replace(CONFIG, patience=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_and_training_stops(tmp_path, workers):
    with pytest.raises(TrainingError, match=r"step 4.*clips/00003 is damaged.*--on-fault skip"):
        run(tmp_path, draw_from_a_bad_file, replace(CONFIG, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_and_passed_over(tmp_path, workers):
    run(tmp_path, draw_from_a_bad_file, replace(CONFIG, workers=workers, on_fault="skip"))
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == list(range(1, 13))
    faults = lines(tmp_path / "faults.jsonl")
    assert [(fault["step"], fault["fault"].split(": ")[1]) for fault in faults] == [
        (4, "clips/00003 is damaged"),
        (8, "clips/00007 is damaged"),
    ]


def test_a_damaged_file_in_the_picture_is_treated_as_in_any_batch(tmp_path):
    config = replace(CONFIG, picture_every=6)
    with pytest.raises(TrainingError, match=r"step 6.*picture.*clips/shown is damaged.*--on-fault skip"):
        run(tmp_path / "stop", draw_from_a_bad_file_for_the_picture, config)
    run(tmp_path / "skip", draw_from_a_bad_file_for_the_picture, replace(config, on_fault="skip"))
    one, other = (read_png(tmp_path / f"skip/pictures/{step:07d}.png") for step in (6, 12))
    assert torch.equal(one, other)
    faults = lines(tmp_path / "skip" / "faults.jsonl")
    assert [fault["step"] for fault in faults] == [6, 12]
    assert all("clips/shown is damaged" in fault["fault"] for fault in faults)


def test_training_stops_where_nothing_can_be_drawn(tmp_path):
    def draw_nothing(random):
        raise OSError("clips is gone")

    with pytest.raises(TrainingError, match="clips is gone; clips is gone"):
        run(tmp_path, draw_nothing, replace(CONFIG, on_fault="skip"))


def test_a_process_that_dies_is_named_and_the_run_goes_on_when_called_again(tmp_path):
    config = replace(CONFIG, workers=2, checkpoint_every=0.0)
    with pytest.raises(TrainingError, match=r"ended unasked.*fewer --workers"):
        run(tmp_path / "cut", draw_and_die, config)
    run(tmp_path / "cut", draw, config)
    run(tmp_path / "whole", draw, config)
    found, wanted = (
        [(line["step"], line["loss"]) for line in lines(tmp_path / name / "log.jsonl")] for name in ("cut", "whole")
    )
    assert found == wanted


CUT_OFF = """
import signal
from photowalk.train import batches

def notice(*_):
    raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

def cut_off():
    if {seconds}:
        signal.setitimer(signal.ITIMER_REAL, {seconds})
    raise ConnectionResetError("Connection reset by peer")

signal.signal(signal.SIGALRM, notice)
batches.TORCH_NOTICES = 0.5
try:
    print(batches.death_of_drawers(cut_off))
except ConnectionResetError:
    print("broken, and nobody died")
"""


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.05, "DataLoader worker (pid 1) is killed"), (0, "broken, and nobody died")]
)
def test_a_connection_breaks_before_torch_says_that_a_process_died(seconds, said):
    """In a process of its own: in this one, torch may still speak of processes that died in other tests."""
    code = CUT_OFF.format(seconds=seconds)
    assert said in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("checkpoint_every", [0.0, 1e6])
def test_a_process_that_dies_once_is_survived(tmp_path, checkpoint_every):
    config = replace(CONFIG, workers=2, checkpoint_every=checkpoint_every)
    cut = run(tmp_path / "cut", partial(draw_and_die_once, tmp_path / "died"), config)
    whole = run(tmp_path / "whole", draw, config)
    assert (tmp_path / "died").exists()
    for one, other in zip(cut.parameters(), whole.parameters()):
        assert torch.equal(one, other)
    found, wanted = (
        [(line["step"], line["loss"]) for line in lines(tmp_path / name / "log.jsonl")] for name in ("cut", "whole")
    )
    assert found == wanted
    (fault,) = lines(tmp_path / "cut" / "faults.jsonl")
    assert "ended unasked" in fault["fault"]
