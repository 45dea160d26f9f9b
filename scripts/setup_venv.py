"""Make the project's own virtual environment, .venv, and install the project into it with pinned versions.

Called by the Makefile with whatever python3 the machine has, so it uses the standard library only and keeps to syntax
that an old interpreter can still read far enough to be told that it is too old.

A torch that this interpreter already has is used as it is: the environment then also sees the folder that holds it, and
only the other versions are pinned. Otherwise torch comes from where pip is configured to look, or from --torch-index.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 6)


def installed_torch():
    """The metadata of the torch that this interpreter has, or None if it has none that is new enough."""
    try:
        torch = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return None
    major, minor = torch.version.split(".")[:2]
    return torch if (int(major), int(minor)) >= OLDEST_TORCH else None


def make_environment(torch):
    """Create .venv; an environment that is already there is kept."""
    if (VENV / "bin" / "python").exists():
        return
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            f"{sys.executable} cannot make virtual environments: its ensurepip is missing.\n"
            "On Debian and Ubuntu install it with: apt-get install python3-venv. Then call make again."
        )
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    if torch is not None:
        # Not --system-site-packages: that would miss a torch that lies in another virtual environment.
        site = next(VENV.glob("lib/python*/site-packages"))
        (site / "machine_torch.pth").write_text(f"{torch.locate_file('')}\n")


def pinned_versions(without_torch):
    """The lines of constraints.txt, without torch where the machine's own is used."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if not (without_torch and line.startswith("torch=="))]


def pip_install(*arguments):
    python = str(VENV / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def main():
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            f"photowalk needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.\n"
            "Name a newer one: make PYTHON=python3.12 ..."
        )
    parser = argparse.ArgumentParser(description="Install the project into .venv.")
    parser.add_argument("--extra", default="", help="an extra of pyproject.toml to install as well")
    parser.add_argument("--torch-index", default="", help="address of a package index to take torch from")
    options = parser.parse_args()

    torch = installed_torch()
    make_environment(torch)
    which = f"{torch.version} of {sys.executable}" if torch else "the pinned version, a CPU build where pip finds one"
    print(f"Installing into .venv. torch: {which}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pinned_versions(without_torch=torch is not None)) + "\n")
        if torch is None and options.torch_index:
            pip_install("-c", str(constraints), "--index-url", options.torch_index, "torch")
        target = f"{ROOT}[{options.extra}]" if options.extra else str(ROOT)
        pip_install("-c", str(constraints), "-e", target)
    stamp = VENV / ("installed-" + options.extra if options.extra else "installed")
    stamp.touch()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"Setting up .venv failed (exit code {error.returncode}); the lines above say why.")
