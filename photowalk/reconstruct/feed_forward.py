"""A walk to splats by Depth Anything 3: windows of frames, each seen at once, in the walk's own cameras.

Cameras are known and stay what they are: the network is told them, and only its unit of length is found, from the depth
that the walk knows. Whether splats of several views describe the same surface is fusion's business (fuse.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import quaternion_from_rotation, rotation_from_quaternion
from photowalk.models.depth_anything3 import metric
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.models.depth_anything3.pose_tokens import rigid_inverse
from photowalk.models.depth_anything3.preprocess import preprocess
from photowalk.models.depth_anything3.splats import PlacedSplats, place_splats
from photowalk.perception.pose_alignment import align_cameras
from photowalk.reconstruct.windows import batches, stream_views
from photowalk.scene.surfaces import Surface
from photowalk.scene.types import Clip, Splats, View

WINDOW, OVERLAP = 128, 10  # views that the network sees at once, and of these those that it saw before
FAINTEST = 1 / 255  # opacity that can be seen
Precision = Callable[[], AbstractContextManager[object]]


class NetworkLift:
    """Implements `photowalk.reconstruct.lift.Lifter` for the views that went through `views`, each once.

    A window of views is held, and splats until they are asked for; the length of a walk costs no memory.
    """

    blends = False  # colours are such that they look right where splats overlap

    def __init__(
        self,
        network: DepthAnything3,
        ratio: int = 2,
        *,
        window: int = WINDOW,
        overlap: int = OVERLAP,
        precision: Precision = nullcontext,
    ) -> None:
        """`precision` is what the backbone runs in, as a context. Raises ValueError for weights without splats."""
        if network.config.splats is None:
            raise ValueError("these weights give depth and cameras but no splats: use reconstruction weights")
        if not 0 <= overlap < window:
            raise ValueError(f"windows of {window} frames cannot share {overlap}: give 0 <= overlap < window")
        self.network, self.ratio, self.precision = network, ratio, precision
        self._window, self._overlap = window, overlap
        self._scale = 1.0  # of the network's unit in the walk's, in the last window
        self._seen: dict[int, tuple[Splats, Tensor, Tensor]] = {}  # frame: splats, their pixels, the view's depth

    def views(self, walk: Iterable[Clip] | Iterable[View]) -> Iterator[View]:
        """The views of a walk whose depth is known, in order, each once the network has seen it with its window."""
        before: list[View] = []
        for new in batches(stream_views(walk), self._window - self._overlap):
            self._look(before, new)
            yield from new
            before = new[len(new) - self._overlap :] if self._overlap else []

    def __call__(self, view: View, surface: Surface, chosen: Tensor, beside: Sequence[View]) -> Splats:
        splats, pixels, depth = self._seen.pop(view.frame)
        wanted = chosen.to(pixels.device).flatten()[pixels]
        both = (view.depth > 0) & view.depth.isfinite() & (depth > 0) & depth.isfinite()
        stretch = float((view.depth[both] / depth[both]).median()) if bool(both.any()) else 1.0
        centre, kept = view.camera.centres, splats[wanted]
        return replace(kept, means=centre + stretch * (kept.means - centre), scales=stretch * kept.scales)

    @torch.inference_mode()
    def _look(self, before: list[View], new: list[View]) -> None:
        """Let the network see a window, and keep the splats of its `new` views."""
        window = [*before, *new]
        device = next(self.network.parameters()).device
        cameras = _stacked(window).to(device)
        images = preprocess(torch.stack([view.image for view in window]).to(device), self._step)
        smaller = cameras.resized(images.shape[-2], images.shape[-1])
        known = torch.stack([view.depth for view in window]).to(device)
        known = F.interpolate(known[:, None], images.shape[-2:], mode="nearest-exact")[:, 0]
        with self.precision():
            predicted = self.network(images, smaller.camera_from_world, smaller.intrinsics, down_ratio=self.ratio)
            sky = known.isinf()
            if self.network.config.metric_backbone is not None:
                sky |= self.network.metric(images)[1] >= metric.SKY
        assert predicted.splats is not None
        self._scale = align_cameras(
            rigid_inverse(predicted.camera_from_world),
            cameras.world_from_camera,
            predicted_depth=predicted.depth,
            known_depth=known,
            confidence=predicted.confidence,
            previous_scale=self._scale,
        ).scale
        for number in range(len(before), len(window)):
            one = slice(number, number + 1)
            placed = place_splats(
                predicted.splats[one],
                predicted.depth[one],
                cameras.world_from_camera[one],
                smaller.intrinsics[one],
                unit=self._scale,
            )
            kept = _sound(placed) & ~sky[number, :: self.ratio, :: self.ratio].flatten()
            pixels = _pixels(predicted.splats.shape[1:3], window[number].depth.shape).to(device)
            splats = _in_order(placed, kept)
            self._seen[window[number].frame] = splats.to("cpu"), pixels[kept].cpu(), window[number].depth

    @property
    def _step(self) -> int:
        """What the sides of pictures must be multiples of, so that patches and splats divide them."""
        patch = self.network.config.backbone.patch
        return patch * (self.ratio if patch % self.ratio else 1)


def _stacked(views: Sequence[View]) -> Cameras:
    first = views[0].camera
    return Cameras(
        torch.stack([view.camera.camera_from_world for view in views]),
        torch.stack([view.camera.intrinsics for view in views]),
        first.height,
        first.width,
    )


def _pixels(grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """[h * w] for each splat of a grid the pixel of a picture that its centre lies in, as a flat index."""
    rows, columns = ((torch.arange(few) + 0.5) * (many / few) for few, many in zip(grid, size, strict=True))
    return (rows.long()[:, None] * size[1] + columns.long()).flatten()


def _sound(placed: PlacedSplats) -> Tensor:
    """[N] which splats are neither behind their cameras, nor without a rotation, nor too faint to be seen."""
    finite = placed.means.isfinite().all(-1) & placed.rotations.isfinite().all(-1)
    return finite & (placed.scales > 0).all(-1) & (placed.opacities > FAINTEST)


def _in_order(placed: PlacedSplats, kept: Tensor) -> Splats:
    """The splats that are kept, their longest axis first, as fusion expects them; of the harmonics, which the published
    weights give little of, the constant."""
    scales, order = placed.scales[kept].sort(dim=-1, descending=True)
    axes = rotation_from_quaternion(placed.rotations[kept]).gather(2, order[:, None].expand(-1, 3, -1))
    axes = axes * torch.linalg.det(axes).sign()[:, None, None]
    return Splats(
        placed.means[kept],
        scales,
        quaternion_from_rotation(axes),
        placed.opacities[kept],
        placed.harmonics[kept, :1],
    )
