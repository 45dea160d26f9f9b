"""Windows of a video that were reconstructed one by one, brought into one world: for each a similarity, from the
cameras and the surfaces that it shares with the one before.

The published rule: cameras weigh ten times as much as all points together, near points more than far ones, and the
points that fit worst are left out. It knows neither the network nor which splats are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from photowalk.geometry.motions import Similarity, quaternion_from_rotation, rotation_from_quaternion
from photowalk.models.depth_anything3.splats import harmonics_rotation
from photowalk.perception.pose_alignment import align_centres
from photowalk.scene.types import Splats

CAMERA_WEIGHT, POINT_WEIGHT = 10.0, 1.0  # of all together
KEPT_SHARE, ROUNDS = 0.8, 3  # of the points, after each fit but the last
FEWEST_POINTS = 1000
NEAREST, CLIPPED = 1e-3, 0.98  # depth from which a point counts; quantile above which closeness no longer does


def join(source: Tensor, target: Tensor, points: Tensor, wanted: Tensor, weights: Tensor) -> Similarity:
    """From the world of a window to the one of those before: poses world_from_camera [S, 4, 4] of the shared frames in
    both, points [P, 3] in both and their weights [P] >= 0. With too few points the cameras' centres decide alone."""
    used = (weights > 0) & points.isfinite().all(-1) & wanted.isfinite().all(-1)
    if int(used.sum()) >= FEWEST_POINTS:
        try:
            return robust_similarity(source[:, :3, 3], target[:, :3, 3], points[used], wanted[used], weights[used])
        except ValueError:  # everything at one place
            pass
    found = align_centres(target, source)
    return Similarity(torch.tensor(found.scale, dtype=torch.float64), found.rotation, found.translation)


def robust_similarity(
    centres: Tensor,
    wanted_centres: Tensor,
    points: Tensor,
    wanted: Tensor,
    weights: Tensor,
    *,
    kept_share: float = KEPT_SHARE,
) -> Similarity:
    """centres [S, 3] and points [P, 3] in both worlds, weights [P] > 0 of the points. Raises ValueError where they
    coincide."""
    weights = _mean_one(weights.double())
    centres, wanted_centres, points, wanted = (each.double() for each in (centres, wanted_centres, points, wanted))
    kept = torch.ones_like(weights, dtype=torch.bool)

    def fit() -> Similarity:
        shares = [
            torch.full_like(centres[:, 0], CAMERA_WEIGHT / len(centres)),
            POINT_WEIGHT * weights[kept] / weights[kept].sum(),
        ]
        return Similarity.fit(
            torch.cat([centres, points[kept]]), torch.cat([wanted_centres, wanted[kept]]), torch.cat(shares)
        )

    found = fit()
    for _ in range(ROUNDS):
        misfit = (found(points) - wanted).norm(dim=-1) / weights.sqrt()
        better = misfit <= misfit.quantile(kept_share) if len(misfit) else kept
        if int(better.sum()) < FEWEST_POINTS or bool((better == kept).all()):
            break
        kept = better
        found = fit()
    return found


def closeness(depth: Tensor, *, power: float = 1.0, clipped: float = CLIPPED) -> Tensor:
    """Depth [P] of points in the camera that saw them -> weights [P] of mean one over those that count, 0 for points
    that are too near or behind; 1 for all where every point is."""
    near = depth > NEAREST
    if not bool(near.any()):
        return torch.ones_like(depth)
    weights = torch.where(near, depth.clamp_min(NEAREST) ** -power, 0.0)
    return _mean_one(weights.clamp(max=float(weights[near].quantile(clipped))))


def moved(splats: Splats, similarity: Similarity) -> Splats:
    """Splats of degree 0 to 2 in another world."""
    rotation = similarity.rotation
    turned = rotation @ rotation_from_quaternion(splats.rotations).to(rotation)
    terms = splats.colours.shape[1]
    colours = harmonics_rotation(rotation)[:terms, :terms] @ splats.colours.to(rotation)
    return Splats(
        similarity(splats.means.to(rotation)).to(splats.means),
        splats.scales * float(similarity.scale),
        quaternion_from_rotation(turned).to(splats.rotations),
        splats.opacities,
        colours.to(splats.colours),
    )


def _mean_one(weights: Tensor) -> Tensor:
    return weights / weights[weights > 0].mean()
