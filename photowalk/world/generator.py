"""Turns a photo into the first state of a world, and a state into the next one, a chunk of frames at a time.

    recall -> build conditioning -> sample -> decode -> re-encode -> estimate depth -> remember

States are values: a step that fails or is cancelled leaves the old state as it was. This file knows nothing of folders,
paths or command lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from photowalk.diffusion.guidance import guided
from photowalk.diffusion.noise import numpy_noise
from photowalk.diffusion.sampler import Sampler
from photowalk.geometry.cameras import Cameras
from photowalk.memory.policies import Policy
from photowalk.memory.spatial_memory import EMPTY_MEMORY, SpatialMemory
from photowalk.models.conditioning import Conditioning
from photowalk.models.detail import stay_near
from photowalk.models.protocols import DetailStage, ImageEncoder, StreamState, TextEncoder, VideoCodec
from photowalk.models.world_transformer import WorldTransformer
from photowalk.perception.depth import DepthEstimator
from photowalk.scene.free_space import out_of_the_way
from photowalk.scene.images import quantise
from photowalk.scene.posed_pictures import PosedPicture
from photowalk.scene.types import Clip, View
from photowalk.scene.warping import composite
from photowalk.world.conditioning import ConditioningConfig, Past, build_conditioning, priming_frames
from photowalk.world.placement import Placement
from photowalk.world.preview import Preview
from photowalk.world.progress import OnStep, Progress
from photowalk.world.state import Chunk, WorldState, dense_stream


@dataclass(frozen=True)
class GenerationConfig:
    conditioning: ConditioningConfig
    recall: Policy | None  # None leaves the memory slots empty
    recall_targets: int  # how many cameras of the chunk recall looks from, the last one always; published: 1
    depth_stride: int  # every n-th new frame gets depth and is remembered, the last one always; published: 8
    witnesses: int  # how many recalled frames new depth may not stand in the way of; published: 0, it stands anywhere
    guidance: float  # 1 runs one branch
    negative_prompt: str
    memory: SpatialMemory = EMPTY_MEMORY  # the empty one, with the convention by which depth becomes points
    reference_quantile: float = 0.5  # of the photo's depth, in which paths are measured; published: 0.25
    close_up: int = 1  # a power of two: how many times the frames' pixels the photo is kept in; published: 1, only once
    rounded: bool = True  # published: False, frames stay as decoded, unclamped; a world on disk wants True


@dataclass(frozen=True)
class Generator:
    denoiser: WorldTransformer
    codec: VideoCodec
    text: TextEncoder
    image: ImageEncoder
    depth: DepthEstimator
    detail: DetailStage | None  # published: none
    sampler: Sampler
    placement: Placement
    config: GenerationConfig
    negative: Tensor | None = None  # [1, L, D] features of what to be guided away from, instead of a negative prompt

    @torch.inference_mode()
    def start(
        self,
        photo: Tensor,  # [3, H, W] in [0, 1]
        *,
        focal_px: float | None = None,
        depth: Tensor | None = None,  # [H, W] along +Z, 0 = unknown, inf = sky; estimated when not given
        camera: Cameras | None = None,  # []; the world's origin when not given, with the focal length
        close_up: Tensor | None = None,  # [3, s H, s W] in [0, 1], the photo in more pixels, s = 2, 4, ...
        pictures: Sequence[PosedPicture] = (),  # more of the place, posed in the photo's camera, to be remembered
        prompt: str = "",
        seed: int = 0,
    ) -> WorldState:
        """The world of one frame: the photo, its depth, and codec streams that have seen it long enough."""
        photo = self.kept(photo).contiguous()
        with self.placement.autocast():
            focal_px = focal_px if camera is None else float(camera.intrinsics[0, 0])
            if depth is None or focal_px is None:
                estimate = self.depth.estimate_photo(photo, focal_px)
                depth = estimate.depth if depth is None else depth
                focal_px = estimate.focal_px if focal_px is None else focal_px
            camera = (_photo_camera(photo, focal_px) if camera is None else camera).to(photo.device)
            latents, encoder, decoder = self._primed(photo)
            depth = self._kept_depth(depth)
            views = self._seed_views(View(photo, depth, camera, 0), pictures)
        clip = Clip(photo[None], camera[None], depth[None], prompt)
        close_up = None if close_up is None else quantise(close_up)
        chunk = Chunk(
            clip, latents[0].float(), prompt, seed, encoder=encoder, decoder=decoder, views=views, close_up=close_up
        )
        return WorldState.from_chunks([chunk], self.config.memory)

    @torch.inference_mode()
    def extend(
        self,
        state: WorldState,
        cameras: Cameras,  # [F_new], one chunk
        prompt: str,
        *,
        seed: int,
        negative_prompt: str | None = None,  # None: the preset's
        on_step: OnStep = lambda progress: None,
    ) -> WorldState:
        """The world with one more chunk along `cameras`. `on_step` sees the progress and may raise to cancel."""
        with self.placement.autocast():
            conditioning, preview = self.condition(state, cameras, prompt, on_step)
            sampled = self._sample(conditioning, seed, on_step, negative_prompt).contiguous()
            encoder, decoder = state.encoder, state.decoder
            if len(state.chunks) == 1 and not self.placement.savings.primed_once:
                _, encoder, decoder = self._primed(state.first.image)
            decoded, decoder = self.codec.decode(sampled, decoder)
            video = self.kept(self.restore(decoded[0].transpose(0, 1), preview, on_step)).contiguous()
            latents, encoder = self.codec.encode((video * 2 - 1).transpose(0, 1)[None], encoder)
            on_step(Progress("depth", 0, 1))
            depth = self._estimate_depth(state, video, cameras, preview)
        on_step(Progress("depth", 1, 1, preview=video[-1]))
        clip = Clip(video, cameras, self._kept_depth(depth), prompt)
        added = Chunk(clip, latents[0].float(), prompt, seed, encoder=encoder, decoder=decoder, sampled=sampled[0])
        return state.append(added)

    @torch.inference_mode()
    def opened(self, state: WorldState) -> WorldState:
        """The same world with the codec's streams at its end, for one that was stored without: all is coded again from
        the photo on, with the same numbers. Raises ValueError where a chunk has lost what it was decoded from."""
        with self.placement.autocast():
            _, encoder, decoder = self._primed(state.first.image)
            for chunk in state.chunks[1:]:
                if chunk.sampled is None:
                    raise ValueError("a chunk without the latents that it was decoded from cannot be coded again")
                decoder = self.codec.decode(chunk.sampled[None], dense_stream(decoder))[1]
                video = (chunk.clip.video * 2 - 1).transpose(0, 1)[None]
                encoder = self.codec.encode(video, dense_stream(encoder))[1]
        return state.with_streams(encoder, decoder)

    def condition(
        self, state: WorldState, cameras: Cameras, prompt: str, on_step: OnStep
    ) -> tuple[Conditioning, Preview]:
        """Recall earlier views for the chunk along `cameras` and build what the denoiser is told."""
        on_step(Progress("recall", 0, 1))
        config = self.config.conditioning
        recalled = self._recalled(state, cameras, config.layout.space_frames)
        on_step(Progress("warp", 0, 1))
        return build_conditioning(
            Past(state.latents, state.cameras, state.first, state.latest, state.close_up),
            recalled,
            cameras,
            prompt,
            config=config,
            codec=self.codec,
            text=self.text,
            image=self.image,
            savings=self.placement.savings,
        )

    def _recalled(self, state: WorldState, cameras: Cameras, count: int) -> tuple[View, ...]:
        if self.config.recall is None:
            return ()
        looks = torch.linspace(0, len(cameras) - 1, self.config.recall_targets + 1)[1:].long()
        return state.memory.recall(cameras[looks], count, self.config.recall)

    def _primed(self, photo: Tensor) -> tuple[Tensor, StreamState, StreamState]:
        """Latents of the still photo [1, C, T_old, h, w] and what encoder and decoder remember of it."""
        frames = priming_frames(self.config.conditioning.layout, self.codec.temporal_factor)
        still = (photo * 2 - 1)[None, :, None].expand(-1, -1, frames, -1, -1)
        latents, encoder = self.codec.encode(still, {})
        return latents, encoder, self.codec.decode(latents, {})[1]

    def _sample(
        self, conditioning: Conditioning, seed: int, on_step: OnStep, negative_prompt: str | None = None
    ) -> Tensor:
        """[1, C, T_new, h, w] clean latents."""
        guidance = self.config.guidance
        negative = None if guidance == 1 else replace(conditioning, text=self._negative_text(negative_prompt))
        team, together = self.placement.team, self.placement.branches_together
        denoiser: Any = self.denoiser if team is None else team.shared(self.denoiser)  # each prepares in its own way
        prepare = partial(denoiser.prepare, savings=self.placement.savings)
        velocity = guided(denoiser, conditioning, negative, guidance, together=together, prepare=prepare)
        noise = numpy_noise(seed, conditioning.warp.shape).to(conditioning.warp.device)
        return self.sampler.sample(
            velocity,
            noise,
            on_step=lambda done, total, clean: on_step(Progress("denoise", done, total)),
            renoise=lambda done, sample: numpy_noise(seed + 7919 * done, sample.shape).to(sample),
        )

    def _seed_views(self, photo: View, pictures: Sequence[PosedPicture]) -> tuple[View, ...]:
        """Pictures without depth get it, at the scale of the photo's."""
        views = []
        for index, picture in enumerate(pictures):
            image, depth = self.kept(picture.image.to(photo.image)), picture.depth
            camera = _placed(picture.camera.to(image.device), photo.camera)
            if depth is None:
                known = composite([photo], camera[None]).depth
                depth = self.depth.estimate_frames(image[None], camera[None], known)[0]
            views.append(View(image, self._kept_depth(depth.to(image)), camera, -1 - index))
        return tuple(views)

    def _negative_text(self, prompt: str | None) -> Tensor:
        if prompt is None and self.negative is not None:
            return self.negative
        return self.text.encode([self.config.negative_prompt if prompt is None else prompt])

    def restore(self, decoded: Tensor, preview: Preview, on_step: OnStep) -> Tensor:
        """[F, 3, H, W] decoded frames in [-1, 1] -> pictures in [0, 1], sharpened by what geometry remembers."""
        if self.detail is None:
            return decoded.float() / 2 + 0.5
        pictures = []
        for i, (frame, warped, known, depth) in enumerate(zip(decoded, preview.video, preview.known, preview.depth)):
            on_step(Progress("detail", i, len(decoded), preview=(pictures[-1] if pictures else frame) / 2 + 0.5))
            seen = (warped[None] * 2 - 1, known[None, None])
            pictures.append(stay_near(self.detail.restore(frame[None], *seen), *seen, depth[None, None])[0])
        return torch.stack(pictures).float() / 2 + 0.5

    def kept(self, pictures: Tensor) -> Tensor:
        """As the world folder keeps frames, so that a reopened world continues with the same numbers."""
        return quantise(pictures) if self.config.rounded else pictures

    def _kept_depth(self, depth: Tensor) -> Tensor:
        return depth.half().float() if self.config.rounded else depth

    def _estimate_depth(self, state: WorldState, video: Tensor, cameras: Cameras, preview: Preview) -> Tensor:
        """[F, H, W], zero for the frames between the strides; completes what memory already knows of each frame."""
        stride = self.config.depth_stride
        picked = torch.arange(len(video) - 1, -1, -stride).flip(0)
        depth = torch.zeros_like(preview.depth)
        estimated = self.depth.estimate_frames(video[picked], cameras[picked], preview.depth[picked])
        if self.config.witnesses:
            recalled = self._recalled(state, cameras, self.config.witnesses)
            witnesses = {view.frame: view for view in (*recalled, state.latest, state.first)}
            centre = state.memory.pixel_centre
            estimated = out_of_the_way(estimated, cameras[picked], list(witnesses.values()), pixel_centre=centre)
        depth[picked] = estimated
        return depth


def _placed(camera: Cameras, photo: Cameras) -> Cameras:
    """A camera that is known as seen from the photo's, in the world."""
    pose = camera.camera_from_world.double() @ photo.camera_from_world.double()  # autocast leaves float64 alone
    return replace(camera, camera_from_world=pose.to(camera.camera_from_world))


def _photo_camera(photo: Tensor, focal_px: float) -> Cameras:
    """The walk's origin: the photo's camera, []."""
    height, width = photo.shape[-2:]
    intrinsics = torch.tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    return Cameras(torch.eye(4), intrinsics, height, width)
