"""How much of a photo is there when one comes nearer: frames seen through a lens that grows longer, against the photo.

    python benchmarks/closer.py PHOTO... [--times 2]
    python benchmarks/closer.py --worlds 8

A chunk of nano zooms from the photo's own lens to one that is so many times longer, from where the photo was taken:
what it should show then is the middle of the photo, whose pixels are known if the photo has enough of them. Printed are
PSNR of the last frame with the photo kept in more pixels, without, and of the photo's first frame enlarged (bicubic),
which is as good as a walk can be that knows nothing else. The last line is the mean of all photos.

With --worlds, what geometry alone shows (without codec and networks) of held-out synthetic worlds, from the photo with
exact depth, on a way forward of 0.45 of its median depth: PSNR where both know surface or sky, and near outlines.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.evaluate.images import psnr
from photowalk.geometry import paths
from photowalk.geometry.cameras import Cameras
from photowalk.kernels.sliding import highest_around
from photowalk.presets import load_preset
from photowalk.scene.close_up import CloseUp, composite_with
from photowalk.scene.edges import jumps
from photowalk.scene.images import read_photo
from photowalk.scene.types import View
from photowalk.scene.warping import composite
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld
from photowalk.world.generator import Generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--worlds", type=int, default=0)
    parser.add_argument("--times", type=float, default=2.0)
    options = parser.parse_args()
    if not options.photos and not options.worlds:
        parser.error("name photos, or a number of --worlds")
    if options.photos:
        _photos(options)
    if options.worlds:
        _worlds(options.worlds)


def _photos(options: argparse.Namespace) -> None:
    preset = load_preset("nano")
    generator = preset.build()
    size, rows = (preset.height, preset.width), []
    for photo in options.photos:
        rows.append(_compared(generator, photo, size, options.times))
        print(f"{photo.name:40s} {_said(rows[-1])}", flush=True)
    print(f"{'mean of ' + str(len(rows)):40s} {_said([mean(column) for column in zip(*rows)])}")


def _said(row: list[float]) -> str:
    with_pixels, without, enlarged = row
    return f"photo in more pixels {with_pixels:.2f} dB, once {without:.2f} dB, first frame enlarged {enlarged:.2f} dB"


def _compared(generator: Generator, file: Path, size: tuple[int, int], times: float) -> list[float]:
    height, width = size
    scale = generator.config.close_up
    photo, close_up = (read_photo(file, n * height, n * width).image for n in (1, scale))
    tall, wide = (round(scale * side / times) for side in size)
    top, left = (scale * height - tall) // 2, (scale * width - wide) // 2
    middle = close_up[:, top : top + tall, left : left + wide]
    truth = F.interpolate(middle[None], size=size, mode="area")[0]
    drawn = [_last_frame(generator, photo, more, times) for more in (close_up, None)]
    cut = photo[:, top // scale : top // scale + tall // scale, left // scale : left // scale + wide // scale]
    enlarged = F.interpolate(cut[None], size=size, mode="bicubic", antialias=False)[0].clamp(0, 1)
    return [float(psnr(picture, truth)) for picture in (*drawn, enlarged)]


def _last_frame(generator: Generator, photo: Tensor, close_up: Tensor | None, times: float) -> Tensor:
    state = generator.start(photo, focal_px=photo.shape[-1], close_up=close_up)
    camera: Cameras = state.cameras[0]
    frames = 80
    longer = torch.linspace(1, times, frames)[:, None, None]
    intrinsics = camera.intrinsics.repeat(frames, 1, 1)
    intrinsics[:, :2, :2] *= longer
    path = replace(camera, camera_from_world=camera.camera_from_world.repeat(frames, 1, 1), intrinsics=intrinsics)
    return generator.extend(state, path, "", seed=0).video[-1]


def _worlds(count: int) -> None:
    preset, rows = load_preset("nano"), []
    for seed in HELD_OUT_SEEDS[:count]:
        rows.append(_walked_forward(seed, (preset.height, preset.width)))
        print(f"world {seed:34d} {_told(rows[-1])}", flush=True)
    columns = [[figure for figure in column if not isnan(figure)] for column in zip(*rows)]  # no outlines: nan
    print(f"{'mean of ' + str(len(rows)):40s} {_told([mean(column) if column else nan for column in columns])}")


def _told(row: list[float]) -> str:
    return "photo in more pixels {:.2f} dB, near outlines {:.2f} dB, once {:.2f} dB, near outlines {:.2f} dB".format(
        *row
    )


def _walked_forward(seed: int, size: tuple[int, int]) -> list[float]:
    world = SyntheticWorld.sample(seed)
    camera = world.walk(1, seed, size=size)
    picture = world.render(camera.resized(4 * size[0], 4 * size[1])).video[0]
    first = world.render(camera)
    assert first.depth is not None
    depth = first.depth[0]
    photo = View(F.avg_pool2d(picture[None], 4)[0], depth, camera[0], 0)
    targets = paths.forward(camera[0], 4, distance=0.45 * float(depth[torch.isfinite(depth)].median()))[1:]
    truth = world.render(targets)
    assert truth.depth is not None
    outlines = highest_around(jumps(1 / truth.depth, 0.15), 2)
    seen = [composite_with(CloseUp(photo, picture), [photo], targets), composite([photo], targets)]
    known = seen[0].known & seen[1].known
    return [_psnr(one.video, truth.video, where) for one in seen for where in (known, known & outlines)]


def _psnr(video: Tensor, truth: Tensor, where: Tensor) -> float:
    return float(-10 * (video - truth).square().mean(1)[where].mean().log10())


if __name__ == "__main__":
    main()
