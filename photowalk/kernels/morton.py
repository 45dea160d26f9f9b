"""Numbers along a Z-order curve (Morton 1966): the bits of three axes interleaved, so that neighbours in space are
mostly neighbours in order."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

AXIS_BITS = 20  # of each axis: cells lie in [-2^19, 2^19)
_HALF = wp.constant(wp.int64(2 ** (AXIS_BITS - 1)))
_TOGETHER = 4096  # numbers of a piece that one thread works on


@wp.func
def _spread(number: wp.int64):
    """Two empty bits between any two of the lowest twenty."""
    bits = (number | (number << wp.int64(32))) & wp.int64(0x1F00000000FFFF)
    bits = (bits | (bits << wp.int64(16))) & wp.int64(0x1F0000FF0000FF)
    bits = (bits | (bits << wp.int64(8))) & wp.int64(0x100F00F00F00F00F)
    bits = (bits | (bits << wp.int64(4))) & wp.int64(0x10C30C30C30C30C3)
    return (bits | (bits << wp.int64(2))) & wp.int64(0x1249249249249249)


@wp.func
def _gathered(code: wp.int64):
    """Every third bit, side by side."""
    bits = code & wp.int64(0x1249249249249249)
    bits = (bits | (bits >> wp.int64(2))) & wp.int64(0x10C30C30C30C30C3)
    bits = (bits | (bits >> wp.int64(4))) & wp.int64(0x100F00F00F00F00F)
    bits = (bits | (bits >> wp.int64(8))) & wp.int64(0x1F0000FF0000FF)
    bits = (bits | (bits >> wp.int64(16))) & wp.int64(0x1F00000000FFFF)
    return (bits | (bits >> wp.int64(32))) & wp.int64(0xFFFFF)


@wp.kernel
def _code_kernel(cells: wp.array2d(dtype=wp.int64), first: int, codes: wp.array(dtype=wp.int64)):
    n = first + wp.tid()
    x = _spread(cells[n, 0] + _HALF)
    y = _spread(cells[n, 1] + _HALF)
    z = _spread(cells[n, 2] + _HALF)
    codes[n] = x | (y << wp.int64(1)) | (z << wp.int64(2))


@wp.kernel
def _cell_kernel(codes: wp.array(dtype=wp.int64), first: int, cells: wp.array2d(dtype=wp.int64)):
    n = first + wp.tid()
    cells[n, 0] = _gathered(codes[n]) - _HALF
    cells[n, 1] = _gathered(codes[n] >> wp.int64(1)) - _HALF
    cells[n, 2] = _gathered(codes[n] >> wp.int64(2)) - _HALF


def codes_of(cells: Tensor) -> Tensor:
    """Cells [M, 3] int64 in [-2^19, 2^19) -> their numbers [M] int64, from 0."""
    codes = torch.empty(len(cells), dtype=torch.int64, device=cells.device)
    return _launched(_code_kernel, cells.contiguous(), codes)


def cells_of(codes: Tensor) -> Tensor:
    """The cells [M, 3] that have the numbers [M]."""
    cells = torch.empty(len(codes), 3, dtype=torch.int64, device=codes.device)
    return _launched(_cell_kernel, codes.contiguous(), cells)


def _launched(kernel: wp.Kernel, given: Tensor, made: Tensor) -> Tensor:
    device = device_of(given)
    load_kernel(kernel, device)

    def launch(first: int, pieces: int) -> None:
        start, end = first * _TOGETHER, min((first + pieces) * _TOGETHER, len(given))
        wp.launch(kernel, end - start, [wp.from_torch(given), start, wp.from_torch(made)], device=device)

    if len(given):
        parallel_over_first_axis(launch, -(-len(given) // _TOGETHER), given.device)
    return made
