"""Pictures of splats from any camera. It knows splats and cameras; how they were made or stored is not its business."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_quaternion
from photowalk.kernels import gsplat_adapter
from photowalk.kernels.project_gaussians import in_view
from photowalk.kernels.rasterise import Footprints, evaluate_harmonics, rasterise
from photowalk.kernels.rasterise_tiles import ALPHA_MINIMUM
from photowalk.scene.types import Splats


@dataclass(frozen=True)
class Rendered:
    image: Tensor  # [*, 3, H, W], in [0, 1] when colours and background are
    depth: Tensor  # [*, H, W] along +Z of the surface that takes half of the light, 0 where none does
    expected_depth: Tensor  # [*, H, W] mean depth of what was hit; differentiable, but blends across edges
    alpha: Tensor  # [*, H, W] in [0, 1]


def render(splats: Splats, cameras: Cameras, background: Tensor | None = None) -> Rendered:
    """Render with one camera or a path [F] of them, on the splats' device.

    background: None for black, a colour [3], or a picture [3, H, W] to lay behind every frame. Differentiable in the
    splats and the background.
    """
    if cameras.shape != ():
        frames = [render(splats, camera, background) for camera in cameras]
        names = ("image", "depth", "expected_depth", "alpha")
        return Rendered(*(torch.stack([getattr(frame, name) for frame in frames]) for name in names))
    camera = cameras.to(splats.means)
    splats = splats[visible(splats, camera)]
    colour, alpha, expected, median = footprints(splats, camera).blend(colours_seen(splats, camera))
    image = colour.movedim(-1, -3)
    if background is not None:
        image = image + (1 - alpha) * (background[:, None, None] if background.ndim == 1 else background)
    return Rendered(image, median, expected, alpha)


def render_picture(splats: Splats, camera: Cameras) -> Tensor:
    """The picture [3, H, W] of one camera over black and nothing else, by gsplat where that is installed and the splats
    lie on a CUDA GPU. Differentiable in the splats."""
    if not gsplat_adapter.usable(splats.means):
        return render(splats, camera).image
    camera = camera.to(splats.means)
    given = gsplat_adapter.arguments(
        splats.means,
        rotation_from_quaternion(splats.rotations) * splats.scales[:, None, :],
        splats.opacities,
        colours_seen(splats, camera),
        camera.camera_from_world,
        camera.intrinsics,
        camera.height,
        camera.width,
    )
    colour, _ = gsplat_adapter.picture(given)
    return colour.movedim(-1, 0)


def footprints(splats: Splats, camera: Cameras) -> Footprints:
    """What splats that are `visible` cover of one camera's picture."""
    gaussians = (splats.means, splats.rotations, splats.scales, splats.opacities)
    return rasterise(*gaussians, camera.camera_from_world, camera.intrinsics, camera.height, camera.width)


def colours_seen(splats: Splats, camera: Cameras) -> Tensor:
    """[N, 3] that splats have from one camera."""
    return evaluate_harmonics(splats.colours, splats.means - camera.centres)


def visible(splats: Splats, camera: Cameras) -> Tensor:
    """Indices of the splats that may show in one camera's picture."""
    size = (camera.height, camera.width)
    return in_view(splats.means, splats.opacities, camera.camera_from_world, camera.intrinsics, *size, ALPHA_MINIMUM)


def render_normals(splats: Splats, camera: Cameras) -> Tensor:
    """Unit normals [3, H, W] in world axes of what one camera sees, turned towards it; 0 where it sees nothing.

    A splat's normal is its shortest axis. Differentiable in the splats.
    """
    camera = camera.to(splats.means)
    splats = splats[visible(splats, camera)]
    shortest = splats.scales.argmin(dim=-1)[:, None, None].expand(-1, 3, 1)
    normals = rotation_from_quaternion(splats.rotations).gather(2, shortest)[..., 0]
    away = ((splats.means - camera.centres) * normals).sum(-1, keepdim=True) > 0
    blended, *_ = footprints(splats, camera).blend(torch.where(away, -normals, normals))
    return torch.nn.functional.normalize(blended, dim=-1).movedim(-1, 0)
