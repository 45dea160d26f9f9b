"""Pictures continued where nothing of them is known, out of pieces of what is known.

From coarse to fine, every patch that touches a hole finds a known patch that looks like it (PatchMatch: Barnes et al.
2009), and the hole becomes what the patches over it propose (Wexler et al. 2007). It repeats what is there and
understands nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.kernels.sliding import highest_around, lowest_around

PATCH = 7  # pixels along each side
_REACH = PATCH // 2
_ROUNDS = {8: 4, 4: 4, 2: 3, 1: 2}  # of searching and voting, by how many pixels along each side are seen as one
_JUMPS = (8, 4, 2, 1)  # pixels from which a neighbour's match is taken over
_UPRIGHT = 0.3  # squared difference of colour that a patch from as much higher or lower as the picture is counts for
_FADE = 3e-4  # 1 / pixels^2; over the root of its inverse, brightness goes over into that of the patches
_EDGE = 0.2  # of [0, 1]; a larger step is where one thing ends and another begins
_STEPS = 100  # of conjugate gradients
_SPREAD = 8.0  # pixels^2; a patch's middle counts more than its rim


def synthesise(picture: Tensor, known: Tensor, guess: Tensor) -> Tensor:
    """picture [C, H, W] in [0, 1], of which `known` [H, W] bool holds, and a `guess` [C, H, W] of the rest -> as it is
    where it is known, and elsewhere made of its patches, preferably of those at the same height.

    Equal pictures give equal answers. Where no patch is known as a whole, the guess stays.
    """
    random, match, answer = torch.Generator().manual_seed(0), None, guess
    for cell, rounds in _ROUNDS.items():
        level = _Level.of(picture, known, cell)
        if level.targets.any() and level.sources.any():
            if match is None:
                match, start = level.anywhere(random), F.avg_pool2d(guess, cell)
            else:
                match = level.refined(match)
                start = level.picture[:, match[..., 0], match[..., 1]]
            answer = torch.where(level.hole, start, level.picture)
            for _ in range(rounds):
                match, difference = level.searched(answer, match, random)
                answer = level.voted(answer, match, difference)
            if cell == 1:
                return torch.where(known, picture, level.without_edges(answer, match, difference).clamp(0, 1))
    return torch.where(known, picture, guess)


@dataclass(frozen=True)
class _Level:
    """A picture [C, h, w] at one size. A match [h, w, 2] is row and column of another patch's middle."""

    picture: Tensor
    hole: Tensor  # [h, w] bool
    targets: Tensor  # [h, w] bool, middles of patches that touch the hole
    sources: Tensor  # [h, w] bool, middles of patches that are known as a whole

    @staticmethod
    def of(picture: Tensor, known: Tensor, cell: int) -> _Level:
        share = F.avg_pool2d(known.to(picture)[None], cell)
        picture = F.avg_pool2d(picture * known, cell) / share.clamp_min(1e-6)
        hole = share < 0.5
        targets = highest_around(hole, _REACH)
        inside = F.pad(~hole, [_REACH] * 4)  # what is outside is no source
        sources = lowest_around(inside, _REACH)[..., _REACH:-_REACH, _REACH:-_REACH]
        return _Level(picture, hole[0], targets[0], sources[0])

    def anywhere(self, random: torch.Generator) -> Tensor:
        known = self.sources.nonzero()
        chosen = torch.randint(len(known), (self.hole.numel(),), generator=random).to(known.device)
        return known[chosen].unflatten(0, self.hole.shape)

    def refined(self, match: Tensor) -> Tensor:
        """A match of the level with half as many rows and columns, for this one."""
        place = _places(self.hole)
        coarse = self._inside(place // 2, match.shape)
        return self._inside(2 * match[coarse[..., 0], coarse[..., 1]] + place % 2)

    def searched(self, picture: Tensor, match: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """A better match, and how different [h, w] the patches are (0 where nothing is to be matched)."""
        columns, here = self.hole.shape[1], self.targets.nonzero()
        patches = F.unfold(F.pad(picture[None], [_REACH] * 4, mode="replicate"), PATCH)[0].T
        wanted = patches[here[:, 0] * columns + here[:, 1]]

        def difference(there: Tensor) -> Tensor:
            colour = (wanted - patches[there[:, 0] * columns + there[:, 1]]).square().mean(1)
            moved = (there[:, 0] - here[:, 0]) / self.hole.shape[0]
            known = self.sources[there[:, 0], there[:, 1]]
            return torch.where(known, colour + _UPRIGHT * moved.square(), torch.inf)

        def better(candidates: Tensor) -> tuple[Tensor, Tensor]:
            candidates = self._inside(candidates)
            now = difference(candidates)
            return torch.where((now < least)[:, None], candidates, best), torch.minimum(now, least)

        match = match.clone()
        best = match[self.targets]
        least = difference(best)
        for jump in _JUMPS:
            for step in ((0, jump), (0, -jump), (jump, 0), (-jump, 0)):
                beside = self._inside(here + here.new_tensor(step))
                best, least = better(match[beside[:, 0], beside[:, 1]] - (beside - here))
                match[self.targets] = best
        radius = max(self.hole.shape)
        while radius > 1:
            anywhere = (2 * torch.rand(len(here), 2, generator=random) - 1) * radius
            best, least = better(best + anywhere.long().to(best))
            radius //= 2
        match[self.targets] = best
        differences = torch.zeros_like(picture[0])
        differences[self.targets] = least
        return match, differences

    def voted(self, picture: Tensor, match: Tensor, difference: Tensor) -> Tensor:
        """The picture with its hole as the patches over it propose, the more alike the more heard."""
        voted = picture.clone()
        voted[:, self.hole] = self._proposed(self.hole, picture, match, difference)
        return voted

    def without_edges(self, voted: Tensor, match: Tensor, difference: Tensor) -> Tensor:
        """The picture with its hole in the slopes that the patches have within them, rather than with edges where one
        ends and another one, from a brighter place, begins (Darabi et al. 2012, Image Melding): where a photo is
        darker towards its corners, what continues it is so too, and brightens slowly."""
        touched, lacking = [], torch.zeros_like(voted)
        for axis, last in ((1, (_REACH - 1, _REACH)), (2, (_REACH, _REACH - 1))):
            beside = self.hole | torch.roll(self.hole, -1, axis - 1)
            beside.narrow(axis - 1, -1, 1).zero_()
            slope, change = _slope(voted, axis), torch.zeros_like(voted)
            asked = self._proposed(beside, slope, match, difference, last) - slope[:, beside]
            change[:, beside] = torch.where(asked.abs().amax(0) < _EDGE, asked, 0)
            lacking += _slope_transposed(change, axis)
            touched.append((axis, beside))

        def normal_equations(change: Tensor) -> Tensor:
            total = _FADE * change
            for axis, beside in touched:
                total = total + _slope_transposed(_slope(change, axis) * beside, axis)
            return total * self.hole

        return voted + _conjugate_gradients(normal_equations, lacking * self.hole)

    def _proposed(
        self,
        wanted: Tensor,
        values: Tensor,
        match: Tensor,
        difference: Tensor,
        last: tuple[int, int] = (_REACH, _REACH),
    ) -> Tensor:
        """Of `values` [C, h, w] those [C, N] that patches propose for the `wanted` [h, w] pixels, which lie at most
        `last` rows and columns after their middles."""
        place = wanted.nonzero()
        finite = difference[self.targets & difference.isfinite()]
        usual = finite.median().clamp_min(1e-4) if len(finite) else difference.new_tensor(1.0)
        trust = torch.where(self.targets, torch.exp(-difference / (2 * usual)), 0) + 1e-9
        total, weight = torch.zeros_like(values[:, wanted]), torch.zeros_like(values[0, wanted])
        for row in range(-_REACH, last[0] + 1):
            for column in range(-_REACH, last[1] + 1):
                middle = self._inside(place - place.new_tensor([row, column]))
                proposed = self._inside(match[middle[:, 0], middle[:, 1]] + place - middle)
                heard = trust[middle[:, 0], middle[:, 1]] * torch.exp(-place.new_tensor(row**2 + column**2) / _SPREAD)
                total += heard * values[:, proposed[:, 0], proposed[:, 1]]
                weight += heard
        return total / weight

    def _inside(self, places: Tensor, shape: torch.Size | None = None) -> Tensor:
        rows, columns = (shape or self.hole.shape)[:2]
        return torch.stack([places[..., 0].clamp(0, rows - 1), places[..., 1].clamp(0, columns - 1)], dim=-1)


def _places(map_: Tensor) -> Tensor:
    rows, columns = (torch.arange(side, device=map_.device) for side in map_.shape)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def _slope(picture: Tensor, axis: int) -> Tensor:
    """Differences to the next pixel along an axis, 0 at the last one."""
    slope = torch.roll(picture, -1, axis) - picture
    slope.narrow(axis, -1, 1).zero_()
    return slope


def _slope_transposed(slope: Tensor, axis: int) -> Tensor:
    """The transpose of `_slope`, where the last pixel's is 0."""
    return torch.roll(slope, 1, axis) - slope


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """x such that matrix(x) is about `wanted`, for a symmetric positive matrix (Hestenes and Stiefel 1952)."""
    x, left = torch.zeros_like(wanted), wanted
    along, size = left, left.square().sum()
    for _ in range(_STEPS):
        there = matrix(along)
        step = size / (along * there).sum().clamp_min(1e-12)
        x, left = x + step * along, left - step * there
        before, size = size, left.square().sum()
        along = left + size / before.clamp_min(1e-12) * along
    return x
