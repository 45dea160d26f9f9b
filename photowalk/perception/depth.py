"""Depth of photos, and of new frames for which memory knows depth in parts.

Known depth is kept where the picture does not speak against it, and the rest is brought to its scale: what a walk has
measured once stays where it is. How depth is remembered and projected is not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.models.depth_network import DepthNetwork, DepthPrediction, fill_gaps
from photowalk.perception.alignment import align_scale, is_surface
from photowalk.perception.edges import sharpen_edges
from photowalk.perception.sky import clean_sky

NEAREST, FARTHEST = 0.05, 1000.0  # metres that are believed
CONTRADICTION = 0.3  # log-ratio of known to estimated depth from which known depth is not believed
LARGEST_CORRECTION = 0.15  # log-ratio by which estimated depth bends towards known depth beside it
PHOTO_SHARES = (0.5, 0.75)  # of the photo's sides, at which the network looks at it
SURE = 2.0  # sky logit that outweighs known sky


@dataclass(frozen=True)
class DepthEstimate:
    depth: Tensor  # [H, W] metres along +Z, 0 = unknown, inf = sky
    focal_px: float


class DepthEstimator(Protocol):
    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        """photo [3, H, W] in [0, 1]; the focal length is estimated when it is not given."""
        ...

    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        """video [F, 3, H, W] in [0, 1], cameras [F], known [F, H, W] depth that memory projects into the frames
        (0 = unknown, inf = sky) -> depth [F, H, W] at the scale of `known`."""
        ...


class NanoDepth:
    """Implements `DepthEstimator` with small networks. Photos of unknown focal length get a usual field of view.

    One network completes known depth, another guesses a photo's: trained together, the first task, which begins with a
    good answer, kept the second from being learnt (`docs/training_log.md`).
    """

    def __init__(
        self, network: DepthNetwork, photo_network: DepthNetwork | None = None, usual_fov_x_deg: float = 65.0
    ) -> None:
        """`network` completes; without a `photo_network` it also guesses."""
        self.network = network
        self.photo_network = photo_network or network
        self.usual_fov_x_deg = usual_fov_x_deg

    @torch.inference_mode()
    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        if photo.dim() != 3 or photo.shape[0] != 3:
            raise ValueError(f"depth is estimated from a photo [3, H, W], got {tuple(photo.shape)}")
        height, width = photo.shape[1:]
        if focal_px is None:
            focal_px = width / 2 / math.tan(math.radians(self.usual_fov_x_deg) / 2)
        intrinsics = photo.new_tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
        log_depth, sky = _looked_at_often(self.photo_network, photo, intrinsics)
        depth = torch.where(clean_sky(sky), torch.inf, _believed(log_depth.exp()))
        return DepthEstimate(sharpen_edges(depth, photo), focal_px)

    @torch.inference_mode()
    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        if known.shape != (video.shape[0], *video.shape[2:]) or len(cameras) != len(video):
            raise ValueError(
                f"frames [F, 3, H, W] want F cameras and known depth [F, H, W], got {tuple(video.shape)}, "
                f"{len(cameras)} cameras and {tuple(known.shape)}"
            )
        return torch.stack([self._complete(*frame) for frame in zip(video, cameras.intrinsics, known, strict=True)])

    def _complete(self, image: Tensor, intrinsics: Tensor, known: Tensor) -> Tensor:
        prediction = _predict(self.network, image, intrinsics, known)
        estimated = prediction.log_depth[0].exp()
        estimated = estimated * align_scale(estimated, known).scale
        trusted, corrected = _follow(estimated, known)
        logit = prediction.sky[0] + torch.where(known.isinf(), SURE, 0.0)
        depth = torch.where(clean_sky(logit) & ~trusted, torch.inf, _believed(corrected))
        return torch.where(trusted, known, sharpen_edges(depth, image))


def _looked_at_often(network: DepthNetwork, photo: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Mean log-depth [H, W] and sky logit [H, W] of several looks at the photo: its errors differ between sizes and
    between the photo and its mirror image, what is right does not."""
    height, width = photo.shape[1:]
    looks = []
    for share in PHOTO_SHARES:
        size = (max(round(height * share), 16), max(round(width * share), 16))
        image = F.interpolate(photo[None], size, mode="bilinear", antialias=True)[0]
        lens = intrinsics * intrinsics.new_tensor([[size[1] / width], [size[0] / height], [1]])
        mirrored = lens.clone()
        mirrored[0, 2] = size[1] - lens[0, 2]
        nothing = torch.zeros(size, device=photo.device)
        plain, turned = _predict(network, image, lens, nothing), _predict(network, image.flip(-1), mirrored, nothing)
        look = torch.stack([plain.log_depth + turned.log_depth.flip(-1), plain.sky + turned.sky.flip(-1)], dim=1) / 2
        looks.append(F.interpolate(look, (height, width), mode="bilinear", align_corners=False)[0])
    log_depth, sky = torch.stack(looks).mean(0)
    return log_depth, sky


def _predict(network: DepthNetwork, image: Tensor, intrinsics: Tensor, known: Tensor) -> DepthPrediction:
    """A batch of one; pictures whose sides do not divide by 16 are continued to the right and below."""
    height, width = known.shape
    margin = (0, -width % 16, 0, -height % 16)
    padded = F.pad(image[None].float(), margin, mode="replicate").contiguous(memory_format=torch.channels_last)
    answer = network(padded, intrinsics[None].float(), F.pad(known[None].float(), margin))
    planes = (answer.log_depth, answer.sky, answer.log_error)
    return DepthPrediction(*(plane[:, :height, :width].float() for plane in planes))


def _follow(estimated: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Where known depth [H, W] is believed, and the estimate bent towards it, so that no seam is left between them."""
    surface = is_surface(known)
    ratio = torch.where(surface, known / estimated, torch.ones_like(known)).log()
    trusted = surface & (ratio.abs() < CONTRADICTION)
    bend = fill_gaps((ratio * trusted)[None, None], trusted[None, None].float())[0, 0]
    return trusted, estimated * bend.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION).exp()


def _believed(depth: Tensor) -> Tensor:
    return depth.clamp(NEAREST, FARTHEST)
