"""Splats of many views made one: surfaces already described add nothing, floaters go, the sky goes to a dome.

Views come in order of trust (a walk's own order: the photo first), a window of them at a time, so that the length of a
walk costs next to no memory: each view leaves its free space behind, coarsely. It trusts the views' cameras; depths it
trusts up to a factor of each view's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.kernels.rasterise import SH_DC
from photowalk.kernels.sliding import lowest_around
from photowalk.reconstruct.complete import close_gaps, complete
from photowalk.reconstruct.landing import AGREEMENT, IN_FRONT, Description, FreeSpace, Landing, describe, land
from photowalk.reconstruct.lift import FOOTPRINT, Lifter, PixelAligned, lift
from photowalk.reconstruct.photometric import exposure_gain
from photowalk.reconstruct.simplify import merge, neighbours
from photowalk.reconstruct.sky_dome import add_sky, build_dome
from photowalk.reconstruct.windows import batches, stream_views
from photowalk.scene.surfaces import Surface, surface_of
from photowalk.scene.types import Clip, Scene, Splats, View, numbered, rows

BUDGET = 500_000  # splats of the geometry
HELD = 1.25  # times the budget: as many are held while there are frames to come
WINDOW, OVERLAP = 24, 8  # views held at once, and of these those that were held before
FILL_EVERY = 2  # views, the last one of a window among them
OPEN = 0.5  # alpha below which a pixel is a hole
EXPOSURE_MEMORY = 0.9  # of a gain, as a power: brightness follows what was there, but may change along a walk
BLEND = 0.3  # of a splat's colour that each later view gives: exposure, noise and gloss are averaged
CLOSED = 0.8  # alpha from which a surface counts as described
COARSER = 1.6  # a surface that was seen in pixels this many times larger is described anew
PIXEL_ALIGNED = PixelAligned()
SKY_DISTANCE = 4.0  # radius of the sky dome, times the farthest that was seen
_CO_VISIBLE = 0.15  # share of a view that must be described for its scale to be judged by it
_SAME_PLACE = 0.15  # relative depth difference beyond which a pixel shows another surface rather than another scale
_SCALE_NOISE = 0.005  # corrections below this are no better than none


@dataclass(frozen=True)
class Fused:
    """Splats, how finely their surface was seen, and the votes on them: how many views saw them, and how many saw
    something behind them instead."""

    splats: Splats
    pixel: Tensor  # [N] world size of the pixels that showed them; merging makes splats larger, but not these
    parts: Tensor  # [N] how many were merged to each
    seen: Tensor  # [N]
    seen_through: Tensor  # [N]

    def __getitem__(self, index) -> Fused:
        if isinstance(index, Tensor):
            index = numbered(index, len(self.seen))  # once for all
        return Fused(self.splats[index], *(rows(values, index) for values in self._figures))

    @property
    def grain(self) -> float:
        """How many pixels wide a splat has become, on average: what the budget makes of them."""
        return math.sqrt(float(self.parts.mean()))

    @property
    def _figures(self) -> tuple[Tensor, ...]:
        return self.pixel, self.parts, self.seen, self.seen_through

    @property
    def trusted(self) -> Splats:
        """The splats, the fainter the more views saw through them."""
        trust = (1 + self.seen) / (1 + self.seen + self.seen_through)
        return replace(self.splats, opacities=self.splats.opacities * trust)

    @staticmethod
    def nothing() -> Fused:
        return Fused.of(Splats(*(torch.zeros(0, *shape) for shape in ((3,), (3,), (4,), (), (1, 3)))))

    @staticmethod
    def of(splats: Splats, ratio: int = 1) -> Fused:
        """New splats, each of a block of `ratio` x `ratio` pixels."""
        pixel = splats.scales[:, 1].detach() / (FOOTPRINT * ratio)
        return Fused(splats, pixel, torch.ones_like(pixel), *torch.zeros(2, len(splats)).to(splats.means))

    @staticmethod
    def cat(parts: Sequence[Fused]) -> Fused:
        figures = map(torch.cat, zip(*(part._figures for part in parts), strict=True))
        return Fused(Splats.cat([part.splats for part in parts]), *figures)

    def merged(self, group: Tensor) -> Fused:
        """With one splat for every group [N] (0 .. G - 1), which votes with the mean of its parts."""
        merged = merge(self.splats, group)

        def total(values: Tensor) -> Tensor:
            return torch.zeros(len(merged)).to(values).index_add_(0, group, values)

        parts = total(self.parts)
        means = (total(self.parts * values) / parts for values in (self.pixel, self.seen, self.seen_through))
        pixel, seen, seen_through = means
        return Fused(merged, pixel, parts, seen, seen_through)


@torch.no_grad()
def reconstruct(
    walk: Iterable[Clip] | Iterable[View],
    *,
    budget: int | None = BUDGET,
    lifter: Lifter = PIXEL_ALIGNED,
    close_up: View | None = None,
    on_view: Callable[[int], None] | None = None,
) -> Scene:
    """Splats of a walk, from the frames whose depth is known (depth 0 or NaN = unknown, inf = sky).

    `walk` is read once, from front to back; no more than WINDOW views of it are held. `budget` bounds the number of
    splats of the geometry, where it is given; neighbours are merged until it holds. `lifter` makes splats of pixels.
    `close_up` is the first view in more pixels, of which splats are made before all others, without `lifter`.
    `on_view(done)` is called after every view. Raises ValueError if no frame has depth or no frame shows a surface.
    """
    if budget is not None and budget < 1:
        raise ValueError(f"a budget of {budget} splats holds no scene; give at least 1")
    fused = Fused.nothing() if close_up is None else add_view(Fused.nothing(), close_up)[0]
    sky, origin, farthest, done = None, None, 0.0, 0
    held: list[View] = []
    free: list[FreeSpace] = []
    for batch in batches(stream_views(walk), WINDOW - OVERLAP):
        free += [FreeSpace.of(view) for view in held[:-OVERLAP]]
        earlier = held[-OVERLAP:]
        held = []
        for number, view in enumerate(batch):
            beside = (*(held or earlier)[-1:], *batch[number + 1 : number + 2])
            fused, view = add_view(fused, view, lifter, beside)
            fused = _within(fused, budget)
            sky = add_sky(sky, view)
            held.append(view)
            origin = view.camera.centres if origin is None else origin
            farthest = max(farthest, _reach(view, origin))
            done += 1
            if on_view is not None:
                on_view(done)
        fused = drop_floaters(fused, held, earlier, free)
        for view in held[::-FILL_EVERY]:
            fused = fill_holes(fused, view)
        fused = _within(fused, budget)
    if origin is None:
        raise ValueError(
            "no frame of this walk has depth, and splats need it; generate the walk with a depth estimator"
        )
    if len(fused.splats) == 0:
        raise ValueError("the depth of this walk is all sky or unknown; there is no surface to make splats of")
    fused = fused if budget is None else limit(fused, budget)
    return Scene(fused.trusted, build_dome(sky, origin, SKY_DISTANCE * farthest))


def _within(fused: Fused, budget: int | None) -> Fused:
    """The splats, merged to the `budget` where they are many more."""
    return fused if budget is None or len(fused.splats) <= HELD * budget else limit(fused, budget)


def views_with_depth(walk: Iterable[Clip] | Iterable[View]) -> list[View]:
    """All frames whose depth is known somewhere, at once."""
    return list(stream_views(walk))


def add_view(
    fused: Fused, view: View, lifter: Lifter = PIXEL_ALIGNED, beside: Sequence[View] = ()
) -> tuple[Fused, View]:
    """The splats so far with those of one view's pixels that they do not describe, or describe too coarsely; and the
    view as it was added: in the scale and the exposure of what was there.

    Splats that were merged count as fine as their parts, and what is finer by no more than the scene's grain is not
    added: both would only be merged again. `beside` are views taken shortly before and after it. Differentiable in
    what `lifter` made.
    """
    view = replace(view, depth=close_gaps(view.depth))
    if len(fused.splats) == 0:
        surface = surface_of(view.depth, view.camera)
        return Fused.of(lifter(view, surface, surface.valid, beside), lifter.ratio), view
    described, landing = describe(fused.splats, fused.pixel, view.camera), land(fused.splats, view)
    scale = _scale(described, landing, view.depth)
    if scale != 1:
        view = replace(view, depth=scale * view.depth)
        landing = land(fused.splats, view)
    known = fused.splats.colours[landing.agrees, 0].detach() * SH_DC + 0.5
    gain = exposure_gain(known, view.image.reshape(3, -1)[:, landing.pixel[landing.agrees]].T)
    view = replace(view, image=(view.image * gain[:, None, None] ** EXPOSURE_MEMORY).clamp(0, 1))
    surface = surface_of(view.depth, view.camera)
    same = (described.alpha > CLOSED) & ((described.depth - view.depth).abs() < _tolerance(view.depth, surface))
    coarse = COARSER * fused.grain * surface.footprint
    too_coarse = same & (described.pixel > coarse)
    replaced = _inside(landing, too_coarse & surface.valid)
    replaced &= fused.pixel > coarse.reshape(-1)[landing.pixel]
    added = Fused.of(lifter(view, surface, surface.valid & (~same | too_coarse), beside), lifter.ratio)
    fused = _blended(fused, landing, view, surface) if lifter.blends else fused
    return Fused.cat([fused[~replaced], added]), view


def _blended(fused: Fused, landing: Landing, view: View, surface: Surface) -> Fused:
    """The splats that agree with the view a little more of its colour, if it sees them as finely as they are."""
    pixel, splats = landing.pixel, fused.splats
    fine = surface.footprint.reshape(-1)[pixel] * FOOTPRINT < COARSER * splats.scales[:, 1]
    chosen = torch.nonzero(landing.agrees & fine).squeeze(1)
    size = torch.tensor([view.camera.width, view.camera.height]).to(splats.means)
    position, _ = view.camera.project(splats.means[chosen])
    grid = (2 * position / size - 1)[None, None]
    seen = F.grid_sample(view.image[None], grid, padding_mode="border", align_corners=False)
    colours = splats.colours.clone()
    colours[chosen, 0] = torch.lerp(colours[chosen, 0], (seen[0, :, 0].T - 0.5) / SH_DC, BLEND)
    return replace(fused, splats=replace(splats, colours=colours))


def drop_floaters(
    fused: Fused, views: Sequence[View], earlier: Sequence[View] = (), long_ago: Sequence[FreeSpace] = ()
) -> Fused:
    """Let `views` vote on all splats; the `earlier` ones, which did so before, on those that nobody voted on yet; and
    those of `long_ago` say which of these they saw through. Without the splats that more views see through than see."""
    new = (fused.seen + fused.seen_through) == 0
    seen, seen_through = fused.seen.clone(), fused.seen_through.clone()
    for view, voters in [*((view, None) for view in views), *((view, new) for view in earlier)]:
        around = lowest_around(view.depth, 1)  # an edge may pass through the pixel
        landing = land(fused.splats, view)
        through = landing.in_view & (landing.depth < IN_FRONT * around.reshape(-1)[landing.pixel])
        seen += landing.agrees if voters is None else landing.agrees & voters
        seen_through += through if voters is None else through & voters
    strangers = fused.splats.means[new]
    for space in long_ago:
        seen_through[new] += space.holds(strangers)
    return replace(fused, seen=seen, seen_through=seen_through)[seen >= seen_through]


def fill_holes(fused: Fused, view: View) -> Fused:
    """Splats for the pixels of `view`, its sky apart, where nothing is described although something must be: at a depth
    continued from around them. Later views that see through them vote them out."""
    if len(fused.splats) == 0:
        return fused
    described = describe(fused.splats, fused.pixel, view.camera)
    known = (described.alpha > CLOSED) & (described.depth > 0)
    hole = (described.alpha < OPEN) & torch.isfinite(view.depth)
    if not hole.any() or not known.any():
        return fused
    surface = surface_of(complete(described.depth, known), view.camera)
    return Fused.cat([fused, Fused.of(lift(view.image, surface, view.camera, hole))])


def limit(fused: Fused, budget: int) -> Fused:
    """At most `budget` splats."""
    return (
        fused
        if len(fused.splats) <= budget
        else fused.merged(neighbours(fused.splats, budget, fused.pixel, fused.parts))
    )


def _scale(described: Description, landing: Landing, depth: Tensor) -> float:
    """What `depth` [H, W] must be multiplied with to lie on what is described: with known cameras, all that is left of
    a similarity. The median over the splats that are seen; 1 where these are few or it is as good as 1.

    Centres of splats are compared, not what is rendered of them: of a slope, the nearer ones cover half a pixel of the
    farther ones, and view by view scales would drift.
    """
    here, front = depth.reshape(-1)[landing.pixel], described.depth.reshape(-1)[landing.pixel]
    ratio = landing.depth / here
    both = landing.in_view & (described.alpha.reshape(-1)[landing.pixel] > CLOSED) & ((ratio - 1).abs() < _SAME_PLACE)
    both &= IN_FRONT * landing.depth < front
    met = torch.zeros(depth.numel(), dtype=torch.bool, device=depth.device).index_fill_(0, landing.pixel[both], True)
    if met.sum() < _CO_VISIBLE * depth.numel():
        return 1.0
    scale = float(ratio[both].median())
    return scale if abs(scale - 1) > _SCALE_NOISE else 1.0


def _tolerance(depth: Tensor, surface: Surface) -> Tensor:
    """A share of the depth, and what the depth changes over two pixels of a slanted surface."""
    return AGREEMENT * torch.where(torch.isfinite(depth), depth, 0) + 2 * surface.footprint / surface.slant


def _inside(landing: Landing, mask: Tensor) -> Tensor:
    """Which splats [N] agree with the view and lie well inside `mask` [H, W]."""
    return landing.agrees & lowest_around(mask, 2).reshape(-1)[landing.pixel]


def _reach(view: View, origin: Tensor) -> float:
    """How far from `origin` [3] the view's camera is and sees."""
    finite = view.depth[torch.isfinite(view.depth)]
    return float((view.camera.centres - origin).norm()) + (float(finite.max()) if len(finite) else 0.0)
