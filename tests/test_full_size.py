"""The benchmark of the 14B on a GPU, at its smallest and on this processor: it runs, and keeps what it measures."""

import json
import runpy
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu" / "full_size.py"
PARTS = {"denoiser, once a chunk", "denoiser, a pass", "picture", "codec, encoding", "codec, decoding", "depth"}


@pytest.mark.parametrize(("name", "geometry"), [("4-steps", True), ("4-steps-float8", False)])
def test_every_part_of_a_chunk_is_measured(tmp_path, name, geometry):
    out = tmp_path / "figures.jsonl"
    runpy.run_path(str(SCRIPT))["measure"](name, out, is_tiny=True, geometry=geometry)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["configuration"] for line in lines} == {name}
    seconds = {line["part"]: line["seconds"] for line in lines if "part" in line}
    assert seconds.keys() > PARTS
    assert all(value > 0 for value in seconds.values())
    assert sum(seconds.values()) == pytest.approx(lines[-1]["chunk_seconds"], rel=0.01)
    (passes,) = [line["calls"] for line in lines if line.get("part") == "denoiser, a pass"]
    assert passes == 4
    (share,) = [line["share_of_matmul_limit"] for line in lines if "share_of_matmul_limit" in line]
    assert 0 < share < 1
