"""`benchmarks/parity.py` on goldens kept in part: outputs of the published system with small random weights."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from photowalk.models.history_layout import HistoryLayout

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


def test_goldens_of_another_seed_are_drawn_as_they_say(tmp_path):
    from parity_checks.network import read_case, tiny_weights

    shape = [4, 3]
    first = np.random.RandomState((zlib.crc32(b"a.weight") + 7) & 0x7FFFFFFF).standard_normal(shape) / 3**0.5
    record = {"shape": shape, "first": first.astype(np.float32).flatten()[:3].tolist()}
    (tmp_path / "dit_tiny_weights.json").write_text(json.dumps({"tensors": {"a.weight": record}}))
    torch.testing.assert_close(tiny_weights(tmp_path)["a.weight"], torch.from_numpy(first.astype(np.float32)))
    layout = HistoryLayout.parse("f1k1f1s1_g2")
    drawn = {name: {"base": i, "shape": [1, 2, 4, 2, 2]} for i, name in enumerate(("x", "cond", "camera", "y_buffer"))}
    drawn |= {"text": {"base": 5, "shape": [1, 2, 3]}, "img": {"base": 6, "shape": [1, 2, 3]}}
    said = {"inputs": {"rule": "RandomState(s) with s = base + 7", **drawn, "t": 400.0}}
    (tmp_path / "dit_tiny_case_c.json").write_text(json.dumps(said))
    case = read_case(tmp_path / "dit_tiny_case_c.json", layout)
    text = np.random.RandomState(5 + 7).standard_normal((1, 2, 3)).astype(np.float32)
    torch.testing.assert_close(case.inputs.text, torch.from_numpy(text))
    assert parity.checks_of(["dit_tiny_case_c", "ar_long", "letters"]).keys() == {"dit_tiny_case_c", "ar_long"}
