"""Per-scene optimisation: splats are moved, turned, sized and coloured until their pictures are the walk's frames.

It takes each frame's brightness as free, and its camera too where the walk's cameras turn out to be off; frames are
believed less the worse they fit the others. It makes no new splats; a hole stays one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.adam import step_rows
from photowalk.reconstruct.camera_step import lay_on
from photowalk.reconstruct.colours import closed_from_nearer, fit_colours
from photowalk.reconstruct.corrections import Corrections, frames_of, lay_walk_on, move_between, visits
from photowalk.reconstruct.fuse import PIXEL_ALIGNED
from photowalk.reconstruct.lift import Lifter
from photowalk.reconstruct.photometric import exposure_gain, ssim
from photowalk.scene.render import render_picture, visible
from photowalk.scene.types import Clip, Scene, Splats

# Learning rates, in the units that _Fitted states.
_RATES = {"shift": 0.06, "stretch": 0.03, "turn": 0.009, "logit": 0.15, "colour": 0.06}
_LEAST = {"stretch": 0.0}  # splats may grow, not shrink: gaps would open between them in pictures of more pixels
_UNMOVED = 0.02  # gradients below this, in units of one pixel's loss, move a splat less than its rate
_BETAS = (0.9, 0.99)  # Adam's memory of gradients and of their squares
_LAST_RATE = 0.1  # of the first one
_STRUCTURE = 0.2  # weight of 1 - SSIM beside the absolute difference, as in Kerbl et al. 2023
_FORGET = 0.9  # of what a typical loss is, from frame to frame
_STEPS_PER_PASS = 50  # about; a pass spreads its frames evenly over the whole walk


@dataclass(frozen=True)
class Refined:
    scene: Scene
    corrections: Corrections  # of the walk's cameras, and how bright the scene is in its frames


def refine(
    make: Callable[[Iterable[Clip]], Scene],
    walk: Callable[[], Iterable[Clip]],
    *,
    frames: int,
    steps: int,
    lifter: Lifter = PIXEL_ALIGNED,
    on_step: Callable[[int, int], None] | None = None,
) -> Refined:
    """The scene that `make` makes of a walk, after `steps` steps of gradient descent, each on one frame.

    `walk()` gives the clips from the front and is called several times; `frames` is how many frames they have together.
    `lifter` makes splats of one view as `make` does.
    One clip is held at a time. Where frames do not lie on the scene, they are laid on it and it is made once more
    before it is fitted, colours first, and each frame's camera is fitted with it. `on_step(done, steps)` is called
    after every step. The sky changes its colours alone.
    """

    def tell() -> None:
        if on_step is not None:
            on_step(0, steps)

    scene = make(walk())
    corrections = lay_walk_on(scene, walk, count=steps, lifter=lifter, on_view=tell)
    if corrections.move_cameras:
        scene = make(corrections.clips(walk()))
        corrections = lay_walk_on(scene, walk, count=steps, lifter=lifter, known=corrections, on_view=tell)
    scene = closed_from_nearer(scene, ratio=lifter.ratio)
    scene = fit_colours(scene, corrections.clips(walk()), frames=frames, on_step=lambda *_: tell())
    return _fit(scene, walk, corrections, frames=frames, steps=steps, on_step=on_step)


def _fit(
    scene: Scene,
    walk: Callable[[], Iterable[Clip]],
    corrections: Corrections,
    *,
    frames: int,
    steps: int,
    on_step: Callable[[int, int], None] | None = None,
) -> Refined:
    """The last part of `refine`: the scene fitted to the walk, and its cameras where `corrections` move them."""
    fitted = _Fitted(scene)
    moves = dict(zip(corrections.moves.frames.tolist(), corrections.moves.values))
    gains: dict[int, Tensor] = {}
    passes = max(1, round(steps / _STEPS_PER_PASS))
    rate = _LAST_RATE ** (1 / max(steps, 1))
    typical, done = None, 0
    for chosen in visits(steps, frames, passes):
        for frame, image, told in frames_of(walk(), chosen):
            camera = Corrections.of(moves, {}).camera(told, frame)
            if corrections.move_cameras and 2 * done >= steps:  # until then splats look a little shifted
                camera = fitted.lay_on(image, camera)
                moves[frame] = move_between(told, camera)
            typical, gains[frame] = fitted.step(image, camera, typical)
            fitted.slow_down(rate)
            done += 1
            if on_step is not None:
                on_step(done, steps)
    return Refined(fitted.scene(), Corrections.of(moves, gains))


class _Fitted:
    """Splats as free parameters: shifts in units of each splat's own axes' lengths, sizes as logarithms, opacities as
    logits; and Adam on those that a frame shows, so that a step costs what is in view and not what is in the scene."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._start = scene, scene.everything
        start = self._start
        self._values = {
            "shift": torch.zeros_like(start.means),
            "stretch": torch.zeros_like(start.scales),
            "turn": start.rotations.clone(),
            "logit": torch.logit(start.opacities.clamp(0.01, 0.99)),
            "colour": start.colours.clone(),
        }
        self._adam = {
            name: _Adam(value, _RATES[name], _LEAST.get(name, -math.inf)) for name, value in self._values.items()
        }

    def step(self, image: Tensor, camera: Cameras, typical: float | None) -> tuple[float, Tensor]:
        """One frame [3, H, W] fitted a little better -> what the loss of a frame typically is, by now, and the gain [3]
        of the scene in this one."""
        pixels = camera.height * camera.width
        rows = visible(self._places(), camera)
        values = {name: value[rows].requires_grad_() for name, value in self._values.items()}
        rendered = render_picture(_formed(self._start[rows], values), camera)
        # The gain goes to the rendering: on the frame, darkening everything would lower the loss.
        gain = exposure_gain(*(colours.detach().flatten(1).T for colours in (image, rendered)))
        rendered = rendered * gain[:, None, None]
        loss = (1 - _STRUCTURE) * (rendered - image).abs().mean() + _STRUCTURE * (1 - ssim(rendered, image))
        now = float(loss.detach())
        typical = now if typical is None else typical
        slopes = torch.autograd.grad(pixels * min(1.0, typical / max(now, 1e-9)) * loss, list(values.values()))
        of_places = rows < len(self._scene.splats)
        for name, slope in zip(values, slopes, strict=True):
            mine = slice(None) if name == "colour" else of_places
            self._adam[name].step(rows[mine], slope[mine])
        return _FORGET * typical + (1 - _FORGET) * now, gain

    def lay_on(self, image: Tensor, camera: Cameras) -> Cameras:
        return lay_on(self._splats(), camera, image, pyramid=(1,))

    def slow_down(self, factor: float) -> None:
        for adam in self._adam.values():
            adam.rate *= factor

    def scene(self) -> Scene:
        everything, count = self._splats(), len(self._scene.splats)
        return Scene(everything[:count], None if self._scene.sky is None else everything[count:])

    def _splats(self) -> Splats:
        return _formed(self._start, self._values)

    def _places(self) -> Splats:
        """As `_splats`, but sizes, directions and colours are those at the start."""
        spread, opacities = self._start.scales[:, 1:2], torch.sigmoid(self._values["logit"])
        return replace(self._start, means=self._start.means + spread * self._values["shift"], opacities=opacities)


