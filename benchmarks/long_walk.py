"""What a walk's length costs: seconds and memory of its reconstruction, the longer one against the shorter one.

    python benchmarks/long_walk.py [--frames 500 2000] [--size 96x168] [--splats 60000]

Each walk goes through the same synthetic world and is taken in as a stream of clips, every fourth frame with depth, in
a process of its own. Memory is the most that the process held while it reconstructed, less what it held before; Linux
only, since the counter is set back through /proc. The last line is the ratio of the memories.
At nano's size: --size 256x448 --splats 500000.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from photowalk.reconstruct import reconstruct
from photowalk.scene.types import Clip
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld

CLIP = 80  # frames of the walk that exist at once
DEPTH_EVERY = 4
WARM_UP = (32, 56)  # pictures of a tiny walk, so that kernels are loaded before memory is counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs=2, default=[500, 2000])
    parser.add_argument("--size", default="96x168", metavar="HxW")
    parser.add_argument("--splats", type=int, default=60_000)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    memories = []
    for frames in options.frames:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds, memory, splats = pool.submit(cost, frames, (height, width), options.splats).result()
        print(f"{frames} frames: {seconds:.1f} CPU seconds, {memory:.0f} MiB, {splats:,} splats", flush=True)
        memories.append(memory)
    print(f"memory of {options.frames[1]} frames / of {options.frames[0]}: {memories[1] / memories[0]:.2f}")


def cost(frames: int, size: tuple[int, int], budget: int) -> tuple[float, float, int]:
    """CPU seconds without those that made the frames, MiB above what was held before, and the number of splats."""
    world = SyntheticWorld.sample(HELD_OUT_SEEDS[0])
    cameras = world.walk(frames, HELD_OUT_SEEDS[0], size=size)
    rendering = 0.0

    def clips() -> Iterator[Clip]:
        nonlocal rendering
        for first in range(0, frames, CLIP):
            start = time.process_time()
            clip = world.render(cameras[first : first + CLIP : DEPTH_EVERY])
            rendering += time.process_time() - start
            yield clip

    reconstruct([world.render(world.walk(9, HELD_OUT_SEEDS[0], size=WARM_UP))])
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    start = time.process_time()
    scene = reconstruct(clips(), budget=budget)
    seconds = time.process_time() - start - rendering
    return seconds, _memory("VmHWM") - before, len(scene.everything)


def _memory(name: str) -> float:
    """MiB of the process's memory, by the name that /proc gives it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


if __name__ == "__main__":
    main()
