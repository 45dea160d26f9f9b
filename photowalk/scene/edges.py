"""Depth edges without the pixels in between, which would hang in the air when the scene is seen from elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.kernels.sliding import highest_around, lowest_around

STEP = 0.1  # smallest relative step of inverse depth that is an edge
STEEPNESS = 0.55  # share of an edge's rise that lies within NEAR pixels, of what lies within FAR; a plane has 2 / 5
NEAR, FAR, REACH = 2, 5, 4
JUMP = 0.6  # share of what depth rises within 3 pixels that it rises within one; a plane has 1 / 3
SIDE = 0.15  # of an edge's rise: how far from its ends a pixel still belongs to one of its sides
FARTHEST = 1e-4  # inverse depth below which everything is sky
COLOUR = 0.5  # weight of colour against depth in the choice of a side


def sharpen_edges(depth: Tensor, image: Tensor) -> Tensor:
    """depth [H, W] along +Z (0 = unknown, inf = sky), image [3, H, W] in [0, 1] -> depth in which pixels at a step
    belong to one of its sides, the one that they resemble in depth and colour.

    All in inverse depth, in which planes are linear and the sky is 0.
    """
    unknown = depth == 0
    inverse = torch.where(unknown, torch.zeros_like(depth), 1 / depth)
    rows, columns = (highest_around(_is_step(inverse), NEAR) & ~highest_around(unknown, FAR)).nonzero(as_tuple=True)
    if len(rows) == 0:
        return depth
    around = _around(torch.cat([inverse[None], image]), rows, columns)  # [N, 4, patch]
    own = around[..., around.shape[-1] // 2]
    values = around[:, 0]
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    position = (values - low) / (high - low)
    distance = _distances(depth)
    sides = []
    for mask in (position < SIDE, position > 1 - SIDE):
        weight = mask * distance
        total = weight.sum(1, keepdim=True)
        mean = (around * weight[:, None]).sum(2) / total
        sides.append((mean[:, 0], (mean[:, 1:] - own[:, 1:]).square().sum(1).sqrt()))
    (far, unlike_far), (near, unlike_near) = sides
    position = position[:, position.shape[1] // 2]
    vote = position - 0.5 + COLOUR * (unlike_far - unlike_near) / (unlike_far + unlike_near + 0.05)
    chosen = torch.where(vote > 0, torch.where(position > 1 - SIDE, own[:, 0], near), far)
    chosen = torch.where((vote <= 0) & (position < SIDE), own[:, 0], chosen)
    sharp = depth.clone()
    sharp[rows, columns] = torch.where(chosen > FARTHEST, 1 / chosen, torch.inf)
    return sharp


def finer_depth(depth: Tensor, picture: Tensor) -> Tensor:
    """depth [H, W] along +Z (0 = unknown, inf = sky), picture [3, 2 H, 2 W] in [0, 1] of the same -> depth [2 H, 2 W]
    whose edges are the picture's: linear in inverse depth, and where depth jumps one of the depths that are there, as
    `sharpen_edges` chooses, so that nothing hangs in between."""
    size, known = picture.shape[-2:], depth > 0
    inverse = torch.where(known, 1 / torch.where(known, depth, 1), 0)
    smooth, same = (F.interpolate(inverse[None, None], size, mode=mode)[0, 0] for mode in ("bilinear", "nearest"))
    mixed = torch.where(_twice(highest_around(~known, 3)), same, smooth)  # nothing is mixed with what is unknown
    mixed = torch.where(mixed > FARTHEST, 1 / mixed.clamp_min(FARTHEST), torch.inf)
    sharp = sharpen_edges(torch.where(_twice(known), mixed, 0), picture)
    rows, columns = (_twice(highest_around(jumps(inverse, STEP), 1)) & _twice(known)).nonzero(as_tuple=True)
    if len(rows) == 0:
        return sharp
    there = F.pad(torch.stack([inverse, known.float()])[None], (1,) * 4, mode="replicate")[0]
    offsets = [(down, across) for down in range(3) for across in range(3)]
    around = torch.stack([there[:, rows // 2 + down, columns // 2 + across] for down, across in offsets])  # [9, 2, N]
    away = torch.where(around[:, 1] > 0, (around[:, 0] - 1 / sharp[rows, columns]).abs(), torch.inf)
    chosen = around[:, 0].gather(0, away.argmin(0, keepdim=True))[0]
    sharp[rows, columns] = torch.where(chosen > FARTHEST, 1 / chosen.clamp_min(FARTHEST), torch.inf)
    return sharp


def jumps(inverse: Tensor, least: float) -> Tensor:
    """inverse depth [..., H, W] (sky and unknown: 0) -> bool: where it rises by more than the share `least` from one
    side of a pixel to the other, and hardly more around; a plane, on which it is linear, rises three times as much."""
    highest, rise = _highest_and_rise(inverse, 1)
    return (rise > least * highest) & (rise > JUMP * _highest_and_rise(inverse, 3)[1])


def _twice(mask: Tensor) -> Tensor:
    return mask.repeat_interleave(2, 0).repeat_interleave(2, 1)


def _is_step(inverse: Tensor) -> Tensor:
    """Where inverse depth [H, W] jumps, not where it slopes."""
    planes = _continued(_continued(inverse[None, None], FAR).mT, FAR).mT
    highest, rise = _highest_and_rise(planes, NEAR)
    _, wide = _highest_and_rise(planes, FAR)
    step = (rise > STEP * highest) & (rise > STEEPNESS * wide)
    return step[0, 0, FAR:-FAR, FAR:-FAR]


def _continued(planes: Tensor, reach: int) -> Tensor:
    """[1, 1, H, W] -> [1, 1, H, W + 2 * reach]: mirrored about the end points, so that slopes go on."""
    left = 2 * planes[..., :1] - planes[..., 1 : reach + 1].flip(-1)
    right = 2 * planes[..., -1:] - planes[..., -reach - 1 : -1].flip(-1)
    return torch.cat([left, planes, right], dim=-1)


def _highest_and_rise(planes: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    highest = highest_around(planes, reach)
    return highest, highest - lowest_around(planes, reach)


def _around(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """planes [C, H, W] -> the square of REACH pixels about each of N pixels, [N, C, (2 * REACH + 1)^2]."""
    padded = F.pad(planes[None], (REACH,) * 4, mode="replicate")[0]
    width = padded.shape[2]
    steps = torch.arange(2 * REACH + 1, device=planes.device)
    offsets = (steps[:, None] * width + steps).flatten()
    return padded.flatten(1)[:, (rows * width + columns)[:, None] + offsets].transpose(0, 1)


def _distances(like: Tensor) -> Tensor:
    """[(2 * REACH + 1)^2] weights of a square's pixels, falling from its middle."""
    steps = torch.arange(-REACH, REACH + 1, device=like.device)
    return torch.exp(-(steps[:, None].square() + steps.square()) / (2 * (REACH / 2) ** 2)).flatten()
