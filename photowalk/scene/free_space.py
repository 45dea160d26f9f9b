"""Keeps what is new out of the space that earlier views saw to be free."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.free_space import move_out_of_sight
from photowalk.scene.types import View


def out_of_the_way(
    depth: Tensor, cameras: Cameras, views: Sequence[View], *, pixel_centre: float = PIXEL_CENTRE
) -> Tensor:
    """depth [F, H, W] along +Z (0 = unknown, inf = sky) of new frames, moved back where it stands before what `views`
    saw. Without that, what a walk guesses too near hides on its return what the photo showed there."""
    if not views:
        return depth
    return move_out_of_sight(
        depth,
        cameras.camera_from_world,
        cameras.intrinsics,
        torch.stack([view.depth for view in views]),
        torch.stack([view.camera.camera_from_world for view in views]),
        torch.stack([view.camera.intrinsics for view in views]),
        pixel_centre=pixel_centre,
    )
