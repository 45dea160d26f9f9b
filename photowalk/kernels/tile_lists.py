"""Which tiles of a picture boxes touch, and on a CPU the list of the boxes of each tile.

They are counted first, then laid down one after the other: it keeps the order of the boxes within each tile, as a
stable sort does, and is several times faster than one.
"""

from __future__ import annotations

import numpy as np
import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})


def touched_tiles(
    centres: Tensor, extents: Tensor, columns: int, rows: int, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes around `centres` [N, 2] that reach as far as `extents` [N, 2] > 0, in pixels -> the tiles of `side` pixels
    low <= (column, row) < high, both [N, 2] int32, that they touch, and whether there are any [N] bool."""
    centres, extents = centres.float().contiguous(), extents.float().contiguous()
    low, high = torch.empty(2, len(centres), 2, dtype=torch.int32, device=centres.device)
    touching = torch.empty(len(centres), dtype=torch.bool, device=centres.device)
    given = [wp.from_torch(centres, dtype=wp.vec2), wp.from_torch(extents, dtype=wp.vec2), columns, rows, float(side)]
    made = [wp.from_torch(low, dtype=wp.vec2i), wp.from_torch(high, dtype=wp.vec2i), wp.from_torch(touching)]
    device = device_of(centres)
    load_kernel(_touched, device)

    def launch(first: int, count: int) -> None:
        wp.launch(_touched, count, [first, *given, *made], device=device)

    parallel_over_first_axis(launch, len(centres), centres.device)
    return low, high, touching


def nearest_first(depths: Tensor, chosen: Tensor) -> Tensor:
    """The numbers `chosen` [M] int64 in ascending order of `depths` [N] > 0, equal ones in order of number."""
    # The bits of positive numbers have their order. With the number below them, none are equal, and any sort will do.
    keys = (depths.float()[chosen].view(torch.int32).long() << 32) | chosen
    keys = torch.from_numpy(np.sort(keys.numpy())) if keys.device.type == "cpu" else keys.sort().values
    return keys & 0xFFFFFFFF


def list_by_counting(order: Tensor, low: Tensor, high: Tensor, columns: int, rows: int) -> tuple[Tensor, Tensor]:
    """order [N] int32 names for boxes that cover the tiles low <= (column, row) < high, both [N, 2] int32, none empty
    -> the names [P] int32 of all boxes tile by tile, in each tile in the order given, and first [columns * rows + 1]
    int32: those of tile t = row * columns + column are first[t] .. first[t + 1]."""
    corners = torch.zeros((rows + 1) * (columns + 1), dtype=torch.int32)
    for y, x, sign in ((low, low, 1), (low, high, -1), (high, low, -1), (high, high, 1)):
        corner = y[:, 1] * (columns + 1) + x[:, 0]
        corners.index_add_(0, corner, torch.full_like(corner, sign))
    counts = corners.view(rows + 1, columns + 1).cumsum(0).cumsum(1)[:rows, :columns]
    first = torch.zeros(columns * rows + 1, dtype=torch.int32)
    first[1:] = counts.flatten().cumsum(0)
    listed = torch.empty(int(first[-1]), dtype=torch.int32)
    boxes = [wp.from_torch(low.contiguous(), dtype=wp.vec2i), wp.from_torch(high.contiguous(), dtype=wp.vec2i)]
    arguments = [wp.from_torch(order), *boxes, columns, wp.from_torch(first[:-1].clone()), wp.from_torch(listed)]
    load_kernel(_lay_down, device_of(order))

    def launch(row: int, count: int) -> None:
        wp.launch(_lay_down, dim=1, inputs=[row, row + count, *arguments], device="cpu")

    parallel_over_first_axis(launch, rows, order.device, pieces_per_thread=1)  # each piece reads all boxes
    return listed, first


@wp.kernel
def _lay_down(
    first_row: int,
    end_row: int,
    order: wp.array(dtype=wp.int32),
    low: wp.array(dtype=wp.vec2i),
    high: wp.array(dtype=wp.vec2i),
    columns: int,
    free: wp.array(dtype=wp.int32),
    listed: wp.array(dtype=wp.int32),
):
    """One thread for some rows of tiles: `free` is the next free place of each."""
    for box in range(order.shape[0]):
        a = low[box]
        b = high[box]
        for row in range(wp.max(a[1], first_row), wp.min(b[1], end_row)):
            for column in range(a[0], b[0]):
                tile = row * columns + column
                place = free[tile]
                listed[place] = order[box]
                free[tile] = place + 1


@wp.kernel
def _touched(
    first: int,
    centres: wp.array(dtype=wp.vec2),
    extents: wp.array(dtype=wp.vec2),
    columns: int,
    rows: int,
    side: float,
    low: wp.array(dtype=wp.vec2i),
    high: wp.array(dtype=wp.vec2i),
    touching: wp.array(dtype=wp.bool),
):
    n = first + wp.tid()
    tiles = wp.vec2(float(columns), float(rows))
    least = (centres[n] - extents[n]) / side
    most = (centres[n] + extents[n]) / side
    a = wp.vec2i(int(wp.clamp(wp.floor(least[0]), 0.0, tiles[0])), int(wp.clamp(wp.floor(least[1]), 0.0, tiles[1])))
    b = wp.vec2i(
        int(wp.clamp(wp.floor(most[0]) + 1.0, 0.0, tiles[0])), int(wp.clamp(wp.floor(most[1]) + 1.0, 0.0, tiles[1]))
    )
    low[n] = a
    high[n] = b
    touching[n] = b[0] > a[0] and b[1] > a[1]
