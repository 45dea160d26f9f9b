"""Pictures of what a network makes while it learns: a few samples, each beside what it was given and what is true."""

from __future__ import annotations

import torch
from torch import Tensor

from photowalk.models.protocols import VideoCodec

SHOWN = 4  # samples


def depth_grid(images: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
    """images [B, 3, H, W] in [0, 1], depths [B, H, W] -> rows of pictures, of the guess and of the truth."""
    return grid([images[:SHOWN], shades(predicted[:SHOWN]), shades(truth[:SHOWN])])


def shades(depth: Tensor) -> Tensor:
    """[B, H, W] along +Z, 0 = unknown, inf = sky -> grey [B, 3, H, W]: near is white, sky is black, unknown is too."""
    known = (depth > 0) & depth.isfinite()
    middle = torch.stack([d[k].median() if bool(k.any()) else d.new_ones(()) for d, k in zip(depth, known)])
    grey = torch.where(known, 1 / (1 + depth / middle.view(-1, 1, 1)), 0.0)
    return grey[:, None].expand(-1, 3, -1, -1)


def chunk_grid(codec: VideoCodec, before: Tensor, *chunks: Tensor) -> Tensor:
    """Latents `before` [1, C, 1, h, w] and of chunks [1, C, T, h, w] that follow it -> a row of frames for each."""
    rows = []
    for chunk in chunks:
        video, _ = codec.decode(torch.cat([before, chunk], dim=2), {})
        frames = video[0, :, 1:].transpose(0, 1).float() / 2 + 0.5
        rows.append(frames[torch.linspace(0, len(frames) - 1, SHOWN).round().long()].clamp(0, 1))
    return grid(rows)


def grid(rows: list[Tensor]) -> Tensor:
    """Pictures [N, 3, H, W] a row -> one picture [3, rows * H, N * W]."""
    return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
