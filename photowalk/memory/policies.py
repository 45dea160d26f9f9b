"""How recall chooses among remembered frames. A policy sees points and target cameras, never pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.kernels.visibility import coverage

OWNERSHIP_TOLERANCE = 1e-6  # published: world units up to which points share a cell


@dataclass(frozen=True)
class Candidates:
    """Remembered frames in the order in which they were remembered."""

    points: Sequence[Tensor]  # C clouds [N, 3] in the world, NaN = no point
    frames: Sequence[int]  # [C]
    stride: int  # pixels between neighbouring points, and the grid on which they meet
    pixel_centre: float = PIXEL_CENTRE

    def coverage(self, targets: Cameras, *, tolerance: float = 0.0, relative_tolerance: float = 0.0) -> Tensor:
        """bool [C, cells of all targets]: which cells show a point of which candidate."""
        return coverage(
            self.points,
            targets.camera_from_world,
            targets.intrinsics,
            (targets.height, targets.width),
            stride=self.stride,
            pixel_centre=self.pixel_centre,
            tolerance=tolerance,
            relative_tolerance=relative_tolerance,
        )


class Policy(Protocol):
    def choose(self, candidates: Candidates, targets: Cameras, count: int) -> list[int]:
        """At most `count` indices into the candidates, from the worst to the best."""
        ...


@dataclass(frozen=True)
class GreedyCoverage:
    """Take again and again the frame that shows most of what no chosen frame shows yet.

    The newest frame counts as chosen from the start, since its warp is the main condition anyway. Published: absolute
    tolerance 0.1, whatever the scale of the scene.
    """

    tolerance: float = 0.0  # world units behind the nearest point up to which a point is visible
    relative_tolerance: float = 0.05  # and as a fraction of the nearest depth

    def choose(self, candidates: Candidates, targets: Cameras, count: int) -> list[int]:
        seen = candidates.coverage(targets, tolerance=self.tolerance, relative_tolerance=self.relative_tolerance)
        free = torch.ones(len(seen), dtype=torch.bool, device=seen.device)
        owner, cell = seen.nonzero(as_tuple=True)  # few of all cells, so that every round is short
        covered = torch.zeros_like(seen[0])
        newest = max(range(len(seen)), key=lambda c: candidates.frames[c])
        if candidates.frames[newest] > 0:
            covered, free[newest] = seen[newest].clone(), False
        chosen: list[int] = []
        while len(chosen) < count:
            gain = torch.bincount(owner[~covered[cell]], minlength=len(seen)).where(free, -1)
            best = int((gain == gain.amax()).nonzero()[0])  # the earliest remembered on ties
            if gain[best] <= 0:
                break
            chosen.append(best)
            covered, free[best] = covered | seen[best], False
        return chosen[::-1]


@dataclass(frozen=True)
class MostOwned:
    """The frames that own most cells, a cell being owned by the candidate whose point is nearest."""

    def choose(self, candidates: Candidates, targets: Cameras, count: int) -> list[int]:
        owned = _owned_cells(candidates, targets)
        return owned.sort(descending=True, stable=True).indices[:count].flip(0).tolist()


@dataclass(frozen=True)
class RandomOwnership:
    """The training rule: frames drawn in proportion to the cells they own; sometimes some are forgotten again.

    Weights are cells + 0.02 times the largest count, drawn without replacement; with probability `drop` a uniformly
    chosen number of the drawn frames, from one to all, is left out.
    """

    seed: int
    drop: float = 0.1

    def choose(self, candidates: Candidates, targets: Cameras, count: int) -> list[int]:
        random = torch.Generator().manual_seed(self.seed)
        weights = self.weights(candidates, targets)
        if weights.amax() <= 0:
            return []
        drawn = torch.multinomial(weights, min(count, len(weights)), generator=random)
        chosen = drawn.flip(0).tolist()
        return _forget(chosen, self.drop, random)

    @staticmethod
    def weights(candidates: Candidates, targets: Cameras) -> Tensor:
        """[C] float32 on the CPU: how likely each candidate is drawn first."""
        owned = _owned_cells(candidates, targets).float().cpu()
        return owned + 0.02 * owned.amax()


@dataclass(frozen=True)
class Forgetful:
    """Another policy that forgets some of what it recalled with probability `drop`, from one view to all, so that
    training knows empty slots."""

    policy: Policy
    seed: int
    drop: float

    def choose(self, candidates: Candidates, targets: Cameras, count: int) -> list[int]:
        random = torch.Generator().manual_seed(self.seed)
        return _forget(self.policy.choose(candidates, targets, count), self.drop, random)


def _forget(chosen: list[int], drop: float, random: torch.Generator) -> list[int]:
    if not chosen or float(torch.rand((), generator=random)) >= drop:
        return chosen
    forgotten = int(torch.randint(1, len(chosen) + 1, (), generator=random))
    kept = torch.randperm(len(chosen), generator=random)[forgotten:].sort().values
    return [chosen[i] for i in kept.tolist()]


def _owned_cells(candidates: Candidates, targets: Cameras) -> Tensor:
    """[C] cells that each candidate owns; ties go to the one remembered first."""
    seen = candidates.coverage(targets, tolerance=OWNERSHIP_TOLERANCE)
    return (seen & (seen.cumsum(0, dtype=torch.int32) == 1)).sum(1)
