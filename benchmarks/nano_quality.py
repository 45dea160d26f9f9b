"""What nano's parts and whole reach on held-out worlds, beside the bars that they are to reach.

    python benchmarks/nano_quality.py [--worlds 20] [--frames 401] [--photos FOLDER] [--office FOLDER]

PHOTOS is a folder of photographs that nothing was fitted on, OFFICE an RGB-D walk whose last 50 frames nothing was
trained on; without them their lines are left out. All worlds have held-out seeds. The 20 worlds take about two hours of
two cores; fewer say less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from photowalk.data.rgbd_walk import count_frames, read_rgbd_walk
from photowalk.diffusion.euler import Euler
from photowalk.evaluate.cameras import camera_error
from photowalk.evaluate.images import masked_psnr, psnr, sharpness_where
from photowalk.models.protocols import VideoCodec
from photowalk.perception.depth import DepthEstimator
from photowalk.presets import load_preset
from photowalk.scene.images import quantise, read_photo
from photowalk.scene.types import Clip, View
from photowalk.scene.warping import composite
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld
from photowalk.world.generator import Generator

SIZE = (256, 448)
CHUNK = 80
OFFICE_HELD_OUT = 50  # frames at the end
CAMERA_EVERY = 20  # frames
KNOWN_EARLY, KNOWN_LATE = 80, 400  # the frames whose colour and sharpness are compared


@dataclass(frozen=True)
class Row:
    what: str
    figure: str
    bar: str
    passed: bool | None = None  # None: nothing to pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--frames", type=int, default=5 * CHUNK + 1)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--office", type=Path)
    arguments = parser.parse_args()
    if (arguments.frames - 1) % CHUNK:
        parser.error(f"--frames is 1 and whole chunks of {CHUNK}, for instance {2 * CHUNK + 1}")
    generator = load_preset("nano").build()
    worlds = [walk(seed, arguments.frames) for seed in HELD_OUT_SEEDS[: arguments.worlds]]
    rows = [*_codec(generator.codec, worlds, arguments.photos), *_depth(generator.depth, worlds, arguments.office)]
    rows += [*_walks(generator, worlds), *_steps(generator, worlds[0])]
    print(f"{'what':58} {'figure':>22} {'bar':>22}")
    for row in rows:
        verdict = "" if row.passed is None else "pass" if row.passed else "FAIL"
        print(f"{row.what:58} {row.figure:>22} {row.bar:>22} {verdict}")


def walk(seed: int, frames: int) -> Clip:
    world = SyntheticWorld.sample(seed)
    clip = world.render(world.walk(frames, seed, style="there_and_back", size=SIZE))
    print(f"world {seed}: {clip.prompt}", flush=True)
    return clip


# ---- the parts


def _codec(codec: VideoCodec, worlds: list[Clip], photos: Path | None) -> Iterator[Row]:
    figure = torch.stack([_round_trip(codec, clip.video[:: len(clip) // 4][:1]) for clip in worlds]).mean()
    yield Row("codec, held-out worlds, first frame", f"{figure:.1f} dB", ">= 31 dB", bool(figure >= 31))
    moving = torch.stack([_round_trip(codec, clip.video[:33]) for clip in worlds]).mean()
    yield Row("codec, held-out worlds, 33 moving frames", f"{moving:.1f} dB", "")
    if photos:
        pictures = [read_photo(path, *SIZE).image[None] for path in sorted(photos.glob("*.jpg"))]
        figure = torch.stack([_round_trip(codec, picture) for picture in pictures]).mean()
        yield Row(f"codec, {len(pictures)} photographs", f"{figure:.1f} dB", ">= 28 dB", bool(figure >= 28))


@torch.inference_mode()
def _round_trip(codec: VideoCodec, video: Tensor) -> Tensor:
    latents, _ = codec.encode((video * 2 - 1).transpose(0, 1)[None], {})
    decoded, _ = codec.decode(latents, {})
    return psnr(quantise(decoded[0].transpose(0, 1) / 2 + 0.5), video).mean()


def _depth(depth: DepthEstimator, worlds: list[Clip], office: Path | None) -> Iterator[Row]:
    error = torch.stack([_relative_error(depth, clip.view(i)) for clip in worlds for i in (0, len(clip) // 4)]).mean()
    yield Row("depth of a picture, held-out worlds, one scale", f"AbsRel {error:.3f}", "<= 0.10", bool(error <= 0.1))
    if office:
        first = count_frames(office) - OFFICE_HELD_OUT
        clip = read_rgbd_walk(office, *SIZE, frames=slice(first, None, 5))
        error = torch.stack([_relative_error(depth, clip.view(i)) for i in range(len(clip))]).mean()
        yield Row("depth of a picture, office, one scale", f"AbsRel {error:.3f}", "<= 0.25", bool(error <= 0.25))


def _relative_error(depth: DepthEstimator, view: View) -> Tensor:
    """Mean of |estimate - truth| / truth after the median ratio is taken out."""
    estimate = depth.estimate_photo(view.image, float(view.camera.intrinsics[0, 0])).depth
    both = (view.depth > 0) & view.depth.isfinite() & estimate.isfinite()
    ratio = estimate[both] / view.depth[both]
    return (ratio / ratio.median() - 1).abs().mean()


# ---- the whole


def _walks(generator: Generator, worlds: list[Clip]) -> Iterator[Row]:
    """Walks there and back: with memory, with the memory slots emptied, and by warp-and-fill without a denoiser."""
    kinds = {
        "with memory": generator,
        "slots emptied": replace(generator, config=replace(generator.config, recall=None)),
    }
    figures: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    cameras, seconds = [], []
    for clip in worlds:
        for kind, one in kinds.items():
            started = time.perf_counter()
            video = generate(one, clip)
            seconds.append((time.perf_counter() - started) / ((len(clip) - 1) / CHUNK))
            figures[kind].append(_scores(video, clip))
            if kind == "with memory":
                cameras += camera_errors(video, clip)
        print("  ".join(f"{kind}: {figures[kind][-1][0]:.1f} dB" for kind in kinds), flush=True)
    with_memory, emptied = (torch.stack(figures[kind]).nanmean(0) for kind in kinds)
    revisit, known, holes, *drifted = with_memory
    ahead = revisit - emptied[0]
    yield Row("revisited frames against their first visit", f"{revisit:.1f} dB", ">= 20 dB", bool(revisit >= 20))
    yield Row("the same, ahead of the slots emptied", f"{ahead:.1f} dB", ">= 3 dB", bool(ahead >= 3))
    yield Row("first chunk against the truth: known / invented pixels", f"{known:.1f} / {holes:.1f} dB", "")
    yield Row(f"colour lost on known surfaces, frame {KNOWN_LATE} over {KNOWN_EARLY}", f"{drifted[0]:+.2f} of 255", "")
    yield Row("sharpness lost there, share of the truth's", f"{drifted[1]:+.3f}", "")
    turned, walked = torch.tensor(cameras).mean(0)
    yield Row("camera, found again from the frames: turned", f"{turned:.2f} deg", "<= 2 deg", bool(turned <= 2))
    yield Row("camera: walked, share of the path", f"{100 * walked:.1f} %", "<= 5 %", bool(walked <= 0.05))
    pace = sum(seconds) / len(seconds)
    yield Row(f"seconds of a chunk, {torch.get_num_threads()} threads", f"{pace:.1f} s", "<= 30 s", pace <= 30)


def generate(generator: Generator, clip: Clip) -> Tensor:
    """[F, 3, H, W] the walk of the clip's cameras from its first frame, whose depth is given."""
    photo = clip.view(0)
    state = generator.start(photo.image, camera=photo.camera, depth=photo.depth, prompt=clip.prompt)
    for first in range(1, len(clip), CHUNK):
        state = generator.extend(state, clip.cameras[first : first + CHUNK], clip.prompt, seed=first)
    return state.video


