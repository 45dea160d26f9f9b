"""One similarity between a predicted world and the known one, from cameras that both have.

`align_centres` is the published rule, which knows centres only: on a straight path the roll about it is free, and
around a camera that stands still the scale is free. `align_cameras` takes the rotation from all orientations, the scale
from depth that both worlds see, and lets centres speak only where their spread is three-dimensional.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SMALLEST_SPREAD = float(np.finfo(np.float64).eps)  # singular value; absolute in the published rule
NUDGE = 1e-6
ROUNDS, SEED, FEWEST_FOR_RANSAC = 10, 42, 10
THREE_DIMENSIONAL = 0.05  # third singular value of the centres' spread against the first
BASELINE = 0.02  # spread of centres against depth from which centres say something about scale
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Alignment:
    """scale * rotation @ known + translation ~ predicted"""

    rotation: Tensor  # [3, 3] float64
    translation: Tensor  # [3] float64
    scale: float

    def to_known(self, world_from_camera: Tensor) -> Tensor:
        """Predicted poses [*, 4, 4] in the known world."""
        moved = world_from_camera.double().clone()
        moved[..., :3, :3] = self.rotation.mT @ world_from_camera[..., :3, :3].double()
        moved[..., :3, 3] = (world_from_camera[..., :3, 3].double() - self.translation) @ self.rotation / self.scale
        return moved.to(world_from_camera.dtype)

    def to_predicted(self, world_from_camera: Tensor) -> Tensor:
        """Known poses [*, 4, 4] in the predicted world."""
        moved = world_from_camera.double().clone()
        moved[..., :3, :3] = self.rotation @ world_from_camera[..., :3, :3].double()
        moved[..., :3, 3] = self.scale * world_from_camera[..., :3, 3].double() @ self.rotation.mT + self.translation
        return moved.to(world_from_camera.dtype)


def align_cameras(
    predicted: Tensor,
    known: Tensor,
    *,
    predicted_depth: Tensor | None = None,
    known_depth: Tensor | None = None,
    confidence: Tensor | None = None,
    previous_scale: float = 1.0,
) -> Alignment:
    """Poses world_from_camera [S, 4, 4] of both worlds; depth [S, H, W] of the same pixels (0 = unknown, inf = sky).

    Without depth that both see, the scale comes from the centres where their baseline is long against the depth
    (or where no depth is known at all but the camera moved), and else stays `previous_scale`."""
    rotation = rotation_of_orientations(predicted, known)
    here, there = known[:, :3, 3].double(), predicted[:, :3, 3].double()
    scale = None
    if predicted_depth is not None and known_depth is not None:
        scale = scale_of_depth(predicted_depth, known_depth, confidence)
    depth = None if predicted_depth is None else _middle(predicted_depth)
    spread = _spread(here)
    if scale is None and _moves(here, there, depth):
        turned = (here - here.mean(0)) @ rotation.mT
        scale = float((turned * (there - there.mean(0))).sum() / turned.square().sum())
        scale = scale if scale > SMALLEST_SCALE else None
    if scale is None:
        scale = previous_scale
    if len(known) >= 3 and spread[2] > THREE_DIMENSIONAL * spread[0] and _moves(here, there, depth):
        rotation = _nearest_rotation(rotation + align_centres(predicted, known).rotation)
    return Alignment(rotation, there.mean(0) - scale * here.mean(0) @ rotation.mT, scale)


def rotation_of_orientations(predicted: Tensor, known: Tensor) -> Tensor:
    """[S, 4, 4] twice -> the chordal mean [3, 3] of predicted @ known^T over all views: one view is enough."""
    return _nearest_rotation((predicted[:, :3, :3].double() @ known[:, :3, :3].double().mT).mean(0))


def scale_of_depth(predicted: Tensor, known: Tensor, confidence: Tensor | None = None) -> float | None:
    """Weighted median ratio of predicted to known depth where both know a surface; None where none is seen by both."""
    both = (predicted > 0) & predicted.isfinite() & (known > 0) & known.isfinite()
    if int(both.sum()) < 10:
        return None
    ratios, order = (predicted[both] / known[both]).double().sort()
    weights = torch.ones_like(ratios) if confidence is None else confidence[both].double()[order]
    below = weights.cumsum(0)
    return float(ratios[int((below < below[-1] / 2).sum())])


def align_centres(predicted: Tensor, known: Tensor, *, ransac: bool = False) -> Alignment:
    """The published rule, from centres of world_from_camera [S, 4, 4]: least squares (Umeyama 1991), with ten random
    halves where `ransac` is asked for and there are ten views. Raises ValueError where centres say nothing."""
    here, there = known[:, :3, 3], predicted[:, :3, 3]
    if not ransac or len(here) < FEWEST_FOR_RANSAC:
        return _umeyama_nudged(there, here)
    before = _umeyama_nudged(there, here)
    generator = np.random.default_rng(SEED)
    distances = torch.cdist(_moved(before, here), there.double())
    threshold = float(np.median(distances.amin(1).numpy()))
    best, best_score = before, (-1, math.inf)
    best_inliers = torch.zeros(len(here), dtype=torch.bool)
    for _ in range(ROUNDS):
        chosen = torch.from_numpy(generator.choice(len(here), max(3, math.ceil(len(here) / 2)), replace=False))
        model = _umeyama_nudged(there[chosen], here[chosen])
        errors = (_moved(model, here) - there.double()).norm(dim=-1)
        inliers = errors <= threshold
        score = (int(inliers.sum()), float(errors[inliers].mean()) if bool(inliers.any()) else math.inf)
        if score[0] > best_score[0] or (score[0] == best_score[0] and score[1] < best_score[1]):
            best, best_score, best_inliers = model, score, inliers
    return _umeyama_nudged(there[best_inliers], here[best_inliers]) if best_score[0] >= 3 else best


def _moved(alignment: Alignment, points: Tensor) -> Tensor:
    return alignment.scale * points.double() @ alignment.rotation.mT + alignment.translation


def _umeyama_nudged(there: Tensor, here: Tensor) -> Alignment:
    """Centres that lie on one line are moved apart by a millionth, both sets by the same, and tried once more."""
    found = _umeyama(there, here)
    if found is None:
        steps = torch.arange(len(here)).double()
        turns = [(2 * math.pi * pace * steps).sin() for pace in (0.07, 0.13)]
        nudge = NUDGE * torch.stack([turns[0], (2 * math.pi * 0.11 * steps).cos(), turns[1]], dim=-1)
        found = _umeyama(there + nudge.to(there), here + nudge.to(here))
    if found is None:
        raise ValueError(
            f"the world of {len(here)} camera(s) cannot be aligned by their centres alone: they do not spread enough; "
            f"align by orientations and depth instead"
        )
    return found


def _umeyama(there: Tensor, here: Tensor) -> Alignment | None:
    there, here = there.double(), here.double()
    to, of = there - there.mean(0), here - here.mean(0)
    left, values, right = torch.linalg.svd(to.mT @ of / len(here))
    if int((values > SMALLEST_SPREAD).sum()) < 2:
        return None
    signs = torch.ones(3, dtype=torch.float64)
    signs[2] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = left @ torch.diag(signs) @ right
    scale = float((values * signs).sum() / of.square().sum(-1).mean())
    return Alignment(rotation, there.mean(0) - scale * rotation @ here.mean(0), scale)


def _nearest_rotation(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix)
    signs = torch.ones(3, dtype=matrix.dtype)
    signs[2] = torch.linalg.det(left @ right)
    return left @ torch.diag(signs) @ right


def _spread(centres: Tensor) -> Tensor:
    """[3] standard deviations along the principal axes, largest first; 0 for axes that do not exist."""
    values = torch.linalg.svdvals(centres - centres.mean(0)) / math.sqrt(len(centres))
    return torch.cat([values, values.new_zeros(3)])[:3]


def _moves(known: Tensor, predicted: Tensor, depth: float | None) -> bool:
    """Whether the baseline of the predicted centres stands out from their noise: against depth where it is known. A
    path of which the known half does not move says nothing about scale, whatever the prediction does."""
    along = float(_spread(predicted)[0])
    return float(_spread(known)[0]) > 1e-4 and along > (BASELINE * depth if depth is not None else 1e-4)


def _middle(depth: Tensor) -> float | None:
    seen = depth[(depth > 0) & depth.isfinite()]
    return float(seen.median()) if len(seen) else None