def _formed(start: Splats, values: Mapping[str, Tensor]) -> Splats:
    spread = start.scales[:, 1:2]  # of the middle axis: the third is thin, and shifts along it must be possible
    return Splats(
        means=start.means + spread * values["shift"],
        scales=start.scales * values["stretch"].clamp_max(2).exp(),
        rotations=F.normalize(values["turn"], dim=-1),
        opacities=torch.sigmoid(values["logit"]),
        colours=values["colour"],
    )


class _Adam:
    """Adam on some rows of a tensor [N, *] at a time, which it changes in place; every row has a step number of its
    own."""

    def __init__(self, values: Tensor, rate: float, least: float = -math.inf) -> None:
        """The values start and stay no smaller than `least`."""
        self.rate, self._least = rate, least
        self._values = values.view(len(values), math.prod(values.shape[1:]))
        self._mean, self._square = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._steps = torch.zeros(len(values)).to(values)

    def step(self, rows: Tensor, slope: Tensor) -> None:
        """rows [M] int64 without repetition, slope [M, *] the gradient there."""
        state = (self._values, self._mean, self._square, self._steps)
        options = {"rate": self.rate, "forget": _BETAS, "unmoved": _UNMOVED, "least": self._least}
        step_rows(rows, slope.reshape(len(rows), self._values.shape[1]), *state, **options)
