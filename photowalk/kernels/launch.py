"""How kernels are launched: on the device of their tensors, and on a CPU from several threads at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch
import warp as wp
from torch import Tensor

if hasattr(wp.config, "log_level"):
    wp.config.log_level = wp.LOG_ERROR
else:
    wp.config.quiet = True  # warp before 1.12
wp.init()


def device_of(tensor: Tensor) -> wp.Device:
    return wp.device_from_torch(tensor.device)


def parallel_over_first_axis(launch: Callable[[int, int], None], count: int, device: torch.device) -> None:
    """Call launch(first, count) over 0..count: once on a GPU; on a CPU, where Warp uses one thread per launch, once per
    torch thread. The pieces must write to disjoint places, then the result does not hang on their order."""
    pieces = min(count, torch.get_num_threads()) if device.type == "cpu" else 1
    bounds = [count * piece // max(pieces, 1) for piece in range(pieces + 1)]
    spans = [(first, last - first) for first, last in pairwise(bounds)]
    if pieces <= 1:
        for span in spans:
            launch(*span)
        return
    with ThreadPoolExecutor(pieces) as pool:
        list(pool.map(lambda span: launch(*span), spans))
