"""Corrections of pixel-aligned splats, from what a frame shows and what the frames beside it say about it.

Before training it corrects nothing. What the evidence is, and what becomes of the corrections, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photowalk.models.unet import UNet

BESIDE = 2  # frames that are asked about a frame
EVIDENCE = 11 + 3 * BESIDE  # channels, see photowalk.reconstruct.learnt_lift
RATIOS = (1, 2)  # pixels to a splat, along each side
LARGEST_STRETCH = 1.5  # of the logarithm of a size
_GAINS = {"opacity": 4.0, "stretch": 1.0, "turn": 0.5, "shift": 1.0, "colour": 0.3}  # weights of unit size matter alike
_SIZES = {"opacity": 1, "stretch": 3, "turn": 3, "shift": 3, "colour": 3}


@dataclass(frozen=True)
class Corrections:
    """One splat's worth for every place of a map; zeros change nothing."""

    opacity: Tensor  # [H, W] added to the logit
    stretch: Tensor  # [H, W, 3] logarithms of factors of the sizes
    turn: Tensor  # [H, W, 3] twice the imaginary part of a quaternion in the splat's own axes
    shift: Tensor  # [H, W, 3] along the splat's own axes, in pixel footprints
    colour: Tensor  # [H, W, 3] added to red, green and blue

    def __getitem__(self, chosen: Tensor) -> Corrections:
        return Corrections(*(value[chosen] for value in vars(self).values()))


class SplatHead(UNet):
    """A U-Net over 2x2 pixel blocks with an answer for every pixel and one for every block."""

    @dataclass(frozen=True)
    class Config:
        evidence: int  # channels
        widths: tuple[int, ...]  # channels per level, the first at half resolution

    def __init__(self, config: Config) -> None:
        super().__init__(4 * config.evidence, config.widths)
        answers = sum(_SIZES.values())
        self.leave = nn.ModuleDict(
            {
                "1": nn.Conv2d(config.widths[0], 4 * answers, 3, padding=1),
                "2": nn.Conv2d(config.widths[0], answers, 3, padding=1),
            }
        )
        for answer in self.leave.children():
            nn.init.zeros_(answer.weight)
            nn.init.zeros_(answer.bias)

    def forward(self, evidence: Tensor, ratio: int) -> Corrections:
        """evidence [C, H, W] -> corrections for H / ratio, W / ratio splats, rounded up; ratio is 1 or 2."""
        height, width = evidence.shape[-2:]
        multiple = 2 ** len(self.down)
        seen = F.pad(evidence[None], (0, -width % multiple, 0, -height % multiple), mode="replicate")
        answer = self.leave[str(ratio)](self.features(F.pixel_unshuffle(seen, 2)))
        answer = (F.pixel_shuffle(answer, 2) if ratio == 1 else answer)[0].float()
        answer = answer[:, : -(-height // ratio), : -(-width // ratio)].movedim(0, -1)
        parts = dict(zip(_SIZES, answer.split(list(_SIZES.values()), dim=-1), strict=True))
        parts = {name: _GAINS[name] * value for name, value in parts.items()}
        parts["opacity"] = parts["opacity"][..., 0]
        parts["stretch"] = LARGEST_STRETCH * torch.tanh(parts["stretch"] / LARGEST_STRETCH)
        return Corrections(**parts)
