"""Linear layers whose weights are kept in one byte a value.

They are widened when they are used, so that the matrix product runs in the format of its input; or that is made as
coarse as they are, and the product runs in float8, which some GPUs do in half the time. It knows nothing of where
weights lie.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ByteFormat = Literal["int8", "float8", "float8-matmul"]
_FLOAT8 = torch.float8_e4m3fn
_LARGEST_FLOAT8 = torch.finfo(_FLOAT8).max
_DTYPES = {"int8": torch.int8, "float8": _FLOAT8, "float8-matmul": _FLOAT8}
_LARGEST = {"int8": 127.0, "float8": _LARGEST_FLOAT8, "float8-matmul": _LARGEST_FLOAT8}  # of either sign
_MULTIPLE = 16  # of both sides of a layer, which products in float8 want


class WeightOnlyLinear(nn.Module):
    """As the `nn.Linear` that it is made of, with a scale for each output; "float8-matmul" multiplies in float8, with a
    scale for each row of the input too.

    On weights and inputs drawn from a normal distribution the product errs by about 0.9 % (int8), 2.6 % (float8, e4m3)
    or 3.7 % (products in it) of its root mean square: int8 spreads its steps evenly over a row, where float8 spends
    them on values near zero.
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
        self.multiplies_in_float8 = stored_as == "float8-matmul" and not any(n % _MULTIPLE for n in weight.shape)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """[out, in], in the format that the weights had."""
        return self.stored.to(self.scale.dtype) * self.scale

    def forward(self, features: Tensor) -> Tensor:
        return self._product(features) if self.multiplies_in_float8 else F.linear(features, self.weight, self.bias)

    def _product(self, features: Tensor) -> Tensor:
        """In bfloat16, which is what such products give, or in the features' own format where that is wider."""
        rows = features.flatten(0, -2)
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _LARGEST_FLOAT8
        product = torch._scaled_mm(
            (rows / scale).to(_FLOAT8),
            self.stored.t(),
            scale_a=scale.float(),
            scale_b=self.scale.float().t(),
            bias=None if self.bias is None else self.bias.bfloat16(),
            out_dtype=torch.bfloat16,
        )
        return product.unflatten(0, features.shape[:-1]).to(features.dtype)
