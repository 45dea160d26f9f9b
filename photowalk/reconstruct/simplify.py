"""Fewer splats for the same scene: neighbours are merged into one with the same total, centre and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from photowalk.geometry.motions import quaternion_from_rotation, rotation_from_quaternion
from photowalk.kernels.rasterise import SH_DC
from photowalk.reconstruct.lift import FOOTPRINT
from photowalk.scene.types import Splats

_CHOICE = 4  # cells are made larger until they would leave this many times fewer splats than wanted
_HIDDEN = 0.005  # squared difference of colour that counts as much as hiding as large an area that was not hidden
_COVER = (
    12 * FOOTPRINT**2
)  # a filled cell has 1/12 of its side squared as variance; covering it takes FOOTPRINT squared
_AT_ONCE = 2**16  # splats whose matrices are held
_LEVELS = 20  # at which a cell holds any scene
_HASH = (0x1F3D5B79AC2E4F61, 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85, 0x27BB2EE687B0B0FD, 0x106689D45497FDB5)


def simplify(splats: Splats, budget: int) -> Splats:
    """At most `budget` splats. Cells grow with each splat's own size, so near detail is kept as long as far detail."""
    if len(splats) <= budget:
        return splats
    spacing, alike = splats.scales[:, 1] / FOOTPRINT, torch.ones_like(splats.opacities)
    return merge(splats, neighbours(splats, budget, spacing, alike))


