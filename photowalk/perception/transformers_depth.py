"""Depth from any depth model of transformers: metric ones as they are, relative ones brought to another's scale.

Models that see one picture at a time; across the frames of a walk their depth is brought to what memory knows. It knows
nothing of where a model's files come from beyond the hub's folder on this computer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.perception.alignment import align_scale, inverse_depth_scale
from photowalk.perception.depth import FARTHEST, NEAREST, DepthEstimate, DepthEstimator

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST_CLOSENESS = 1e-3  # share of a picture's median inverse depth from which a relative model sees sky


class DepthProcessor(Protocol):
    """What is used of an image processor of transformers."""

    def __call__(self, images: Tensor, return_tensors: str) -> Mapping[str, Tensor]: ...

    def post_process_depth_estimation(self, outputs: Any, target_sizes: list[tuple[int, int]]) -> list[dict]: ...


class TransformersDepth:
    """Implements `DepthEstimator`."""

    def __init__(
        self, network: PreTrainedModel, processor: DepthProcessor, metres: DepthEstimator, name: str = "transformers"
    ) -> None:
        """`metres` gives the scale of a photo where the network knows none, and its focal length."""
        self.name = name
        self.network, self.processor, self.metres = network.eval(), processor, metres
        kind = getattr(network.config, "depth_estimation_type", None)
        self.is_metric = kind == "metric" or network.config.model_type in ("zoedepth", "depth_pro")

    @classmethod
    def of(cls, name: str, metres: DepthEstimator, device: torch.device) -> TransformersDepth:
        """A model by its name on the hub, or a folder. Nothing is downloaded. Raises ValueError."""
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        try:
            processor = AutoImageProcessor.from_pretrained(name, local_files_only=True)
            network = AutoModelForDepthEstimation.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the depth model {name!r} cannot be loaded ({str(error).splitlines()[0]}); name a folder with a depth "
                f"model of transformers, or fetch one from the hub first with: hf download {name}"
            ) from error
        return cls(network.to(device), processor, metres, name)

    @torch.inference_mode()
    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        depth, own_focal = self._depth(photo)
        if focal_px is None and own_focal is not None:
            focal_px = own_focal
        if self.is_metric and focal_px is not None:
            return DepthEstimate(_believed(depth), focal_px)
        other = self.metres.estimate_photo(photo, focal_px)
        scale = 1.0 if self.is_metric else inverse_depth_scale(depth, other.depth)
        return DepthEstimate(_believed(scale * depth), other.focal_px)

    @torch.inference_mode()
    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        frames = []
        for image, camera, seen in zip(video, cameras, known, strict=True):
            depth, _ = self._depth(image)
            alignment = align_scale(depth, seen)
            if alignment.reliable:
                depth = alignment.scale * depth
            elif not self.is_metric:
                focal = float(camera.intrinsics[0, 0])
                depth = inverse_depth_scale(depth, self.metres.estimate_photo(image, focal).depth) * depth
            frames.append(_believed(depth))
        return torch.stack(frames)

    def _depth(self, image: Tensor) -> tuple[Tensor, float | None]:
        """[3, H, W] -> depth [H, W], inf where a relative model sees sky, and the focal length if it is given."""
        pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        inputs = self.processor(images=pixels, return_tensors="pt")
        parameter = next(self.network.parameters())
        with torch.autocast(image.device.type, enabled=False):
            outputs = self.network(inputs["pixel_values"].to(parameter))
        (found,) = self.processor.post_process_depth_estimation(
            outputs, target_sizes=[(image.shape[1], image.shape[2])]
        )
        values, focal = found["predicted_depth"].float().to(image.device), found.get("focal_length")
        if self.is_metric:
            return values, None if focal is None else float(focal)
        closeness = values / values[values > 0].median() if bool((values > 0).any()) else values
        return torch.where(closeness > LEAST_CLOSENESS, 1 / closeness.clamp_min(LEAST_CLOSENESS), torch.inf), None


def _believed(depth: Tensor) -> Tensor:
    """Depth that cannot be is sky where it is too far, and clamped where it is too near."""
    return torch.where(depth < FARTHEST, depth.clamp_min(NEAREST), torch.inf)
