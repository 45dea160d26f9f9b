"""Where a frame was really taken from, told from the picture alone where the true picture and depth are known."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from skimage.feature import SIFT, match_descriptors
from torch import Tensor

from photowalk.scene.types import View

FEWEST = 20  # matches from which a camera is believed
RATIO = 0.8  # of the distances to the best and the second best match (Lowe 2004)
SOFT_PIXELS = 2.0  # reprojection error from which a match counts as doubtful


def camera_error(frame: Tensor, truth: View) -> tuple[float, float] | None:
    """How far the camera of `frame` [3, H, W] lies from that of `truth`: degrees, and units of the truth's depth.

    Key points of both pictures are matched, those of the truth lifted by its depth, and the pose is fitted to where the
    frame shows them (perspective n points, with a loss that doubts far-off matches). None where too few match.
    """
    found = _matches(frame, truth.image)
    if found is None:
        return None
    there, here = found
    column, row = there.astype(int).T
    depth = truth.depth.numpy().astype(float)[row, column]
    surface = (depth > 0) & np.isfinite(depth)
    if surface.sum() < FEWEST:
        return None
    there, seen, depth = there[surface], here[surface], depth[surface, None]
    intrinsics = truth.camera.intrinsics.double().numpy()
    focal, centre = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    lifted = np.concatenate([(there - centre) / focal * depth, depth], axis=1)

    def reprojection(pose: np.ndarray) -> np.ndarray:
        moved = Rotation.from_rotvec(pose[:3]).apply(lifted) + pose[3:]
        return (moved[:, :2] / moved[:, 2:].clip(1e-3) * focal + centre - seen).ravel()

    pose = least_squares(reprojection, np.zeros(6), loss="cauchy", f_scale=SOFT_PIXELS).x
    return math.degrees(float(np.linalg.norm(pose[:3]))), float(np.linalg.norm(pose[3:]))


def _matches(frame: Tensor, truth: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels [M, 2] of the truth and of the frame that look alike, or None."""
    there, here = _key_points(truth), _key_points(frame)
    if there is None or here is None:
        return None
    pairs = match_descriptors(there[1], here[1], max_ratio=RATIO, cross_check=True)
    return (there[0][pairs[:, 0]], here[0][pairs[:, 1]]) if len(pairs) >= FEWEST else None


def _key_points(picture: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions [M, 2] in pixels, x first, and descriptors [M, 128]; None if there is no key point."""
    detector = SIFT()
    try:
        detector.detect_and_extract(picture.mean(0).numpy())
    except RuntimeError:  # what SIFT raises when it finds nothing
        return None
    return np.asarray(detector.positions)[:, ::-1] + 0.5, np.asarray(detector.descriptors)
