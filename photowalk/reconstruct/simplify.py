"""Fewer splats for the same scene: neighbours are merged into one with the same total, centre and spread."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from photowalk.geometry.motions import quaternion_from_rotation, rotation_from_quaternion
from photowalk.reconstruct.lift import FOOTPRINT
from photowalk.scene.types import Splats

_GROWTH = 1.25  # of the cells, at least, from one attempt to the next
_COVER = (
    12 * FOOTPRINT**2
)  # a filled cell has 1/12 of its side squared as variance; covering it takes FOOTPRINT squared
_AT_ONCE = 2**16  # splats whose matrices are held
_ENDLESS = 1e6  # cells of so many spacings hold any scene
_HASH = (0x1F3D5B79AC2E4F61, 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85, 0x27BB2EE687B0B0FD, 0x106689D45497FDB5)


def simplify(splats: Splats, budget: int) -> Splats:
    """At most `budget` splats. Cells grow with each splat's own size, so near detail is kept as long as far detail."""
    return splats if len(splats) <= budget else merge(splats, neighbours(splats, budget))


def neighbours(splats: Splats, budget: int) -> Tensor:
    """Groups [N] (0 .. G - 1, G <= `budget`) of splats that lie close enough together to be one.

    Of the smallest cells that save enough, no more are made one than must be: those whose splats look most alike.
    """
    cell = 1.0
    while True:
        group = _cells(splats, cell) if cell < _ENDLESS else torch.zeros_like(splats.opacities).long()
        groups = int(group.max()) + 1
        if groups <= budget:
            return _split(group, _variety(splats, group), budget)
        cell *= max(_GROWTH, (groups / budget) ** 0.5)  # splats lie on surfaces, so their number falls with the area


def _variety(splats: Splats, group: Tensor) -> Tensor:
    """[G] the sum of squared differences from the mean colour: what is lost where a group becomes one splat."""
    size, colour = torch.bincount(group).to(splats.means), splats.colours[:, 0]
    mean = torch.zeros(len(size), 3).to(colour).index_add_(0, group, colour) / size[:, None]
    return torch.zeros(len(size)).to(colour).index_add_(0, group, (colour - mean[group]).square().sum(-1))


def _split(group: Tensor, loss: Tensor, budget: int) -> Tensor:
    """The groups [N] again, those of the greatest `loss` [G] taken apart as long as no more than `budget` are left."""
    size = torch.bincount(group)
    order = torch.argsort(loss / (size - 1).clamp_min(1), descending=True)
    apart = order[len(size) + (size[order] - 1).cumsum(0) <= budget]
    whole = torch.ones(len(size), dtype=torch.bool).to(group.device)
    whole[apart] = False
    alone = ~whole[group]
    number = torch.where(alone, torch.arange(len(group)).to(group) + len(size), group)
    return torch.unique(number, return_inverse=True)[1]


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
    """Moments weighted with opacity times area, and the spread of the centres widened until the new splats close the
    surface as the old ones did."""
    count = int(group.max()) + 1
    area = splats.scales[:, 0] * splats.scales[:, 1]
    weight = splats.opacities.clamp_min(1e-4) * area

    def total(values: Tensor) -> Tensor:
        return torch.zeros(count, *values.shape[1:]).to(values).index_add_(0, group, values)

    def mean(values: Tensor) -> Tensor:
        share = (weight / total(weight)[group]).view(-1, *[1] * (values.ndim - 1))
        return total(values * share)

    centre = mean(splats.means)
    spread = torch.zeros(count, 3, 3).to(centre)
    share = weight / total(weight)[group]
    for some in torch.arange(len(group), device=group.device).split(_AT_ONCE):
        offset = splats.means[some] - centre[group[some]]
        axes = rotation_from_quaternion(splats.rotations[some]) * splats.scales[some, None, :]
        moments = axes @ axes.mT + _COVER * offset[:, :, None] * offset[:, None, :]
        spread.index_add_(0, group[some], share[some, None, None] * moments)
    variances, directions = torch.linalg.eigh(spread)
    scales = variances.clamp_min(1e-14).sqrt().flip(-1)  # largest first, the normal last
    directions = directions.flip(-1)
    directions = directions * torch.linalg.det(directions).sign()[:, None, None]
    return Splats(centre, scales, quaternion_from_rotation(directions), mean(splats.opacities), mean(splats.colours))


def _cells(splats: Splats, cell: float) -> Tensor:
    """Group [N] of each splat: its cubic cell, whose side is a power of two near `cell` times its spacing, and the
    side its normal faces, so that the two faces of a thin wall stay apart."""
    spacing = 2 * splats.scales[:, 1] * cell
    level = torch.log2(spacing).round()
    position = (splats.means / torch.exp2(level)[:, None]).floor().long()
    normal = torch.cat([rotation_from_quaternion(some)[:, :, 2] for some in splats.rotations.split(_AT_ONCE)])
    axis = normal.abs().argmax(dim=-1)
    facing = 2 * axis + (normal.gather(1, axis[:, None])[:, 0] > 0)
    key = torch.zeros_like(facing)
    for part, factor in zip((*position.unbind(1), level.long(), facing), _HASH):
        key += factor * part  # wraps around; sorting rows would be far slower
    return torch.unique(key, return_inverse=True)[1]
