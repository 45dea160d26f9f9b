"""Depth from Depth Anything 3: of one picture, and of frames of known cameras seen together.

Known cameras always condition the network, and all frames of a call share one scale: that of the surfaces that memory
knows, else that of the distances between the cameras where these say something, else the network's own metres. How the
network is built and where its weights come from is not known here.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.models.depth_anything3 import metric
from photowalk.models.depth_anything3.network import DepthAnything3, Prediction
from photowalk.models.depth_anything3.pose_tokens import rigid_inverse
from photowalk.models.depth_anything3.preprocess import preprocess
from photowalk.perception.alignment import inverse_depth_scale
from photowalk.perception.depth import FARTHEST, NEAREST, DepthEstimate, DepthEstimator
from photowalk.perception.pose_alignment import align_cameras


class DepthAnything3Depth:
    """Implements `DepthEstimator`."""

    def __init__(self, network: DepthAnything3, name: str, metres: DepthEstimator) -> None:
        """`metres` gives scale and sky of a photo where the network has no branch that knows them."""
        self.network, self.name, self.metres = network.eval(), name, metres

    @torch.inference_mode()
    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        if photo.dim() != 3 or photo.shape[0] != 3:
            raise ValueError(f"depth is estimated from a photo [3, H, W], got {tuple(photo.shape)}")
        images = self._prepared(photo[None])
        predicted, lens = self._look(photo[None], images, None if focal_px is None else _camera(photo, focal_px)[None])
        focal_px = float(lens[0, [0, 1], [0, 1]].mean())
        depth = _full_size(predicted.depth, photo)
        if self._knows_metres:
            sky, scale = self._sky_and_metres(photo, images, predicted)
        else:
            other = self.metres.estimate_photo(photo, focal_px).depth
            sky = other.isinf()[None]
            scale = inverse_depth_scale(torch.where(sky[0], 0.0, depth[0]), other)
        return DepthEstimate(_believed(scale * depth, sky)[0], focal_px)

    @torch.inference_mode()
    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        if known.shape != (video.shape[0], *video.shape[2:]) or len(cameras) != len(video):
            raise ValueError(
                f"frames [F, 3, H, W] want F cameras and known depth [F, H, W], got {tuple(video.shape)}, "
                f"{len(cameras)} cameras and {tuple(known.shape)}"
            )
        images = self._prepared(video)
        predicted, _ = self._look(video, images, cameras)
        depth = _full_size(predicted.depth, video)
        if self._knows_metres:
            sky, metres = self._sky_and_metres(video, images, predicted)
        else:
            sky, metres = known.isinf(), 1.0
        alignment = align_cameras(
            rigid_inverse(predicted.camera_from_world),
            cameras.world_from_camera,
            predicted_depth=torch.where(sky, 0.0, depth),
            known_depth=known,
            confidence=_full_size(predicted.confidence, video),
            previous_scale=1 / metres,
        )
        return _believed(depth / alignment.scale, sky)

    @property
    def _knows_metres(self) -> bool:
        return self.network.config.metric_backbone is not None

    def _look(self, pictures: Tensor, images: Tensor, cameras: Cameras | None) -> tuple[Prediction, Tensor]:
        """What the network sees in `images`, its size of the pictures [F, 3, H, W], with the known lenses where there
        are any; and the lenses [F, 3, 3] for the pictures' size."""
        size = (images.shape[-2], images.shape[-1])
        if cameras is None:
            predicted = self.network(images)
            free = Cameras(predicted.camera_from_world, predicted.intrinsics, *size)
            return predicted, free.resized(*pictures.shape[-2:]).intrinsics
        smaller = cameras.resized(*size)
        predicted = self.network(images, smaller.camera_from_world, smaller.intrinsics)
        return replace(predicted, intrinsics=smaller.intrinsics), cameras.intrinsics

    def _sky_and_metres(self, pictures: Tensor, images: Tensor, predicted: Prediction) -> tuple[Tensor, float]:
        """Sky [F, H, W] bool, and metres per unit of the prediction; 1 where there is nothing but sky."""
        raw, score = self.network.metric(images)
        sky = _full_size(score, pictures) >= metric.SKY
        if int((score < metric.SKY).sum()) <= metric.FEWEST:
            return torch.ones_like(sky), 1.0
        raw = metric.own_sky(raw, score)
        found = metric.in_metres(predicted.depth, predicted.confidence, raw, score, predicted.intrinsics)
        return sky, float(found.scale)

    def _prepared(self, pictures: Tensor) -> Tensor:
        return preprocess(pictures.float(), self.network.config.backbone.patch)


def _camera(photo: Tensor, focal_px: float) -> Cameras:
    height, width = photo.shape[1:]
    lens = photo.new_tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    return Cameras(torch.eye(4).to(photo), lens, height, width)


def _full_size(maps: Tensor, pictures: Tensor) -> Tensor:
    """[F, h, w] -> [F, H, W]"""
    return F.interpolate(maps[:, None], pictures.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _believed(depth: Tensor, sky: Tensor) -> Tensor:
    return torch.where(sky, torch.inf, depth.clamp(NEAREST, FARTHEST))
