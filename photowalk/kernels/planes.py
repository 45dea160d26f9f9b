"""Planes through a picture of numbers: one around each pixel, fitted to the neighbours that may lie on the same one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

WINDOW = 2  # pixels around each to which its plane is fitted, as in the C++ below
RIDGE = 1e-3  # pixel^2; pulls planes with too few neighbours towards the level one
_LANES = 16  # pixels of a row that are fitted side by side, as in the C++ below: so many floats a vector register holds

_RIDGE = wp.constant(RIDGE)


@wp.func_native("""
    constexpr int LANES = 16, WINDOW = 2;
    const int stride = padded.shape[1], width = height.shape[1], left = run * LANES;
    const auto from = [&](int dy, int dx) { return padded.data + (row + WINDOW + dy) * stride + left + WINDOW + dx; };
    float count[LANES] = {}, x[LANES] = {}, y[LANES] = {}, w[LANES] = {};
    float xx[LANES] = {}, xy[LANES] = {}, yy[LANES] = {}, xw[LANES] = {}, yw[LANES] = {};
    const float *value = from(0, 0);
    for (int dy = -WINDOW; dy <= WINDOW; ++dy)
        for (int dx = -WINDOW; dx <= WINDOW; ++dx) {
            const int away = dx * dx > dy * dy ? dx * dx : dy * dy;
            const float rise_at_most = steep * (away > 1 ? 2.0f : away > 0 ? 1.0f : 0.5f);
            const float *neighbour = from(dy, dx);
            for (int p = 0; p < LANES; ++p) {
                const float difference = neighbour[p] - value[p];
                const float most = rise_at_most * value[p];
                const bool near = (difference < most) & (-difference < most);
                const float one = near ? 1.0f : 0.0f, change = near ? difference : 0.0f;
                count[p] += one;
                x[p] += dx * one;
                y[p] += dy * one;
                w[p] += change;
                xx[p] += dx * dx * one;
                xy[p] += dx * dy * one;
                yy[p] += dy * dy * one;
                xw[p] += dx * change;
                yw[p] += dy * change;
            }
        }
    for (int p = 0; p < LANES && left + p < width; ++p) {
        const float share = 1.0f / (count[p] > 1.0f ? count[p] : 1.0f);
        const float mx = x[p] * share, my = y[p] * share, mw = w[p] * share;
        const float cxx = xx[p] * share - mx * mx + ridge, cyy = yy[p] * share - my * my + ridge;
        const float cxy = xy[p] * share - mx * my, cxw = xw[p] * share - mx * mw, cyw = yw[p] * share - my * mw;
        const float determinant = cxx * cyy - cxy * cxy;
        const float rise = (cxw * cyy - cyw * cxy) / determinant, fall = (cyw * cxx - cxw * cxy) / determinant;
        const int at = row * width + left + p;
        height.data[at] = value[p] <= 3.402823466e38f ? value[p] + mw - rise * mx - fall * my : 0.0f;
        across.data[at] = rise;
        down.data[at] = fall;
    }
""")
def _fit_run(
    padded: wp.array2d(dtype=wp.float32),
    steep: float,
    ridge: float,
    row: int,
    run: int,
    height: wp.array2d(dtype=wp.float32),
    across: wp.array2d(dtype=wp.float32),
    down: wp.array2d(dtype=wp.float32),
): ...


@wp.kernel
def _fit_kernel(
    padded: wp.array2d(dtype=wp.float32),  # the values, inf where unknown and around
    steep: float,
    first_row: int,
    height: wp.array2d(dtype=wp.float32),  # [H, W]
    across: wp.array2d(dtype=wp.float32),
    down: wp.array2d(dtype=wp.float32),
):
    row, run = wp.tid()
    _fit_run(padded, steep, _RIDGE, first_row + row, run, height, across, down)


def fit_planes(values: Tensor, steep: float) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares plane through the window of every pixel of `values` [H, W] (> 0, 0 = unknown) -> its value there,
    d/dcolumn and d/drow, each [H, W]; all 0 where the pixel is unknown. Not differentiable.

    Neighbours that could not be reached without a step of more than `steep` times the value in a pixel are left out;
    without any, the plane is level.
    """
    values = values.detach().float()
    rows, columns = values.shape
    runs = -(-columns // _LANES)
    sides = (WINDOW, runs * _LANES - columns + WINDOW, WINDOW, WINDOW)
    padded = F.pad(torch.where(values > 0, values, torch.inf)[None], sides, value=torch.inf)[0].contiguous()
    fitted = torch.empty(3, rows, columns, device=values.device)
    device, outputs = device_of(values), [wp.from_torch(plane) for plane in fitted]
    load_kernel(_fit_kernel, device)

    def launch(first: int, count: int) -> None:
        wp.launch(_fit_kernel, (count, runs), [wp.from_torch(padded), steep, first, *outputs], device=device)

    parallel_over_first_axis(launch, rows, values.device)
    height, across, down = fitted
    return height, across, down
