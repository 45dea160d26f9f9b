"""Which splats of overlapping reconstructions are kept: those at the rim of their pictures and the faintest go, and of
what several windows of frames describe, the window whose cameras were nearest has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras

RIM = 8 / 256  # of a picture's sides
NEAR, FAR = 0.01, 1e6
UNSEEN_BY_OTHERS, UNSEEN_BY_OWN = 1e6, 1e5  # distances to cameras that do not see a splat
SPLATS_AT_ONCE = 65536  # bounds memory, changes no value


def within_rim(views: int, height: int, width: int) -> Tensor:
    """[views * height * width] which splats, one for each pixel in the order view, row, column, are not at the rim."""
    rows, columns = int(RIM * height), int(RIM * width)
    inside = torch.zeros(views, height, width, dtype=torch.bool)
    inside[:, rows : height - rows, columns : width - columns] = True
    return inside.flatten()


def opaque(opacities: Tensor, share: float) -> Tensor:
    """[N] which splats remain without about that share of the faintest."""
    if not len(opacities):
        return torch.zeros_like(opacities, dtype=torch.bool)
    rank = min(len(opacities), max(1, int(len(opacities) * share)))
    return opacities >= opacities.kthvalue(rank).values


def owned(means: Tensor, windows: Sequence[Cameras], own: int, tolerance: float) -> Tensor:
    """means [N, 3] of the splats of window number `own` -> [N] which of them it keeps: those to which no other window
    came nearer, or only one and by less than `tolerance`. Only cameras count in whose picture a splat lies; outside its
    own window's pictures a splat belongs to any other that shows it."""
    return torch.cat([_owned(part, windows, own, tolerance) for part in means.split(SPLATS_AT_ONCE)])


def _owned(means: Tensor, windows: Sequence[Cameras], own: int, tolerance: float) -> Tensor:
    distances = torch.stack(
        [
            nearest_seeing(means, cameras, UNSEEN_BY_OWN if number == own else UNSEEN_BY_OTHERS)
            for number, cameras in enumerate(windows)
        ],
        dim=-1,
    )
    nearer = (distances < distances[:, own, None]).sum(-1)
    return (nearer == 0) | ((nearer == 1) & (distances[:, own] - distances.amin(-1) < tolerance))


def nearest_seeing(means: Tensor, cameras: Cameras, unseen: float) -> Tensor:
    """[N] distance to the nearest of the cameras [S] in whose picture a point lies; `unseen` where it lies in none."""
    nearest = torch.full_like(means[:, 0], unseen)
    for camera in cameras:
        distance = torch.where(in_picture(means, camera), (means - camera.centres).norm(dim=-1), unseen)
        nearest = torch.minimum(nearest, distance)
    return nearest


def in_picture(points: Tensor, camera: Cameras) -> Tensor:
    """[N] which points [N, 3] lie in the picture of one camera."""
    pixel, depth = camera.project(points)
    inside = (pixel >= 0).all(-1) & (pixel[:, 0] < camera.width) & (pixel[:, 1] < camera.height)
    return inside & (depth > NEAR) & (depth < FAR)
