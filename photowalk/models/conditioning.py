"""What the denoiser knows besides the noise. `world/conditioning.py` builds it, for training and generation alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """All tensors of one chunk, T_old latent frames of history in the order of `HistoryLayout.slots` (anchor, memory
    slots, time), T_new latent frames to generate. s is the side of the block of condition pixels per latent pixel.

    Memory slots that recall left empty are the leftmost; they hold the first frame's latent and camera.
    """

    history: Tensor  # [B, C, T_old, h, w] clean latents
    warp: Tensor  # [B, C, T_new, h, w] latents of the latest frame warped into the new cameras
    known: Tensor  # [B, 4, T_new, h, w] mask channels of the new frames: how much of the warp is real, in [0, 1]
    rays: Tensor  # [B, 6*s*s, T_old+T_new, h, w] origin and direction, relative to the last history camera
    correspondence: Tensor  # [B, K*4*s*s, T_new, h, w] warped canonical coordinates and depth, best recalled view first
    text: Tensor  # [B, L, D_text]
    image: Tensor  # [B, L_image, D_image]


def memory_correspondence(slots: int, side: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """The correspondence channels of the memory slots themselves, [1, K*4*s*s, K, h, w]: constants of the resolution.

    A slot shows its own canonical coordinates in every group of channels: x and y from -1 to 1 over the frame, the slot
    number from -1 to 1 as z. The depth channel is -1 in the first group and 1 in the others, as published.
    """
    height, width = rows * side, columns * side
    x = torch.linspace(-1, 1, width, device=device).expand(slots, height, width)
    y = torch.linspace(-1, 1, height, device=device)[:, None].expand(slots, height, width)
    z = torch.linspace(-1, 1, slots, device=device)[:, None, None].expand(slots, height, width)
    groups = [torch.stack([x, y, z, torch.full_like(x, -1.0 if group == 0 else 1.0)]) for group in range(slots)]
    blocks = F.pixel_unshuffle(torch.cat(groups).transpose(0, 1), side)  # [K, K*4*s*s, h, w]
    return blocks.transpose(0, 1)[None]


def no_correspondence(slots: int, like: Tensor) -> Tensor:
    """What `correspondence` [B, K*4*s*s, T_new, h, w] holds when nothing was recalled: coordinates -1, depth +1."""
    absent = torch.full_like(like, -1.0).unflatten(1, (slots, 4, -1))
    absent[:, :, 3] = 1.0
    return absent.flatten(1, 3)
