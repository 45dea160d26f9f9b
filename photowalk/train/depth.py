"""Trains the depth network on single pictures of clips, cropped, mirrored and disturbed as cameras and files do."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photowalk.data.clips import find_clips, read_clip
from photowalk.geometry.cameras import Cameras
from photowalk.models.depth_network import DepthNetwork, DepthPrediction
from photowalk.scene.images import from_bytes, read_photo, to_bytes
from photowalk.scene.types import View
from photowalk.synthetic import SyntheticWorld, training_seeds
from photowalk.train.chance import integer, uniform
from photowalk.train.cutouts import with_evening, with_mountains, with_opening, with_thing
from photowalk.train.live import FARTHEST_SEED
from photowalk.train.pictures import depth_grid
from photowalk.train.trainer import Losses, TrainingConfig, train
from photowalk.world.placement import Placement

SKY_SIZE = (256, 448)
WALK_FRAMES = 161


@dataclass(frozen=True)
class DepthRecipe:
    folders: tuple[Path, ...]  # of clip folders; none: synthetic worlds without end, new ones each step
    training: TrainingConfig
    sizes: tuple[tuple[int, int], ...] = ((128, 224), (192, 336))  # at which nano looks at pictures; one a step
    pixels: int = 8 * 128 * 224  # per step, over its batch
    clip_frames: int = 50  # used of each clip, about; evenly spread
    smallest_crop: float = 0.45  # of the picture's sides
    skies: Path | None = None  # a folder of pictures that show nothing but sky
    sky_share: float = 0.5  # of the pictures with sky: they are given one from `skies`
    most_things: int = 3  # that are put into a picture
    opening_share: float = 0.25  # of the pictures
    evening_share: float = 0.5  # of the others with sky
    mountain_share: float = 0.15  # of the pictures with sky


@dataclass(frozen=True)
class Shots:
    """The frames used of one clip, kept small."""

    video: Tensor  # [F, 3, H, W] uint8
    depth: Tensor  # [F, H, W] float16, 0 = unknown, inf = sky
    cameras: Cameras  # [F]


@dataclass(frozen=True)
class DepthSample:
    """One picture or a batch of them."""

    image: Tensor  # [3, H, W] in [0, 1]
    intrinsics: Tensor  # [3, 3]
    depth: Tensor  # [H, W] what the network shall say, 0 = unknown, inf = sky

    def to(self, device: torch.device) -> DepthSample:
        return DepthSample(*(value.to(device) for value in vars(self).values()))


def train_depth(network: DepthNetwork, recipe: DepthRecipe, folder: Path, placement: Placement) -> None:
    """Train `network` in place; `folder` takes checkpoints and log. Raises ValueError if the folders hold no clips."""
    shots = [shot for source in recipe.folders for shot in read_shots(source, recipe.clip_frames)]
    if recipe.folders and not shots:
        raise ValueError(f"training depth wants clip folders, found none in {', '.join(map(str, recipe.folders))}")
    skies = [read_photo(path, *SKY_SIZE).image for path in sorted(recipe.skies.iterdir())] if recipe.skies else []
    network.to(placement.device)

    def loss_of(batch: DepthSample) -> Losses:
        batch = batch.to(placement.device)
        return depth_losses(network(batch.image, batch.intrinsics), batch.depth)

    def picture(shown: DepthSample) -> Tensor:
        shown = shown.to(placement.device)
        guess = network(shown.image, shown.intrinsics)
        return depth_grid(shown.image, guess.log_depth.exp().masked_fill(guess.sky > 0, torch.inf), shown.depth)

    train(network, partial(_draw, shots, skies, recipe), loss_of, recipe.training, folder, placement, picture)


def shots_of_worlds(random: torch.Generator, worlds: int = 2, frames: int = 4) -> list[Shots]:
    """A few frames of walks through synthetic worlds that chance chooses, never those held out for judging."""
    shots = []
    for _ in range(worlds):
        seed = next(training_seeds(integer(FARTHEST_SEED, random)))
        world = SyntheticWorld.sample(seed)
        path = world.walk(WALK_FRAMES, seed, size=SKY_SIZE)
        clip = world.render(path[torch.randperm(WALK_FRAMES, generator=random)[:frames].tolist()])
        assert clip.depth is not None
        shots.append(Shots(to_bytes(clip.video), clip.depth.half(), clip.cameras))
    return shots


def read_shots(folder: Path, frames: int) -> list[Shots]:
    """About `frames` frames, evenly spread, of every clip under `folder`."""
    shots = []
    for path in find_clips(folder):
        clip = read_clip(path)
        stride = max(round(len(clip) / frames), 1)
        shots.append(Shots(to_bytes(clip.video[::stride]), clip.depth[::stride].half(), clip.cameras[::stride]))
    return shots


def _draw(shots: Sequence[Shots], skies: Sequence[Tensor], recipe: DepthRecipe, random: torch.Generator) -> DepthSample:
    shots = shots if recipe.folders else shots_of_worlds(random)
    size = recipe.sizes[integer(len(recipe.sizes), random)]
    count = max(recipe.pixels // (size[0] * size[1]), 1)
    return _stacked([draw_sample(shots, skies, size, recipe, random) for _ in range(count)])


def draw_sample(
    shots: Sequence[Shots],
    skies: Sequence[Tensor],
    size: tuple[int, int],
    recipe: DepthRecipe,
    random: torch.Generator,
) -> DepthSample:
    """One disturbed picture of the given size with its depth. skies [3, h, w] in [0, 1] replace the sky of some."""
    view = _cropped(_any_view(shots, random), size, recipe.smallest_crop, random)
    if skies and bool(view.depth.isinf().any()) and uniform(0, 1, random) < recipe.sky_share:
        view = replace(view, image=_under_sky(view, skies[integer(len(skies), random)], random))
    elif uniform(0, 1, random) < recipe.evening_share:
        view = with_evening(view, random)
    if uniform(0, 1, random) < recipe.mountain_share:
        view = with_mountains(view, _texture(shots, random), random)
    if uniform(0, 1, random) < recipe.opening_share:
        beyond = _cropped(_any_view(shots, random), size, recipe.smallest_crop, random)
        view = with_opening(view, beyond, random)
    for _ in range(integer(recipe.most_things + 1, random)):
        view = with_thing(view, _texture(shots, random), random)
    sample = DepthSample(_as_photographed(view.image, random), view.camera.intrinsics, view.depth)
    return _mirrored(sample) if uniform(0, 1, random) < 0.5 else sample


def _any_view(shots: Sequence[Shots], random: torch.Generator) -> View:
    shot = shots[integer(len(shots), random)]
    index = integer(len(shot.video), random)
    return View(from_bytes(shot.video[index]), shot.depth[index].float(), shot.cameras[index], index)


def _texture(shots: Sequence[Shots], random: torch.Generator) -> Tensor:
    """Any frame of the training data."""
    return _any_view(shots, random).image


def depth_losses(prediction: DepthPrediction, truth: Tensor) -> Losses:
    """Log-depth as such, up to one scale per picture and in its steps; sky. truth [B, H, W]; 0 = unknown, inf = sky."""
    surface = (truth > 0) & truth.isfinite()
    target = torch.where(surface, truth, torch.ones_like(truth)).clamp_min(1e-2).log()
    error = (prediction.log_depth - target) * surface
    count = surface.sum((1, 2)).clamp_min(1)
    shift = (error.sum((1, 2)) / count)[:, None, None]
    shaped = (error - shift) * surface
    absolute = _mean(error.abs(), surface)
    shape = _mean(shaped.abs(), surface)
    steps = _step_error(error, surface)
    wrong_sky = F.binary_cross_entropy_with_logits(prediction.sky, truth.isinf().float(), reduction="none")
    sky = _mean(wrong_sky, truth != 0)
    loss = 0.5 * absolute + shape + steps + 0.3 * sky
    return {"loss": loss, "absolute": absolute, "shape": shape, "steps": steps, "sky": sky}


def _step_error(error: Tensor, surface: Tensor, scales: int = 4) -> Tensor:
    """Mean difference of the error [B, H, W] between neighbours, over ever coarser grids: flat things stay flat and
    edges sharp (as in MegaDepth, arXiv 1804.00607)."""
    total = error.new_zeros(())
    for level in range(scales):
        e, s = error[:, :: 2**level, :: 2**level], surface[:, :: 2**level, :: 2**level]
        total = total + _mean((e[:, 1:] - e[:, :-1]).abs(), s[:, 1:] & s[:, :-1])
        total = total + _mean((e[:, :, 1:] - e[:, :, :-1]).abs(), s[:, :, 1:] & s[:, :, :-1])
    return total / scales


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)


def _cropped(view: View, size: tuple[int, int], smallest: float, random: torch.Generator) -> View:
    """A random part of the view with the sides' ratio of `size`, resampled to it."""
    largest = min(view.camera.height / size[0], view.camera.width / size[1])
    share = uniform(smallest, 1, random) if uniform(0, 1, random) < 0.7 else 1.0
    height, width = round(size[0] * largest * share), round(size[1] * largest * share)
    top = integer(view.camera.height - height + 1, random)
    left = integer(view.camera.width - width + 1, random)
    part = (..., slice(top, top + height), slice(left, left + width))
    intrinsics = view.camera.intrinsics.clone()
    intrinsics[:2, 2] -= torch.tensor([left, top], dtype=intrinsics.dtype)
    camera = replace(view.camera, intrinsics=intrinsics, height=height, width=width).resized(*size)
    image = F.interpolate(view.image[part][None], size=size, mode="bilinear", antialias=True)[0]
    depth = F.interpolate(view.depth[part][None, None], size=size, mode="nearest-exact")[0, 0]
    return View(image.clamp(0, 1), depth, camera, view.frame)


