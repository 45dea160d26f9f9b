"""A light causal video codec: 16 pixels a latent row, four frames a latent frame, the first frame alone.

A latent frame holds the last picture of its group in a linear code (principal components of 16x16 patches), then
corrections of the pictures between. Those are drawn from the previous group's last picture and this one's, moved along
block motion that decoder and encoder find alike in the *decoded* pictures. The rows of every basis are orthonormal, so
that coding what was decoded gives the same latents again and a still scene stays what it was.
It knows nothing of how its bases were fitted (`train/codec.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photowalk.models.block_motion import block_motion, pictures_between
from photowalk.models.protocols import StreamState


class NanoCodec(nn.Module):
    """Implements the protocol `VideoCodec`. Works in float32 whatever autocast says: errors would add up in a walk."""

    @dataclass(frozen=True)
    class Config:
        spatial_factor: int = 16
        temporal_factor: int = 4
        picture_channels: int = 112  # of the group's last picture
        between_channels: int = 16  # of the corrections to the pictures between; zero for a first frame

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.spatial_factor, self.temporal_factor = config.spatial_factor, config.temporal_factor
        self.channels = config.picture_channels + config.between_channels
        self.config = config
        pixels = 3 * config.spatial_factor**2
        between = (config.temporal_factor - 1) * config.picture_channels
        self.register_buffer("picture_basis", torch.eye(config.picture_channels, pixels))
        self.register_buffer("between_basis", torch.eye(config.between_channels, between))
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("deviation", torch.ones(self.channels))

    def encode(self, video: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """video [B, 3, F, H, W] in [-1, 1] -> latents [B, C, T, H/16, W/16] of unit variance, and the new state."""
        self._check_video(video, state)
        latents = []
        with torch.autocast(video.device.type, enabled=False):
            video, before = video.float(), state.get("picture")
            start = 0
            if before is None:
                code = self.picture_code(video[:, :, 0])
                before, start = self.picture(code), 1
                latents.append(F.pad(code, (0, 0, 0, 0, 0, self.config.between_channels)))
            for first in range(start, video.shape[2], self.temporal_factor):
                latent, before = self._encode_group(video[:, :, first : first + self.temporal_factor], before)
                latents.append(latent)
        return self._normalise(torch.stack(latents, dim=2)), {"picture": before}

    def decode(self, latents: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """latents [B, C, T, h, w] -> video [B, 3, F, H, W], not clamped, and the new state."""
        if latents.dim() != 5 or latents.shape[1] != self.channels:
            raise ValueError(f"the codec decodes latents [B, {self.channels}, T, h, w], got {tuple(latents.shape)}")
        groups = []
        with torch.autocast(latents.device.type, enabled=False):
            before = state.get("picture")
            for latent in self._denormalise(latents.float()).unbind(2):
                code = latent[:, : self.config.picture_channels]
                last = self.picture(code)
                if before is None:
                    groups.append(last[:, :, None])
                else:
                    between = self._between(before, last) + self._correction(latent[:, self.config.picture_channels :])
                    groups.append(torch.cat([between, last[:, :, None]], dim=2))
                before = last
        return torch.cat(groups, dim=2), {"picture": last}

    def picture_code(self, picture: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, picture_channels, h, w], not normalised."""
        return torch.einsum("cd,bdhw->bchw", self.picture_basis, F.pixel_unshuffle(picture, self.spatial_factor))

    def picture(self, code: Tensor) -> Tensor:
        """The other way round."""
        return F.pixel_shuffle(torch.einsum("cd,bchw->bdhw", self.picture_basis, code), self.spatial_factor)

    def between_codes(self, group: Tensor, before: Tensor, last: Tensor) -> Tensor:
        """What the pictures drawn between lack: [B, (temporal_factor - 1) * picture_channels, h, w]."""
        drawn = self._between(before, last)
        lacking = (group[:, :, :-1] - drawn).unbind(2)
        return torch.cat([self.picture_code(picture) for picture in lacking], dim=1)

    def _encode_group(self, group: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Four pictures [B, 3, 4, H, W] after the decoded picture `before` -> latent [B, C, h, w], decoded last."""
        code = self.picture_code(group[:, :, -1])
        last = self.picture(code)
        lacking = self.between_codes(group, before, last)
        return torch.cat([code, torch.einsum("cd,bdhw->bchw", self.between_basis, lacking)], dim=1), last

    def _between(self, before: Tensor, last: Tensor) -> Tensor:
        motion = block_motion(before, last, self.spatial_factor)
        return pictures_between(before, last, motion, self.temporal_factor - 1)

    def _correction(self, code: Tensor) -> Tensor:
        """[B, between_channels, h, w] -> [B, 3, temporal_factor - 1, H, W]."""
        lacking = torch.einsum("cd,bchw->bdhw", self.between_basis, code)
        return torch.stack([self.picture(part) for part in lacking.chunk(self.temporal_factor - 1, dim=1)], dim=2)

    def _normalise(self, latents: Tensor) -> Tensor:
        return (latents - self.mean.view(-1, 1, 1, 1)) / self.deviation.view(-1, 1, 1, 1)

    def _denormalise(self, latents: Tensor) -> Tensor:
        return latents * self.deviation.view(-1, 1, 1, 1) + self.mean.view(-1, 1, 1, 1)

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
