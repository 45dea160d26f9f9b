"""Linear layers whose weights are kept in one byte a value and widened when they are used.

Only weights are coarser; the matrix product runs in the format of its input. It knows nothing of where weights lie.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ByteFormat = Literal["int8", "float8"]
_DTYPES = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
_LARGEST = {"int8": 127.0, "float8": torch.finfo(torch.float8_e4m3fn).max}  # that the format holds, of either sign


class WeightOnlyLinear(nn.Module):
    """As the `nn.Linear` that it is made of, with a scale for each output.

    On weights drawn from a normal distribution the product errs by about 0.9 % (int8) or 2.6 % (float8, e4m3) of its
    root mean square: int8 spreads its steps evenly over a row, where float8 spends them on values near zero.
    """

    stored: Tensor  # [out, in], one byte a value
    scale: Tensor  # [out, 1], in the format that the weights had

    def __init__(self, linear: nn.Linear, stored_as: ByteFormat) -> None:
        super().__init__()
        weight, largest = linear.weight.detach(), _LARGEST[stored_as]
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / largest
        scaled = (weight.float() / scale.float()).clamp(-largest, largest)
        self.register_buffer("stored", (scaled.round() if stored_as == "int8" else scaled).to(_DTYPES[stored_as]))
        self.register_buffer("scale", scale)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """[out, in], in the format that the weights had."""
        return self.stored.to(self.scale.dtype) * self.scale

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)
