"""A camera moved a little, such that what is rendered with it lies on the picture that it took.

Lucas and Kanade 1981, with the six degrees of freedom of a rigid motion. It trusts the scene and its depth, and finds a
few pixels; it is no search.

On slopes the nearer of two splats covers the other, so that fresh splats look shifted by up to half a pixel. A picture
that is itself shown as splats (`as_splats`) is shifted alike, and is found to about a tenth of a pixel.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import motion, rotation_from_vector
from photowalk.reconstruct.lift import Lifter
from photowalk.reconstruct.photometric import exposure_gain
from photowalk.scene.render import Rendered, render
from photowalk.scene.surfaces import surface_of
from photowalk.scene.types import Splats, View

PYRAMID = (4, 2, 1)  # pixels along each side that are seen as one: large errors first
CLOSED = 0.8  # alpha from which a surface is seen
MOST = 8.0  # pixels; larger corrections are no longer small
_USUAL = 2.0  # medians of a difference, above which it counts by its size and no longer by its square
_DAMPING = 1e-3  # of each direction's own curvature: what pictures do not tell is left alone


@torch.no_grad()
def lay_on(
    splats: Splats,
    camera: Cameras,
    image: Tensor,
    *,
    shown: Tensor | None = None,
    pyramid: tuple[int, ...] = PYRAMID,
) -> Cameras:
    """The camera of `image` [3, H, W], corrected by one Gauss-Newton step for each level of the `pyramid`; as it was
    where that moves pixels by more than MOST, or does not make the rendering more like the image. `shown` [H, W] is
    where the image is to be looked at; all of it, unless given."""
    shown = torch.ones_like(image[0], dtype=torch.bool) if shown is None else shown
    moved, rendered = camera, render(splats, camera)
    before, here = _difference(rendered, image, shown), rendered.depth
    for shrink in pyramid:
        moved = replace(moved, camera_from_world=_step(moved, rendered, image, shown, shrink) @ moved.camera_from_world)
        rendered = render(splats, moved)
    small = _pixels_between(camera, moved, here) <= MOST
    return moved if small and _difference(rendered, image, shown) < before else camera


@torch.no_grad()
def as_splats(view: View, lifter: Lifter) -> tuple[Tensor, Tensor]:
    """The picture [3, H, W] of a view's own splats, made by what made the scene's, and where there are any [H, W]."""
    surface = surface_of(view.depth, view.camera)
    rendered = render(lifter(view, surface, surface.valid, ()), view.camera)
    return rendered.image, rendered.alpha > CLOSED


@torch.no_grad()
def pixels_between(one: Cameras, other: Cameras, splats: Splats) -> float:
    """How far apart two cameras see what the one sees: the median in pixels, 0 where it sees nothing."""
    return _pixels_between(one, other, render(splats, one).depth)


def _pixels_between(one: Cameras, other: Cameras, depth: Tensor) -> float:
    known = depth > 0
    if not known.any():
        return 0.0
    points = one.unproject(depth)[known]
    return float((other.project(points)[0] - one.project(points)[0]).norm(dim=-1).median())


def _evened(rendered: Rendered, image: Tensor) -> Tensor:
    """The rendering [3, H, W] in the exposure of the image."""
    gain = exposure_gain(image.flatten(1).T, rendered.image.flatten(1).T)
    return rendered.image * gain[:, None, None]


def _difference(rendered: Rendered, image: Tensor, shown: Tensor) -> float:
    known = (rendered.depth > 0) & shown
    return float((_evened(rendered, image) - image).abs()[:, known].mean()) if known.any() else 0.0


def _step(camera: Cameras, rendered: Rendered, image: Tensor, shown: Tensor, shrink: int) -> Tensor:
    """The rigid motion [4, 4] in the camera's axes by which what it rendered comes closer to `image` [3, H, W]; the
    identity where nothing is to be seen."""
    seen = rendered.depth > 0
    inverse = F.avg_pool2d(torch.where(seen, 1 / torch.where(seen, rendered.depth, 1), 0)[None], shrink)[0]
    known = F.avg_pool2d((seen & shown)[None].float(), shrink)[0] == 1
    known[[0, -1]], known[:, [0, -1]] = False, False
    if not known.any():
        return torch.eye(4).to(image)
    picture, image = F.avg_pool2d(_evened(rendered, image), shrink), F.avg_pool2d(image, shrink)
    camera = camera.resized(image.shape[1], image.shape[2])
    middle = (picture + image) / 2
    across = (middle.roll(-1, 2) - middle.roll(1, 2))[:, known, None] / 2
    down = (middle.roll(-1, 1) - middle.roll(1, 1))[:, known, None] / 2
    (fx, fy), (cx, cy) = camera.intrinsics[[0, 1], [0, 1]], camera.intrinsics[:2, 2]
    row, column = known.nonzero().T
    x, y, near = (column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, inverse[known]
    zero = torch.zeros_like(x)
    u = fx * torch.stack([near, zero, -x * near, -x * y, 1 + x * x, -y], -1)  # of a pixel's place, by each direction
    v = fy * torch.stack([zero, near, -y * near, -1 - y * y, x * y, x], -1)
    slope = -(across * u + down * v).flatten(0, 1).double()
    difference = (image - picture)[:, known].flatten().double()
    usual = _USUAL * difference.abs().median().clamp_min(1e-4)
    weighted = slope * (usual / difference.abs().clamp_min(usual))[:, None]
    normal = weighted.T @ slope
    normal = normal + torch.diag(_DAMPING * normal.diagonal() + 1e-9)
    shift, turn = torch.linalg.solve(normal, weighted.T @ difference).split(3)
    return motion(rotation_from_vector(turn), shift).to(image)
