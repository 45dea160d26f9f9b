"""Aligning a predicted world with the known one must not collapse where centres say little."""

import math

import pytest
import torch

from photowalk.geometry.motions import geodesic_angle, rotation_from_vector
from photowalk.perception.pose_alignment import align_cameras, align_centres, scale_of_depth

SCALE = 2.5


def _poses(rotations: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    poses = torch.eye(4, dtype=torch.float64).repeat(len(centres), 1, 1)
    poses[:, :3, :3], poses[:, :3, 3] = rotations, centres
    return poses


def _predicted(known: torch.Tensor, noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The known poses in a world that is turned, scaled and shifted, with noisy centres and orientations."""
    chance = torch.Generator().manual_seed(seed)
    turn = rotation_from_vector(torch.randn(3, dtype=torch.float64, generator=chance))
    shake = rotation_from_vector(noise * torch.randn(len(known), 3, dtype=torch.float64, generator=chance))
    centres = SCALE * known[:, :3, 3] @ turn.mT + torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    centres = centres + noise * torch.randn(len(known), 3, dtype=torch.float64, generator=chance)
    return _poses(turn @ known[:, :3, :3] @ shake, centres), turn


def _straight(count: int = 12) -> torch.Tensor:
    centres = torch.zeros(count, 3, dtype=torch.float64)
    centres[:, 2] = torch.linspace(0, 2, count, dtype=torch.float64)
    return _poses(torch.eye(3, dtype=torch.float64).expand(count, 3, 3), centres)


def _turning(count: int = 12) -> torch.Tensor:
    angles = torch.zeros(count, 3, dtype=torch.float64)
    angles[:, 1] = torch.linspace(0, 2, count, dtype=torch.float64)
    return _poses(rotation_from_vector(angles), torch.zeros(count, 3, dtype=torch.float64))


def test_a_straight_path_keeps_its_roll():
    known, worst_of_centres = _straight(), 0.0
    for seed in range(20):
        predicted, turn = _predicted(known, 1e-4, seed)
        found = align_cameras(predicted, known)
        assert math.degrees(float(geodesic_angle(found.rotation, turn))) < 0.1
        assert found.scale == pytest.approx(SCALE, rel=1e-3)
        try:
            by_centres = align_centres(predicted, known).rotation
        except ValueError:
            continue
        worst_of_centres = max(worst_of_centres, math.degrees(float(geodesic_angle(by_centres, turn))))
    assert worst_of_centres > 30  # why centres alone are not believed


def test_turning_in_place_takes_its_scale_from_depth():
    known = _turning()
    depth = torch.rand(12, 6, 8, dtype=torch.float64) + 1
    for noise in (1e-4, 1e-2):
        predicted, turn = _predicted(known, noise, 3)
        found = align_cameras(predicted, known, predicted_depth=SCALE * depth, known_depth=depth)
        assert found.scale == pytest.approx(SCALE, rel=1e-6)
        assert math.degrees(float(geodesic_angle(found.rotation, turn))) < 1
        without = align_cameras(predicted, known, predicted_depth=SCALE * depth, previous_scale=1.7)
        assert without.scale == 1.7
        assert align_centres(predicted, known).scale > 10  # what the published rule would divide depth by


def test_one_view_is_enough():
    known = _straight(1)
    predicted, turn = _predicted(known, 0.0, 5)
    found = align_cameras(predicted, known, previous_scale=SCALE)
    assert float(geodesic_angle(found.rotation, turn)) < 1e-6
    torch.testing.assert_close(found.to_known(predicted), known)


def test_alignment_goes_back_and_forth():
    chance = torch.Generator().manual_seed(1)
    known = _poses(_turning().clone()[:, :3, :3], torch.randn(12, 3, dtype=torch.float64, generator=chance))
    predicted, _ = _predicted(known, 0.0, 8)
    for found in (align_cameras(predicted, known), align_centres(predicted, known, ransac=True)):
        torch.testing.assert_close(found.to_predicted(known), predicted)
        torch.testing.assert_close(found.to_known(predicted), known)


def test_scale_ignores_sky_unknown_and_doubtful_depth():
    known = torch.rand(2, 10, 10) + 1
    predicted = 3 * known
    known[0, 0], known[0, 1] = torch.inf, 0
    predicted[1, :6] *= 7
    confidence = torch.ones_like(known)
    confidence[1, :6] = 0.01
    assert scale_of_depth(predicted, known, confidence) == pytest.approx(3, rel=1e-5)
    assert scale_of_depth(predicted, torch.zeros_like(known)) is None
