"""How kernels are launched: on the device of their tensors, and on a CPU from several threads at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType

import torch
import warp as wp
from torch import Tensor


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing reaches the process's standard error, not even from C."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


if hasattr(wp.config, "log_level"):
    wp.config.log_level = wp.LOG_ERROR
else:
    wp.config.quiet = True  # warp before 1.12
with _silent_stderr():  # where there is no GPU, Warp's C side says so, and no setting stops it
    wp.init()


def device_of(tensor: Tensor) -> wp.Device:
    return wp.device_from_torch(tensor.device)


def load_kernels(*modules: ModuleType) -> None:
    """Compile what modules hold for the CPU now, where several threads would otherwise begin to at once."""
    for module in modules:
        wp.load_module(module, device="cpu")


def load_kernel(kernel: wp.Kernel, device: wp.Device) -> None:
    """Compile a kernel and the others of its file, if they are not yet, before threads race to."""
    wp.load_module(kernel.module, device=device)  # Module.load takes a size of blocks that CPUs do not launch


def parallel_over_first_axis(
    launch: Callable[[int, int], None], count: int, device: torch.device, *, pieces_per_thread: int = 8
) -> None:
    """Call launch(first, count) over 0..count: once on a GPU; on a CPU, where Warp uses one thread per launch, in
    pieces that torch's number of threads take one after the other. Several for each thread, since some pieces are
    more work than others: of a picture, the floor more than the sky. The pieces must write to disjoint places, then
    the result does not hang on their order."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        return launch(0, count)
    pieces = min(count, threads * pieces_per_thread)
    bounds = [count * piece // max(pieces, 1) for piece in range(pieces + 1)]
    spans = [(first, end - first) for first, end in pairwise(bounds)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda span: launch(*span), spans))
