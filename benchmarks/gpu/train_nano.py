"""Trains nano's parts on one large GPU: what recipes/nano.sh does on two cores, with more data and larger batches.

    python benchmarks/gpu/train_nano.py PART... --out FOLDER [--minutes 20] [--work runs/gpu] [--features FILE]
                                        [--rgbd FOLDER] [--skies FOLDER] [--start FOLDER] [--tiny]

PART is depth, detail or denoiser; each takes its minutes, after data has been rendered by all cores. A
call that was stopped goes on in the same --work; on a fresh machine --start takes the weights that an earlier call
gave back. Weights come as pieces of at most 16 MB: `cat NAME.safetensors.* > NAME.safetensors` joins them. Besides
torch this wants warp-lang, numpy, scipy, pillow, av and safetensors. --tiny proves the script on a CPU in minutes.
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

from photowalk.data.clips import find_clips
from photowalk.presets import nano_untrained
from photowalk.train.recipes import DENOISER_OBJECTIVE, Order, train_part
from photowalk.train.samples import prepare_samples
from photowalk.world.placement import choose_placement

PIECE = 16_000_000  # bytes


@dataclass(frozen=True)
class Amount:
    """How much data is rendered, and how it is used."""

    walks: int
    glimpses: int
    batch_factor: dict[str, int]


LARGE = Amount(160, 2400, {"depth": 8, "detail": 8, "denoiser": 8})
TINY = Amount(1, 4, {"depth": 1, "detail": 1, "denoiser": 1})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(LARGE.batch_factor), metavar="PART")
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
        started = time.perf_counter()
        data = _rendered(part, arguments.work, amount, cores)
        if part == "denoiser":
            _prepare(data, arguments.work / part / "samples", cores)
        if arguments.rgbd and part == "depth":
            data = (data, arguments.rgbd, arguments.rgbd)
        else:
            data = (data,)
        print(f"{part}: data in {time.perf_counter() - started:.0f} s", flush=True)
        order = Order(
            data,
            arguments.minutes,
            arguments.work / part,
            arguments.work / "weights",
            arguments.skies,
            arguments.features,
            arguments.start,
            amount.batch_factor[part],
            workers=min(cores, 12),
        )
        for path in train_part(part, order):
            _split(path, arguments.out)
        _report(part, arguments.work / part / "log.jsonl", arguments.out)


def _rendered(part: str, work: Path, amount: Amount, cores: int) -> Path:
    """The folder of clips that the part learns from; what is there already is kept."""
    many, kind = (amount.glimpses, "glimpses") if part == "depth" else (amount.walks, "walks")
    arguments = ["--worlds", str(many), "--processes", str(cores)]
    if kind == "glimpses":
        arguments += ["--every", "16", "--first-seed", "10000"]
    command = [sys.executable, "-m", "photowalk.synthetic", str(work / kind), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return work / kind


def _prepare(clips: Path, folder: Path, cores: int) -> None:
    """The denoiser's samples, made by all cores: each process takes every n-th clip."""
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_prepare_share, find_clips(clips), folder, cores), range(cores)))


def _prepare_share(clips: list[Path], folder: Path, shares: int, share: int) -> None:
    torch.set_num_threads(1)
    prepare_samples(clips[share::shares], nano_untrained(choose_placement("cpu")), DENOISER_OBJECTIVE, folder)


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
