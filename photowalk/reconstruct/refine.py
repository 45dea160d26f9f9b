"""Per-scene optimisation: splats are moved, turned, sized and coloured until their pictures are the walk's frames.

It takes each frame's brightness as free, and its camera too where the walk's cameras turn out to be off; frames are
believed less the worse they fit the others. It makes no new splats; a hole stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.reconstruct.camera_step import lay_on
from photowalk.reconstruct.corrections import Corrections, evenly_spread, frames_of, lay_walk_on, move_between
from photowalk.reconstruct.photometric import exposure_gain, ssim
from photowalk.scene.render import render_picture
from photowalk.scene.types import Clip, Scene, Splats

# Learning rates, in the units that _Fitted states.
_RATES = {"shift": 0.06, "stretch": 0.03, "turn": 0.009, "logit": 0.15, "colour": 0.06}
_UNMOVED = 0.02  # gradients below this, in units of one pixel's loss, move a splat less than its rate
_LAST_RATE = 0.1  # of the first one
_STRUCTURE = 0.2  # weight of 1 - SSIM beside the absolute difference, as in Kerbl et al. 2023
_FORGET = 0.9  # of what a typical loss is, from frame to frame
_STEPS_PER_PASS = 50  # about; a pass spreads its frames evenly over the whole walk
_GOLDEN = 0.6180339887498949  # shifts each pass's frames to the middle of the widest gaps left


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
    on_step: Callable[[int, int], None] | None = None,
) -> Refined:
    """The scene that `make` makes of a walk, after `steps` steps of gradient descent, each on one frame.

    `walk()` gives the clips from the front and is called several times; `frames` is how many frames they have together.
    One clip is held at a time. Where frames do not lie on the scene, they are laid on it and it is made once more
    before it is fitted, and each frame's camera is fitted with it. `on_step(done, steps)` is called after every step.
    The sky changes its colours alone.
    """

    def tell() -> None:
        if on_step is not None:
            on_step(0, steps)

    scene = make(walk())
    corrections = lay_walk_on(scene, walk, count=steps, on_view=tell)
    if corrections.move_cameras:
        scene = make(corrections.clips(walk()))
        corrections = lay_walk_on(scene, walk, count=steps, known=corrections, on_view=tell)
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
    for number in range(passes):
        count = steps * (number + 1) // passes - steps * number // passes
        chosen = evenly_spread(count, frames, offset=(0.5 + number * _GOLDEN) % 1)
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
    logits; and Adam on them."""

    def __init__(self, scene: Scene) -> None:
        self._start, self._sky = scene.splats, scene.sky
        base = scene.splats
        self._values = {
            "shift": torch.zeros_like(base.means),
            "stretch": torch.zeros_like(base.scales),
            "turn": base.rotations.clone(),
            "logit": torch.logit(base.opacities.clamp(0.01, 0.99)),
            "colour": scene.everything.colours.clone(),
        }
        for value in self._values.values():
            value.requires_grad_()
        groups = [{"params": [value], "lr": _RATES[name]} for name, value in self._values.items()]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=_UNMOVED)

    def step(self, image: Tensor, camera: Cameras, typical: float | None) -> tuple[float, Tensor]:
        """One frame [3, H, W] fitted a little better -> what the loss of a frame typically is, by now, and the gain [3]
        of the scene in this one."""
        pixels = camera.height * camera.width
        rendered = render_picture(self._splats(), camera)
        # The gain goes to the rendering: on the frame, darkening everything would lower the loss.
        gain = exposure_gain(*(colours.detach().flatten(1).T for colours in (image, rendered)))
        rendered = rendered * gain[:, None, None]
        loss = (1 - _STRUCTURE) * (rendered - image).abs().mean() + _STRUCTURE * (1 - ssim(rendered, image))
        now = float(loss.detach())
        typical = now if typical is None else typical
        self._adam.zero_grad()
        (pixels * min(1.0, typical / max(now, 1e-9)) * loss).backward()
        self._adam.step()
        return _FORGET * typical + (1 - _FORGET) * now, gain

    def lay_on(self, image: Tensor, camera: Cameras) -> Cameras:
        with torch.no_grad():
            return lay_on(self._splats(), camera, image, pyramid=(1,))

    def slow_down(self, factor: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] *= factor

    def scene(self) -> Scene:
        with torch.no_grad():
            everything = self._splats()
            count = len(self._start)
            return Scene(everything[:count], None if self._sky is None else everything[count:])

    def _splats(self) -> Splats:
        base, values = self._start, self._values
        count = len(base)
        spread = base.scales[:, 1:2]  # of the middle axis: the third is thin, and shifts along it must be possible
        geometry = Splats(
            means=base.means + spread * values["shift"],
            scales=base.scales * values["stretch"].clamp(-2, 2).exp(),
            rotations=F.normalize(values["turn"], dim=-1),
            opacities=torch.sigmoid(values["logit"]),
            colours=values["colour"][:count],
        )
        if self._sky is None:
            return geometry
        sky = self._sky
        coloured = Splats(sky.means, sky.scales, sky.rotations, sky.opacities, values["colour"][count:])
        return Splats.cat([geometry, coloured])
