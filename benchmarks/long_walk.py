"""What a walk's length costs: seconds and memory of its reconstruction, the longer one against the shorter one.

    python benchmarks/long_walk.py [--frames 500 2000] [--size 96x168] [--splats 60000]

Each walk goes through the same synthetic world and is taken in as a stream of clips, every fourth frame with depth, in
a process of its own. Memory is the most that the reconstruction held at once, looked at every few milliseconds: the
blocks of the heap that were asked for and not given back, less those before. The whole process is the most that the
system gave it, libraries and gaps in the heap included. Linux only. The last line is the ratio of the memories.
At nano's size: --size 256x448 --splats 500000.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from threading import Event, Thread

from photowalk.reconstruct import reconstruct
from photowalk.scene.types import Clip
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld

CLIP = 80  # frames of the walk that exist at once
DEPTH_EVERY = 4
WARM_UP = (32, 56)  # pictures of a tiny walk, so that kernels are loaded before memory is counted
LOOK_EVERY = 0.003  # seconds, at the heap
MIB = 2**20


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
            seconds, memory, whole, splats = pool.submit(cost, frames, (height, width), options.splats).result()
        print(
            f"{frames} frames: {seconds:.1f} CPU seconds, {memory:.0f} MiB, the whole process {whole:.0f} MiB, "
            f"{splats:,} splats",
            flush=True,
        )
        memories.append(memory)
    print(f"memory of {options.frames[1]} frames / of {options.frames[0]}: {memories[1] / memories[0]:.2f}")


def cost(frames: int, size: tuple[int, int], budget: int) -> tuple[float, float, float, int]:
    """CPU seconds without those that made the frames, MiB above what was held before, MiB of the whole process, and the
    number of splats."""
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
    with Heap() as heap:
        start = time.process_time()
        scene = reconstruct(clips(), budget=budget)
        seconds = time.process_time() - start - rendering
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, heap.most / MIB, whole / MIB, len(scene.everything)


class _Mallinfo(ctypes.Structure):
    """mallinfo2 of glibc's <malloc.h>."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


class Heap:
    """The most bytes of the heap that were in use at once within a `with`, beyond those at its beginning."""

    def __init__(self) -> None:
        self._mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
        self._mallinfo.restype = _Mallinfo
        self.most = 0
        self._end = Event()
        self._watcher = Thread(target=self._watch, args=(self._in_use(),), daemon=True)

    def _in_use(self) -> int:
        info = self._mallinfo()
        return info.uordblks + info.hblkhd  # in arenas, and in blocks that are mapped one by one

    def _watch(self, before: int) -> None:
        while not self._end.wait(LOOK_EVERY):
            self.most = max(self.most, self._in_use() - before)

    def __enter__(self) -> Heap:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._watcher.join()


if __name__ == "__main__":
    main()
