"""Colours for splats whose blend looks like the walk's frames.

A pixel shows a blend of splats that overlap, so that splats with the colours of the pixels that they were made of look
blurred. What a frame shows beyond the blend is given back to the splats, to each by its share: algebraic reconstruction
(SART, Andersen and Kak 1984). Frames contradict each other, so a splat listens the less the more it was shown. Only the
colour that splats have from all sides changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.rasterise import SH_DC
from photowalk.reconstruct.corrections import evenly_spread, frames_of
from photowalk.reconstruct.photometric import exposure_gain
from photowalk.scene.render import colours_seen, footprints, visible
from photowalk.scene.types import Clip, Scene, Splats

_WIDER, _WIDER_LARGER = 1.3, 1.15  # splats of one pixel, and of more: about 99.5 % is closed three times as near
_EVERY = 8  # frames of a walk of which one is looked at
_FEWEST = 8  # looks, repeated if there are fewer frames
_MOST = 0.1  # of [0, 1]; what a frame shows beyond it, or short of it, is not believed: it may show something else
_FAINT = 0.3  # pixels; splats that are shown by less hardly change


def closed_from_nearer(scene: Scene, *, ratio: int = 1) -> Scene:
    """The scene with splats so wide that no gaps open between them where a picture has more pixels for them than the
    frames had: renderers widen every splat by half a pixel, which closes gaps of their own pictures only. `ratio` is
    how many pixels a splat was made for, along each side. Wants its colours fitted then, or it looks blurred."""

    factor = _WIDER if ratio == 1 else _WIDER_LARGER

    def wider(splats: Splats) -> Splats:
        return replace(splats, scales=splats.scales * splats.scales.new_tensor([factor, factor, 1]))

    return Scene(wider(scene.splats), None if scene.sky is None else wider(scene.sky))


def looked_at(frames: int) -> list[int]:
    """Which frames of a walk of so many are enough to fit colours to, ascending."""
    return evenly_spread(max(frames // _EVERY, min(frames, _FEWEST)), frames)


@torch.no_grad()
def fit_colours(
    scene: Scene,
    walk: Iterable[Clip],
    *,
    frames: int,
    every: int = _EVERY,
    on_step: Callable[[int, int], None] | None = None,
) -> Scene:
    """The scene in colours that make its pictures those of the walk, each frame's brightness left free.

    `walk` is read once, from front to back, and has `frames` frames. One of `every` so many is looked at; `every` is 1
    where the walk holds no more than those that are to be `looked_at`. `on_step(done, total)` is called after each.
    """
    everything, count = scene.everything, len(scene.splats)
    colours = everything.colours.clone()
    shown = torch.full_like(colours[:, 0, :1], _FAINT)  # in pixels, by all frames so far
    steps = max(frames // every, _FEWEST)
    for done, (_, image, camera) in enumerate(frames_of(walk, evenly_spread(steps, frames)), 1):
        rows = visible(everything, camera)
        lacking, share = _asked(replace(everything[rows], colours=colours[rows]), camera, image)
        shown[rows] += share
        colours[rows, 0] += lacking / (shown[rows] * (share + _FAINT)).sqrt() / SH_DC
        if on_step is not None:
            on_step(done, steps)
    everything = replace(everything, colours=colours)
    return Scene(everything[:count], None if scene.sky is None else everything[count:])


def _asked(splats: Splats, camera: Cameras, image: Tensor) -> tuple[Tensor, Tensor]:
    """What a frame [3, H, W] shows beyond what is rendered, summed over each splat's pixels by its share in them
    [N, 3], and the sum of these shares [N, 1]."""
    covered = footprints(splats, camera)
    rendered = covered.blend(colours_seen(splats, camera))[0]
    image = image.to(rendered).movedim(0, -1)
    gain = exposure_gain(image.flatten(0, 1), rendered.flatten(0, 1))
    beyond = (image / gain - rendered).clamp(-_MOST, _MOST)
    return covered.gather(torch.cat([beyond, torch.ones_like(beyond[..., :1])], dim=-1)).split([3, 1], dim=-1)
