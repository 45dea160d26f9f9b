"""Cameras and views around the splatting, lookup and ray kernels.

It knows which pixels a view turns into points (known, finite depth; the sky is never one) and nothing of memory,
models or time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.lookup import SEEN_AS_SKY, SEEN_BY_NONE, look_up
from photowalk.kernels.rays import ray_blocks
from photowalk.kernels.splatting import pixel_maps
from photowalk.kernels.splatting_nearest import splat_nearest
from photowalk.kernels.splatting_soft import Steps, group_softness, soft_depth_range, splat_soft
from photowalk.scene.types import View

NO_SOURCE = -1
SAME_POINT = 0.02  # relative difference of depth up to which what lands on one pixel is one surface
SAME_SURFACE = 0.03  # relative difference of depth up to which two views saw one surface


@dataclass(frozen=True)
class Warped:
    values: Tensor  # [F, C, H, W], `background` where nothing lands
    depth: Tensor  # [F, H, W] along +Z of the target, 0 where nothing lands
    known: Tensor  # [F, H, W] bool


@dataclass(frozen=True)
class Composite:
    video: Tensor  # [F, 3, H, W] in [0, 1], 0 where unknown
    depth: Tensor  # [F, H, W] along +Z, 0 = unknown, inf = sky
    known: Tensor  # [F, H, W] bool, a surface or sky that some view saw
    sky: Tensor  # [F, H, W] bool, known as sky
    source: Tensor  # [F, H, W] int32, index of the view, NO_SOURCE where unknown


def warp(
    values: Tensor,  # [V, C, H, W]
    depth: Tensor,  # [V, H, W] along +Z; 0, NaN and inf are no points
    sources: Cameras,  # [V]
    targets: Cameras,  # [F]
    *,
    mode: Literal["soft", "nearest"] = "soft",
    pixel_centre: float = PIXEL_CENTRE,
    group: int = 16,
    background: float = 0.0,
    invalid_at_origin: bool = False,
    built: slice | list[int] = slice(None),
    fused: bool = True,
) -> Warped:
    """All sources splatted together into the targets, or into those chosen by `built`.

    `group`, `invalid_at_origin` and `fused` concern the soft rule only, whose softness always counts all targets. To
    compare, what is not `fused` is splatted channel by channel into all targets, of which some are then chosen.
    """
    if values.shape[0] != len(sources) or values.shape[2:] != depth.shape[1:] or len(depth) != len(sources):
        raise ValueError(
            f"warp wants values [V, C, H, W], depth [V, H, W] and V cameras, got {tuple(values.shape)}, "
            f"{tuple(depth.shape)} and {len(sources)} cameras"
        )
    poses = (sources.camera_from_world, sources.intrinsics, targets.camera_from_world, targets.intrinsics)
    size = (targets.height, targets.width)
    if mode == "nearest":
        maps = pixel_maps(*poses)
        found, found_depth, source = splat_nearest(
            values,
            depth,
            (maps[0][built], maps[1][built]),
            size,
            magnification=targets.intrinsics[built, None, 0, 0] / sources.intrinsics[:, 0, 0],
            pixel_centre=pixel_centre,
            background=background,
        )
        return Warped(found, found_depth, source >= 0)
    steps = Steps.of(*poses)
    softness = group_softness(depth, steps, pixel_centre=pixel_centre, group=group, invalid_at_origin=invalid_at_origin)
    chosen = built if fused else slice(None)
    parts = [values] if fused else [*values.split(1, dim=1), values[:, :0]]
    splats = [
        splat_soft(
            part,
            depth,
            steps[chosen],
            size,
            softness=softness[chosen],
            pixel_centre=pixel_centre,
            background=background,
        )
        for part in parts
    ]
    found, found_depth, known = torch.cat([splat[0] for splat in splats], dim=1), *splats[-1][1:]
    return Warped(found, found_depth, known) if fused else Warped(found[built], found_depth[built], known[built])


def soft_depth_limits(
    depth: Tensor,  # [V, H, W]
    sources: Cameras,  # [V]
    targets: Cameras,  # [F]
    *,
    pixel_centre: float = PIXEL_CENTRE,
    group: int = 16,
    invalid_at_origin: bool = False,
    among: slice | list[int] = slice(None),
) -> tuple[float, float]:
    """Least and greatest depth of a soft warp over all pixels of the targets `among`, without storing it."""
    steps = Steps.of(sources.camera_from_world, sources.intrinsics, targets.camera_from_world, targets.intrinsics)
    softness = group_softness(depth, steps, pixel_centre=pixel_centre, group=group, invalid_at_origin=invalid_at_origin)
    size = (targets.height, targets.width)
    lowest, highest = soft_depth_range(depth, steps[among], size, softness=softness[among], pixel_centre=pixel_centre)
    return float(lowest.amin()), float(highest.amax())


def composite(views: Sequence[View], targets: Cameras, *, pixel_centre: float = PIXEL_CENTRE) -> Composite:
    """What the views together show of the targets, by one hard z-buffer.

    Views may differ in size. The nearest surface wins; where several views saw that surface, the first in the list
    gives the colour. Splatting finds the surface; its colour is then looked up, since interpolation keeps pictures
    sharper than scattering. Pixels that no surface reaches take the sky of the first view that saw sky in their
    direction, wherever the camera went.
    """
    if not views:
        raise ValueError("a composite wants at least one view")
    stacks = [_stacked(list(group)) for _, group in groupby(views, key=lambda view: view.image.shape)]
    splatted, depth, source = _nearest_of(stacks, targets, pixel_centre)
    depth = close_cracks(depth)
    video, seen_by = _first_to_see(stacks, depth, targets, pixel_centre)
    sky = seen_by >= SEEN_AS_SKY
    found = seen_by != SEEN_BY_NONE
    return Composite(
        torch.where(found[:, None], video, splatted),
        torch.where(sky, torch.inf, depth),
        found | (source >= 0),
        sky,
        torch.where(sky, seen_by - SEEN_AS_SKY, torch.where(found, seen_by, source)),
    )


@dataclass(frozen=True)
class _Stack:
    """Views of one size that follow each other in a list."""

    images: Tensor  # [V, 3, H, W]
    depths: Tensor  # [V, H, W]
    poses: Tensor  # [V, 4, 4]
    intrinsics: Tensor  # [V, 3, 3]


def _stacked(views: list[View]) -> _Stack:
    return _Stack(
        torch.stack([view.image for view in views]),
        torch.stack([view.depth for view in views]),
        torch.stack([view.camera.camera_from_world for view in views]),
        torch.stack([view.camera.intrinsics for view in views]),
    )


def _nearest_of(stacks: list[_Stack], targets: Cameras, pixel_centre: float) -> tuple[Tensor, Tensor, Tensor]:
    """`splat_nearest` of all stacks: colours, depth and the index of the view."""
    nearest: tuple[Tensor, Tensor, Tensor] | None = None
    first = 0
    for stack in stacks:
        splatted, depth, source = splat_nearest(
            stack.images,
            stack.depths,
            pixel_maps(stack.poses, stack.intrinsics, targets.camera_from_world, targets.intrinsics),
            (targets.height, targets.width),
            magnification=targets.intrinsics[:, None, 0, 0] / stack.intrinsics[:, 0, 0],
            pixel_centre=pixel_centre,
            tolerance=SAME_POINT,
            facets=True,
        )
        if nearest is not None:
            source = torch.where(source >= 0, source + first, source)
            in_front = (depth > 0) & ((nearest[1] == 0) | (depth < nearest[1] * (1 - SAME_POINT)))
            splatted = torch.where(in_front[:, None], splatted, nearest[0])
            depth, source = torch.where(in_front, depth, nearest[1]), torch.where(in_front, source, nearest[2])
        nearest = splatted, depth, source
        first += len(stack.images)
    assert nearest is not None
    return nearest


def _first_to_see(stacks: list[_Stack], depth: Tensor, targets: Cameras, pixel_centre: float) -> tuple[Tensor, Tensor]:
    """`look_up` in all stacks: colours and the index of the view."""
    found: tuple[Tensor, Tensor] | None = None
    first = 0
    for stack in stacks:
        video, seen_by = look_up(
            depth,
            targets.camera_from_world,
            targets.intrinsics,
            stack.images,
            stack.depths,
            stack.poses,
            stack.intrinsics,
            pixel_centre=pixel_centre,
            tolerance=SAME_SURFACE,
        )
        if found is not None:
            seen_by = torch.where(seen_by != SEEN_BY_NONE, seen_by + first, seen_by)
            earlier = found[1] != SEEN_BY_NONE
            video, seen_by = torch.where(earlier[:, None], found[0], video), torch.where(earlier, found[1], seen_by)
        found = video, seen_by
        first += len(stack.images)
    assert found is not None
    return found


def close_cracks(depth: Tensor, reach: int = 3, ratio: float = 1.08) -> Tensor:
    """Fill the gaps in depth [F, H, W] (0 = nothing) that a stretched surface leaves between its points.

    A gap takes the mean of the nearest known pixels on two opposite sides, at most `reach` away, if their depths differ
    by less than `ratio`: then one surface goes on behind it. Wider gaps and gaps between two surfaces stay.
    """
    closed = depth
    for axis in (-1, -2):
        before, after = depth, depth
        for _ in range(reach):
            before = torch.where(before > 0, before, _shifted(before, 1, axis))
            after = torch.where(after > 0, after, _shifted(after, -1, axis))
        lower, upper = torch.minimum(before, after), torch.maximum(before, after)
        between = (closed == 0) & (lower > 0) & (upper < ratio * lower)
        closed = torch.where(between, (lower + upper) / 2, closed)
    return closed


def _shifted(values: Tensor, steps: int, axis: int) -> Tensor:
    """Moved along an axis; what comes in is 0."""
    moved = torch.zeros_like(values)
    size = values.shape[axis]
    start, source = max(steps, 0), max(-steps, 0)
    length = size - abs(steps)
    moved.narrow(axis, start, length).copy_(values.narrow(axis, source, length))
    return moved


def ray_features(cameras: Cameras, side: int) -> Tensor:
    """Cameras [T] -> [6 * side * side, T, height / side, width / side]: origin and direction of every pixel's ray."""
    if cameras.height % side or cameras.width % side:
        raise ValueError(f"rays in blocks of {side} want sides divisible by it, got {cameras.height}x{cameras.width}")
    return ray_blocks(cameras.world_from_camera, cameras.intrinsics, (cameras.height, cameras.width), side)
