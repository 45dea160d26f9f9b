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
from photowalk.reconstruct.corrections import frames_of, visits
from photowalk.reconstruct.photometric import exposure_gain
from photowalk.scene.render import render_picture, visible
from photowalk.scene.types import Clip, Scene, Splats

_EVERY = 8  # frames of a walk of which one is looked at
_FEWEST = 8  # looks, repeated if there are fewer frames
_PASSES = 4
_MOST = 0.1  # of [0, 1]; what a frame shows beyond it, or short of it, is not believed: it may show something else
_FAINT = 0.3  # pixels; splats that are shown by less hardly change


def fit_colours(
    scene: Scene,
    walk: Callable[[], Iterable[Clip]],
    *,
    frames: int,
    on_step: Callable[[int, int], None] | None = None,
) -> Scene:
    """The scene in colours that make its pictures those of the walk, each frame's brightness left free.

    `walk()` gives the clips from the front, one of which is held at a time, and is called several times; `frames` is
    how many frames they have together. `on_step(done, total)` is called after each frame that was looked at.
    """
    everything, count = scene.everything, len(scene.splats)
    colours = everything.colours.clone()
    shown = torch.full_like(colours[:, 0], _FAINT)  # in pixels, by all frames so far
    steps, done = max(frames // _EVERY, _FEWEST), 0
    for chosen in visits(steps, frames, passes=_PASSES):
        for _, image, camera in frames_of(walk(), chosen):
            rows = visible(everything, camera)
            lacking, share = _asked(replace(everything[rows], colours=colours[rows]), camera, image)
            shown[rows] += share
            colours[rows, 0] += lacking / (shown[rows] * (share + _FAINT)).sqrt() / SH_DC
            done += 1
            if on_step is not None:
                on_step(done, steps)
    everything = replace(everything, colours=colours)
    return Scene(everything[:count], None if scene.sky is None else everything[count:])


def _asked(splats: Splats, camera: Cameras, image: Tensor) -> tuple[Tensor, Tensor]:
    """What a frame [3, H, W] shows beyond what is rendered, summed over each splat's pixels by its share in them, and
    the sum of these shares, both [N, 3]."""
    base = splats.colours[:, :1].detach().requires_grad_()
    with torch.enable_grad():
        rendered = render_picture(replace(splats, colours=torch.cat([base, splats.colours[:, 1:]], dim=1)), camera)
    now = rendered.detach()
    image = image.to(now)
    gain = exposure_gain(image.flatten(1).T, now.flatten(1).T)
    residual = (image / gain[:, None, None] - now).clamp(-_MOST, _MOST)
    # A picture is linear in the colours, so its gradient is each splat's share in each pixel.
    lacking, share = (
        torch.autograd.grad(rendered, base, grad_outputs=seen, retain_graph=True)[0][:, 0] / SH_DC
        for seen in (residual, torch.ones_like(now))
    )
    return lacking, share
