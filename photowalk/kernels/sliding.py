"""The largest and the smallest values around every pixel, for numbers and masks: dilation and erosion.

Squares are slid along one axis after the other, by windows that double, so that the cost grows with the logarithm of
their size (van Herk 1992 does with less for large ones); torch's max_pool2d looks at each pixel of each square.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def highest_around(planes: Tensor, reach: int) -> Tensor:
    """planes [..., H, W], floating or bool -> the largest value of each square of 2 * reach + 1 pixels; what is outside
    the picture does not count. NaN wins."""
    return _slid(planes, reach, torch.maximum, -torch.inf if planes.is_floating_point() else False)


def lowest_around(planes: Tensor, reach: int) -> Tensor:
    """The smallest value, as `highest_around` has the largest."""
    return _slid(planes, reach, torch.minimum, torch.inf if planes.is_floating_point() else True)


def _slid(planes: Tensor, reach: int, better: Callable[[Tensor, Tensor], Tensor], outside: float | bool) -> Tensor:
    size = 2 * reach + 1
    for axis, margin in ((-1, (reach, reach)), (-2, (0, 0, reach, reach))):
        length, width = planes.shape[axis], 1
        found = F.pad(planes, margin, value=outside)
        while 2 * width <= size:
            count = found.shape[axis] - width
            found = better(found.narrow(axis, 0, count), found.narrow(axis, width, count))
            width *= 2
        planes = better(found.narrow(axis, 0, length), found.narrow(axis, size - width, length))
    return planes
