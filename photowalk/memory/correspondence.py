"""Correspondence: where each pixel of the new frames lies in the recalled views.

Every recalled view carries a canonical map, its pixel coordinates and its slot; the map is warped by the view's depth
into the new cameras, with the depth at which it lands. Only the frames that a latent frame stands for are built. The
module knows nothing of networks; memory slots have constant features that hang on the resolution alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.splatting import reliable_depth
from photowalk.scene.types import View
from photowalk.scene.warping import Warped, warp

COORDINATES = 4  # x, y, slot, depth
NOTHING_SEEN = -1.0  # coordinates where nothing lands
ABSENT_DEPTH = 1.0  # depth channel of a slot without a view


def canonical_map(slot: int, slots: int, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """[3, H, W] in [-1, 1]: x and y with both ends included, and the slot (0 the worst) as a constant."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, device=device) for n in size), indexing="ij")
    slot_value = torch.linspace(-1, 1, slots, device=device)[slot]
    return torch.stack([x, y, slot_value.expand(size)])


def slot_features(slots: int, latent_size: tuple[int, int], side: int) -> Tensor:
    """[slots * 4 * side^2, slots, h, w]: the features of the memory slots themselves, constants of the resolution.

    Every slot carries its own canonical map in every group of channels; the depth is -1 in the first group, else +1.
    """
    size = (latent_size[0] * side, latent_size[1] * side)
    maps = torch.stack([canonical_map(slot, slots, size) for slot in range(slots)])  # [slots, 3, H, W]
    groups = []
    for group in range(slots):
        depth = torch.full((slots, 1, *size), -1.0 if group == 0 else 1.0)
        groups.append(torch.cat([maps, depth], dim=1))
    return F.pixel_unshuffle(torch.cat(groups, dim=1), side).transpose(0, 1).contiguous()


def correspondence_features(
    recalled: Sequence[View],  # at most `slots`, worst first
    targets: Cameras,  # [F]
    *,
    slots: int,
    latent_size: tuple[int, int],
    side: int,  # condition pixels per latent pixel
    every: int,  # frames per latent frame: the last frame of each group is built
    inverse_depth: bool,  # False: depth scaled by its range over all views, frames and pixels, as published
    pixel_centre: float = PIXEL_CENTRE,
    mode: Literal["soft", "nearest"] = "soft",
    group: int = 16,
    clean: float | None = 0.05,  # depth that is steadier than this ratio is splatted; None: all of it
    invalid_at_origin: bool = False,
) -> Tensor:
    """-> [slots * 4 * side^2, F / every, h, w], the best view's group of channels first.

    Channel = group * 4 side^2 + c * side^2 + row * side + column, c = x, y, slot, depth. Where nothing lands x, y and
    slot are -1. Groups without a view hold -1 and depth +1.
    """
    if len(recalled) > slots or len(targets) % every:
        raise ValueError(
            f"correspondence wants at most {slots} views and a multiple of {every} frames, "
            f"got {len(recalled)} views and {len(targets)} frames"
        )
    size = (latent_size[0] * side, latent_size[1] * side)
    built = list(range(every - 1, len(targets), every))
    others = sorted(set(range(len(targets))) - set(built))
    targets = targets.resized(*size)
    splat = partial(
        _splat, targets=targets, mode=mode, pixel_centre=pixel_centre, group=group, invalid_at_origin=invalid_at_origin
    )
    warps, ranges = [], []
    for rank, view in enumerate(reversed(recalled)):
        depth, camera = _at_size(view, size, pixel_centre)
        if clean is not None:
            depth = torch.where(reliable_depth(depth, ratio=clean), depth, 0.0)
        canonical = canonical_map(slots - 1 - rank, slots, size, depth.device)
        warps.append(splat(canonical[:2], depth, camera, built=built))
        if others and not inverse_depth:
            ranges.append(splat(canonical[:0], depth, camera, built=others).depth.aminmax())
    depths = _inverse_depths(warps) if inverse_depth else _ranged_depths(warps, ranges)
    absent = targets.intrinsics.new_full((len(built), COORDINATES, *size), NOTHING_SEEN, dtype=torch.float32)
    absent[:, 3] = ABSENT_DEPTH
    groups = [absent] * slots
    for rank, (warped, depth) in enumerate(zip(warps, depths)):
        slot_value = torch.linspace(-1, 1, slots)[slots - 1 - rank]
        slot = torch.where(warped.known, slot_value.to(depth), NOTHING_SEEN)
        groups[rank] = torch.cat([warped.values, slot[:, None], depth[:, None]], dim=1)
    return F.pixel_unshuffle(torch.cat(groups, dim=1), side).transpose(0, 1).contiguous()


def _splat(values: Tensor, depth: Tensor, camera: Cameras, targets: Cameras, **kwargs) -> Warped:
    return warp(values[None], depth[None], camera[None], targets, background=NOTHING_SEEN, **kwargs)


def _at_size(view: View, size: tuple[int, int], pixel_centre: float) -> tuple[Tensor, Cameras]:
    """Every n-th pixel of the depth (the one at the middle of its block) and the camera that has those pixels."""
    stride = view.camera.height // size[0]
    if (size[0] * stride, size[1] * stride) != (view.camera.height, view.camera.width):
        raise ValueError(f"a view of {view.camera.height}x{view.camera.width} is no multiple of {size[0]}x{size[1]}")
    if stride == 1:
        return view.depth, view.camera
    middle = stride // 2
    camera = view.camera.resized(*size)
    intrinsics = camera.intrinsics.clone()
    intrinsics[:2, 2] += pixel_centre - (middle + pixel_centre) / stride
    return view.depth[middle::stride, middle::stride], Cameras(camera.camera_from_world, intrinsics, *size)


def _ranged_depths(warps: list[Warped], others: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Published: 2 (d - min) / (max - min) - 1 over all views, frames and pixels, holes counting as 0. `others` are
    the least and greatest depths of the frames that are not built."""
    if not warps:
        return []
    ranges = [warped.depth.aminmax() for warped in warps] + others
    lowest = min(float(low) for low, _ in ranges)
    highest = max(float(high) for _, high in ranges)
    return [2 * (warped.depth - lowest) / max(highest - lowest, 1e-6) - 1 for warped in warps]


def _inverse_depths(warps: list[Warped]) -> list[Tensor]:
    """1 at the camera, 0 at the target's median depth, towards -1 far away and where nothing lands."""
    if not warps:
        return []
    depths = torch.stack([warped.depth for warped in warps])  # [K, T, H, W]
    known = torch.where(depths > 0, depths, torch.nan).transpose(0, 1).flatten(1)
    median = known.nanmedian(1).values.nan_to_num(1.0)[:, None, None]  # [T, 1, 1]
    closeness = torch.where(depths > 0, median / (median + depths), 0.0)
    return list(2 * closeness - 1)
