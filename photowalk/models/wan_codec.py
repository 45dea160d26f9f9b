"""Wan 2.1's causal video codec as a resumable stream, around the network of diffusers.

diffusers keeps the stream's cache to itself and clamps what it decodes. Here the cache is a value that goes in and out,
and pictures leave as the network makes them, since the published system encodes them again unclamped. It knows nothing
of where weights lie (`photowalk/checkpoints`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from photowalk.models.protocols import StreamState

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

_REPEATED = "Rep"  # diffusers: an upsampler has seen the first latent frame, which it does not lengthen


class WanCodec(nn.Module):
    """Implements the protocol `VideoCodec`. Works in the number format of the network's weights, without autocast.

    Latents are normalised by constants rounded to that format, as the published weights were trained with. Latent
    frames are coded one by one, so that a stream gives the same numbers wherever it is cut.
    """

    temporal_factor = 4

    def __init__(self, network: AutoencoderKLWan) -> None:
        super().__init__()
        if network.config["patch_size"] is not None:
            raise ValueError("this is a codec of Wan 2.2 (it has a patch size); the codec of Wan 2.1 is wanted")
        self.network = network
        self.spatial_factor = 2 ** (len(network.config["dim_mult"]) - 1)
        self.channels = network.config["z_dim"]

    def encode(self, video: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """video [B, 3, F, H, W] in [-1, 1] -> latents [B, C, T, H/8, W/8], most likely ones, and the new state."""
        self._check_video(video, state)
        ends = range(self.temporal_factor if state else 1, video.shape[2] + 1, self.temporal_factor)
        groups = [video[:, :, max(0, end - self.temporal_factor) : end] for end in ends]

        def one(group: Tensor, cache: list, beginning: bool) -> Tensor:
            return self.network.quant_conv(self.network.encoder(group, feat_cache=cache, feat_idx=[0]))

        moments, state = self._stream(one, groups, state, "encoder")
        mean, deviation_inverse = self._constants(moments)
        return (moments[:, : self.channels] - mean) * deviation_inverse, state

    def decode(self, latents: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """latents [B, C, T, h, w] -> video [B, 3, F, H, W], not clamped, and the new state."""
        if latents.dim() != 5 or latents.shape[1] != self.channels or latents.shape[2] == 0:
            raise ValueError(f"the codec decodes latents [B, {self.channels}, T, h, w], got {tuple(latents.shape)}")
        latents = latents.to(self._dtype)
        mean, deviation_inverse = self._constants(latents)

        def one(latent: Tensor, cache: list, beginning: bool) -> Tensor:
            latent = self.network.post_quant_conv(latent / deviation_inverse + mean)
            return self.network.decoder(latent, feat_cache=cache, feat_idx=[0], first_chunk=beginning)

        return self._stream(one, list(latents.split(1, dim=2)), state, "decoder")

    def _stream(
        self, one: Callable[[Tensor, list, bool], Tensor], groups: list[Tensor], state: StreamState, half: str
    ) -> tuple[Tensor, StreamState]:
        slots = self.network._cached_conv_counts[half]
        cache = _unpacked(state, slots)
        coded = []
        with torch.autocast(groups[0].device.type, enabled=False):
            for index, group in enumerate(groups):
                coded.append(one(group.to(self._dtype), cache, not state and index == 0))
        return torch.cat(coded, dim=2), _packed(cache)

    @property
    def _dtype(self) -> torch.dtype:
        return self.network.quant_conv.weight.dtype

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and reciprocal deviation of the latents, [C, 1, 1, 1]; both rounded before they are used."""
        config, device = self.network.config, like.device
        mean = torch.tensor(config["latents_mean"], device=device)
        deviation = torch.tensor(config["latents_std"], device=device)
        return mean.to(self._dtype).view(-1, 1, 1, 1), (1 / deviation).to(self._dtype).view(-1, 1, 1, 1)

    def _check_video(self, video: Tensor, state: StreamState) -> None:
        expected = 0 if state else 1
        if video.dim() != 5 or video.shape[1] != 3 or video.shape[2] == 0:
            raise ValueError(f"the codec encodes video [B, 3, F, H, W] with F > 0, got {tuple(video.shape)}")
        if video.shape[2] % self.temporal_factor != expected:
            raise ValueError(
                f"the codec wants {self.temporal_factor}k + {expected} frames "
                f"{'after' if state else 'at'} the start of a stream, got {video.shape[2]}"
            )
        if video.shape[3] % self.spatial_factor or video.shape[4] % self.spatial_factor:
            raise ValueError(
                f"the codec wants sides divisible by {self.spatial_factor}, got {video.shape[3]}x{video.shape[4]}"
            )


def _packed(cache: list) -> StreamState:
    """diffusers' cache (a tensor, "Rep" or nothing per convolution) as named tensors; "Rep" is one without elements."""
    return {
        f"{index:03d}": torch.empty(0) if isinstance(slot, str) else slot
        for index, slot in enumerate(cache)
        if slot is not None
    }


def _unpacked(state: StreamState, slots: int) -> list:
    stored = [state.get(f"{index:03d}") for index in range(slots)]
    return [_REPEATED if slot is not None and slot.numel() == 0 else slot for slot in stored]
