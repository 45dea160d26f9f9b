"""Trains nano's parts on one large GPU: what recipes/nano.sh does on two cores, with more data and larger batches.

    python benchmarks/gpu/train_nano.py PART... --out FOLDER [--minutes 20] [--work runs/gpu] [--features FILE]
                                        [--rgbd FOLDER] [--skies FOLDER] [--start FOLDER] [--tiny]

PART is depth, detail, denoiser, own or distil; the last three are the denoiser's life in order: it learns to draw, goes
on with pasts that it drew itself (self-augmentation), and is distilled to four steps. Each takes its minutes, after
walks have been rendered and samples built by all cores; both are shared between the parts of one call.

A call that was stopped goes on in the same --work. On a fresh machine --start takes a folder of weights that an earlier
call gave back; own and distil want one unless denoiser ran before them. Weights come as pieces of at most 16 MB:
`cat NAME.safetensors.* > NAME.safetensors` joins them.

Besides torch it wants numpy, pillow, safetensors, scipy, filelock and warp-lang. Where only 64 MB can be carried at a
time, `split -b 60m` its wheel and carry the pieces in one call each. --tiny proves the script on a CPU in minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from photowalk.data.clips import find_clips
from photowalk.models.weights import load_weights
from photowalk.presets.nano import nano_untrained
from photowalk.train.objective import Kind
from photowalk.train.recipes import DENOISER_OBJECTIVE, Order, train_part
from photowalk.train.samples import prepare_samples
from photowalk.world.placement import choose_placement

PIECE = 16_000_000  # bytes
RECIPES = {"depth": "depth", "detail": "detail", "denoiser": "denoiser", "own": "denoiser", "distil": "distil"}


@dataclass(frozen=True)
class Amount:
    """How much data is rendered, and how it is used."""

    walks: int
    glimpses: int
    batch_factor: int


LARGE = Amount(160, 2400, 8)
TINY = Amount(1, 2, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(RECIPES), metavar="PART")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20, help="of training, for each part")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--rgbd", type=Path, help="clip folders of real RGB-D video, for the depth networks")
    parser.add_argument("--skies", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    amount, cores = TINY if arguments.tiny else LARGE, max((os.cpu_count() or 2) - 2, 1)
    print(f"{choose_placement().reason}; {cores} processes for data", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        _train(part, arguments, amount, cores)


def _train(part: str, arguments: argparse.Namespace, amount: Amount, cores: int) -> None:
    work, weights = arguments.work / part, arguments.work / "weights"
    started = time.perf_counter()
    walks = _rendered(arguments.work / "walks", amount.walks, 0, 1, cores)
    data = [walks]
    if part == "depth":
        data.append(_rendered(arguments.work / "glimpses", amount.glimpses, 10_000, 16, cores))
        data += 2 * [arguments.rgbd] if arguments.rgbd else []
    learnt = arguments.start or weights
    if RECIPES[part] in ("denoiser", "distil"):
        _prepare_all(part, walks, arguments.work, learnt, cores)
    print(f"{part}: data in {time.perf_counter() - started:.0f} s", flush=True)
    order = Order(
        tuple(data),
        arguments.minutes,
        work,
        weights,
        skies=arguments.skies,
        features=arguments.features,
        start=learnt if part == "own" else None if part == "distil" else arguments.start,
        batch_factor=amount.batch_factor,
        workers=min(cores, 12),
        own_past=0.0 if part == "denoiser" else None,
        teacher=learnt if part == "distil" else None,
    )
    for path in train_part(RECIPES[part], order):
        _split(path, arguments.out)
    _report(part, work / "log.jsonl", arguments.out)


def _rendered(folder: Path, worlds: int, first_seed: int, every: int, cores: int) -> Path:
    """The folder of clips, of worlds from a seed on with every n-th frame; what is there already is kept."""
    command = [sys.executable, "-m", "photowalk.synthetic", str(folder), "--worlds", str(worlds)]
    command += ["--first-seed", str(first_seed), "--every", str(every), "--processes", str(cores)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def _prepare_all(part: str, walks: Path, work: Path, learnt: Path, cores: int) -> None:
    """Samples of the denoiser, shared by the parts: plain ones, and those of its own drawings once it can draw."""
    shared: dict[str, Kind] = {"samples": "plain"} if part == "denoiser" else {"samples": "plain", "own_samples": "own"}
    (work / part).mkdir(parents=True, exist_ok=True)
    for name, kind in shared.items():
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (work / part / name).exists():
            (work / part / name).symlink_to(folder.resolve())
        share = partial(_prepare, find_clips(walks), folder, kind, learnt if kind == "own" else None, cores)
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            list(pool.map(share, range(cores)))


def _prepare(clips: list[Path], folder: Path, kind: Kind, learnt: Path | None, shares: int, share: int) -> None:
    torch.set_num_threads(1)
    generator = nano_untrained(choose_placement("cpu"))
    if learnt:
        assert isinstance(generator.text, nn.Module)
        load_weights(generator.denoiser, learnt / "denoiser.safetensors")
        load_weights(generator.text, learnt / "text.safetensors")
    prepare_samples(clips[share::shares], generator, DENOISER_OBJECTIVE, folder, kind)


def _split(path: Path, out: Path) -> None:
    data = path.read_bytes()
    for number, first in enumerate(range(0, len(data), PIECE)):
        (out / f"{path.name}.{number}").write_bytes(data[first : first + PIECE])


def _report(part: str, log: Path, out: Path) -> None:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (out / f"{part}.jsonl").write_text("\n".join(json.dumps(line) for line in lines[:: max(len(lines) // 200, 1)]))
    last = lines[-1]
    figures = ", ".join(
        f"{name} {value:.3f}" for name, value in last.items() if name not in ("step", "minutes", "rate")
    )
    print(f"{part}: {last['step']} steps in {last['minutes']:.1f} minutes: {figures}", flush=True)


if __name__ == "__main__":
    main()
