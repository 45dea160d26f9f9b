"""Puts into posed pictures what synthetic places lack: outlines of any shape, openings, far mountains, skies of any
colour.

A network that has only seen boxes and balls takes the outline of anything else for paint on what is behind it; one that
has met closed outlines on near things alone takes the opening of an arch for a thing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.scene.types import View
from photowalk.train.chance import integer, uniform

WAVES = 6  # of an outline
RANGE = (80.0, 900.0)  # metres to mountains
HAZE = (0.4, 0.9)  # of the air between; with less of it whatever rises into the sky was taken for a mountain
ROUNDNESS = 0.25  # largest depth of a thing's belly, of its half width
SMALLEST, LARGEST = 0.1, 0.9  # height of a thing, of the picture's
METRES = (0.3, 8.0)  # height of a thing
HOLLOW = 0.4  # of the things: one sees through a hole in them, as through an arch
OPENING = (0.15, 0.7)  # height of an opening, of the picture's
BEYOND = (1.1, 4.0)  # how much farther than the wall around an opening the nearest things behind it are


def with_thing(view: View, texture: Tensor, random: torch.Generator) -> View:
    """The view with something standing on its ground, as far away as the ground is there; texture [3, h, w] in [0, 1].

    The view is left as it is where there is no ground at the place that chance picks.
    """
    _, height, width = view.image.shape
    foot = integer(height // 2, random) + height // 2, integer(width, random)
    ground = float(view.depth[foot])
    if not 0.3 < ground < 60:
        return view
    pixels = float(view.camera.intrinsics[1, 1]) / ground  # of a metre
    tall = math.exp(uniform(*map(math.log, METRES), random)) * pixels
    tall = min(max(tall, SMALLEST * height), LARGEST * height)
    wide = tall * uniform(0.3, 1.6, random)
    x, y = _around(view, (foot[0] - tall / 2, foot[1]), tall, wide)
    radius = _radius(x, y, random)
    belly = (1 - radius.square()).clamp_min(0).sqrt() * uniform(0, ROUNDNESS, random) * wide / 2 / pixels
    depth = ground - belly.clamp_max(0.5 * ground)
    mask = (radius < 1) & (depth < view.depth)
    if uniform(0, 1, random) < HOLLOW:
        size, across, down = uniform(0.3, 0.8, random), uniform(-0.2, 0.2, random), uniform(-0.2, 0.7, random)
        mask &= _radius((x - across) / size, (y - down) / size, random) > 1
    light = 1 + uniform(-0.4, 0.4, random) * x.clamp(-1, 1) + uniform(-0.4, 0.1, random) * y.clamp(-1, 1)
    return _pasted(view, (_part(texture, view, random) * light).clamp(0, 1), mask, depth)


def with_opening(view: View, beyond: View, random: torch.Generator) -> View:
    """The view with an opening in what it shows, through which another view of the same size is seen, farther away.

    The view is left as it is where chance picks its sky.
    """
    _, height, width = view.image.shape
    middle = integer(2 * height // 3, random), integer(width, random)
    wall = float(view.depth[middle])
    if not 0.3 < wall < 60:
        return view
    tall = uniform(*OPENING, random) * height
    radius = _radius(*_around(view, middle, tall, tall * uniform(0.4, 1.5, random)), random)
    inside = beyond.depth[(radius < 1) & (beyond.depth > 0)]
    nearest = float(inside.quantile(0.1)) if len(inside) else torch.inf
    scale = uniform(*BEYOND, random) * wall / nearest if math.isfinite(nearest) else 1.0
    depth = beyond.depth * scale
    return _pasted(view, beyond.image, (radius < 1) & (view.depth < depth), depth)


def with_mountains(view: View, texture: Tensor, random: torch.Generator) -> View:
    """The view with a range in front of the lower part of its sky, paled by the air; texture [3, h, w] in [0, 1]."""
    _, height, width = view.image.shape
    sky = view.depth.isinf()
    rows = sky.any(1).nonzero()
    if len(rows) == 0:
        return view
    foot = float(rows[-1])
    x = torch.linspace(0, math.pi, width)
    ridge = sum(
        (uniform(-1, 1, random) / k * torch.cos(k * x + uniform(0, math.tau, random)) for k in range(1, 25)),
        torch.full_like(x, uniform(0, 1, random)),
    )
    ridge = (uniform(0.03, 0.25, random) * height * (ridge + 0.5)).clamp_min(0)
    above = foot - (torch.arange(height)[:, None] + 0.5)
    mask = sky & (above < ridge)
    far = uniform(*RANGE, random)
    depth = far * (1 + 0.3 * (above / height).clamp(0, 1))  # slopes lean back
    haze = uniform(*HAZE, random)
    air = (view.image * sky).sum((1, 2), keepdim=True) / sky.sum()
    return _pasted(view, torch.lerp(_part(texture, view, random), air, haze), mask, depth.expand(height, width))


def with_evening(view: View, random: torch.Generator) -> View:
    """The view under a sky that runs from one colour to another, with streaks of cloud, its land in less light."""
    _, height, width = view.image.shape
    sky = view.depth.isinf()
    if not bool(sky.any()):
        return view
    zenith, horizon = torch.rand(2, 3, 1, 1, generator=random)
    fall = torch.linspace(0, 1, height)[:, None] ** uniform(0.5, 2, random)
    streaks = torch.randn(1, 1, 12, 4, generator=random)
    streaks = F.interpolate(streaks, size=(height, width), mode="bicubic")[0]
    air = torch.lerp(zenith, horizon, fall) + uniform(0, 0.15, random) * streaks
    darker = view.image * uniform(0.3, 1.1, random)
    return _pasted(replace(view, image=darker), air.clamp(0, 1), sky, view.depth)


def _around(view: View, middle: tuple[float, float], tall: float, wide: float) -> tuple[Tensor, Tensor]:
    """x [1, W] and y [H, 1] of the pixels, which are -1 and 1 where a box around `middle` (row, column) ends."""
    _, height, width = view.image.shape
    rows = torch.arange(height)[:, None] + 0.5 - middle[0]
    columns = torch.arange(width)[None, :] + 0.5 - middle[1]
    return columns / (wide / 2), rows / (tall / 2)


def _radius(x: Tensor, y: Tensor, random: torch.Generator) -> Tensor:
    """[H, W] distance from the middle; the outline lies at 1."""
    return (x * x + y * y).sqrt() / _outline(torch.atan2(*torch.broadcast_tensors(y, x)), random)


def _outline(angle: Tensor, random: torch.Generator) -> Tensor:
    """The radius [H, W] of a closed wavy line, 1 in the mean."""
    rough = uniform(0.05, 0.35, random)
    waves = (
        rough / k * uniform(-1, 1, random) * torch.cos(k * angle + uniform(0, math.tau, random))
        for k in range(1, WAVES + 1)
    )
    return (1 + sum(waves, torch.zeros_like(angle))).clamp_min(0.2)


def _part(texture: Tensor, view: View, random: torch.Generator) -> Tensor:
    """A random part of `texture` at the size of the view's picture, [3, H, W]."""
    share = uniform(0.15, 0.9, random)
    height, width = (max(round(side * share), 1) for side in texture.shape[1:])
    top, left = (integer(whole - part + 1, random) for whole, part in zip(texture.shape[1:], (height, width)))
    part = texture[None, :, top : top + height, left : left + width]
    return F.interpolate(part, size=view.image.shape[1:], mode="bilinear", antialias=True)[0].clamp(0, 1)


def _pasted(view: View, image: Tensor, mask: Tensor, depth: Tensor) -> View:
    soft = F.avg_pool2d(mask.float()[None], 3, 1, 1)[0]
    return replace(
        view,
        image=torch.lerp(view.image, image, soft),
        depth=torch.where(mask, depth.to(view.depth), view.depth),
    )
