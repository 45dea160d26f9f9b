"""What a network must offer to be part of a world. Everything here is batched and takes and gives plain tensors."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from photowalk.models.conditioning import Conditioning

StreamState = dict[str, Tensor]  # what a causal codec remembers between calls; empty = nothing seen yet


class VideoCodec(Protocol):
    """A causal video codec: the first frame makes a latent frame of its own, then every `temporal_factor` frames one.

    encode and decode take the state that the previous call returned, so a stream may be cut anywhere between latent
    frames: cut or whole, the numbers are the same.
    """

    spatial_factor: int  # pixels per latent row or column
    temporal_factor: int  # frames per latent frame, except the first
    channels: int

    def encode(self, video: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """video [B, 3, F, H, W] in [-1, 1], F = 1 + k * temporal_factor when `state` is empty, else
        k * temporal_factor -> normalised latents [B, C, T, h, w] and the new state."""
        ...

    def decode(self, latents: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The other way round; the video is not clamped."""
        ...


class TextEncoder(Protocol):
    def encode(self, prompts: list[str]) -> Tensor:
        """-> [B, L, D] features, zero beyond the end of the text."""
        ...


class ImageEncoder(Protocol):
    def encode(self, images: Tensor) -> Tensor:
        """images [B, 3, H, W] in [0, 1] -> [B, L, D] tokens."""
        ...


class Denoiser(Protocol):
    """Predicts the velocity noise - clean of the frames being generated."""

    def __call__(self, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """noisy [B, C, T_new, h, w], timestep [B] in [0, 1000] -> velocity [B, C, T_new, h, w]."""
        ...


class DetailStage(Protocol):
    """Brings back, after decoding, what remembered pixels know better than the codec. Optional."""

    def restore(self, decoded: Tensor, warped: Tensor, known: Tensor) -> Tensor:
        """decoded [B, 3, H, W] and warped [B, 3, H, W] in [-1, 1], known [B, 1, H, W] in [0, 1] (how much of the
        pixel the warp covers) -> [B, 3, H, W] in [-1, 1]."""
        ...
