"""Builds what the denoiser knows of one chunk: the same function for training and for generation.

    latest view ──────┐
    recalled views ───┴─ warp to the new cameras ──> codec ──> warp latents, known mask
    recalled views ───── canonical coordinates, warped ──────> correspondence
    timeline of latents, cameras ─ HistoryLayout ────────────> history latents, rays

It knows nothing of sampling, of how views were recalled, or of where a world is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.memory.correspondence import correspondence_features
from photowalk.models.conditioning import Conditioning
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.protocols import ImageEncoder, TextEncoder, VideoCodec
from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.scene.close_up import CloseUp
from photowalk.scene.types import View
from photowalk.scene.warping import ray_features
from photowalk.world.preview import Preview, PreviewConfig, preview_chunk


@dataclass(frozen=True)
class ConditioningConfig:
    layout: HistoryLayout
    preview: PreviewConfig
    condition_side: int  # condition pixels per latent pixel, for rays and correspondence
    mask_known: bool  # published: False, the mask channels are all one; True: they tell warped from filled
    inverse_depth: bool  # published: False, depth in the correspondence is scaled by its global range
    correspondence: bool = True  # False: nothing is said of where recalled pixels land, to see what saying it is worth


@dataclass(frozen=True)
class Past:
    """What a chunk continues. Frame 0 was repeated before the stream began, so history is never short."""

    latents: Tensor  # [C, T, h, w] the whole timeline; its last latent ends with the latest frame
    cameras: Cameras  # [F] of all frames so far
    first: View
    latest: View
    close_up: CloseUp | None = None  # of the first view


def priming_frames(layout: HistoryLayout, temporal_factor: int) -> int:
    """How often the photo is shown to the codec before the walk: the history's latent frames, as pixel frames."""
    return (layout.history_frames - 1) * temporal_factor + 1


def build_conditioning(
    past: Past,
    recalled: tuple[View, ...],  # at most as many as the layout has memory slots, worst first
    targets: Cameras,  # [F_new]
    prompt: str,
    *,
    config: ConditioningConfig,
    codec: VideoCodec,
    text: TextEncoder,
    image: ImageEncoder,
    savings: Savings = ALL_SAVINGS,
) -> tuple[Conditioning, Preview]:
    """One chunk's conditioning (B = 1) and the picture that geometry alone makes of it."""
    slots = (past.first,) * (config.layout.space_frames - len(recalled)) + recalled
    rows, columns = past.latents.shape[-2:]
    with torch.autocast(past.latents.device.type, enabled=False):  # poses want all their digits
        preview = preview_chunk(
            past.latest,
            recalled,
            targets,
            config.preview,
            close_up=past.close_up,
            fused=savings.fused_splat,
        )
        rays = _rays(past, slots, targets, config, codec, needed=savings.needed_rays)
        correspondence = correspondence_features(
            recalled if config.correspondence else (),
            targets,
            slots=config.layout.space_frames,
            latent_size=(rows, columns),
            side=config.condition_side,
            every=codec.temporal_factor,
            inverse_depth=config.inverse_depth,
            pixel_centre=config.preview.pixel_centre,
            group=config.preview.warp_group,
            clean=config.preview.reliable_ratio,
            invalid_at_origin=config.preview.invalid_at_origin,
            fused=savings.fused_splat,
        )
    conditioning = Conditioning(
        history=_history_latents(past, slots, config.layout, codec, batched=savings.batched_encodes)[None],
        warp=_encode_warp(preview, codec)[None],
        known=_known_mask(preview, (rows, columns), codec, config)[None],
        rays=rays[None],
        correspondence=correspondence[None],
        text=text.encode([prompt]),
        image=image.encode(past.latest.image[None]),
    )
    return conditioning, preview


def _history_latents(
    past: Past, slots: tuple[View, ...], layout: HistoryLayout, codec: VideoCodec, *, batched: bool
) -> Tensor:
    """[C, T_old, h, w] in the layout's order; a memory slot is the latent of its frame as a clip of one frame."""
    if batched:  # the photo may fill several slots
        views = {view.frame: view for view in slots}
        encoded, _ = codec.encode(_as_codec_pictures(views.values())[:, :, None], {})
        singles = encoded[[list(views).index(view.frame) for view in slots]]  # [K, C, 1, h, w]
    else:
        singles = torch.cat([codec.encode(_as_codec_pictures([view])[:, :, None], {})[0] for view in slots])
    return layout.arrange(time=past.latents, space=singles[:, :, 0].transpose(0, 1))


def _as_codec_pictures(views: Iterable[View]) -> Tensor:
    """[K, 3, H, W] in [-1, 1]."""
    return torch.stack([view.image for view in views]) * 2 - 1


def _encode_warp(preview: Preview, codec: VideoCodec) -> Tensor:
    """[C, T_new, h, w]: the warp as a video of its own; its first picture, shown twice, pays for the first latent."""
    video = torch.cat([preview.video[:1], preview.video]) * 2 - 1  # [1 + F, 3, H, W]
    latents, _ = codec.encode(video.transpose(0, 1)[None], {})
    return latents[0, :, 1:]


def _known_mask(
    preview: Preview, latent_size: tuple[int, int], codec: VideoCodec, config: ConditioningConfig
) -> Tensor:
    """[4, T_new, h, w]: one channel per frame of the latent's group."""
    per_frame = F.adaptive_avg_pool2d(preview.known[:, None], latent_size)[:, 0]  # [F, h, w]
    grouped = per_frame.unflatten(0, (-1, codec.temporal_factor)).transpose(0, 1)
    return grouped.contiguous() if config.mask_known else torch.ones_like(grouped)


def _rays(
    past: Past,
    slots: tuple[View, ...],
    targets: Cameras,
    config: ConditioningConfig,
    codec: VideoCodec,
    *,
    needed: bool,
) -> Tensor:
    """[6*s*s, T_old + T_new, h, w] relative to the latest camera; a latent takes the camera of its last frame."""
    layout, group, last = config.layout, codec.temporal_factor, len(past.cameras) - 1
    latents = past.latents.shape[1]
    shown = [max(0, last - group * (latents - 1 - j)) for j in range(latents)]  # the frame that ends each latent
    everything = Cameras.cat([past.cameras, *(view.camera[None] for view in slots), targets])
    history, frames = torch.tensor(shown), torch.arange(last + 1, len(everything))
    order = layout.arrange(time=history[:, None, None], space=frames[: len(slots), None, None]).flatten()
    chosen = torch.cat([order, frames[len(slots) :][group - 1 :: group]])
    cameras = (everything[chosen] if needed else everything).relative_to(past.cameras[last])
    height, width = past.latents.shape[-2:]
    side = config.condition_side
    rays = ray_features(cameras.resized(height * side, width * side), side)
    return rays if needed else rays[:, chosen]
