"""The sky of a walk as splats on a dome around it, apart from the geometry.

While it grows the dome is of radius 1 and goes with the camera, as a sky that is infinitely far does; it becomes a
dome with a place and a size when the walk's own size is known.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.kernels.rasterise import SH_DC
from photowalk.reconstruct.lift import FOOTPRINT, OPACITY
from photowalk.scene.render import render
from photowalk.scene.types import Splats, View

SKY_SHRINK = 2  # sky is smooth: one splat for so many pixels along each side
_OVERLAP = 1.7  # times as large as splats of a surface: sky is smooth, and black shows through its gaps
_WHOLE = 0.95  # alpha from which the dome needs nothing more; below it, seams between views would show


def add_sky(sky: Splats | None, view: View) -> Splats | None:
    """The unit dome so far with the sky of `view` where it has none."""
    in_sky = torch.isinf(view.depth)
    if not in_sky.any():
        return sky
    share = F.avg_pool2d(in_sky.float()[None], SKY_SHRINK, ceil_mode=True)[0]
    colour = F.avg_pool2d(view.image * in_sky, SKY_SHRINK, ceil_mode=True) / share.clamp_min(1e-6)
    camera = view.camera.resized(*share.shape)
    missing = share > 0
    if sky is not None:
        missing &= render(_placed(sky, camera.centres, 1.0), camera).alpha < _WHOLE
    _, directions = camera.rays()
    means = directions[missing]
    sigma = torch.full((len(means),), _OVERLAP * FOOTPRINT / float(camera.intrinsics[0, 0])).to(means)
    added = Splats(
        means=means,
        scales=sigma[:, None].expand(-1, 3),
        rotations=torch.tensor([1.0, 0, 0, 0]).to(means).expand(len(means), 4),
        opacities=torch.full_like(sigma, OPACITY),
        colours=((colour[:, missing].T - 0.5) / SH_DC)[:, None],
    )
    return added if sky is None else Splats.cat([sky, added])


def build_dome(sky: Splats | None, centre: Tensor, radius: float) -> Splats | None:
    """The dome around `centre` [3]; None where there is no sky."""
    return None if sky is None or len(sky) == 0 else _placed(sky, centre, radius)


def _placed(sky: Splats, centre: Tensor, radius: float) -> Splats:
    return replace(sky, means=centre + radius * sky.means, scales=radius * sky.scales)
