"""Where the sky is, without the specks and drifting islands that a network leaves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from photowalk.kernels.sliding import highest_around, lowest_around
from photowalk.scene.filling import fill_smoothly

BELIEF = 4.0  # largest logit that counts, so that no single pixel outvotes its neighbours
SKY_STAYS, SURFACE_STAYS = 5.0, 3.0  # logit by which a pixel is again what memory saw; nothing grows in front of sky
LARGEST_ISLAND = 0.03  # share of the picture up to which something that hangs in the sky is taken for sky


def clean_sky(logit: Tensor, *, reach: int = 2) -> Tensor:
    """Sky logits [H, W] -> bool [H, W]: without islands of sky, or of anything else in it, that are narrower than
    2 * reach + 1 pixels in both directions, whose neighbourhood says otherwise, and without what hangs in the sky."""
    believed = logit.float()[None, None].clamp(-BELIEF, BELIEF)
    smooth = F.avg_pool2d(believed, 2 * reach + 1, 1, reach, count_include_pad=False)
    sky = smooth > 0
    grown = highest_around(lowest_around(sky, reach), reach)  # opening: islands of sky go
    return _without_islands((lowest_around(highest_around(grown, reach), reach) | grown)[0, 0])  # closing: holes go


def remembered_sky(logit: Tensor, known: Tensor) -> Tensor:
    """Sky logits [H, W] together with what memory projects into the frame, known depth [H, W] (0 = unknown, inf = sky).

    Sky goes on where nothing is known, since what comes into view beside it is most likely more of it.
    """
    seen = known > 0
    vote = torch.where(known.isinf(), SKY_STAYS, -SURFACE_STAYS) * seen
    around = fill_smoothly(vote[None, None], seen[None, None].float())[0, 0]
    return logit.clamp(-BELIEF, BELIEF) + torch.where(seen, vote, around.clamp_min(0) / 3)


def _without_islands(sky: Tensor) -> Tensor:
    """Nothing hangs in the sky: parts of the picture [H, W] that only the sky touches, small ones, belong to it."""
    parts, count = ndimage.label(~sky.cpu().numpy())
    if count < 2:
        return sky
    parts = torch.from_numpy(parts).to(sky.device).long()
    size = parts.flatten().bincount(minlength=count + 1)
    supported = torch.zeros(count + 1, dtype=torch.bool, device=sky.device)
    supported[parts[-1]] = True  # reaches the lower edge of the picture
    island = (size < LARGEST_ISLAND * sky.numel()) & ~supported
    island[0] = False
    return sky | island[parts]
