"""Where noise comes from: the same numbers on every machine and device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def numpy_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 [*shape] on the CPU, drawn by numpy's legacy generator as the published system does.

    seed may be any integer; it is taken modulo 2^32.
    """
    values = np.random.RandomState(seed % 2**32).standard_normal(tuple(shape)).astype(np.float32)
    return torch.from_numpy(values)
