"""Per-scene optimisation: splats are moved, turned, sized and coloured until their pictures are the walk's frames.

It trusts the cameras, takes each frame's brightness as free and believes frames less the worse they fit the others. It
makes no new splats; a hole stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
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


def refine(
    scene: Scene,
    walk: Callable[[], Iterable[Clip]],
    *,
    frames: int,
    steps: int,
    on_step: Callable[[int, int], None] | None = None,
) -> Scene:
    """The scene after `steps` steps of gradient descent, each on one frame of the walk.

    `walk()` gives the clips from the front and is called several times; `frames` is how many frames they have together.
    One clip is held at a time. `on_step(done, steps)` is called after every step. The sky changes its colours alone.
    """
    fitted = _Fitted(scene)
    passes = max(1, round(steps / _STEPS_PER_PASS))
    rate = _LAST_RATE ** (1 / max(steps, 1))
    typical, done = None, 0
    for number in range(passes):
        count = steps * (number + 1) // passes - steps * number // passes
        chosen = evenly_spread(count, frames, offset=(0.5 + number * _GOLDEN) % 1)
        for image, camera in _frames(walk(), chosen):
            typical = fitted.step(image, camera, typical)
            fitted.slow_down(rate)
            done += 1
            if on_step is not None:
                on_step(done, steps)
    return fitted.scene()


def evenly_spread(count: int, frames: int, offset: float) -> list[int]:
    """`count` frame numbers of 0 .. `frames` - 1, ascending; a frame comes more than once only if there are too few."""
    return [min(int((index + offset) * frames / count), frames - 1) for index in range(count)]


def _frames(clips: Iterable[Clip], chosen: list[int]) -> Iterable[tuple[Tensor, Cameras]]:
    """The chosen frames of a walk; those of one clip in an order that does not follow the path."""
    start = 0
    for clip in clips:
        here = [frame - start for frame in chosen if start <= frame < start + len(clip)]
        for frame in here[::2] + here[1::2][::-1]:
            yield clip.video[frame], clip.cameras[frame]
        start += len(clip)


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

    def step(self, image: Tensor, camera: Cameras, typical: float | None) -> float:
        """One frame [3, H, W] fitted a little better -> what the loss of a frame typically is, by now."""
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
        return _FORGET * typical + (1 - _FORGET) * now

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
