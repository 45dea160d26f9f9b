"""Adam (Kingma and Ba 2015) on some rows of a tensor at a time, one thread for each row."""

from __future__ import annotations

import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})


def step_rows(
    rows: Tensor,
    slopes: Tensor,
    values: Tensor,
    means: Tensor,
    squares: Tensor,
    steps: Tensor,
    *,
    rate: float,
    forget: tuple[float, float],
    unmoved: float,
    least: float,
) -> None:
    """Change `rows` [M] int64, without repetition, of values, means and squares [N, C] float32 and of the number of
    steps [N] that each row has taken.

    slopes [M, C] are the gradients there, `forget` Adam's two betas; `unmoved` is added to a slope's usual size, and no
    value becomes smaller than `least`.
    """
    arrays = [wp.from_torch(tensor) for tensor in (rows, slopes.contiguous(), values, means, squares, steps)]
    numbers = [rate, *forget, unmoved, least]

    def launch(first: int, count: int) -> None:
        wp.launch(_step_rows, count, [first, *arrays, *numbers], device=device_of(values))

    parallel_over_first_axis(launch, len(rows), values.device)


@wp.kernel
def _step_rows(
    first: int,
    rows: wp.array(dtype=wp.int64),
    slopes: wp.array2d(dtype=wp.float32),
    values: wp.array2d(dtype=wp.float32),
    means: wp.array2d(dtype=wp.float32),
    squares: wp.array2d(dtype=wp.float32),
    steps: wp.array(dtype=wp.float32),
    rate: float,
    forget_mean: float,
    forget_square: float,
    unmoved: float,
    least: float,
):
    m = first + wp.tid()
    row = int(rows[m])
    taken = steps[row] + 1.0
    steps[row] = taken
    lack_mean = 1.0 - wp.pow(forget_mean, taken)  # what the averages lack because they began at 0
    lack_square = 1.0 - wp.pow(forget_square, taken)
    for c in range(values.shape[1]):
        slope = slopes[m, c]
        mean = forget_mean * means[row, c] + (1.0 - forget_mean) * slope
        square = forget_square * squares[row, c] + (1.0 - forget_square) * slope * slope
        means[row, c] = mean
        squares[row, c] = square
        moved = values[row, c] - rate * mean / lack_mean / (wp.sqrt(square / lack_square) + unmoved)
        values[row, c] = wp.max(moved, least)
