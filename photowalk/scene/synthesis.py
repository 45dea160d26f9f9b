"""Pictures continued where nothing of them is known, out of large pieces of what is known.

Every unknown pixel is taken from the pixel at some offset from it, and the offsets are chosen so that pieces fit
together and onto what is known where they meet (Shift-Map: Pritch et al. 2009), by graph cuts, from coarse to fine.
Most offsets that are tried are level; others are those at which the picture resembles itself (He and Sun 2014), which
follow shores and eaves. It repeats what is there and understands nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from torch import Tensor

from photowalk.kernels.sliding import highest_around, lowest_around

CELL = 8  # pixels along each side that are taken as one at first; then half as many, and so on
_INSIDE = 2  # pixels along each side of which a cell's mean colour is compared
_ROUNDS = {8: 2, 4: 1, 2: 1, 1: 1}  # of trying all offsets, by the size of cells
_SEAM = 0.002  # squared difference of colour that any seam of a cell of 8 pixels counts for, beside what shows of it
_UNSEEN = 0.2  # the same of a seam of which one side cannot be seen
_RIM = 4.0  # times as much what shows counts where a piece meets what is known
_UPRIGHT = 0.05  # squared difference of colour that a pixel from as much higher or lower as the picture is counts for
_NOWHERE = 5.0  # the same, of a pixel that would be taken from where nothing is known
_BAND = 2  # cells on each side of a seam in which finer cells may move it
_LEVEL = 1  # cells of 8 pixels by which level offsets may rise or fall
_ALIKE, _APART, _TIMES = 40, 4, 6  # offsets of likeness: how many, of how many cells at least, and up to how many times
_SERVED = 0.02  # of the unknown cells, for which an offset must know something
_DIGITS = 1e5  # graph cuts want integers
_FADE = 3e-4  # 1 / pixels^2; over the root of its inverse, brightness goes over into that of the pieces
_EDGE = 0.2  # of [0, 1]; a larger step is where one thing ends and another begins
_STEPS = 100  # of conjugate gradients


def synthesise(picture: Tensor, known: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    """Continue a picture [C, H, W] in [0, 1], of which `known` [H, W] bool holds.

    Gives the picture, as it is where it is known, elsewhere made of its pieces, and where nothing fits the `guess`
    [C, H, W]; and row and column [H, W, 2] that each pixel is taken from, its own where it is known or guessed.
    Equal pictures give equal answers.
    """
    height, width = known.shape
    if known.all() or not known.any():
        return torch.where(known, picture, guess), _places(known)
    rim = (0, -width % CELL, 0, -height % CELL)
    offsets = _offsets(F.pad(picture, rim).cpu(), F.pad(known, rim).cpu())[:height, :width].to(known.device)
    places = _places(known) + offsets
    inside = (places >= 0).all(-1) & (places < places.new_tensor([height, width])).all(-1)
    places = torch.where(inside[..., None], places, 0)
    found = inside & known[places[..., 0], places[..., 1]]
    places = torch.where(found[..., None], places, _places(known))
    pieces = torch.where(found, picture[:, places[..., 0], places[..., 1]], guess)
    return torch.where(known, picture, _without_edges(picture, known, pieces, places).clamp(0, 1)), places


def _offsets(picture: Tensor, known: Tensor) -> Tensor:
    """[H, W, 2] from each pixel to the one that it is taken from; 0 where it is known."""
    grid = _Grid.of(picture, known, CELL)
    tried = grid.useful(torch.cat([_level_offsets(grid.known), _offsets_of_likeness(grid)]).unique(dim=0))
    hole, offsets = ~grid.known, torch.zeros_like(_places(known[::CELL, ::CELL]))
    if len(tried) == 0:
        return torch.zeros_like(_places(known))
    offsets[hole] = tried[torch.stack([grid.costs(hole.nonzero(), offset) for offset in tried]).argmin(0)]
    for cell, rounds in _ROUNDS.items():
        if cell < CELL:
            offsets = 2 * offsets.repeat_interleave(2, 0).repeat_interleave(2, 1)
            grid = _Grid.of(picture, known, cell)
            hole = ~grid.known
            offsets[grid.known] = 0
            tried = offsets[hole].unique(dim=0)
        for _ in range(rounds):
            for offset in tried:
                offsets = grid.expanded(offsets, offset, hole if cell == CELL else hole & _near_seams(offsets, offset))
    return offsets


def _near_seams(offsets: Tensor, offset: Tensor) -> Tensor:
    """[h, w] bool, cells close to those at which the piece with an offset ends."""
    same = (offsets == offset).all(-1)[None]
    return (highest_around(same, 2 * _BAND) & ~lowest_around(same, 2 * _BAND))[0]


def _level_offsets(known: Tensor) -> Tensor:
    rows, columns = 2 * _LEVEL + 1, 2 * known.shape[1] - 1
    return _places(known.new_zeros(rows, columns)).reshape(-1, 2) - torch.tensor([rows // 2, columns // 2])


def _offsets_of_likeness(grid: _Grid) -> Tensor:
    """[N, 2], the most frequent offsets between cells that look alike with their surroundings, and their multiples."""
    height, width = grid.known.shape
    around = F.unfold(F.pad(grid.look.movedim(-1, 0)[None], [1] * 4, mode="replicate"), 3)[0].T
    whole = lowest_around(grid.known[None], 1)[0]
    cells, around = whole.nonzero(), around[whole.flatten()]
    if len(cells) < 2:
        return cells.new_zeros(0, 2)
    offsets = cells[None] - cells[:, None]
    distance = torch.cdist(around, around).masked_fill(offsets.abs().amax(-1) < _APART, torch.inf)
    nearest = distance.argmin(1)
    votes = around.new_zeros(2 * height + 1, 2 * width + 1)
    there = offsets[torch.arange(len(cells)), nearest]
    contrast = around.unflatten(1, (-1, 3, 3)).flatten(2).var(dim=2).sum(1)  # plain cells are alike anywhere
    for sign in (1, -1):
        at = sign * there + there.new_tensor([height, width])
        votes.index_put_((at[:, 0], at[:, 1]), contrast, accumulate=True)
    smooth = F.avg_pool2d(votes[None], 3, 1, 1)[0] + 1e-3 * votes
    peaks = (smooth > 0) & (smooth == highest_around(smooth[None], 1)[0])
    best = peaks.nonzero()[smooth[peaks].argsort(descending=True, stable=True)[:_ALIKE]]
    return torch.cat([times * (best - best.new_tensor([height, width])) for times in range(1, _TIMES + 1)])


@dataclass(frozen=True)
class _Grid:
    """A picture in cells. Differences of `look` are root mean squares of differences of colour."""

    look: Tensor  # [h, w, D]
    known: Tensor  # [h, w] bool, as a whole
    neighbours: tuple[Tensor, Tensor]  # [E, 2] each, of which at least one is unknown
    rim: Tensor  # [E] bool, of which one is known
    seam: float  # what any seam costs

    @staticmethod
    def of(picture: Tensor, known: Tensor, cell: int) -> _Grid:
        part, channels = min(_INSIDE, cell), len(picture)
        colour = F.avg_pool2d(picture * known, part) / F.avg_pool2d(known.to(picture)[None], part).clamp_min(1e-6)
        look = F.pixel_unshuffle(colour, cell // part).movedim(0, -1) / math.sqrt(channels * (cell // part) ** 2)
        whole = F.avg_pool2d(known.to(picture)[None], cell)[0] > 1 - 1e-6
        places = _places(whole)
        first = torch.cat([places[:, :-1].reshape(-1, 2), places[:-1].reshape(-1, 2)])
        second = torch.cat([places[:, 1:].reshape(-1, 2), places[1:].reshape(-1, 2)])
        of_first, of_second = whole[first[:, 0], first[:, 1]], whole[second[:, 0], second[:, 1]]
        asked = ~(of_first & of_second)
        return _Grid(look, whole, (first[asked], second[asked]), (of_first | of_second)[asked], _SEAM * cell / CELL)

    def useful(self, offsets: Tensor) -> Tensor:
        """Those of the offsets [N, 2] that know something for enough unknown cells."""
        holes = (~self.known).nonzero()
        served = [self._seen(holes, offset)[0].float().mean() for offset in offsets]
        return offsets[torch.stack(served) > _SERVED]

    def costs(self, places: Tensor, offsets: Tensor) -> Tensor:
        """[N], of taking cells from these offsets."""
        level = _UPRIGHT * (offsets[..., 0] / self.known.shape[0]).square()
        return torch.where(self._seen(places, offsets)[0], level, _NOWHERE)

    def seams(self, which: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """[E'], what shows between these neighbours, if they are taken from these offsets [E', 2]."""
        shows = torch.zeros(())
        for ends in self.neighbours:
            (sees, look), (sees_too, other) = self._seen(ends[which], first), self._seen(ends[which], second)
            shows = shows + torch.where(sees & sees_too, (look - other).square().sum(-1), _UNSEEN)
        shows = torch.where(self.rim[which], _RIM, 1.0) * shows + self.seam
        return torch.where((first == second).all(-1), 0, shows)

    def expanded(self, offsets: Tensor, offset: Tensor, free: Tensor) -> Tensor:
        """The offsets [h, w, 2] with this one [2] wherever in `free` [h, w] bool that makes all cost least (expansion
        move: Boykov, Veksler and Zabih 2001)."""
        cells = free.nonzero()
        number = torch.full(free.shape, -1)
        number[free] = torch.arange(len(cells))
        of_first, of_second = (number[ends[:, 0], ends[:, 1]] for ends in self.neighbours)
        which = ((of_first >= 0) | (of_second >= 0)).nonzero()[:, 0]
        of_first, of_second = of_first[which], of_second[which]
        first, second = (offsets[ends[which, 0], ends[which, 1]] for ends in self.neighbours)
        stay, go = self.costs(cells, offsets[free]), self.costs(cells, offset.expand_as(cells))
        both_stay = self.seams(which, first, second)
        second_goes = self.seams(which, first, offset.expand_as(first))
        first_goes = self.seams(which, offset.expand_as(first), second)
        before = float(stay.sum() + both_stay.sum())
        only_first, only_second = of_second < 0, of_first < 0
        for only, of, goes in ((only_first, of_first, first_goes), (only_second, of_second, second_goes)):
            stay = stay.index_add(0, of[only], both_stay[only])
            go = go.index_add(0, of[only], goes[only])
        pair = ~(only_first | only_second)
        tails, heads, first_goes, second_goes = (of[pair] for of in (of_first, of_second, first_goes, second_goes))
        both_stay = torch.minimum(both_stay[pair], first_goes + second_goes)  # else no cut could say it
        gain = go - stay
        gain = gain.index_add(0, tails, first_goes - both_stay).index_add(0, heads, -first_goes)
        goes = _least_cut(gain, tails, heads, first_goes + second_goes - both_stay)
        if not goes.any():
            return offsets
        moved = offsets.clone()
        moved[cells[goes, 0], cells[goes, 1]] = offset
        first, second = (moved[ends[which, 0], ends[which, 1]] for ends in self.neighbours)
        after = float(self.costs(cells, moved[free]).sum() + self.seams(which, first, second).sum())
        return moved if after < before - 1e-6 else offsets

    def _seen(self, places: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Whether something is known at these offsets from places, and what it looks like."""
        there, size = places + offsets, self.known.shape
        row, column = there[:, 0].clamp(0, size[0] - 1), there[:, 1].clamp(0, size[1] - 1)
        inside = (there[:, 0] == row) & (there[:, 1] == column)
        return inside & self.known[row, column], self.look[row, column]


