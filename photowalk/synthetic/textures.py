"""Procedural surfaces that repeat without a seam: plaster, bricks, planks, tiles, cobbles, leaves, paintings, writing.

A material is a name such as "floor" or "bark"; `Painter.paint` draws one of the surfaces that the name allows.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.synthetic.chance import Chance

SIDE = 512  # texels; mip levels halve it down to 1
NOISES = 5  # drawn once per painter, then shifted and turned


@dataclass(frozen=True)
class Texture:
    image: Tensor  # [3, SIDE, SIDE] in [0, 1]
    metres: float | None  # side of one tile; None = drawn once across the whole face


def mip_pyramid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images [M, 3, SIDE, SIDE] -> all levels as rows of one table [texels, 3], and where each level begins."""
    rows, starts, level = [], [0], images
    while True:
        rows.append(level.permute(0, 2, 3, 1).reshape(-1, 3))
        if level.shape[-1] == 1:
            return torch.cat(rows), torch.tensor(starts)
        starts.append(starts[-1] + len(rows[-1]))
        level = F.avg_pool2d(level, 2)


def _hsv(hue: float, saturation: float, value: float) -> Tensor:
    """[3, 1, 1]"""
    return torch.tensor(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)))[:, None, None]


def _lattice_noise(chance: Chance, cells: tuple[int, int]) -> Tensor:
    """Smooth values around 0 [SIDE, SIDE] through a random lattice that wraps around."""
    lattice = F.pad(chance.rand(1, 1, *cells), (2, 2, 2, 2), mode="circular")
    size = [SIDE + 4 * SIDE // n for n in cells]
    smooth = F.interpolate(lattice, size=size, mode="bicubic", align_corners=False)[0, 0]
    top, left = 2 * SIDE // cells[0], 2 * SIDE // cells[1]
    return smooth[top : top + SIDE, left : left + SIDE] - 0.5


class Painter:
    """Draws textures from seeded dice; the pictures of one painter share their noises and a scheme of colours."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.hue = chance.between(0, 1)  # what painted things of this place lean to
        self._fine = [self._octaves(chance.between(0.75, 0.95), (16, 16)) for _ in range(NOISES)]
        self._coarse = [self._octaves(chance.between(0.4, 0.6), (2, 2)) for _ in range(NOISES)]
        self._fibres = [self._octaves(0.8, (4, 64)) for _ in range(2)]
        line = (torch.arange(SIDE) + 0.5) / SIDE
        self.y, self.x = line[:, None].expand(SIDE, SIDE), line[None].expand(SIDE, SIDE)

    def paint(self, material: str) -> Texture:
        """One of the surfaces a material may have. Raises KeyError for a name that is not in MATERIALS."""
        return self.chance.choice(MATERIALS[material])(self)

    def _octaves(self, rough: float, cells: tuple[int, int]) -> Tensor:
        """Noise of unit deviation; every octave halves the grain and weighs `rough` times the last."""
        total = torch.zeros(SIDE, SIDE)
        for octave in range(7):
            rows, columns = (min(SIDE // 2, n << octave) for n in cells)
            total += rough**octave * _lattice_noise(self.chance, (rows, columns))
        return total / total.std()

    def _shifted(self, pool: Sequence[Tensor], turn: bool = True) -> Tensor:
        noise = self.chance.choice(pool)
        noise = noise.T if turn and self.chance.happens(0.5) else noise
        return noise.roll((self.chance.integer(0, SIDE - 1), self.chance.integer(0, SIDE - 1)), (0, 1))

    def fine(self) -> Tensor:
        return self._shifted(self._fine)

    def coarse(self) -> Tensor:
        return self._shifted(self._coarse)

    def fibres(self) -> Tensor:
        """Noise drawn out along the rows' direction (downwards)."""
        return self._shifted(self._fibres, turn=False)

    def worn(self, image: Tensor, grain: float, stains: float = 0.0) -> Tensor:
        """The picture with fine grain and broad stains."""
        image = image * (1 + grain * self.fine() + stains * self.coarse())
        return (image + 0.02 * self.coarse() * self.chance.rand(3, 1, 1)).clamp(0, 1)

    def cells(self, count: int) -> tuple[Tensor, Tensor]:
        """Which of `count` scattered seeds is nearest [SIDE, SIDE], and how far the border lies, 0 on it."""
        nearest, second = torch.full((2, SIDE, SIDE), 9.0)
        index = torch.zeros(SIDE, SIDE, dtype=torch.long)
        side = round(count**0.5)
        for i in range(side * side):
            at_y, at_x = (torch.tensor(divmod(i, side)) + 0.15 + 0.7 * self.chance.rand(2)) / side
            dy, dx = ((line - at + 0.5) % 1 - 0.5 for line, at in ((self.y[:, :1], at_y), (self.x[:1], at_x)))
            distance = (dy * dy + dx * dx).sqrt()
            closer = distance < nearest
            second = torch.where(closer, nearest, torch.minimum(second, distance))
            nearest, index = torch.minimum(nearest, distance), torch.where(closer, i, index)
        return index, (second - nearest) * side

    def scatter(self, image: Tensor, colours: Tensor, count: int, length: float, slim: float) -> Tensor:
        """The picture with `count` leaves of the colours [M, 3] strewn over it; `length` is a share of the side."""
        image = image.clone()
        reach = max(3, int(length * SIDE) + 2)
        offset = torch.arange(-reach, reach + 1)
        dy, dx = offset[:, None].float(), offset[None].float()
        dice = self.chance.rand(count, 6)
        angle = dice[:, 2] * 2 * torch.pi
        for i in range(count):
            cosine, sine = angle[i].cos(), angle[i].sin()
            size = length * SIDE * (0.5 + 0.5 * dice[i, 3])
            along, across = (dx * cosine + dy * sine) / size, (dy * cosine - dx * sine) / (size * slim)
            inside = along.square() + across.abs() * (1 + 0.3 * along) < 1
            tone = (0.55 + 0.6 * dice[i, 4]) * (1 + 0.25 * across) * (1 - 0.2 * (across.abs() < 0.12).float())
            rows, columns = (int(v * SIDE) for v in dice[i, :2])
            rows, columns = (rows + offset) % SIDE, (columns + offset) % SIDE
            patch = image[:, rows[:, None], columns]
            leaf = colours[int(dice[i, 5] * len(colours))][:, None, None] * tone
            image[:, rows[:, None], columns] = torch.where(inside, leaf, patch)
        return image.clamp(0, 1)


def _painted(p: Painter) -> Texture:
    """Plain paint, mostly pale or grey, sometimes bold."""
    bold = p.chance.happens(0.25)
    saturation = p.chance.between(0.3, 0.7) if bold else p.chance.between(0, 0.25)
    colour = _hsv(p.hue + p.chance.between(-0.15, 0.15), saturation, p.chance.between(0.3, 0.95))
    return Texture(p.worn(colour, p.chance.between(0.01, 0.05), p.chance.between(0, 0.04)), 1.2)


def _plaster(p: Painter) -> Texture:
    colour = _hsv(p.chance.choice([0.09, 0.12, p.hue]), p.chance.between(0, 0.2), p.chance.between(0.6, 0.95))
    return Texture(p.worn(colour, p.chance.between(0.02, 0.07), p.chance.between(0, 0.04)), p.chance.between(1.5, 3))


def _white(p: Painter) -> Texture:
    return Texture(p.worn(_hsv(0.1, p.chance.between(0, 0.06), p.chance.between(0.8, 0.97)), 0.02, 0.015), 2.5)


def _concrete(p: Painter) -> Texture:
    colour = _hsv(0.1, p.chance.between(0, 0.1), p.chance.between(0.35, 0.7))
    return Texture(p.worn(colour, p.chance.between(0.04, 0.1), p.chance.between(0.03, 0.09)), p.chance.between(2, 3.5))


def _wallpaper(p: Painter) -> Texture:
    """Stripes or a small repeated figure in two near tones."""
    ground = _hsv(p.hue, p.chance.between(0.05, 0.4), p.chance.between(0.55, 0.9))
    count, tone = p.chance.integer(4, 12), p.chance.between(0.7, 0.95)
    wave_x, wave_y = torch.sin(2 * torch.pi * count * p.x), torch.sin(2 * torch.pi * count * p.y)
    figure = wave_x > p.chance.between(-0.5, 0.7)
    if p.chance.happens(0.6):
        figure = (wave_x * wave_y).abs() + 0.4 * torch.sin(6 * torch.pi * count * (p.x + p.y)) > 0.5
    return Texture(p.worn(torch.where(figure, ground * tone, ground), 0.03, 0.02), p.chance.between(0.8, 1.6))


def _bricks(p: Painter) -> Texture:
    rows, columns = 2 * p.chance.integer(4, 8), p.chance.integer(3, 5)
    row = (p.y * rows).floor()
    x = p.x * columns + (row % 2) * 0.5
    column = x.floor() % columns
    hue, pale = p.chance.choice([0.02, 0.04, 0.07, 0.1]), p.chance.happens(0.35)
    colour = _hsv(hue, p.chance.between(0.05, 0.25) if pale else p.chance.between(0.4, 0.65), 0.75 if pale else 0.55)
    tone = 0.65 + 0.6 * p.chance.rand(rows, columns)[row.long(), column.long()]
    wobble = 0.03 * p.fine()
    thick = p.chance.between(0.08, 0.16)
    from_joint = torch.minimum((p.y * rows) % 1, 0.4 * rows / columns * (x % 1)) + wobble
    mortar = _hsv(0.1, 0.1, p.chance.between(0.45, 0.8))
    image = torch.where(from_joint < thick, mortar, colour * tone * (1 - 0.25 * (from_joint < 1.6 * thick)))
    return Texture(p.worn(image, p.chance.between(0.06, 0.14), 0.05), rows * p.chance.between(0.07, 0.09))


def _planks(p: Painter) -> Texture:
    """Boards with grain along the columns, each cut at its own place."""
    planks = p.chance.integer(5, 10)
    board = (p.x * planks).floor()
    cut = (p.y + p.chance.rand(planks)[board.long()]) % 1
    dark = p.chance.between(0.3, 0.85)
    wood = _hsv(p.chance.between(0.04, 0.11), p.chance.between(0.25, 0.6), dark)
    tone = 0.8 + 0.35 * p.chance.rand(planks, 2)[board.long(), (cut > 0.5).long()]
    rings = torch.sin(9 * p.coarse() + 14 * p.x) * p.chance.between(0.01, 0.06)
    gap = ((p.x * planks) % 1 < 0.035) | (cut < 0.006) | ((cut - 0.5).abs() < 0.003)
    image = wood * tone * (1 + p.chance.between(0.05, 0.13) * p.fibres() + rings)
    return Texture(p.worn(torch.where(gap, image * 0.45, image), 0.04), planks * p.chance.between(0.1, 0.2))


def _wood(p: Painter) -> Texture:
    wood = _hsv(p.chance.between(0.04, 0.11), p.chance.between(0.25, 0.6), p.chance.between(0.3, 0.85))
    rings = torch.sin(7 * p.coarse() + 50 * p.x) * p.chance.between(0.02, 0.08)
    return Texture(p.worn(wood * (1 + 0.1 * p.fibres() + rings), 0.03), p.chance.between(0.8, 1.5))


def _tiles(p: Painter) -> Texture:
    tiles = 2 * p.chance.integer(1, 4)
    column, row = (p.x * tiles).floor().long(), (p.y * tiles).floor().long()
    one = _hsv(p.chance.choice([0.1, p.hue]), p.chance.between(0, 0.3), p.chance.between(0.45, 0.95))
    other = one * p.chance.choice([1.0, 1.0, 0.85, 0.35])
    tone = 0.92 + 0.14 * p.chance.rand(tiles, tiles)[row, column]
    joint = torch.minimum((p.x * tiles) % 1, (p.y * tiles) % 1) < p.chance.between(0.02, 0.05)
    image = torch.where((column + row) % 2 == 0, one, other) * tone
    image = torch.where(joint, _hsv(0.1, 0.05, p.chance.between(0.3, 0.8)), image)
    return Texture(p.worn(image, p.chance.between(0.015, 0.06), 0.04), tiles * p.chance.between(0.2, 0.5))


def _carpet(p: Painter) -> Texture:
    colour = _hsv(p.chance.choice([p.hue, 0.1, 0.6]), p.chance.between(0.05, 0.5), p.chance.between(0.25, 0.7))
    return Texture(p.worn(colour, p.chance.between(0.1, 0.2), 0.05), p.chance.between(0.7, 1.2))


def _rug(p: Painter) -> Texture:
    """A border and rings of figures around the middle."""
    edge = torch.minimum(torch.minimum(p.x, 1 - p.x), torch.minimum(p.y, 1 - p.y))
    colours = torch.stack(
        [_hsv(p.hue + p.chance.choice([0, 0.08, 0.5]), 0.55, p.chance.between(0.25, 0.8)) for _ in "abcd"]
    )
    waves = torch.sin(40 * (p.x - 0.5).abs()) + torch.sin(40 * (p.y - 0.5).abs()) + torch.sin(90 * edge)
    image = colours[((waves + 3) * 0.66).long().clamp(0, 3)][:, :, :, 0, 0].permute(2, 0, 1)
    image = torch.where((edge * 24).long() % 3 == 1, colours[3], image)
    return Texture(p.worn(image, 0.12, 0.04), None)


def _fabric(p: Painter) -> Texture:
    colour = _hsv(p.hue + p.chance.between(-0.3, 0.3), p.chance.between(0.05, 0.6), p.chance.between(0.2, 0.85))
    threads = 1 + 0.08 * torch.sin(2 * torch.pi * 90 * p.x) * torch.sin(2 * torch.pi * 90 * p.y)
    if p.chance.happens(0.35):
        threads = threads * (1 - 0.3 * ((p.x * p.chance.integer(4, 16)) % 1 < 0.4).float())
    return Texture(p.worn(colour * threads, 0.07, 0.06), p.chance.between(0.5, 1))


def _metal(p: Painter) -> Texture:
    colour = _hsv(p.chance.choice([0.6, 0.1, p.hue]), p.chance.between(0, 0.25), p.chance.between(0.2, 0.75))
    return Texture(p.worn(colour * (1 + 0.05 * p.fibres()), 0.02, 0.04), 1.0)


def _cobbles(p: Painter) -> Texture:
    stones = p.chance.integer(7, 14)
    index, border = p.cells(stones * stones)
    colour = _hsv(p.chance.choice([0.08, 0.1, 0.6]), p.chance.between(0.02, 0.2), p.chance.between(0.4, 0.7))
    tone = (0.7 + 0.5 * p.chance.rand(SIDE)[index]) * (0.75 + 0.25 * (border * 2.5).clamp(0, 1))
    image = torch.where(border < 0.12 + 0.03 * p.fine(), _hsv(0.09, 0.2, p.chance.between(0.2, 0.5)), colour * tone)
    return Texture(p.worn(image, 0.1, 0.06), stones * p.chance.between(0.1, 0.3))


def _paving(p: Painter) -> Texture:
    slabs = _tiles(p)
    grey = slabs.image.mean(0, keepdim=True) * _hsv(0.09, 0.08, 0.75)
    return Texture(p.worn(grey, 0.1, 0.1), slabs.metres)


def _asphalt(p: Painter) -> Texture:
    colour = _hsv(0.6, 0.04, p.chance.between(0.25, 0.5))
    return Texture(p.worn(colour, p.chance.between(0.12, 0.22), p.chance.between(0.05, 0.12)), 2.5)


def _gravel(p: Painter) -> Texture:
    colours = torch.cat(
        [_hsv(0.09, p.chance.between(0, 0.3), p.chance.between(0.35, 0.85)).view(1, 3) for _ in range(8)]
    )
    ground = p.worn(_hsv(0.09, 0.3, 0.4), 0.2, 0.1)
    return Texture(p.scatter(ground, colours, 900, 0.018, 0.75), 1.2)


def _grass(p: Painter) -> Texture:
    hue = p.chance.between(0.16, 0.32)
    colours = torch.cat(
        [
            _hsv(hue + p.chance.between(-0.05, 0.04), p.chance.between(0.35, 0.65), p.chance.between(0.3, 0.65)).view(
                1, 3
            )
            for _ in range(10)
        ]
    )
    ground = p.worn(_hsv(hue - 0.05, 0.5, 0.3), 0.2, 0.15)
    return Texture(p.worn(p.scatter(ground, colours, 1800, 0.03, 0.12), 0.06, 0.12), 1.6)


def _litter(p: Painter) -> Texture:
    """Dead leaves on earth."""
    colours = torch.cat(
        [
            _hsv(p.chance.between(0.03, 0.13), p.chance.between(0.3, 0.75), p.chance.between(0.3, 0.8)).view(1, 3)
            for _ in range(10)
        ]
    )
    ground = p.worn(_hsv(0.07, 0.45, 0.22), 0.2, 0.1)
    return Texture(p.worn(p.scatter(ground, colours, 900, 0.035, 0.5), 0.06, 0.08), 1.4)


def _foliage(p: Painter) -> Texture:
    hue = p.chance.choice([0.22, 0.26, 0.3, 0.3, 0.34, 0.1, 0.05])
    colours = torch.cat(
        [
            _hsv(hue + p.chance.between(-0.04, 0.04), p.chance.between(0.4, 0.75), p.chance.between(0.25, 0.7)).view(
                1, 3
            )
            for _ in range(10)
        ]
    )
    return Texture(
        p.scatter(p.worn(_hsv(hue, 0.6, 0.13), 0.2, 0.1), colours, 800, 0.04, 0.45), p.chance.between(0.9, 1.5)
    )


def _bark(p: Painter) -> Texture:
    colour = _hsv(p.chance.between(0.05, 0.1), p.chance.between(0.1, 0.45), p.chance.between(0.25, 0.6))
    return Texture(p.worn(colour * (1 + 0.28 * p.fibres()), 0.12, 0.05), 0.7)


def _rock(p: Painter) -> Texture:
    colour = _hsv(p.chance.choice([0.07, 0.1, 0.6]), p.chance.between(0.02, 0.2), p.chance.between(0.35, 0.7))
    cracks = 1 - 0.35 * (p.coarse().abs() < 0.05).float()
    return Texture(p.worn(colour * cracks, 0.13, 0.1), 2.0)


def _roof(p: Painter) -> Texture:
    rows, columns = p.chance.integer(8, 14), p.chance.integer(6, 10)
    row = (p.y * rows).floor()
    x = p.x * columns + 0.5 * (row % 2)
    tone = 0.7 + 0.4 * p.chance.rand(rows, columns)[row.long(), (x.floor() % columns).long()]
    bow = 1 - 0.5 * ((p.y * rows) % 1 - 0.1 * torch.sin(torch.pi * (x % 1))).clamp(0, 1)
    colour = _hsv(p.chance.choice([0.02, 0.05, 0.6]), p.chance.between(0.1, 0.6), p.chance.between(0.35, 0.7))
    return Texture(p.worn(colour * tone * bow, 0.08, 0.08), 2.2)


def _landscape(p: Painter) -> Tensor:
    """A painted view: sky, three ranges of hills, a meadow. [3, SIDE, SIDE]"""
    sky = _hsv(p.chance.choice([0.58, 0.07, 0.55]), p.chance.between(0.1, 0.55), p.chance.between(0.7, 1.0))
    image = sky * (1 - 0.4 * p.y) + 0.3 * p.y + 0.05 * p.coarse().clamp_min(0)
    hue, top = p.chance.between(0.15, 0.65), p.chance.between(0.3, 0.5)
    for depth in range(4):
        ridge = p.coarse()[0] * (0.09 - 0.02 * depth) + top + 0.13 * depth
        colour = _hsv(hue - 0.08 * depth, 0.25 + 0.12 * depth, 0.65 - 0.1 * depth)
        ground = colour * (1 + (0.06 + 0.05 * depth) * p.fine())
        image = torch.where(p.y > ridge, ground, image)
    return image


def _abstract(p: Painter) -> Tensor:
    index, border = p.cells(p.chance.integer(3, 7) ** 2)
    colours = torch.stack(
        [_hsv(float(v), p.chance.between(0.1, 0.8), p.chance.between(0.2, 0.95)) for v in p.chance.rand(64)]
    )
    image = colours[index][:, :, :, 0, 0].permute(2, 0, 1)
    return torch.where(border < p.chance.choice([0.0, 0.06]), 0.1, image) * (1 + 0.15 * p.coarse())


def _picture(p: Painter) -> Texture:
    image = _landscape(p) if p.chance.happens(0.6) else _abstract(p)
    edge = torch.minimum(torch.minimum(p.x, 1 - p.x), torch.minimum(p.y, 1 - p.y))
    frame = _hsv(p.chance.choice([0.08, 0.12, 0.0]), p.chance.between(0, 0.5), p.chance.between(0.08, 0.8))
    mat = p.chance.choice([0.05, 0.12])
    image = torch.where(edge < mat, _hsv(0.12, 0.05, 0.9), p.worn(image, 0.04))
    return Texture(torch.where(edge < 0.045, frame * (0.7 + 8 * edge), image).clamp(0, 1), None)


def _poster(p: Painter) -> Texture:
    """Flat shapes with lines of something like writing."""
    paper = _hsv(p.chance.between(0, 1), p.chance.between(0, 0.4), p.chance.between(0.7, 0.97)).expand(3, SIDE, SIDE)
    image = _landscape(p) if p.chance.happens(0.4) else paper
    for _ in range(p.chance.integer(1, 4)):
        left, top = p.chance.between(0.05, 0.6), p.chance.between(0.05, 0.6)
        inside = (
            (p.x > left)
            & (p.x < left + p.chance.between(0.1, 0.4))
            & (p.y > top)
            & (p.y < top + p.chance.between(0.05, 0.3))
        )
        image = torch.where(inside, _hsv(p.chance.between(0, 1), 0.6, p.chance.between(0.2, 0.9)), image)
    lines, signs = p.chance.integer(8, 28), 64
    row, column = (p.y * lines).long(), (p.x * signs).long()
    strokes = p.chance.rand(lines * 4, signs * 3)[(p.y * lines * 4).long(), (p.x * signs * 3).long()] > 0.45
    words = p.chance.rand(lines, signs)[row, column] > 0.18
    inside = (p.x > 0.08) & (p.x < 0.92) & (p.y > p.chance.between(0.1, 0.7)) & (p.y < 0.94)
    writing = strokes & words & ((p.y * lines) % 1 > 0.4) & inside
    return Texture(p.worn(torch.where(writing, p.chance.choice([0.08, 0.15, 0.9]), image), 0.02), None)


def _books(p: Painter) -> Texture:
    """Shelves of backs of books."""
    shelves = p.chance.integer(3, 5)
    shelf = (p.y * shelves).long()
    book = ((p.x + 0.13 * shelf + 0.02 * torch.sin(40 * p.x + shelf)) * 36).long() % 40
    dice = p.chance.rand(5, shelves, 40)[:, shelf, book]
    palette = torch.stack(
        [_hsv(float(v), p.chance.between(0.1, 0.7), p.chance.between(0.2, 0.85)) for v in p.chance.rand(12)]
    )
    image = palette[(dice[0] * 12).long()][:, :, :, 0, 0].permute(2, 0, 1) * (0.8 + 0.3 * dice[1])
    height = (p.y * shelves) % 1
    title = (height > 0.45) & (height < 0.7) & (p.chance.rand(SIDE)[(p.y * SIDE).long()] > 0.4) & (dice[2] > 0.4)
    image = torch.where(title, 0.85 * image + 0.15, image)
    image = torch.where(height < 0.12 + 0.3 * dice[3], 0.08, image)
    return Texture(p.worn(torch.where(height > 0.93, _hsv(0.08, 0.4, 0.5), image), 0.05), None)


def _window(p: Painter) -> Texture:
    """A frame and panes with something of a landscape in them."""
    across, down = p.chance.integer(1, 3), p.chance.integer(1, 3)
    bar = torch.minimum((p.x * across) % 1, 1 - (p.x * across) % 1) / across
    bar = torch.minimum(bar, torch.minimum((p.y * down) % 1, 1 - (p.y * down) % 1) / down)
    panes = _landscape(p) * p.chance.between(0.5, 1.1)
    frame = _hsv(0.1, p.chance.between(0, 0.3), p.chance.choice([0.9, 0.85, 0.3]))
    return Texture(torch.where(bar < 0.035, frame * (0.75 + 7 * bar), panes).clamp(0, 1), None)


def _door(p: Painter) -> Texture:
    leaf = p.chance.choice([_wood, _painted])(p).image
    rows = p.chance.integer(1, 4)
    dx, dy = ((p.x * 2) % 1 - 0.5).abs(), ((p.y * rows) % 1 - 0.5).abs()
    groove = ((dx - 0.36).abs() < 0.02) & (dy < 0.38) | ((dy - 0.38).abs() < 0.03) & (dx < 0.36)
    image = torch.where(groove, leaf * 0.6, leaf)
    handle = ((p.x - 0.9).abs() < 0.04) & ((p.y - 0.52).abs() < 0.012)
    edge = torch.minimum(p.x, 1 - p.x) < 0.04
    return Texture(torch.where(handle, 0.75, torch.where(edge, image * 0.7, image)), None)


def _drawers(p: Painter) -> Texture:
    leaf = p.chance.choice([_wood, _painted])(p).image
    rows, columns = p.chance.integer(2, 5), p.chance.integer(1, 3)
    x, y = (p.x * columns) % 1, (p.y * rows) % 1
    gap = (torch.minimum(x, 1 - x) < 0.015 * columns) | (torch.minimum(y, 1 - y) < 0.012 * rows)
    handle = ((x - 0.5).abs() < 0.14) & ((y - 0.3).abs() < 0.04)
    return Texture(torch.where(handle, p.chance.choice([0.15, 0.8]), torch.where(gap, leaf * 0.35, leaf)), None)


def _clouds(p: Painter) -> Texture:
    cover = (p.coarse() + 0.35 * p.fine() + p.chance.between(-1.2, 0.6)).clamp(0, 1.6) / 1.6
    return Texture(cover.expand(3, SIDE, SIDE), 1.0)


def _glow(p: Painter) -> Texture:
    return Texture(_hsv(0.12, p.chance.between(0, 0.15), 1.0).expand(3, SIDE, SIDE), 1.0)


Surface = Callable[[Painter], Texture]
MATERIALS: dict[str, list[Surface]] = {
    "wall": [_plaster, _plaster, _painted, _painted, _wallpaper, _bricks, _planks, _concrete, _tiles],
    "ceiling": [_white, _white, _plaster, _planks],
    "floor": [_planks, _planks, _tiles, _carpet, _concrete, _cobbles],
    "trim": [_white, _wood, _painted],
    "wood": [_wood, _planks],
    "painted": [_painted],
    "fabric": [_fabric, _fabric, _carpet],
    "metal": [_metal],
    "facade": [_bricks, _bricks, _plaster, _plaster, _planks, _concrete, _cobbles],
    "roof": [_roof],
    "ground": [_grass, _litter, _cobbles, _paving, _gravel, _asphalt],
    "meadow": [_grass, _grass, _litter, _gravel],
    "road": [_asphalt, _cobbles, _paving],
    "pavement": [_paving, _cobbles, _concrete],
    "stone": [_rock, _cobbles, _concrete],
    "rock": [_rock],
    "bark": [_bark],
    "foliage": [_foliage],
    "rug": [_rug],
    "picture": [_picture, _picture, _poster],
    "books": [_books],
    "window": [_window],
    "door": [_door],
    "drawers": [_drawers],
    "asphalt": [_asphalt],
    "clouds": [_clouds],
    "glow": [_glow],
}
