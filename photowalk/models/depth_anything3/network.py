"""Depth Anything 3 as a whole: the branch that sees all views, and the one that knows metres and sky.

One set of classes from a few hundred thousand parameters to the published 1.4 billion; presets/ holds the sizes.
Cameras that are known condition the network. How its world is brought to the known one is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from photowalk.models.depth_anything3.backbone import Backbone, BackboneConfig, Features
from photowalk.models.depth_anything3.dense_heads import VIEWS_AT_ONCE, DepthHead, HeadConfig, MetricHead, SplatHead
from photowalk.models.depth_anything3.pose_tokens import (
    CameraDecoder,
    CameraEncoder,
    CameraEncoderConfig,
    cameras_from_numbers,
    normalise_poses,
    numbers_from_cameras,
)
from photowalk.models.depth_anything3.splats import CHANNELS

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclass(frozen=True)
class DepthAnything3Config:
    backbone: BackboneConfig
    head: HeadConfig
    cameras: CameraEncoderConfig
    splats: HeadConfig | None = None
    metric_backbone: BackboneConfig | None = None
    metric_head: HeadConfig | None = None
    rays: bool = True  # whether the depth head has the chain for rays that the published files hold


@dataclass(frozen=True)
class Prediction:
    """In the network's own unit and frame."""

    depth: Tensor  # [S, H, W] along +Z
    confidence: Tensor  # [S, H, W] > 1
    camera_from_world: Tensor  # [S, 4, 4]
    intrinsics: Tensor  # [S, 3, 3] pixels
    splats: Tensor | None  # [S, h, w, 38] for `place_splats`


class AnyView(nn.Module):
    def __init__(self, config: DepthAnything3Config) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"pretrained": Backbone(config.backbone)})
        self.head = DepthHead(config.head, rays=config.rays)
        self.cam_enc = CameraEncoder(config.cameras)
        self.cam_dec = CameraDecoder(2 * config.backbone.width)
        if config.splats is not None:
            self.gs_head = SplatHead(config.splats, CHANNELS)


class MetricBranch(nn.Module):
    def __init__(self, backbone: BackboneConfig, head: HeadConfig) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"pretrained": Backbone(backbone)})
        self.head = MetricHead(head)


class DepthAnything3(nn.Module):
    def __init__(self, config: DepthAnything3Config) -> None:
        super().__init__()
        self.config = config
        self.da3 = AnyView(config)
        if config.metric_backbone is not None and config.metric_head is not None:
            self.da3_metric = MetricBranch(config.metric_backbone, config.metric_head)

    def forward(
        self,
        images: Tensor,
        camera_from_world: Tensor | None = None,
        intrinsics: Tensor | None = None,
        *,
        down_ratio: int | None = None,
        merge_first: bool = True,
    ) -> Prediction:
        """images [S, 3, H, W], normalised by `normalise`, sides divisible by the patch; known cameras [S, 4, 4] and
        [S, 3, 3] in pixels of these images, or none; one splat for every `down_ratio`-th pixel, or none."""
        size, grid = self._sizes(images)
        known = None
        if camera_from_world is not None and intrinsics is not None:
            with torch.autocast(images.device.type, enabled=False):  # only the backbone was trained in half precision
                numbers = numbers_from_cameras(normalise_poses(camera_from_world), intrinsics, size)
                known = self.da3.cam_enc(numbers[None])
        features: Features = self.da3.backbone["pretrained"](images[None], known)
        with torch.autocast(images.device.type, enabled=False):
            tokens = [each[0].float() for each in features.patches]
            depth, confidence = self.da3.head(tokens, size, grid)
            pose, lens = cameras_from_numbers(self.da3.cam_dec(features.camera[0]), size)
            raw = None
            if down_ratio is not None:
                if self.config.splats is None:
                    raise ValueError("these weights give depth and cameras but no splats: use reconstruction weights")
                maps = self.da3.gs_head(tokens, images.float(), grid, down_ratio, merge_first=merge_first)
                raw = maps.permute(0, 2, 3, 1)
        return Prediction(depth, confidence, pose, lens, raw)

    def metric(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw depth and sky score, both [S, H, W], of every view by itself; metric.py says what they mean."""
        if self.config.metric_backbone is None:
            raise ValueError("these weights know neither metres nor sky: use weights with a metric branch")
        size, grid = self._sizes(images)
        depths, skies = [], []
        for part in images.split(VIEWS_AT_ONCE):
            features: Features = self.da3_metric.backbone["pretrained"](part[:, None])
            with torch.autocast(images.device.type, enabled=False):
                depth, sky = self.da3_metric.head([each[:, 0].float() for each in features.patches], size, grid)
            depths.append(depth)
            skies.append(sky)
        return torch.cat(depths), torch.cat(skies)

    def _sizes(self, images: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
        height, width = images.shape[-2:]
        patch = self.config.backbone.patch
        if images.dim() != 4 or images.shape[1] != 3 or height % patch or width % patch:
            raise ValueError(f"wanted images [S, 3, H, W] with sides divisible by {patch}, got {tuple(images.shape)}")
        return (height, width), (height // patch, width // patch)


def normalise(images: Tensor) -> Tensor:
    """[*, 3, H, W] in [0, 1] -> as the network takes them."""
    mean, deviation = (images.new_tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
    return (images - mean) / deviation