def neighbours(splats: Splats, budget: int, spacing: Tensor, weight: Tensor) -> Tensor:
    """Groups [N] (0 .. G - 1, G <= `budget`) of splats that lie close enough together to be one.

    An octree, whose leaves are about `spacing` [N] wide: cells become one from the leaves upwards, those first that
    lose least for each splat that they save. `weight` [N] is how much each splat matters.
    """
    facing = _facing(splats)
    group, parts = torch.arange(len(splats), device=splats.means.device), len(splats)
    lost, rate = torch.zeros_like(weight), torch.zeros_like(weight)  # in all, and for each splat saved
    groups, rates, savings = [], [], []
    while parts > max(1, budget // _CHOICE):
        level = len(groups)
        cell = _cells(splats.means, spacing, facing, level) if level < _LEVELS else torch.zeros_like(group)
        count = int(cell.max()) + 1
        parent = torch.empty(parts, dtype=torch.long, device=cell.device).index_copy_(0, group, cell)
        saved = torch.bincount(parent, minlength=count) - 1
        before = torch.zeros(count).to(lost).index_add_(0, parent, lost)
        lost = _loss(splats, weight, cell, count)
        own = (lost - before) / saved.clamp_min(1)
        rate = own.scatter_reduce_(0, parent, rate, "amax")  # no cell goes before its parts
        group, parts = cell, count
        groups.append(cell)
        rates.append(rate)
        savings.append(saved)
    return _cheapest(groups, torch.cat(rates), torch.cat(savings), len(splats) - budget)


def _cheapest(groups: Sequence[Tensor], rates: Tensor, savings: Tensor, wanted: int) -> Tensor:
    """Groups [N] of the largest cells that become one, if as many splats are saved as are `wanted`. `groups` are the
    cells [N] of all splats, level by level; `rates` and `savings` have an entry for every cell, in the same order."""
    order = torch.argsort(rates, stable=True)
    enough = int(torch.searchsorted(savings[order].cumsum(0), wanted)) + 1
    whole = torch.zeros(len(rates), dtype=torch.bool, device=rates.device).index_fill_(0, order[:enough], True)
    number, offset = torch.arange(len(groups[0]), device=rates.device), 0
    for cell in groups:
        number = torch.where(whole[offset + cell], len(cell) + offset + cell, number)
        offset += int(cell.max()) + 1
    return torch.unique(number, return_inverse=True)[1]


def _loss(splats: Splats, weight: Tensor, group: Tensor, count: int) -> Tensor:
    """[G] what is lost where a group becomes one: squared differences of colour, and what is hidden that was not,
    times the `weight` [N] of those concerned."""
    share, _, spread = _joined(splats, group, count)
    colour = splats.colours[:, 0] * SH_DC
    different = (colour - _total(share[:, None] * colour, group, count)[group]).square().sum(-1)
    growth = _area(spread) / _total(splats.scales[:, 0] * splats.scales[:, 1], group, count) - 1
    return _total(weight * (different + _HIDDEN * growth.clamp_min(0)[group]), group, count)


def _area(covariances: Tensor) -> Tensor:
    """[G] what is seen of splats, in squared deviations: of flat ones the product of their sizes."""
    trace = covariances.diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((trace.square() - covariances.square().sum((-2, -1))) / 2).clamp_min(0).sqrt()


def merge(splats: Splats, group: Tensor) -> Splats:
    """One splat for every group [N] (0 .. G - 1); those alone stay as they are."""
    several = torch.bincount(group) > 1
    member = several[group]
    local = several.cumsum(0) - 1
    merged = _merge(splats[member], local[group[member]]) if member.any() else splats[member]

    def placed(name: str) -> Tensor:
        values = getattr(splats, name)
        together = values.new_empty(len(several), *values.shape[1:])
        together[group[~member]] = values[~member]
        together[several] = getattr(merged, name)
        return together

    return Splats(**{field.name: placed(field.name) for field in fields(Splats)})


def _merge(splats: Splats, group: Tensor) -> Splats:
    count = int(group.max()) + 1
    share, centre, spread = _joined(splats, group, count)
    variances, directions = torch.linalg.eigh(spread)
    scales = variances.clamp_min(1e-14).sqrt().flip(-1)  # largest first, the normal last
    directions = directions.flip(-1)
    directions = directions * torch.linalg.det(directions).sign()[:, None, None]
    opacities = _total(share * splats.opacities, group, count)
    colours = _total(share[:, None, None] * splats.colours, group, count)
    return Splats(centre, scales, quaternion_from_rotation(directions), opacities, colours)


def _joined(splats: Splats, group: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each splat's share [N] in its group, by opacity times area; the groups' centres [G, 3] and covariances [G, 3, 3],
    so wide that they close the surface as their parts did."""
    weight = splats.opacities.clamp_min(1e-4) * splats.scales[:, 0] * splats.scales[:, 1]
    share = weight / _total(weight, group, count)[group]
    centre = _total(share[:, None] * splats.means, group, count)
    spread = torch.zeros(count, 3, 3).to(centre)
    for some in torch.arange(len(group), device=group.device).split(_AT_ONCE):
        offset = splats.means[some] - centre[group[some]]
        axes = rotation_from_quaternion(splats.rotations[some]) * splats.scales[some, None, :]
        moments = axes @ axes.mT + _COVER * offset[:, :, None] * offset[:, None, :]
        spread.index_add_(0, group[some], share[some, None, None] * moments)
    return share, centre, spread


def _total(values: Tensor, group: Tensor, count: int) -> Tensor:
    return torch.zeros(count, *values.shape[1:]).to(values).index_add_(0, group, values)


def _facing(splats: Splats) -> Tensor:
    """[N] which of six sides a splat's normal points to."""
    normal = torch.cat([rotation_from_quaternion(some)[:, :, 2] for some in splats.rotations.split(_AT_ONCE)])
    axis = normal.abs().argmax(dim=-1)
    return 2 * axis + (normal.gather(1, axis[:, None])[:, 0] > 0)


def _cells(means: Tensor, spacing: Tensor, facing: Tensor, level: int) -> Tensor:
    """Group [N] of each splat: its cubic cell, whose side is the power of two nearest to its `spacing` [N], times two
    for every level, and where it faces, so that the two faces of a thin wall stay apart."""
    side = level + torch.log2(spacing).add(0.5).floor()
    position = (means / torch.exp2(side)[:, None]).floor().long()
    key = torch.zeros_like(facing)
    for part, factor in zip((*position.unbind(1), side.long(), facing), _HASH):
        key += factor * part  # wraps around; sorting rows would be far slower
    return torch.unique(key, return_inverse=True)[1]
