"""Trains the splat head by what it is for: splats of a few frames of a walk, fused as `reconstruct` fuses them, have to
look like the frames between them, which they were not made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.data.clips import count_frames, read_clip, write_clip
from photowalk.geometry.cameras import Cameras
from photowalk.models.splat_head import SplatHead
from photowalk.models.squeeze_features import SqueezeFeatures, feature_distance
from photowalk.reconstruct.colours import closed_from_nearer, fit_colours
from photowalk.reconstruct.fuse import SKY_DISTANCE, Fused, add_view
from photowalk.reconstruct.learnt_lift import LearntLift
from photowalk.reconstruct.lift import Lifter
from photowalk.reconstruct.photometric import ssim
from photowalk.reconstruct.sky_dome import add_sky, build_dome
from photowalk.scene.render import render
from photowalk.scene.types import Clip, Scene, Splats, View
from photowalk.train.chance import integer, uniform
from photowalk.train.prepared import place_of
from photowalk.train.trainer import Losses, TrainingConfig, train
from photowalk.world.placement import Placement
from photowalk.world.store import WorldStore

COVERED = 0.5  # alpha of a pixel that the splats are answerable for
LICENCE = "that of the photo that the world was made of"


@dataclass(frozen=True)
class SplatRecipe:
    training: TrainingConfig
    crop: tuple[int, int] = (128, 224)
    depth_every: int = 4  # frames of a walk, as `reconstruct` meets them
    strides: tuple[int, ...] = (4, 4, 8, 12)  # frames from one view to the next
    views: int = 3  # that splats are made of
    targets: int = 2  # frames that they are compared with
    nearest: float = 1.7  # times larger than the frames at most the targets are; later frames replace coarser splats
    coarse_share: float = 0.5  # of the samples, in which a splat stands for 2x2 pixels
    fitted_share: float = 0.5  # of the samples, in which splats are widened and their colours fitted, as in a world
    structure: float = 0.2  # weight of 1 - SSIM beside the absolute difference
    look: float = 0.02  # weight of the features' distance
    opacity: float = 0.005  # weight of the mean opacity: a splat that helps nothing goes


@dataclass(frozen=True)
class SplatSample:
    views: list[View]  # with depth, in the order of fusion
    beside: list[list[View]]  # of each view
    targets: Clip
    fitted: Clip | None  # what colours are fitted to before the comparison; None: they are compared as they are
    ratio: int  # of the splats

    def to(self, device: torch.device) -> SplatSample:
        def moved(view: View) -> View:
            return View(view.image.to(device), view.depth.to(device), view.camera.to(device), view.frame)

        views, beside = [moved(view) for view in self.views], [[moved(view) for view in group] for group in self.beside]
        targets, fitted = (
            None if clip is None else Clip(clip.video.to(device), clip.cameras.to(device))
            for clip in (self.targets, self.fitted)
        )
        return replace(self, views=views, beside=beside, targets=targets, fitted=fitted)


def train_splats(
    network: SplatHead,
    features: SqueezeFeatures,
    walks: Sequence[Sequence[Path]],
    recipe: SplatRecipe,
    folder: Path,
    placement: Placement,
) -> None:
    """Train `network` in place on clip folders, on each of the groups `walks` as often as on the others; `features`
    judge how alike pictures look and stay as they are."""
    if not walks or not all(walks):
        raise ValueError("training splats wants clip folders; python -m photowalk.synthetic FOLDER makes some")
    features.to(placement.device).requires_grad_(False)
    network.to(placement.device)

    def loss_of(sample: SplatSample) -> Losses:
        with torch.autocast(placement.device.type, enabled=False):  # places in space want all their digits
            return splat_losses(network, features, sample.to(placement.device), recipe)

    train(network, partial(draw_sample, walks, recipe), loss_of, recipe.training, folder, placement)


def splat_losses(network: SplatHead, features: SqueezeFeatures, sample: SplatSample, recipe: SplatRecipe) -> Losses:
    """How unlike the targets the splats look where there are any; what they do not cover, nobody showed them."""
    scene = scene_of(sample, LearntLift(network, sample.ratio))
    if sample.fitted is not None:
        scene = _fitted(scene, sample.fitted, sample.ratio)
    everything = scene.everything
    pairs = [_compared(everything, *target) for target in zip(sample.targets.video, sample.targets.cameras)]
    pictures, truth, covered = (torch.stack(values) for values in zip(*pairs))
    difference = ((pictures - truth).abs().mean(1) * covered).sum() / covered.sum().clamp_min(1)
    structure = 1 - ssim(pictures, truth).mean()
    look = feature_distance(features(pictures), [wanted.detach() for wanted in features(truth)]).mean()
    opacity = scene.splats.opacities.mean()
    loss = (1 - recipe.structure) * difference + recipe.structure * structure
    loss = loss + recipe.look * look + recipe.opacity * opacity
    squared = ((pictures - truth).square().mean(1) * covered).sum() / covered.sum().clamp_min(1)
    decibels = -10 * squared.detach().clamp_min(1e-9).log10()
    named = {"difference": difference, "structure": structure, "look": look, "opacity": opacity, "psnr": decibels}
    return {"loss": loss, **named}


def scene_of(sample: SplatSample, lifter: Lifter) -> Scene:
    """The sample's views fused as a walk's are, with its sky."""
    fused, sky = Fused.nothing(), None
    for view, beside in zip(sample.views, sample.beside, strict=True):
        fused, view = add_view(fused, view, lifter, beside)
        sky = add_sky(sky, view)
    finite = [view.depth[view.depth.isfinite()].max() for view in sample.views if view.depth.isfinite().any()]
    dome = build_dome(sky, sample.views[0].camera.centres, SKY_DISTANCE * float(max(finite, default=1.0)))
    return Scene(fused.trusted, dome)


def _fitted(scene: Scene, frames: Clip, ratio: int) -> Scene:
    """The scene as worlds keep it. What fitting adds to colours counts as given: the network is asked for the rest."""
    wider = closed_from_nearer(scene, ratio=ratio)
    fitted = fit_colours(wider, [frames], frames=len(frames), every=1)

    def with_added(splats: Splats, fitted: Splats) -> Splats:
        return replace(splats, colours=splats.colours + (fitted.colours - splats.colours).detach())

    sky = None if wider.sky is None or fitted.sky is None else with_added(wider.sky, fitted.sky)
    return Scene(with_added(wider.splats, fitted.splats), sky)


def _compared(splats: Splats, truth: Tensor, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """The rendering [3, H, W], the truth, and where the splats are answerable [H, W].

    Behind them is one colour by chance, so that thin splats are seen to be thin.
    """
    rendered = render(splats, camera, torch.rand(3).to(truth))
    covered = (rendered.alpha.detach() > COVERED).float()[None]
    covered = -F.max_pool2d(-covered, 3, 1, 1)  # the splats' own rim is half background
    return torch.where(covered > 0, rendered.image, truth), truth, covered[0]


def draw_sample(walks: Sequence[Sequence[Path]], recipe: SplatRecipe, random: torch.Generator) -> SplatSample:
    """A few views of a walk, forwards or backwards, and frames between them, cut out at one place."""
    group = walks[integer(len(walks), random)]
    path = group[integer(len(group), random)]
    every, stride = recipe.depth_every, recipe.strides[integer(len(recipe.strides), random)]
    length = count_frames(path)
    span = stride * (recipe.views - 1)
    starts = (length - 1 - span) // every + 1
    if starts < 1:
        raise ValueError(f"{path} has {length} frames; training splats wants at least {span + 1}")
    start = every * integer(starts, random)
    first = max(start - every, 0)
    clip = read_clip(path, slice(first, start + span + every + 1))
    clip = _cropped(clip, recipe.crop, random)
    chosen = [start - first + stride * number for number in range(recipe.views)]
    others = [frame for frame in range(chosen[0], chosen[-1]) if frame not in chosen]
    targets = [others[integer(len(others), random)] for _ in range(recipe.targets)]
    near = [[frame - every, frame + every] for frame in chosen]
    if uniform(0, 1, random) < 0.5:
        chosen, near = chosen[::-1], [frames[::-1] for frames in near[::-1]]
    ratio = 2 if uniform(0, 1, random) < recipe.coarse_share else 1
    beside = [[clip.view(frame) for frame in frames if 0 <= frame < len(clip)] for frames in near]
    fitted = None
    if uniform(0, 1, random) < recipe.fitted_share:
        known = {*chosen, *(frame for frames in near for frame in frames if 0 <= frame < len(clip))}
        fitted = clip[sorted(known.difference(targets))]
    factor = max(uniform(2 - recipe.nearest, recipe.nearest, random), 1.0)  # half of them are as they are
    magnified = _magnified(clip[targets], factor, random)
    return SplatSample([clip.view(frame) for frame in chosen], beside, magnified, fitted, ratio)


def worlds_under(folders: Sequence[Path]) -> list[Path]:
    """All world folders under `folders`, sorted. Raises ValueError if there are none."""
    worlds = sorted(path.parent for folder in folders for path in folder.rglob("world.json"))
    if not worlds:
        raise ValueError(f"there are no worlds in {', '.join(map(str, folders))}; photowalk generate makes them")
    return worlds


def clip_of_world(world: Path, samples: Path) -> Path:
    """The walk of a world as a clip folder under `samples`, where it is kept."""
    folder = place_of(world, samples)
    if not (folder / "clip.json").exists():
        store = WorldStore(world)
        clips = [store.chunk(index).clip for index in range(len(store.manifest.chunks))]
        depth = torch.cat([torch.zeros_like(clip.video[:, 0]) if clip.depth is None else clip.depth for clip in clips])
        walk = Clip(torch.cat([clip.video for clip in clips]), store.cameras(), depth, clips[-1].prompt)
        write_clip(folder, walk, source=f"a walk of {store.manifest.preset}, {world.name}", licence=LICENCE)
    return folder


def _magnified(clip: Clip, factor: float, random: torch.Generator) -> Clip:
    """Parts of frames as large as the frames were: as if one came nearer, so that splats have to stay closed."""
    height, width = clip.video.shape[2:]
    part = _cropped(clip, (round(height / factor), round(width / factor)), random)
    video = F.interpolate(part.video, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return Clip(video, part.cameras.resized(height, width))


def _cropped(clip: Clip, size: tuple[int, int], random: torch.Generator) -> Clip:
    """All frames cut out at one place; smaller ones stay as they are."""
    height, width = (min(side, whole) for side, whole in zip(size, clip.video.shape[2:]))
    top = integer(clip.video.shape[2] - height + 1, random)
    left = integer(clip.video.shape[3] - width + 1, random)
    part = (..., slice(top, top + height), slice(left, left + width))
    intrinsics = clip.cameras.intrinsics.clone()
    intrinsics[:, :2, 2] -= torch.tensor([left, top], dtype=intrinsics.dtype)
    cameras = replace(clip.cameras, intrinsics=intrinsics, height=height, width=width)
    return Clip(clip.video[part], cameras, None if clip.depth is None else clip.depth[part], clip.prompt)
