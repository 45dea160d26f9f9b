"""Conversion holds a tensor at a time, however large the checkpoint: measured, on one of 300 MB."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import write_distributed, write_sharded, write_torch
from safetensors import safe_open

from photowalk.checkpoints.store import find

COUNT, ROWS, COLUMNS = 48, 512, 3072  # 6.3 MB each, 302 MB together
# Resident memory that no file stands behind: what is mapped from a file costs nothing that cannot be taken back.
CONVERT = """
import re, sys, threading
from functools import partial
from pathlib import Path

import torch
from torch import nn

from photowalk.checkpoints.importing import import_weights
from photowalk.checkpoints.names import Naming
from photowalk.checkpoints.networks import Network

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def network():
    return nn.ModuleDict({f"layer{i}": nn.Linear(COLUMNS, ROWS, bias=False) for i in range(COUNT)})

def watch():
    while not done.wait(0.001):
        peaks.append(anonymous())

COUNT, ROWS, COLUMNS = (int(argument) for argument in sys.argv[2:])
table = [Network("umt5-xxl", network, (Naming("a test", sign="layer"),), torch.bfloat16)]
import torch.distributed.checkpoint
done, before, peaks = threading.Event(), anonymous(), []
watcher = threading.Thread(target=watch)
watcher.start()
import_weights([Path(sys.argv[1])], lambda licence: True, networks=table, on_note=lambda note: None)
done.set()
watcher.join()
print(max(peaks) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
@pytest.mark.parametrize("write", [write_distributed, write_torch, write_sharded])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_large_checkpoint_is_converted_in_little_memory(write, tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path / "store"))
    tensors = {f"layer{i}.weight": torch.full((ROWS, COLUMNS), float(i)) for i in range(COUNT)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    source = write(tmp_path / ("model.pth" if write is write_torch else "model"), tensors)
    call = [sys.executable, "-c", CONVERT, str(source), *map(str, (COUNT, ROWS, COLUMNS))]
    run = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert size > 300e6
    assert int(run.stdout) < 100e6, f"{int(run.stdout) / 1e6:.0f} MB for a checkpoint of {size / 1e6:.0f} MB"
    with safe_open(find("umt5-xxl") / "weights-00001.safetensors", framework="pt") as stored:
        assert all((stored.get_tensor(f"layer{i}.weight") == i).all() for i in (0, 7, 47))
