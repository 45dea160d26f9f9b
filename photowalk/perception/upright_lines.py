"""How far a photo was tilted up or down, told by what stands upright in it: walls, windows, poles, trunks.

Images of vertical lines meet in one point, below a picture taken looking down and above one taken looking up. Every
edge votes for the tilts that would give it its slant; what hangs or leans votes for none in particular.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

_WIDTH = 440  # pixels that a picture is looked at with
_TRIED, _STEP = 35.0, 0.5  # degrees up and down
_ROLLS = torch.arange(-4.0, 5.0)  # degrees that the camera may have been rolled meanwhile
_SLANT = 25.0  # degrees from the picture's upright that an edge may have
_STRAIGHT = 0.9  # coherence of the structure tensor: edges that go one way, not corners and not foliage
_CONTRAST = (0.02, 0.1)  # of [0, 1] a pixel: the least that is an edge, and beyond what none counts for more
_SHARP = 1.0  # degrees by which an edge may miss a tilt
_DOUBT = 0.1 / 20.0**2  # of the edges, by the square of a tilt's degrees: photos are mostly taken level
_FEWEST = 0.01  # of the pixels, that must be such edges
_AHEAD = 0.06  # of the edges, by which the best tilt must be ahead of the usual one
_MOST = 20_000  # edges


def camera_tilt(image: Tensor, focal_px: float) -> float | None:
    """Degrees that a picture [3, H, W] in [0, 1] with its focal length in pixels looks down (negative: up), or None
    where nothing tells. The principal point counts as the middle."""
    height, width = image.shape[1:]
    small = (round(height * _WIDTH / width), _WIDTH)
    grey = F.interpolate(image.mean(0, keepdim=True)[None].cpu().float(), small, mode="bilinear", antialias=True)[0, 0]
    focal = focal_px * _WIDTH / width
    across, up_and_down, slant, weight = _edges(grey)
    if len(slant) < _FEWEST * grey.numel():
        return None
    tilts = torch.deg2rad(torch.arange(-_TRIED, _TRIED + _STEP / 2, _STEP))
    lean = torch.tan(tilts)[:, None]
    expected = torch.atan(-across * lean / (focal - up_and_down * lean).clamp_min(1))  # [tilts, edges]
    votes = torch.stack([_agreement(slant - expected - roll) @ weight for roll in torch.deg2rad(_ROLLS)]).amax(0)
    votes = votes / weight.sum()
    believed = votes - _DOUBT * torch.rad2deg(tilts).square()
    best = int(believed.argmax())
    return math.degrees(float(tilts[best])) if float(believed[best] - votes.median()) > _AHEAD else None


def _agreement(off: Tensor) -> Tensor:
    return torch.exp(-0.5 * (off / math.radians(_SHARP)).square())


def _edges(grey: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edges of a picture [H, W] that are nearly upright: pixels from the middle, to the right and down, the angle by
    which each leans to the right as it goes down, and its weight."""
    smooth = _blurred(grey, 0.8)
    along_x, along_y = torch.zeros_like(grey), torch.zeros_like(grey)
    along_x[:, 1:-1], along_y[1:-1] = smooth[:, 2:] - smooth[:, :-2], smooth[2:] - smooth[:-2]
    xx, xy, yy = (_blurred(product, 2.0) for product in (along_x**2, along_x * along_y, along_y**2))
    coherence = ((xx - yy).square() + 4 * xy.square()).sqrt() / (xx + yy + 1e-8)
    slant = -0.5 * torch.atan2(2 * xy, xx - yy)  # of the edge, which is perpendicular to the gradient
    contrast = (xx + yy).sqrt()
    chosen = (coherence > _STRAIGHT) & (contrast > _CONTRAST[0]) & (slant.abs() < math.radians(_SLANT))
    rim = 4
    chosen[:rim] = chosen[-rim:] = chosen[:, :rim] = chosen[:, -rim:] = False
    places = chosen.nonzero()
    if len(places) > _MOST:
        random = torch.Generator().manual_seed(0)
        places = places[torch.randperm(len(places), generator=random)[:_MOST]]
    rows, columns = places.unbind(-1)
    height, width = grey.shape
    weight = contrast[rows, columns].clamp_max(_CONTRAST[1])
    return columns + 0.5 - width / 2, rows + 0.5 - height / 2, slant[rows, columns], weight


def _blurred(picture: Tensor, deviation: float) -> Tensor:
    """[H, W] under a Gaussian of that many pixels."""
    return torch.from_numpy(gaussian_filter(picture.numpy(), deviation, mode="nearest"))
