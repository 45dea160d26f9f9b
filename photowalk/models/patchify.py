"""Frames to tokens and back: patches of a video, and averages over neighbouring patches."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

Patch = tuple[int, int, int]  # time, rows, columns


def pad_to_multiple(frames: Tensor, patch: Patch) -> Tensor:
    """[B, C, T, h, w] with its last frame, row and column repeated until every axis is a multiple of the patch."""
    missing = [-size % side for size, side in zip(frames.shape[-3:], patch)]
    if not any(missing):
        return frames
    return F.pad(frames, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")


def space_to_channels(frames: Tensor, patch: Patch) -> Tensor:
    """[B, C, T, h, w] -> [B, C*pt*ph*pw, T/pt, h/ph, w/pw], the channel slowest (as a flattened convolution kernel)."""
    batch, channels, time, rows, columns = frames.shape
    pt, ph, pw = patch
    split = frames.reshape(batch, channels, time // pt, pt, rows // ph, ph, columns // pw, pw)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(
        batch, channels * math.prod(patch), time // pt, rows // ph, columns // pw
    )


def to_tokens(grid: Tensor) -> Tensor:
    """[B, C, T, h, w] -> [B, T*h*w, C]: time, then row, then column."""
    return grid.flatten(2).transpose(1, 2)


def patchify(frames: Tensor, patch: Patch) -> Tensor:
    """[B, C, T, h, w], padded at the end where needed -> tokens [B, N, C*pt*ph*pw], the channel slowest."""
    return to_tokens(space_to_channels(pad_to_multiple(frames, patch), patch))


def unpatchify(tokens: Tensor, grid: tuple[int, int, int], patch: Patch) -> Tensor:
    """Tokens [B, N, pt*ph*pw*C] on a token grid -> [B, C, T, h, w]. The channel is fastest here, as the published head
    writes it, unlike in `patchify`."""
    (time, rows, columns), (pt, ph, pw) = grid, patch
    split = tokens.reshape(tokens.shape[0], time, rows, columns, pt, ph, pw, -1)
    return split.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(tokens.shape[0], -1, time * pt, rows * ph, columns * pw)


def pool(grid: Tensor, factors: Patch) -> Tensor:
    """Average [B, C, T, h, w] over blocks, the last frame, row and column repeated where a block is not full. In
    float32: torch has no bfloat16 average on CPUs."""
    if factors == (1, 1, 1):
        return grid
    return F.avg_pool3d(pad_to_multiple(grid, factors).float(), factors).to(grid.dtype)
