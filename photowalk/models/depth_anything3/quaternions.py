"""Quaternions in the order x, y, z, w, which Depth Anything 3 was trained with. Everything else here uses wxyz."""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_from_xyzw(quaternion: Tensor) -> Tensor:
    """[*, 4], any length but 0 -> rotation [*, 3, 3]"""
    x, y, z, w = quaternion.unbind(-1)
    twice = 2 / quaternion.square().sum(-1)
    rows = [
        1 - twice * (y * y + z * z),
        twice * (x * y - z * w),
        twice * (x * z + y * w),
        twice * (x * y + z * w),
        1 - twice * (x * x + z * z),
        twice * (y * z - x * w),
        twice * (x * z - y * w),
        twice * (y * z + x * w),
        1 - twice * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def xyzw_from_matrix(rotation: Tensor) -> Tensor:
    """[*, 3, 3] -> unit [*, 4] with w >= 0, from the largest of its four numbers."""
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack([1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], dim=-1)
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    xw, yw, zw = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    products = torch.stack(
        [
            squares[..., 0],
            xy,
            xz,
            xw,
            xy,
            squares[..., 1],
            yz,
            yw,
            xz,
            yz,
            squares[..., 2],
            zw,
            xw,
            yw,
            zw,
            squares[..., 3],
        ],
        dim=-1,
    ).unflatten(-1, (4, 4))
    largest = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    row = products.gather(-2, largest)[..., 0, :]
    unit = row / row.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., 3:] < 0, -unit, unit)
