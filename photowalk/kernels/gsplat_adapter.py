"""Pictures of Gaussians by gsplat, the optional package for CUDA, in the conventions of `kernels.rasterise`.

It has the same low pass, margins, limits of opacity and pixel centres; it gives no median depth.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import Tensor

from photowalk.kernels.project_gaussians import LOW_PASS, NEAR


def usable(tensor: Tensor) -> bool:
    """Whether gsplat can render this: it is installed, and the tensor lies on a GPU of CUDA."""
    return tensor.is_cuda and importlib.util.find_spec("gsplat") is not None


def picture(given: dict) -> tuple[Tensor, Tensor]:
    """As `rasterise`, of what `arguments` gave: colour [H, W, 3] over black and alpha [H, W]. Differentiable."""
    colour, alpha, _ = importlib.import_module("gsplat").rasterization(**given)
    return colour[0], alpha[0, ..., 0]


def arguments(
    means: Tensor,
    axes: Tensor,
    opacities: Tensor,
    colours: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
) -> dict:
    """What gsplat.rasterization is called with. Covariances are given, so quaternions and scales are not looked at."""
    return {
        "means": means,
        "quats": torch.zeros_like(means[:, :1]).expand(-1, 4),
        "scales": torch.zeros_like(means),
        "opacities": opacities,
        "colors": colours,
        "viewmats": camera_from_world[None],
        "Ks": intrinsics[None],
        "width": width,
        "height": height,
        "near_plane": NEAR,
        "eps2d": LOW_PASS,
        "covars": axes @ axes.mT,
        "render_mode": "RGB",
        "rasterize_mode": "classic",
    }
