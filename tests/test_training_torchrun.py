"""`photowalk train` under torchrun, as a user calls it, with a clip that is damaged."""

import json
import os
import subprocess
import sys

import pytest

from photowalk.data.clips import ClipError, write_clip
from photowalk.synthetic import SyntheticWorld
from photowalk.train.recipes import NANO, Order, train_part


@pytest.fixture
def clips(tmp_path):
    world = SyntheticWorld.sample(3)
    clip = world.render(world.walk(9, 3, size=(64, 112))[::4])
    write_clip(tmp_path / "clips" / "whole", clip, source="test", licence="CC0-1.0")
    (tmp_path / "clips" / "damaged").mkdir()
    (tmp_path / "clips" / "damaged" / "clip.json").write_text("{}")
    return tmp_path / "clips"


def test_torchrun_trains_a_part_and_leaves_out_what_is_damaged(clips, tmp_path):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    work, weights = tmp_path / "work", tmp_path / "weights"
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    call += ["-m", "photowalk", "train", "depth", "--data", str(clips), "--steps", "1", "--on-fault", "skip"]
    call += ["--start-from", str(NANO), "--work", str(work), "-o", str(weights)]
    call += ["--picture-every", "1", "--tensorboard"]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "damaged: clip.safetensors is missing" in done.stderr
    assert [json.loads(line)["step"] for line in (work / "log.jsonl").read_text().splitlines()] == [1]
    assert done.stdout.strip() == str(weights / "depth.safetensors")
    assert [path.name for path in (work / "pictures").iterdir()] == ["0000001.png"]
    events = board.EventAccumulator(str(work / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1]


def test_parts_that_need_clips_say_so(tmp_path):
    order = Order((), 1, tmp_path / "work", tmp_path / "weights", synthetic=True)
    with pytest.raises(ValueError, match=r"detail does not learn from worlds drawn on the way.*photowalk.synthetic"):
        train_part("detail", order)


def test_a_damaged_clip_is_named_before_training_begins(clips, tmp_path):
    order = Order((clips,), 1, tmp_path / "work", tmp_path / "weights", start=NANO)
    with pytest.raises(ClipError, match=r"1 of 2 clips have faults.*\n.*damaged: clip.safetensors is missing"):
        train_part("depth", order)
