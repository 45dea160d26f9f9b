"""The recipe of nano as a list of commands, and what they may not ask for."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from photowalk.cli import parser
from photowalk.train.recipes import Order, train_part

ROOT = Path(__file__).parent.parent


def commands(**variables: str) -> list[list[str]]:
    """Those of recipes/nano.sh, said instead of run."""
    said = {"PHOTOWALK": "echo photowalk", "PYTHON": "echo python", "PICTURES": "pictures", "FEATURES": "file"}
    done = subprocess.run(
        ["bash", "recipes/nano.sh", "work"], cwd=ROOT, env=os.environ | said | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("scale", ["", "tiny"])
def test_the_recipe_says_what_the_command_line_understands(scale):
    found = commands(RECIPE_SCALE=scale, DISTIL="1")
    trained = [parser().parse_args(words[1:]) for words in found if words[:2] == ["photowalk", "train"]]
    parts = [options.part for options in trained]
    assert parts == ["codec", "depth", "denoiser", "denoiser", "distil", "detail", "splats", "splats"]
    own = trained[3]
    assert own.start == trained[2].output
    assert own.own_past > 0
    shipped = str(Path("photowalk/weights/nano"))
    assert (shipped in {options.output for options in trained}) == (scale == "")
    assert all((options.max_steps == 2) == (scale == "tiny") for options in trained[1:])


def test_own_pasts_want_weights_that_draw_them(tmp_path):
    order = Order((tmp_path,), 1, tmp_path / "work", tmp_path / "out", own_past=0.5)
    with pytest.raises(ValueError, match=r"0\.5 is no share.*--start only"):
        train_part("denoiser", order)


def test_only_the_denoiser_shares_the_tokens_of_a_batch(tmp_path):
    order = Order((tmp_path,), 1, tmp_path / "work", tmp_path / "out", training={"context": 2})
    with pytest.raises(ValueError, match="--context is for the denoiser"):
        train_part("depth", order)
