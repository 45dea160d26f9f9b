"""Which way the ground of one picture faces, from its depth: what the published zoom program lays its steps along.

A single plane in the lower part of the picture; the ground of a whole walk is found in perception/gravity.py.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from photowalk.scene.types import View

LOWER_SHARE = 0.4  # of the picture's rows, from below, that may show the ground
NEAR, FAR = 0.01, 500.0
FEWEST_POINTS, MOST_POINTS = 50, 20_000
TRIES = 200
TOLERANCE, LEAST_DEPTH = 0.05, 0.1  # distance from the plane as a share of the depth, which is taken to be at least


def ground_normal(view: View, *, seed: int = 0) -> Tensor | None:
    """Unit normal [3] float64 in the camera's frame, pointing up (y < 0); None where too little is seen to tell."""
    camera = replace(view.camera, camera_from_world=torch.eye(4).to(view.camera.camera_from_world))
    first = round((1 - LOWER_SHARE) * camera.height)
    depth = view.depth[first:]
    seen = (depth > NEAR) & (depth < FAR)
    points = camera.unproject(view.depth.nan_to_num(0, posinf=0))[first:][seen].double().cpu()
    random = torch.Generator().manual_seed(seed)
    if len(points) < FEWEST_POINTS:
        return None
    points = points[torch.randperm(len(points), generator=random)[:MOST_POINTS]]
    corners = points[torch.randint(len(points), (TRIES, 3), generator=random)]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = normals.norm(dim=-1, keepdim=True)
    normals = normals / length.clamp_min(1e-12)
    heights = points @ normals.T - (corners[:, 0] * normals).sum(-1)  # [N, tries]
    on = (heights.abs() < TOLERANCE * points[:, 2:].clamp_min(LEAST_DEPTH)) & (length[:, 0] > 1e-12)
    best = int(on.sum(0).argmax())
    plane = points[on[:, best]]
    if len(plane) < 3:
        return None
    normal = torch.linalg.svd(plane - plane.mean(0), full_matrices=False).Vh[2]
    return -normal if normal[1] > 0 else normal
