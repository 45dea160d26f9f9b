"""What a user installs: the public names, the wheel's contents, the pinned versions, the example photo."""

import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

import photowalk
from photowalk.cli import main

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
WEIGHTS = ROOT / "photowalk" / "weights" / "nano"
MOST_WEIGHT_BYTES = 40e6


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_version_is_said_once():
    assert photowalk.__version__ == PROJECT["version"]


@pytest.mark.parametrize("name", ["World", "Cameras", "load_preset"])
def test_public_names(name):
    assert hasattr(photowalk, name)


def test_the_wheel_holds_code_weights_and_licence_but_no_tests(wheel):
    assert "photowalk/cli/walking.py" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    assert not any(name.startswith("tests/") for name in wheel)
    weights = {path.name for path in WEIGHTS.glob("*.safetensors")}
    cards = {path.name for path in WEIGHTS.glob("*.md")}
    assert weights
    assert cards
    assert {f"photowalk/weights/nano/{name}" for name in weights | cards} <= set(wheel)


def test_the_weights_stay_small():
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= MOST_WEIGHT_BYTES


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    for requirement in PROJECT["dependencies"] + [*chain(*PROJECT["optional-dependencies"].values())]:
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        assert name in pinned | {"photowalk"}, f"{name} is not in constraints.txt"


def test_the_example_photo_is_small_and_has_a_licence():
    photo = ROOT / "examples" / "photo" / "hall.jpg"
    with Image.open(photo) as image:
        assert image.width >= 900
    assert photo.stat().st_size <= 400_000
    assert photo.name in (photo.parent / "LICENCE.txt").read_text()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^    photowalk (\w+)", README, flags=re.MULTILINE))))
def test_the_commands_of_the_readme_exist(command):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