def _scores(video: Tensor, clip: Clip) -> Tensor:
    """Revisits; known and invented pixels of the first chunk; drift in colour and sharpness."""
    some = slice(8, CHUNK + 1, 8)
    seen = composite([clip.view(0)], clip.cameras[some]).known
    known, holes = (masked_psnr(video[some], clip.video[some], where).nanmean() for where in (seen, ~seen))
    return torch.stack([revisits(video), known, holes, *drift(video, clip)])


def revisits(video: Tensor) -> Tensor:
    """PSNR of a walk's way back against its way out."""
    turn = len(video) // 2
    return psnr(video[turn + 1 :], video[:turn].flip(0)).mean()


def drift(video: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
    """How much worse a late frame is than an early one where both show what the photo showed: in colour (mean error of
    a channel's mean, of 255) and in sharpness (share of the truth's that is lost). Late is the last frame of a walk
    that is too short."""
    early, late = (_worn(video, clip, min(frame, len(video) - 1)) for frame in (KNOWN_EARLY, KNOWN_LATE))
    return late[0] - early[0], late[1] - early[1]


def _worn(video: Tensor, clip: Clip, frame: int) -> tuple[Tensor, Tensor]:
    known = composite([clip.view(0)], clip.cameras[frame : frame + 1]).known[0]
    made, truth = video[frame], clip.video[frame]
    colour = (made - truth)[:, known].mean(-1).abs().mean() * 255
    return colour, 1 - sharpness_where(made, known) / sharpness_where(truth, known)


def camera_errors(video: Tensor, clip: Clip) -> list[tuple[float, float]]:
    """Degrees, and metres as a share of the way to the frame, of the frames that show enough of the true place."""
    way = clip.cameras.centres.diff(dim=0).norm(dim=1).cumsum(0)
    found = [(i, camera_error(video[i], clip.view(i))) for i in range(CAMERA_EVERY, len(clip), CAMERA_EVERY)]
    return [(error[0], error[1] / max(float(way[i - 1]), 1.0)) for i, error in found if error is not None]


def _steps(generator: Generator, clip: Clip) -> Iterator[Row]:
    """Four steps against thirty-five of the same denoiser, on a walk of two chunks there and back."""
    short = clip[[*range(CHUNK + 1), *range(CHUNK - 1, -1, -1)]]
    figures = []
    for sampler in (generator.sampler, Euler(steps=35)):
        started = time.perf_counter()
        video = generate(replace(generator, sampler=sampler), short)
        figures.append((float(psnr(video[CHUNK + 1 :], video[:CHUNK].flip(0)).mean()), time.perf_counter() - started))
    (few, quick), (many, slow) = figures
    yield Row("four steps against 35, revisits", f"{few:.1f} / {many:.1f} dB", "within 1 dB", abs(few - many) <= 1)
    yield Row("the same, seconds of two whole chunks", f"{quick:.0f} / {slow:.0f} s", "")


if __name__ == "__main__":
    main()
