"""Correspondence: where each pixel of the new frames lies in the recalled views.

Every recalled view carries a canonical map, its pixel coordinates and its slot; the map is warped by the view's depth
into the new cameras, with the depth at which it lands. Only the frames that a latent frame stands for are built. The
module knows nothing of networks; what memory slots say of themselves is `models.conditioning.memory_correspondence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.splatting import reliable_depth
from photowalk.scene.types import View
from photowalk.scene.warping import soft_depth_limits, warp

COORDINATES = 4  # x, y, slot, depth
NOTHING_SEEN = -1.0  # coordinates where nothing lands
ABSENT_DEPTH = 1.0  # depth channel of a slot without a view


def canonical_map(slot: int, slots: int, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """[3, H, W] in [-1, 1]: x and y with both ends included, and the slot (0 the worst) as a constant."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, device=device) for n in size), indexing="ij")
    slot_value = torch.linspace(-1, 1, slots, device=device)[slot]
    return torch.stack([x, y, slot_value.expand(size)])


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
    fused: bool = True,
) -> Tensor:
    """-> [slots * 4 * side^2, F / every, h, w], the best view's group of channels first.

    Channel = group * 4 side^2 + c * side^2 + row * side + column, c = x, y, slot, depth. Where nothing lands x, y and
    slot are -1. Groups without a view hold -1 and depth +1. `fused` as in `scene.warping.warp`.
    """
    if len(recalled) > slots or len(targets) % every:
        raise ValueError(
            f"correspondence wants at most {slots} views and a multiple of {every} frames, "
            f"got {len(recalled)} views and {len(targets)} frames"
        )
    if mode != "soft" and not inverse_depth:
        raise ValueError("depth scaled by its range is a published rule that goes with mode='soft'")
    size = (latent_size[0] * side, latent_size[1] * side)
    targets = targets.resized(*size)
    built = list(range(every - 1, len(targets), every))
    others = sorted(set(range(len(targets))) - set(built))
    rule: dict[str, Any] = {"pixel_centre": pixel_centre, "group": group, "invalid_at_origin": invalid_at_origin}
    way: dict[str, Any] = {"mode": mode, "background": NOTHING_SEEN, "fused": fused}
    blocks = _Blocks(slots, len(built), latent_size, side, targets.intrinsics.device)
    depths, limits = [], []
    for rank, view in enumerate(reversed(recalled)):
        depth, camera = _at_size(view, size, pixel_centre)
        if clean is not None:
            depth = torch.where(reliable_depth(depth, ratio=clean), depth, 0.0)
        canonical = canonical_map(slots - 1 - rank, slots, size, depth.device)
        points = (depth[None], camera[None], targets)
        warped = warp(canonical[None, :2], *points, built=built, **way, **rule)
        blocks.write(rank, slice(0, 2), warped.values)
        blocks.write(rank, slice(2, 3), torch.where(warped.known, canonical[2, 0, 0], NOTHING_SEEN)[:, None])
        depths.append(warped.depth)
        if others and not inverse_depth:
            limits.append(soft_depth_limits(*points, among=others, **rule))
    for rank, depth in enumerate(_inverse(depths) if inverse_depth else _ranged(depths, limits)):
        blocks.write(rank, slice(3, 4), depth[:, None])
    return blocks.features()


class _Blocks:
    """The features while they are written, map by map, since at the published size a copy of them is 640 MB."""

    def __init__(self, slots: int, frames: int, latent_size: tuple[int, int], side: int, device: torch.device) -> None:
        self.channels = torch.full((slots, COORDINATES, side, side, frames, *latent_size), NOTHING_SEEN, device=device)
        self.channels[:, 3] = ABSENT_DEPTH

    def write(self, rank: int, coordinates: slice, pictures: Tensor) -> None:
        """pictures [T, c, H, W]"""
        side = self.channels.shape[2]
        blocks = pictures.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [T, c, h, side, w, side]
        self.channels[rank, coordinates] = blocks.permute(1, 3, 5, 0, 2, 4)

    def features(self) -> Tensor:
        return self.channels.flatten(0, 3)


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


def _ranged(depths: list[Tensor], limits: list[tuple[float, float]]) -> list[Tensor]:
    """Published: 2 (d - min) / (max - min) - 1 over all views, frames and pixels, holes counting as 0. `limits` are the
    least and greatest depths of the frames that are not built."""
    limits = [(float(depth.amin()), float(depth.amax())) for depth in depths] + limits
    lowest = min((low for low, _ in limits), default=0.0)
    highest = max((high for _, high in limits), default=0.0)
    return [2 * (depth - lowest) / max(highest - lowest, 1e-6) - 1 for depth in depths]


def _inverse(depths: list[Tensor]) -> list[Tensor]:
    """1 at the camera, 0 at the target's median depth, towards -1 far away and where nothing lands."""
    if not depths:
        return []
    stacked = torch.stack(depths)  # [K, T, H, W]
    known = torch.where(stacked > 0, stacked, torch.nan).transpose(0, 1).flatten(1)
    median = known.nanmedian(1).values.nan_to_num(1.0)[:, None, None]  # [T, 1, 1]
    closeness = torch.where(stacked > 0, median / (median + stacked), 0.0)
    return list(2 * closeness - 1)
