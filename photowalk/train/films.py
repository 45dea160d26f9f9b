"""A clip as the denoiser's past shows it, true or in part drawn by the denoiser itself, and what a chunk knows of it.

The conditioning is built by the very function that generation uses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.diffusion.flow import TIMESTEPS, clean_estimate, interpolate
from photowalk.geometry.cameras import Cameras
from photowalk.memory.policies import Policy
from photowalk.models.conditioning import Conditioning
from photowalk.scene.types import Clip, View
from photowalk.world.conditioning import Past, build_conditioning, priming_frames
from photowalk.world.generator import Generator
from photowalk.world.preview import Preview


@dataclass(frozen=True)
class Film:
    views: tuple[View, ...]
    timeline: Tensor  # [C, T, h, w] latents of the repeated first frame and the clip
    cameras: Cameras
    prompts: tuple[str, ...]  # what is told from each frame on


def film_of(clip: Clip, generator: Generator) -> Film:
    """The true clip; frames after the last whole latent frame have no latents."""
    group = generator.codec.temporal_factor
    coded = 1 + (len(clip) - 1) // group * group
    still = clip.video[:1].expand(_priming(generator) - 1, -1, -1, -1)
    timeline, _ = generator.codec.encode(_as_codec_video(torch.cat([still, clip.video[:coded]])), {})
    frames = range(len(clip))
    prompts = tuple(clip.prompt_at(i) for i in frames)
    return Film(tuple(clip.view(i) for i in frames), timeline[0], clip.cameras, prompts)


def chunk_frames(generator: Generator) -> int:
    return generator.config.conditioning.layout.new_frames * generator.codec.temporal_factor


def clean_latents(film: Film, first: int, generator: Generator) -> Tensor:
    """[C, T_new, h, w] of the chunk that begins with frame `first`."""
    seen = _seen(first, generator)
    return film.timeline[:, seen : seen + generator.config.conditioning.layout.new_frames]


def condition(
    film: Film, first: int, remembered: list[int], policy: Policy | None, generator: Generator
) -> tuple[Conditioning, Preview]:
    """What the chunk from frame `first` on is told, with these frames of the film in memory."""
    config, chunk = generator.config, chunk_frames(generator)
    targets = film.cameras[first : first + chunk]
    recalled: tuple[View, ...] = ()
    if policy is not None:
        memory = config.memory.remember([film.views[i] for i in remembered])
        looks = torch.linspace(0, chunk - 1, config.recall_targets + 1)[1:].long()
        recalled = memory.recall(targets[looks], config.conditioning.layout.space_frames, policy)
    return build_conditioning(
        Past(film.timeline[:, : _seen(first, generator)], film.cameras[:first], film.views[0], film.views[first - 1]),
        recalled,
        targets,
        film.prompts[first],
        config=config.conditioning,
        codec=generator.codec,
        text=generator.text,
        image=generator.image,
    )


def drawn_again(
    film: Film,
    first: int,
    conditioning: Conditioning,
    preview: Preview,
    generator: Generator,
    *,
    sigma: Tensor,  # []
    noise: Tensor,  # [C, T_new, h, w]
    worn_history: bool,
) -> Film:
    """The film with the chunk from frame `first` on as the generator sees it in one step from noise level `sigma`:
    what it will have to continue in a walk (self-augmentation, Lyra 2.0). Depth stays true.

    `conditioning` and `preview` are that chunk's. With `worn_history` the frames of the history come back from the
    codec too; the timeline before the chunk stays clean.
    """
    codec, clean = generator.codec, clean_latents(film, first, generator)[None]
    noisy = interpolate(clean, noise[None], sigma)
    timestep = (sigma * TIMESTEPS).long()[None].float()  # as the published sampler tells it
    with generator.placement.autocast():
        velocity = generator.denoiser(noisy, timestep, conditioning).float()
    estimate = clean_estimate(noisy, velocity, sigma)
    history, decoder = codec.decode(film.timeline[None, :, : _seen(first, generator)], {})
    decoded, _ = codec.decode(estimate, decoder)
    with generator.placement.autocast():
        restored = generator.restore(decoded[0].transpose(0, 1).float(), preview, lambda progress: None)
    images = {first + i: image for i, image in enumerate(_kept(restored, generator))}
    if worn_history:
        old = _kept(history[0, :, -(_priming(generator) - 1) :].transpose(0, 1).float() / 2 + 0.5, generator)
        images |= {max(first - len(old) + i, 0): image for i, image in enumerate(old)}
    views = tuple(replace(view, image=images.get(i, view.image)) for i, view in enumerate(film.views))
    return replace(film, views=views, timeline=_with_chunk(film, first, images, generator))


def _with_chunk(film: Film, first: int, images: dict[int, Tensor], generator: Generator) -> Tensor:
    """The timeline with the chunk's frames coded again, behind the true frames before it."""
    before = torch.cat(
        [
            film.views[0].image.expand(_priming(generator) - 1, -1, -1, -1),
            torch.stack([view.image for view in film.views[:first]]),
        ]
    )
    _, encoder = generator.codec.encode(_as_codec_video(before), {})
    video = torch.stack([images[first + i] for i in range(chunk_frames(generator))])
    own, _ = generator.codec.encode(_as_codec_video(video), encoder)
    seen = _seen(first, generator)
    return torch.cat([film.timeline[:, :seen], own[0], film.timeline[:, seen + own.shape[2] :]], dim=1)


def _kept(pictures: Tensor, generator: Generator) -> Tensor:
    return generator.kept(pictures).clamp(0, 1)


def _priming(generator: Generator) -> int:
    return priming_frames(generator.config.conditioning.layout, generator.codec.temporal_factor)


def _seen(first: int, generator: Generator) -> int:
    """Latent frames of the timeline before the chunk that begins with frame `first`."""
    return (_priming(generator) + first - 2) // generator.codec.temporal_factor + 1


def _as_codec_video(video: Tensor) -> Tensor:
    return (video * 2 - 1).transpose(0, 1)[None]
