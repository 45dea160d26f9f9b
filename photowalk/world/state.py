"""A world as a value: the chunks it was made of and what follows from them.

Undo and branches are keeping an old value, saving is writing the chunks. It knows nothing of
networks or files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.memory.spatial_memory import EMPTY_MEMORY, SpatialMemory
from photowalk.models.protocols import StreamState
from photowalk.scene.close_up import CloseUp
from photowalk.scene.types import Clip, View


@dataclass(frozen=True)
class Chunk:
    """What one step of the walk added. All of it can be stored without loss."""

    clip: Clip  # the new frames: video values are n / 255; depth holds float16 values, a frame of zeros has none
    latents: Tensor  # [C, T, h, w] that these frames added to the history: the frames encoded
    prompt: str
    seed: int
    path: str = ""  # the sentence, preset or file that its cameras were planned from
    notes: tuple[str, ...] = ()  # what was decided about the path, in words
    encoder: StreamState = field(default_factory=dict)  # of the codec, after this chunk
    decoder: StreamState = field(default_factory=dict)
    sampled: Tensor | None = None  # [C, T, h, w] that the frames were decoded from; None: a photo
    views: tuple[View, ...] = ()  # with the photo: further pictures of the place, frames -1, -2, ...
    close_up: Tensor | None = None  # [3, s H, s W] in [0, 1], with the photo: the picture of its close-up

    def __post_init__(self) -> None:
        if self.close_up is not None:
            CloseUp(self.clip.view(0), self.close_up)  # raises ValueError on a shape that is none of a close-up

    @property
    def depth_frames(self) -> Tensor:
        """Indices [D] of the frames of this chunk that have depth."""
        if self.clip.depth is None:
            return torch.zeros(0, dtype=torch.long)
        return (self.clip.depth != 0).flatten(1).any(1).nonzero()[:, 0].cpu()


@dataclass(frozen=True)
class WorldState:
    """`WorldState.from_chunks(chunks)` and one `append` for each of them are the same value, bit for bit."""

    chunks: tuple[Chunk, ...]  # the first holds the photo alone
    memory: SpatialMemory  # every frame that has depth
    first: View  # the photo
    latest: View  # the last frame

    @classmethod
    def from_chunks(cls, chunks: Iterable[Chunk], memory: SpatialMemory = EMPTY_MEMORY) -> WorldState:
        """`memory` is the empty one to fill: it says by which convention depth becomes points."""
        photo, *later = chunks
        if len(photo.clip) != 1:
            raise ValueError(f"a world's first chunk wants the photo alone, got {len(photo.clip)} frames")
        photo = _dense(photo)
        first = _view(photo, 0, 0)
        state = cls((photo,), memory.remember([*_views(photo, 0), *photo.views]), first, first)
        for chunk in later:
            state = state.append(chunk)
        return state

    def append(self, chunk: Chunk) -> WorldState:
        """The world with `chunk` at its end; this one stays as it is. Of the codec's streams only those of the last
        chunk go along: at the published size they are 3 GB."""
        chunk, start = _dense(chunk), self.frames
        earlier = (replace(old, encoder={}, decoder={}) for old in self.chunks)
        return replace(
            self,
            chunks=(*earlier, chunk),
            memory=self.memory.remember(_views(chunk, start)),
            latest=_view(chunk, len(chunk.clip) - 1, start),
        )

    def with_streams(self, encoder: StreamState, decoder: StreamState) -> WorldState:
        """The same world with these as the states of the codec's streams at its end."""
        return replace(
            self, chunks=(*self.chunks[:-1], _dense(replace(self.chunks[-1], encoder=encoder, decoder=decoder)))
        )

    def annotated(self, path: str, notes: tuple[str, ...]) -> WorldState:
        """The same world; its last chunk says which path it was planned from."""
        return replace(self, chunks=(*self.chunks[:-1], replace(self.chunks[-1], path=path, notes=notes)))

    @property
    def close_up(self) -> CloseUp | None:
        """Of the photo; None where only the frame's own pixels are kept."""
        picture = self.chunks[0].close_up
        return None if picture is None else CloseUp(self.first, picture)

    @property
    def frames(self) -> int:
        return sum(len(chunk.clip) for chunk in self.chunks)

    @property
    def cameras(self) -> Cameras:
        """[F] of all frames."""
        return Cameras.cat([chunk.clip.cameras for chunk in self.chunks])

    @property
    def video(self) -> Tensor:
        """[F, 3, H, W] in [0, 1]."""
        return torch.cat([chunk.clip.video for chunk in self.chunks])

    @property
    def latents(self) -> Tensor:
        """[C, T, h, w], the history as the denoiser reads it."""
        return torch.cat([chunk.latents for chunk in self.chunks], dim=1)

    @property
    def encoder(self) -> StreamState:
        return self.chunks[-1].encoder

    @property
    def decoder(self) -> StreamState:
        return self.chunks[-1].decoder

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(chunk.prompt for chunk in self.chunks)

    @property
    def views(self) -> list[View]:
        """Every frame that has depth, oldest first."""
        starts = torch.tensor([0, *(len(chunk.clip) for chunk in self.chunks)]).cumsum(0).tolist()
        return [view for chunk, start in zip(self.chunks, starts) for view in _views(chunk, start)]

    @property
    def reference_depth(self) -> float:
        """Median of the photo's known finite depth: what presets and zooms are measured in; 1 if nothing is known."""
        return depth_quantile(self.first.depth, 0.5)


def depth_quantile(depth: Tensor, quantile: float) -> float:
    """Of the known, finite depth in a picture [H, W]; 1 if nothing is known."""
    known = depth[(depth > 0) & depth.isfinite()].float()
    return float(known.quantile(quantile)) if known.numel() else 1.0


def _views(chunk: Chunk, start: int) -> list[View]:
    return [_view(chunk, index, start) for index in chunk.depth_frames.tolist()]


def _view(chunk: Chunk, index: int, start: int) -> View:
    clip = chunk.clip
    depth = clip.video.new_zeros(clip.video.shape[-2:]) if clip.depth is None else clip.depth[index]
    return View(clip.video[index], depth, clip.cameras[index], start + index)


def _dense(chunk: Chunk) -> Chunk:
    """Row-major tensors, as files give them: convolutions may round differently for another memory layout."""
    clip, cameras = chunk.clip, chunk.clip.cameras
    cameras = replace(
        cameras,
        camera_from_world=cameras.camera_from_world.contiguous(),
        intrinsics=cameras.intrinsics.contiguous(),
    )
    depth = None if clip.depth is None else clip.depth.contiguous()
    return replace(
        chunk,
        clip=replace(clip, video=clip.video.contiguous(), cameras=cameras, depth=depth),
        latents=chunk.latents.contiguous(),
        sampled=None if chunk.sampled is None else chunk.sampled.contiguous(),
        encoder=dense_stream(chunk.encoder),
        decoder=dense_stream(chunk.decoder),
    )


def dense_stream(stream: StreamState) -> StreamState:
    """As files give it."""
    return {name: tensor.contiguous() for name, tensor in stream.items()}
