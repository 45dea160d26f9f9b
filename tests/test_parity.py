"""`benchmarks/parity.py` on goldens kept in part: outputs of the published system with small random weights."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "golden" / "stage1"

pytest.importorskip("diffusers")
sys.path.insert(0, str(ROOT / "benchmarks"))
parity = pytest.importorskip("parity")
CHECKS = parity.checks_of(["vae_tiny", "ar_unipc4", "ar_dmd", "trajectories", "dit_tiny_weights"])


@pytest.mark.parametrize("golden", ["vae_tiny", "ar_unipc4", "trajectories", "dit_tiny_weights"])
def test_this_package_computes_what_the_published_system_does(golden):
    comparisons = parity.compare(CHECKS[golden], GOLDENS)
    assert comparisons
    assert [(name, error, tolerance) for name, error, tolerance in comparisons if not error <= tolerance] == []


def test_another_number_is_noticed(tmp_path, capsys):
    for ending in (".json", ".safetensors"):
        shutil.copy(GOLDENS / f"vae_tiny{ending}", tmp_path)
    tensors = load_file(tmp_path / "vae_tiny.safetensors")
    tensors["z"] = tensors["z"] + 1e-3 * torch.ones_like(tensors["z"])
    save_file(tensors, tmp_path / "vae_tiny.safetensors")
    assert not parity.report("vae_tiny", parity.compare(CHECKS["vae_tiny"], tmp_path), verbose=False)
    assert "FAIL" in capsys.readouterr().out


def test_a_golden_that_cannot_be_read_fails_alone(tmp_path):
    (tmp_path / "ar_dmd.json").write_text(json.dumps({}))
    assert parity.compare(CHECKS["ar_dmd"], tmp_path)[0][1] == float("inf")
