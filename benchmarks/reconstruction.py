"""How good splats of walks are at cameras that they were not made from, and what they cost.

    python benchmarks/reconstruction.py [--worlds 20] [--walks FOLDER ...] [--office FOLDER] [--features FILE]
        [--refine 200] [--lengths 500 2000]

One table: PSNR, SSIM and, with the SqueezeNet features of FILE, a perceptual distance, of every 8th frame, which is
held out, for pixel-aligned splats without a network and for these after --refine steps. Synthetic walks have held-out
seeds, exact cameras and exact depth; --walks takes world folders (generated walks); --office an RGB-D walk, of which
as many frames as the synthetic walks have are taken. Pictures are compared as rendered and with the exposure of each
frame.
--lengths measures seconds and memory for walks of that many frames, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file

from photowalk.data.rgbd_walk import read_rgbd_walk
from photowalk.evaluate.images import psnr
from photowalk.models.squeeze_features import SqueezeFeatures, feature_distance
from photowalk.reconstruct import reconstruct, refine
from photowalk.reconstruct.photometric import exposure_gain, ssim
from photowalk.scene.render import render
from photowalk.scene.types import Clip, Scene
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld
from photowalk.world.store import WorldStore

SIZE = (256, 448)
OFFICE_SIZE = (240, 360)
FRAMES = 161
HELD_OUT_EVERY = 8
DEPTH_EVERY = 4  # frames of a synthetic walk, as generated ones have it
CLIP = 80  # frames of the walks of --lengths that exist at once

Perceptual = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--walks", type=Path, nargs="*", default=[])
    parser.add_argument("--office", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--refine", type=int, default=200)
    parser.add_argument("--lengths", type=int, nargs="*", default=[])
    options = parser.parse_args()
    perceptual = None if options.features is None else _perceptual(options.features)
    kinds = {
        f"{options.worlds} synthetic walks": (_synthetic(seed, options.frames) for seed in _seeds(options.worlds)),
        f"{len(options.walks)} generated walks": (_generated(folder) for folder in options.walks),
        "office": [_office(options.office, options.frames)] if options.office else [],
    }
    print(f"{'walks':22} {'splats':24} {'PSNR':>6} {'evened':>6} {'SSIM':>6} {'percept':>7} {'count':>8} {'CPU s':>6}")
    for kind, clips in kinds.items():
        figures: dict[str, list[torch.Tensor]] = {}
        for clip in clips:
            for name, row in _rows(clip, options.refine, perceptual):
                figures.setdefault(name, []).append(row)
        for name, rows in figures.items():
            raw, evened, alike, distance, count, seconds = torch.stack(rows).mean(dim=0).tolist()
            line = f"{raw:6.2f} {evened:6.2f} {alike:6.3f} {distance:7.3f} {count:8.0f} {seconds:6.1f}"
            print(f"{kind:22} {name:24} {line}", flush=True)
    for length in options.lengths:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            print(pool.submit(_cost, length).result(), flush=True)


def _rows(clip: Clip, steps: int, perceptual: Perceptual | None) -> Iterator[tuple[str, torch.Tensor]]:
    held_out = list(range(HELD_OUT_EVERY // 2 + 2, len(clip), HELD_OUT_EVERY))  # 6, 14, ...: without depth
    known = clip[[frame for frame in range(len(clip)) if frame not in held_out]]
    start = time.process_time()
    scene = reconstruct([known])
    yield "pixel-aligned", _figures(scene, clip[held_out], perceptual, time.process_time() - start)
    scene = refine(scene, lambda: [known], frames=len(known), steps=steps)
    yield f"--refine {steps}", _figures(scene, clip[held_out], perceptual, time.process_time() - start)


@torch.inference_mode()
def _figures(scene: Scene, truth: Clip, perceptual: Perceptual | None, seconds: float) -> torch.Tensor:
    """[6] PSNR, PSNR with the exposure of each frame, SSIM, perceptual distance, splats, seconds."""
    pictures = render(scene.everything, truth.cameras).image.clamp(0, 1)
    gains = [exposure_gain(b.flatten(1).T, a.flatten(1).T) for a, b in zip(pictures, truth.video, strict=True)]
    evened = (pictures * torch.stack(gains)[..., None, None]).clamp(0, 1)
    distance = torch.tensor(torch.nan) if perceptual is None else perceptual(pictures, truth.video).mean()
    similar = ssim(pictures, truth.video).mean()
    alike = [psnr(pictures, truth.video).mean(), psnr(evened, truth.video).mean(), similar, distance]
    return torch.tensor([*alike, len(scene.everything), seconds])


def _perceptual(file: Path) -> Perceptual:
    features = SqueezeFeatures()
    features.load_state_dict(load_file(file))
    return lambda a, b: feature_distance(features(a), features(b))


# ---- walks


def _seeds(count: int) -> Iterable[int]:
    return HELD_OUT_SEEDS[:count]


def _synthetic(seed: int, frames: int) -> Clip:
    world = SyntheticWorld.sample(seed)
    clip = world.render(world.walk(frames, seed, size=SIZE))
    assert clip.depth is not None
    depth = torch.zeros_like(clip.depth)
    depth[::DEPTH_EVERY] = clip.depth[::DEPTH_EVERY]
    return Clip(clip.video, clip.cameras, depth)


def _generated(folder: Path) -> Clip:
    store = WorldStore(folder)
    clips = [store.chunk(index).clip for index in range(len(store.manifest.chunks))]
    depth = [clip.depth for clip in clips if clip.depth is not None]
    return Clip(torch.cat([clip.video for clip in clips]), store.cameras(), torch.cat(depth))


def _office(folder: Path, frames: int) -> Clip:
    return read_rgbd_walk(folder, *OFFICE_SIZE, frames=slice(frames))


def _cost(frames: int) -> str:
    """Seconds and memory of a walk that exists a clip at a time."""
    world = SyntheticWorld.sample(HELD_OUT_SEEDS[0])
    cameras = world.walk(frames, HELD_OUT_SEEDS[0], size=SIZE)
    rendering = 0.0

    def clips() -> Iterator[Clip]:
        nonlocal rendering
        for first in range(0, frames, CLIP):
            start = time.process_time()
            clip = world.render(cameras[first : first + CLIP : DEPTH_EVERY])
            rendering += time.process_time() - start
            yield clip

    start = time.process_time()
    scene = reconstruct(clips())
    seconds, peak = time.process_time() - start - rendering, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{frames} frames: {seconds:.0f} CPU seconds, at most {peak:.2f} GiB, {len(scene.everything):,} splats"


if __name__ == "__main__":
    main()
