"""Procedural surface textures that repeat without a seam: noise, bricks, planks, tiles, leaves, posters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.synthetic.chance import Chance

SIDE = 256  # texels; mip levels halve it down to 4


def sample_texture(chance: Chance) -> Tensor:
    """A random texture [3, SIDE, SIDE] in [0, 1]."""
    colour = torch.tensor([chance.between(0.15, 0.9)] * 3) + (chance.rand(3) - 0.5) * chance.between(0, 0.35)
    plain = colour[:, None, None].expand(3, SIDE, SIDE)
    pattern = chance.choice([_bricks, _planks, _tiles, _leaves, _poster, _plaster, _plaster])
    grain = 1 + chance.between(0.02, 0.22) * _noise(chance, rough=chance.between(0.5, 0.85))
    stains = chance.between(0, 0.03) * torch.stack([_noise(chance, octaves=4) for _ in range(3)])
    return (pattern(chance, plain) * grain + stains).clamp(0, 1)


def mip_pyramid(textures: Tensor) -> tuple[Tensor, Tensor]:
    """Textures [M, 3, SIDE, SIDE] -> all levels as rows of one table [texels, 3], and where each level begins."""
    rows, starts, level = [], [0], textures
    while level.shape[-1] >= 4:
        rows.append(level.permute(0, 2, 3, 1).reshape(-1, 3))
        starts.append(starts[-1] + len(rows[-1]))
        level = F.avg_pool2d(level, 2)
    return torch.cat(rows), torch.tensor(starts[:-1])


def _noise(chance: Chance, octaves: int = 7, rough: float = 0.6, stretch: tuple[int, int] = (1, 1)) -> Tensor:
    """Value noise [SIDE, SIDE] of unit deviation that wraps around; `stretch` draws it out along rows or columns."""
    total = torch.zeros(SIDE, SIDE)
    for octave in range(octaves):
        cells = [max(2, min(SIDE, 4 * 2**octave // s)) for s in stretch]
        lattice = F.pad(chance.rand(1, 1, *cells), (1, 1, 1, 1), mode="circular")
        size = [SIDE + 2 * SIDE // n for n in cells]
        smooth = F.interpolate(lattice, size=size, mode="bicubic", align_corners=False)[0, 0]
        top, left = SIDE // cells[0], SIDE // cells[1]
        total += rough**octave * (smooth[top : top + SIDE, left : left + SIDE] - 0.5)
    return total / total.std()


def _grid() -> tuple[Tensor, Tensor]:
    line = torch.arange(SIDE) / SIDE
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return rows, columns


def _plaster(chance: Chance, plain: Tensor) -> Tensor:
    return plain


def _bricks(chance: Chance, plain: Tensor) -> Tensor:
    y, x = _grid()
    rows, columns = 2 * chance.integer(2, 6), chance.integer(2, 8)
    row = (y * rows).floor()
    x = x * columns + (row % 2) * 0.5
    column = x.floor() % columns
    joint = ((y * rows) % 1 < chance.between(0.04, 0.12)) | (x % 1 < chance.between(0.02, 0.08))
    tone = 0.75 + chance.between(0.1, 0.5) * chance.rand(rows, columns)[row.long(), column.long()]
    return torch.where(joint, chance.between(0.2, 0.9), plain * tone)


def _planks(chance: Chance, plain: Tensor) -> Tensor:
    _, x = _grid()
    planks = chance.integer(4, 14)
    tone = 0.75 + 0.4 * chance.rand(planks)[(x * planks).long()]
    gap = 1 - 0.5 * ((x * planks) % 1 < 0.05).float()
    return plain * tone * gap * (1 + 0.12 * _noise(chance, 5, 0.7, (4, 1)))


def _tiles(chance: Chance, plain: Tensor) -> Tensor:
    y, x = _grid()
    tiles = 2 * chance.integer(2, 6)
    check = ((x * tiles).floor() + (y * tiles).floor()) % 2
    joint = ((x * tiles) % 1 < 0.04) | ((y * tiles) % 1 < 0.04)
    return torch.where(joint, chance.between(0.2, 0.8), plain * (1 - chance.between(0, 0.5) * check))


def _leaves(chance: Chance, plain: Tensor) -> Tensor:
    """Foliage and litter: many small overlapping spots, each of its own tone."""
    y, x = _grid()
    picture = plain * 0.4
    for _ in range(60):
        centre, angle = chance.rand(2), chance.between(0, 3.14)
        dx, dy = (x - centre[0] + 0.5) % 1 - 0.5, (y - centre[1] + 0.5) % 1 - 0.5
        along = dx * torch.cos(torch.tensor(angle)) + dy * torch.sin(torch.tensor(angle))
        across = dy * torch.cos(torch.tensor(angle)) - dx * torch.sin(torch.tensor(angle))
        inside = (along / 0.07) ** 2 + (across / 0.03) ** 2 < 1
        tone = plain * chance.between(0.4, 1.3) + (chance.rand(3)[:, None, None] - 0.5) * 0.25
        picture = torch.where(inside, tone, picture)
    return picture


def _poster(chance: Chance, plain: Tensor) -> Tensor:
    """Flat shapes with lines of something like writing."""
    y, x = _grid()
    picture = plain.clone()
    for _ in range(chance.integer(3, 9)):
        left, top = chance.between(0, 0.8), chance.between(0, 0.8)
        inside = (x > left) & (x < left + chance.between(0.05, 0.5)) & (y > top) & (y < top + chance.between(0.05, 0.4))
        picture = torch.where(inside, chance.rand(3)[:, None, None], picture)
    lines = chance.integer(6, 24)
    letters = chance.rand(lines, 48)[(y * lines).long(), (x * 48).long()] > 0.5
    writing = letters & ((y * lines) % 1 > 0.45) & (x > chance.between(0, 0.4))
    return torch.where(writing, chance.between(0, 1), picture)
