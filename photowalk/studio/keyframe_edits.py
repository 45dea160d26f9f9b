"""Changes to a list of keyframes that concern more than one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from photowalk.studio.schemas import Pose


def pulled(poses: Sequence[Pose], index: int, pose: Pose, reach: int) -> list[Pose]:
    """With keyframe `index` moved to `pose`; up to `reach` neighbours on each side follow its place, less and less."""
    shift = np.subtract(pose.position, poses[index].position)
    moved = list(poses)
    for other in range(max(index - reach, 0), min(index + reach + 1, len(poses))):
        share = math.exp(-2 * ((other - index) / max(reach, 1)) ** 2)
        place = np.add(poses[other].position, share * shift).tolist()
        moved[other] = poses[other].model_copy(update={"position": tuple(place)})
    moved[index] = pose
    return moved


def place_along(poses: Sequence[Pose], path: Sequence[Pose], index: int) -> int:
    """How many of the keyframes the path, which leads through them in order, has passed by at its pose `index`."""
    passed, at = 0, 0
    for pose in poses:
        at += int(np.argmin([_apart(pose, other) for other in path[at:]]))
        passed += at < index
    return passed


def _apart(one: Pose, other: Pose) -> float:
    """How far two poses are apart: in places, and a little in gazes."""
    turned = 1 - float(np.dot(one.wxyz, other.wxyz)) ** 2
    return float(np.linalg.norm(np.subtract(one.position, other.position))) + 0.1 * turned
