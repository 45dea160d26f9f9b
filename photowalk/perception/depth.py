"""Depth of photos, and of new frames for which memory knows depth in parts.

Known depth is kept where the picture does not speak against it, and the rest is guessed as a photo's is, brought to the
known scale and bent towards it: what a walk has measured once stays where it is. A network that is told the known depth
instead was tried and errs twice as much in wide holes (docs/training_log.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.models.depth_network import DepthNetwork
from photowalk.perception.alignment import align_scale, is_surface
from photowalk.perception.flat_surfaces import flattened
from photowalk.perception.sky import clean_sky, remembered_sky
from photowalk.scene.edges import sharpen_edges
from photowalk.scene.filling import fill_smoothly
from photowalk.scene.types import View
from photowalk.scene.warping import composite

NEAREST, FARTHEST = 0.05, 1000.0  # metres that are believed
CONTRADICTION = 1.0  # log-ratio of known to estimated depth from which known depth is not believed
LARGEST_CORRECTION = 0.15  # log-ratio by which estimated depth bends towards known depth beside it
WORTH_TELLING = 0.002  # share of a frame's pixels that it shows first, from which other frames are told of them
SHARES = (0.5, 0.75)  # of a picture's sides, at which the network looks at it


@dataclass(frozen=True)
class DepthEstimate:
    depth: Tensor  # [H, W] metres along +Z, 0 = unknown, inf = sky
    focal_px: float


class DepthEstimator(Protocol):
    name: str  # under which presets know it

    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        """photo [3, H, W] in [0, 1]; the focal length is estimated when it is not given."""
        ...

    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        """video [F, 3, H, W] in [0, 1], cameras [F], known [F, H, W] depth that memory projects into the frames
        (0 = unknown, inf = sky) -> depth [F, H, W] at the scale of `known`."""
        ...


class NanoDepth:
    """Implements `DepthEstimator` with a small network. Photos of unknown focal length get a usual field of view."""

    name = "nano"

    def __init__(self, network: DepthNetwork, usual_fov_x_deg: float = 65.0) -> None:
        self.network = network
        self.usual_fov_x_deg = usual_fov_x_deg

    @torch.inference_mode()
    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        if photo.dim() != 3 or photo.shape[0] != 3:
            raise ValueError(f"depth is estimated from a photo [3, H, W], got {tuple(photo.shape)}")
        height, width = photo.shape[1:]
        if focal_px is None:
            focal_px = width / 2 / math.tan(math.radians(self.usual_fov_x_deg) / 2)
        intrinsics = photo.new_tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
        log_depth, sky = _looked_at_often(self.network, photo, intrinsics, mirrored=True)
        depth = torch.where(clean_sky(sky), torch.inf, _believed(log_depth.exp()))
        camera = Cameras(torch.eye(4).to(photo), intrinsics, height, width)
        return DepthEstimate(flattened(View(photo, sharpen_edges(depth, photo), camera, 0)), focal_px)

    @torch.inference_mode()
    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        if known.shape != (video.shape[0], *video.shape[2:]) or len(cameras) != len(video):
            raise ValueError(
                f"frames [F, 3, H, W] want F cameras and known depth [F, H, W], got {tuple(video.shape)}, "
                f"{len(cameras)} cameras and {tuple(known.shape)}"
            )
        # The last frame of a walk sees most of what is new. What it shows is known to the frames before it, so that a
        # surface has one depth in all of them.
        depth, new = torch.zeros_like(known), []
        for frame in reversed(range(len(video))):
            camera, already = cameras[frame, None], known[frame]
            if new:
                already = torch.where(already > 0, already, composite(new, camera).depth[0])
            depth[frame] = self._complete(video[frame], camera.intrinsics[0], already)
            added = torch.where(already > 0, 0, depth[frame])
            if (added > 0).float().mean() > WORTH_TELLING:
                new.append(View(video[frame], added, camera[0], frame))
        return depth

    def _complete(self, image: Tensor, intrinsics: Tensor, known: Tensor) -> Tensor:
        log_depth, sky = _looked_at_often(self.network, image, intrinsics)
        estimated = log_depth.exp()
        estimated = estimated * align_scale(estimated, known).scale
        trusted, corrected = _follow(estimated, known)
        sky = clean_sky(remembered_sky(sky, known))
        depth = torch.where(sky, torch.inf, _believed(corrected))
        return torch.where(trusted & ~sky, known, sharpen_edges(depth, image))


def _looked_at_often(
    network: DepthNetwork, image: Tensor, intrinsics: Tensor, *, mirrored: bool = False
) -> tuple[Tensor, Tensor]:
    """As `_look`, the mean of several: errors differ between sizes and between a picture and its mirror image, what is
    right does not."""
    looks = [torch.stack(_look(network, image, intrinsics, share)) for share in SHARES]
    if mirrored:
        lens = intrinsics.clone()
        lens[0, 2] = image.shape[2] - intrinsics[0, 2]
        looks += [torch.stack(_look(network, image.flip(-1), lens, share)).flip(-1) for share in SHARES]
    log_depth, sky = torch.stack(looks).mean(0)
    return log_depth, sky


def _look(network: DepthNetwork, image: Tensor, intrinsics: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Log-depth [H, W] and sky logit [H, W] of a picture [3, H, W], seen at a share of its size, to multiples of 16."""
    height, width = image.shape[1:]
    size = tuple(max(round(side * share / 16), 1) * 16 for side in (height, width))
    seen = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
    lens = intrinsics.float() * intrinsics.new_tensor([[size[1] / width], [size[0] / height], [1]])
    answer = network(seen.contiguous(memory_format=torch.channels_last), lens[None])
    planes = torch.stack([answer.log_depth, answer.sky], dim=1).float()
    log_depth, sky = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)[0]
    return log_depth, sky


def _follow(estimated: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Where known depth [H, W] is believed, and the estimate bent towards it, so that no seam is left between them."""
    surface = is_surface(known)
    ratio = torch.where(surface, known / estimated, torch.ones_like(known)).log()
    trusted = surface & (ratio.abs() < CONTRADICTION)
    bend = fill_smoothly((ratio * trusted)[None, None], trusted[None, None].float())[0, 0]
    return trusted, estimated * bend.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION).exp()


def _believed(depth: Tensor) -> Tensor:
    return depth.clamp(NEAREST, FARTHEST)