def _under_sky(view: View, sky: Tensor, random: torch.Generator) -> Tensor:
    """[3, H, W] the view's picture with a random part of `sky` [3, h, w] where its sky is."""
    share = uniform(0.4, 1, random)
    height, width = round(sky.shape[1] * share), round(sky.shape[2] * share)
    top, left = integer(sky.shape[1] - height + 1, random), integer(sky.shape[2] - width + 1, random)
    part = sky[None, :, top : top + height, left : left + width]
    part = F.interpolate(part, size=view.image.shape[1:], mode="bilinear", antialias=True)[0]
    mask = F.avg_pool2d(view.depth.isinf().float()[None], 3, 1, 1)[0]  # sky shines around edges
    return torch.lerp(view.image, part if uniform(0, 1, random) < 0.5 else part.flip(-1), mask)


def _as_photographed(image: Tensor, random: torch.Generator) -> Tensor:
    """Light, colour, blur, noise and compression as photos have them."""
    image = image.clamp(1e-4, 1) ** uniform(0.5, 2.2, random) * _vignette(image, uniform(0, 0.8, random))
    tint = 1 + (torch.rand(3, 1, 1, generator=random) - 0.5) * 0.3
    image = (image * tint * uniform(0.75, 1.25, random) + uniform(-0.05, 0.05, random)).clamp(0, 1)
    grey = image.mean(0, keepdim=True)
    image = grey + (image - grey) * uniform(0.4, 1.4, random)
    if uniform(0, 1, random) < 0.3:
        share = uniform(0.35, 0.9, random)
        image = F.interpolate(image[None], scale_factor=share, mode="bilinear", antialias=True)
        image = F.interpolate(image, size=grey.shape[1:], mode="bilinear")[0]
    if uniform(0, 1, random) < 0.5:
        image = image + torch.randn(image.shape, generator=random) * uniform(0, 0.05, random)
    image = image.clamp(0, 1)
    return _compressed(image, round(uniform(30, 90, random))) if uniform(0, 1, random) < 0.4 else image


def _vignette(image: Tensor, loss: float) -> Tensor:
    """[H, W] light that a lens leaves, 1 in the middle and 1 - `loss` in the corners."""
    y, x = (torch.linspace(-1, 1, side) for side in image.shape[1:])
    return 1 - loss * ((y[:, None] ** 2 + x**2) / 2).square()


def _compressed(image: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(to_bytes(image).permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=quality)
    return from_bytes(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))


def _mirrored(sample: DepthSample) -> DepthSample:
    intrinsics = sample.intrinsics.clone()
    intrinsics[0, 2] = sample.image.shape[-1] - intrinsics[0, 2]
    return DepthSample(sample.image.flip(-1), intrinsics, sample.depth.flip(-1))


def _stacked(samples: Sequence[DepthSample]) -> DepthSample:
    return DepthSample(*(torch.stack(values) for values in zip(*(vars(sample).values() for sample in samples))))