def _least_cut(gain: Tensor, tails: Tensor, heads: Tensor, capacity: Tensor) -> Tensor:
    """[N] bool x that makes gain.x + the capacities of pairs whose tail is not in x and whose head is least."""
    count = len(gain)
    if not (gain < 0).any():
        return torch.zeros(count, dtype=torch.bool)
    source, sink, every = torch.full((count,), count), torch.full((count,), count + 1), torch.arange(count)
    rows, columns = torch.cat([source, every, tails]), torch.cat([every, sink, heads])
    capacities = (torch.cat([gain.clamp_min(0), (-gain).clamp_min(0), capacity]) * _DIGITS).round().int()
    graph = coo_array((capacities.numpy(), (rows.numpy(), columns.numpy())), shape=(count + 2, count + 2)).tocsr()
    left = graph - maximum_flow(graph, count, count + 1).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    cut = np.ones(count + 2, dtype=bool)
    cut[breadth_first_order(left, count, return_predecessors=False)] = False
    return torch.from_numpy(cut[:count])


def _without_edges(picture: Tensor, known: Tensor, pieces: Tensor, places: Tensor) -> Tensor:
    """The picture with its hole in the slopes that the pieces have within them, rather than with edges where one ends
    and another one, from a brighter place, begins (Poisson image editing: Perez et al. 2003): where a photo is darker
    towards its corners, what continues it is so too, and brightens slowly."""
    whole, touched, lacking = torch.where(known, picture, pieces), [], torch.zeros_like(picture)
    for axis in (1, 2):
        step = places.new_tensor([axis == 1, axis == 2])
        beside = ~known | torch.roll(~known, -1, axis - 1)
        beside.narrow(axis - 1, -1, 1).zero_()
        total, weight = torch.zeros_like(picture), torch.zeros_like(picture[0])
        for first in (places, torch.roll(places, -1, axis - 1) - step):  # of the pixel's piece, and of the next one's
            slope, seen = _slope_at(picture, known, first, step)
            total, weight = total + slope * seen, weight + seen
        change = total / weight.clamp_min(1) - _slope(whole, axis)
        change = torch.where(beside & (weight > 0) & (change.abs().amax(0) < _EDGE), change, 0)
        lacking += _slope_transposed(change, axis)
        touched.append((axis, beside))

    def normal_equations(change: Tensor) -> Tensor:
        total = _FADE * change
        for axis, beside in touched:
            total = total + _slope_transposed(_slope(change, axis) * beside, axis)
        return total * ~known

    return whole + _conjugate_gradients(normal_equations, lacking * ~known)


def _slope_at(picture: Tensor, known: Tensor, places: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Differences [C, H, W] between the pixels a step after places [H, W, 2] and those there, and whether both are
    known."""
    size = places.new_tensor(known.shape)
    seen, pixels = torch.ones_like(known), []
    for there in (places, places + step):
        inside = ((there >= 0) & (there < size)).all(-1)
        there = torch.where(inside[..., None], there, 0)
        seen = seen & inside & known[there[..., 0], there[..., 1]]
        pixels.append(picture[:, there[..., 0], there[..., 1]])
    return pixels[1] - pixels[0], seen


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
