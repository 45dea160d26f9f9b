"""Rotary position embedding of the packed sequence: one angle triple (time, row, column) per token.

A token that stands for several base tokens takes the average of their angles. The temporal position is the index in the
packed sequence, whatever the real time.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from photowalk.models.history_layout import HistoryLayout
from photowalk.models.patchify import pool, to_tokens


@lru_cache(maxsize=8)
def packed_angles(layout: HistoryLayout, head_dim: int, rows: int, columns: int) -> Tensor:
    """Angles in radians [L, head_dim / 2], float32 on the CPU, for a token grid of rows x columns per generated frame.

    The head is shared out as in Wan 2.1: a third each to rows and columns, the rest to time; base 10000. Built in
    float32 and averaged there, because the published weights were trained with exactly these numbers.
    """
    with torch.inference_mode(False), torch.no_grad():  # the cached value must stay usable for training
        space_dim = 2 * (head_dim // 6)
        sizes = (layout.frames, rows, columns)
        dims = (head_dim - 2 * space_dim, space_dim, space_dim)
        axes = [_axis_angles(size, dim) for size, dim in zip(sizes, dims)]
        expanded = [
            angles.view(*(-1 if axis == i else 1 for i in range(3)), angles.shape[1]).expand(*sizes, -1)
            for axis, angles in enumerate(axes)
        ]
        grid = torch.cat(expanded, dim=-1).permute(3, 0, 1, 2)[None]  # [1, head_dim / 2, T, rows, columns]
        segments = layout.segments(rows, columns)
        pooled = [pool(grid[:, :, part.frames.start : part.frames.stop], part.factors) for part in segments]
        return torch.cat([to_tokens(part) for part in pooled], dim=1)[0]


def _axis_angles(size: int, dim: int) -> Tensor:
    """[size, dim / 2]."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu")[: dim // 2] / dim
    return torch.outer(torch.arange(size, dtype=torch.float32, device="cpu"), 1.0 / 10000.0**exponents)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (2i, 2i+1) of heads [B, L, heads, head_dim] by angles [L, head_dim / 2], in float32."""
    even, odd = heads.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(heads.dtype)
