"""Compares the package with outputs of the published system ("goldens").

    python benchmarks/parity.py FOLDER [--verbose] [--without SAVING | --without each | --without all]

Prints one line for each golden of the folder: its worst comparison, the largest error there, the tolerance, pass or
fail. Goldens that no check covers are listed as such. Exits with 1 if one fails. `--without` turns a saving of work off
(`photowalk/models/savings.py`), each after the other or all at once, and compares the goldens that come by way of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path

from photowalk.models.savings import NAMES, Savings

GROUPS = ("network", "diffusion", "geometry", "pipeline", "reconstruction", "windows", "training")

Comparison = tuple[str, float, float]  # what was compared, largest error, tolerance
Check = Callable[..., Iterable[Comparison]]  # of a folder; of `savings` too, where they matter


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare photowalk with outputs of the published system.")
    parser.add_argument("folder", type=Path, help="folder of golden .json, .safetensors and .txt files")
    parser.add_argument("--verbose", action="store_true", help="print every comparison")
    parser.add_argument(
        "--without", choices=("each", "all", *NAMES), metavar="SAVING", help=f"each, all, {', '.join(NAMES)}"
    )
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is no folder: give one that holds golden files")
    names = NAMES if arguments.without == "each" else [arguments.without]
    return max(run(arguments.folder, arguments.verbose, name) for name in names)


def run(folder: Path, verbose: bool, without: str | None = None) -> int:
    """The exit code."""
    goldens = sorted({file.stem for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".txt")})
    checks = checks_of(goldens)
    if without is not None:
        print(f"without {without}", flush=True)
        savings = Savings.without(NAMES if without == "all" else [without])
        checks = {
            golden: partial(check, savings=savings)
            for golden, check in checks.items()
            if "savings" in signature(check).parameters
        }
        goldens = list(checks)
    covered = [golden for golden in goldens if golden in checks]
    failed = [g for g in covered if not report(g, compare(checks[g], folder), verbose)]
    for golden in goldens:
        if golden not in checks:
            print(f"{golden:24s} not covered")
    print(f"{len(covered) - len(failed)} passed, {len(failed)} failed, {len(goldens) - len(covered)} not covered")
    return 1 if failed or not covered else 0


def collect_checks() -> dict[str, Check]:
    checks: dict[str, Check] = {}
    for group in GROUPS:
        if importlib.util.find_spec(f"parity_checks.{group}") is not None:
            checks.update(import_module(f"parity_checks.{group}").CHECKS)
    return checks


def checks_of(goldens: Iterable[str]) -> dict[str, Check]:
    """Of those that are covered. A check whose name ends with * is for all that begin so, and told which one it is."""
    known, found = collect_checks(), {}
    for golden in goldens:
        pattern = next((name for name in known if fnmatch(golden, name)), None)
        if pattern is not None:
            found[golden] = partial(known[pattern], name=golden) if "*" in pattern else known[pattern]
    return found


def compare(check: Check, folder: Path) -> list[Comparison]:
    """A check that cannot run is a failure of its golden, not the end of the others."""
    try:
        return list(check(folder))
    except Exception as problem:
        return [(f"{type(problem).__name__}: {problem}", float("inf"), 0.0)]


def report(golden: str, comparisons: list[Comparison], verbose: bool) -> bool:
    def passes(comparison: Comparison) -> bool:
        return comparison[1] <= comparison[2]

    def badness(comparison: Comparison) -> tuple[bool, float]:
        return not passes(comparison), comparison[1] / max(comparison[2], 1e-12)

    passed = bool(comparisons) and all(passes(comparison) for comparison in comparisons)
    name, error, tolerance = max(comparisons, key=badness, default=("nothing was compared", float("inf"), 0.0))
    print(f"{golden:24s} {error:9.2e}  tolerance {tolerance:7.1e}  {'pass' if passed else 'FAIL'}  {name}", flush=True)
    for comparison in comparisons:
        if verbose or not passes(comparison):
            print(f"    {comparison[0]:32s} {comparison[1]:9.2e}  {comparison[2]:7.1e}")
    return passed


if __name__ == "__main__":
    sys.exit(main())
