"""Trains the detail stage on walks: decoded frames beside warps that are often wrong, the true frame as target.

Warps are made as generation makes them, from views whose depth, exposure and edges were disturbed, each in its own way;
latents are disturbed as an unsure denoiser would leave them. Samples are built once and kept on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.data.clips import read_clip
from photowalk.models.detail import DetailNetwork
from photowalk.models.nano_codec import NanoCodec
from photowalk.models.squeeze_features import SqueezeFeatures
from photowalk.scene.images import quantise, to_bytes
from photowalk.scene.types import Clip, View
from photowalk.train.looks import feature_error
from photowalk.train.pictures import grid
from photowalk.train.prepared import Sample, prepared, read_tensors
from photowalk.train.trainer import Losses, TrainingConfig, train
from photowalk.world.placement import Placement
from photowalk.world.preview import PreviewConfig, preview_chunk


@dataclass(frozen=True)
class DetailRules:
    """How a clip becomes samples, and how far its views and latents are led astray."""

    preview: PreviewConfig
    chunk_frames: int = 80
    kept_frames: int = 8  # of each chunk
    recalled: int = 4  # earlier views at most, beside the latest
    detour_share: float = 0.4  # of the chunks that are warped from far back, as if the walk had come another way
    clean_share: float = 0.3  # of the chunks whose views keep their true depth
    depth_error: float = 0.08  # largest relative error, smooth over the picture, other for every view
    exposure_error: float = 0.12  # largest relative change of a view's brightness
    latent_noise: float = 0.3  # largest deviation of the noise on latents of unit variance
    seed: int = 0


@dataclass(frozen=True)
class DetailRecipe:
    training: TrainingConfig
    rules: DetailRules
    crop: tuple[int, int] = (128, 192)
    batch: int = 4
    feature_weight: float = 0.02  # of the feature distance beside the absolute error


@torch.inference_mode()
def build_samples(clip: Clip, codec: NanoCodec, rules: DetailRules) -> Iterator[dict[str, Tensor]]:
    """Every chunk of the clip: decoded, warped, truth [kept, 3, H, W] in [0, 1] and known [kept, 1, H, W]."""
    random = torch.Generator().manual_seed(rules.seed)
    for first in range(1, len(clip) - rules.chunk_frames + 1, rules.chunk_frames):
        kept = torch.randperm(rules.chunk_frames, generator=random)[: rules.kept_frames].sort().values
        views = _views(clip, first, rules, random)
        preview = preview_chunk(views[-1], views[:-1], clip.cameras[kept + first], rules.preview)
        known = preview.known[:, None]
        video = clip.video[first - 1 : first + rules.chunk_frames]
        decoded = _decode_unsurely(codec, video, rules, random)[kept + 1]
        yield {"decoded": decoded, "warped": preview.video, "known": known, "truth": clip.video[kept + first]}


def prepare_samples(clips: Sequence[Path], codec: NanoCodec, rules: DetailRules, folder: Path) -> list[Path]:
    """The samples of clips, in bytes; those that lie in `folder` already are kept, the others built."""

    def build(path: Path) -> Iterator[Sample]:
        for tensors in build_samples(read_clip(path), codec, rules):
            yield Sample({name: to_bytes(value.clamp(0, 1)) for name, value in tensors.items()})

    return [sample for path in clips for sample in prepared(path, folder, partial(build, path))]


def train_detail(
    network: DetailNetwork,
    features: SqueezeFeatures,
    samples: Sequence[Path],
    recipe: DetailRecipe,
    folder: Path,
    placement: Placement,
) -> None:
    """Train `network` in place. Loss: absolute error plus the distance of `features`, which stay as they are.

    Absolute errors of known and unknown pixels are logged apart, beside that of mixing without learning ("floor").
    """
    if not samples:
        raise ValueError("training the detail stage wants samples; prepare_samples makes them from clip folders")
    features.requires_grad_(False)

    def loss_of(batch: dict[str, Tensor]) -> Losses:
        batch = {name: value.to(placement.device) for name, value in batch.items()}
        decoded, warped, truth = (batch[name] * 2 - 1 for name in ("decoded", "warped", "truth"))
        known = batch["known"]
        restored = network.restore(decoded, warped, known)
        error = (restored - truth).abs().mean(1, keepdim=True)
        floor = (known * warped + (1 - known) * decoded - truth).abs().mean()
        look = feature_error(features, restored / 2 + 0.5, batch["truth"])
        return {
            "loss": error.mean() + recipe.feature_weight * look,
            "error": error.mean(),
            "known": (error * known).sum() / known.sum().clamp_min(1),
            "unknown": (error * (1 - known)).sum() / (1 - known).sum().clamp_min(1),
            "features": look,
            "floor": floor,
        }

    def picture(shown: dict[str, Tensor]) -> Tensor:
        shown = {name: value.to(placement.device) for name, value in shown.items()}
        restored = network.restore(shown["decoded"] * 2 - 1, shown["warped"] * 2 - 1, shown["known"]) / 2 + 0.5
        return grid([shown["decoded"], shown["warped"], restored, shown["truth"]])

    train(network, partial(_draw, samples, recipe), loss_of, recipe.training, folder, placement, picture)


def _views(clip: Clip, first: int, rules: DetailRules, random: torch.Generator) -> list[View]:
    """Earlier views, the latest last, each with errors of its own."""
    detour = float(torch.rand(1, generator=random)) < rules.detour_share
    latest = int(torch.randint(first, (1,), generator=random)) if detour else first - 1
    count = int(torch.randint(rules.recalled + 1, (1,), generator=random))
    earlier = torch.randint(latest + 1, (count,), generator=random).tolist()
    spoil = float(torch.rand(1, generator=random)) > rules.clean_share
    views = []
    for index in (*sorted(set(earlier) - {latest}), latest):
        image, depth = clip.video[index], clip.depth[index]
        if spoil:
            image, depth = _exposed(image, rules, random), _spoilt_depth(depth, rules, random)
        views.append(View(image, depth, clip.cameras[index], index))
    return views


def _exposed(image: Tensor, rules: DetailRules, random: torch.Generator) -> Tensor:
    change = (torch.rand(1, generator=random) * 2 - 1) * rules.exposure_error
    half_the_time = float(torch.rand(1, generator=random)) < 0.5
    return (image * (1 + change)).clamp(0, 1) if half_the_time else image


def _spoilt_depth(depth: Tensor, rules: DetailRules, random: torch.Generator) -> Tensor:
    """Depth [H, W] with a smooth relative error and, half the time, edges washed out as an estimator may do it."""
    amount = torch.rand(1, generator=random) * rules.depth_error
    field = F.interpolate(torch.rand(1, 1, 4, 6, generator=random) * 2 - 1, depth.shape, mode="bicubic")[0, 0]
    spoilt = depth * (1 + amount * field)
    if float(torch.rand(1, generator=random)) < 0.5:
        surface = (depth > 0) & depth.isfinite()
        weight = surface[None, None].float()
        nearness = torch.where(surface, 1 / spoilt.clamp_min(1e-3), 0.0)[None, None]
        washed = F.avg_pool2d(nearness, 5, 1, 2) / F.avg_pool2d(weight, 5, 1, 2).clamp_min(1e-6)
        spoilt = torch.where(surface, 1 / washed[0, 0].clamp_min(1e-4), depth)
    return spoilt


def _decode_unsurely(codec: NanoCodec, video: Tensor, rules: DetailRules, random: torch.Generator) -> Tensor:
    """video [1 + F, 3, H, W] in [0, 1] coded, its latents made noisy and here and there flat, and decoded."""
    latents, _ = codec.encode((video * 2 - 1).transpose(0, 1)[None], {})
    _, channels, frames, height, width = latents.shape
    noise = torch.randn(latents.shape, generator=random) * torch.rand(1, generator=random) * rules.latent_noise
    coarse = torch.rand(1, 1, frames, 3, 4, generator=random)
    unsure = F.interpolate(coarse, (frames, height, width), mode="trilinear") * torch.rand(1, generator=random)
    fineness = torch.linspace(-0.2, 1, channels).clamp_min(0).view(-1, 1, 1, 1)  # an unsure denoiser draws no detail
    noise = noise * (0.15 + 0.85 * fineness)  # nor does it miss the strong, coarse channels by as much
    decoded, _ = codec.decode(latents * (1 - unsure * fineness.sqrt()) + noise * unsure, {})
    return quantise((decoded[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1))


def _draw(samples: Sequence[Path], recipe: DetailRecipe, random: torch.Generator) -> dict[str, Tensor]:
    """A batch of crops in [0, 1], half of them mirrored."""
    crops: dict[str, list[Tensor]] = {}
    for index in torch.randint(len(samples), (recipe.batch,), generator=random).tolist():
        tensors = read_tensors(samples[index])
        count, _, height, width = tensors["truth"].shape
        frame = int(torch.randint(count, (1,), generator=random))
        top = int(torch.randint(height - recipe.crop[0] + 1, (1,), generator=random))
        left = int(torch.randint(width - recipe.crop[1] + 1, (1,), generator=random))
        mirrored = bool(torch.rand(1, generator=random) < 0.5)
        for name, value in tensors.items():
            crop = value[frame, :, top : top + recipe.crop[0], left : left + recipe.crop[1]].float() / 255
            crops.setdefault(name, []).append(crop.flip(-1) if mirrored else crop)
    return {name: torch.stack(values) for name, values in crops.items()}
