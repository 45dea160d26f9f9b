"""How good splats of walks are at frames that they were not made from, and how many they are.

    python benchmarks/reconstruction.py [--walks 20] [--frames 161] [--refine 200] [--exact-only FILE] [--weights FILE]
        [--work out/reconstruction] [--minutes M] [--only NAME ...] [--features FILE] [--looks FOLDER]
        [--office FOLDER [--office-size 240x360]] [--splats N]

Every 8th frame is held out. Synthetic walks have held-out seeds, exact frames and cameras and exact depth in every
fourth frame; generated ones are nano's own walks from their first frames along the same cameras, compared with the
frames that nano drew. Rows: pixel-aligned splats without a network; nano's splat head (--weights, the one in the
package unless given); the one that has seen exact walks alone, if --exact-only gives it; nano's with wider splats and
colours fitted to the frames, as `photowalk reconstruct` does it ("fitted"); that followed by --refine steps
("refined"). Down-ratio 2 makes a quarter of the splats of each frame. "evened" is PSNR with the exposure of each
frame, "mended" PSNR with the exposure of the frames before and after and the camera that --refine found for these,
which uses nothing of the frame itself; "look" the distance of picture features: nano's own, or SqueezeNet's with
--features.

Every figure is kept in --work as soon as it is measured, so the benchmark may be stopped, by --minutes or otherwise,
and called again; what is there is not measured twice. The table of all that is there is printed last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import load_file
from torch import Tensor

from photowalk.data.clips import read_clip, write_clip
from photowalk.data.rgbd_walk import read_rgbd_walk
from photowalk.evaluate.images import psnr
from photowalk.models.splat_head import SplatHead
from photowalk.models.squeeze_features import SqueezeFeatures, feature_distance
from photowalk.models.weights import load_weights
from photowalk.presets import load_preset
from photowalk.presets.nano import WEIGHTS, nano_depth_network, nano_splat_head
from photowalk.reconstruct import closed_from_nearer, fit_colours, reconstruct, refine
from photowalk.reconstruct.corrections import Corrections, Track
from photowalk.reconstruct.fuse import BUDGET
from photowalk.reconstruct.learnt_lift import LearntLift
from photowalk.reconstruct.lift import Lifter, PixelAligned
from photowalk.reconstruct.photometric import exposure_gain, ssim
from photowalk.reconstruct.refine import Refined
from photowalk.scene.images import write_png
from photowalk.scene.render import render
from photowalk.scene.types import Clip, Scene
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld
from photowalk.train.generated_walks import walk_into
from photowalk.world.placement import choose_placement
from photowalk.world.store import WorldStore

SIZE = (256, 448)
HELD_OUT_EVERY = 8
DEPTH_EVERY = 4  # frames of a synthetic walk, as generated ones have it


@dataclass(frozen=True)
class Method:
    name: str
    lifter: Lifter
    version: str  # of what was learnt
    steps: int = 0  # of --refine
    fitted: bool = False  # colours to the frames, which --refine does anyway
    budget: int = BUDGET

    @property
    def key(self) -> str:
        bound = "" if self.budget == BUDGET else f", {self.budget} splats"
        return f"{self.name}, down-ratio {self.lifter.ratio}, {self.version}, {self.steps} steps{bound}"


@dataclass(frozen=True)
class Row:
    psnr: float
    evened: float  # PSNR with the exposure of each frame
    mended: float  # PSNR with the exposure of the frames before and after, and their cameras' corrections
    ssim: float
    look: float
    splats: float
    splats_per_frame: float  # that has depth
    seconds: float  # of processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=20)
    parser.add_argument("--frames", type=int, default=161, help="of a walk")
    parser.add_argument("--refine", type=int, default=200)
    parser.add_argument("--weights", type=Path, default=WEIGHTS / "nano" / "splats.safetensors")
    parser.add_argument("--exact-only", type=Path)
    parser.add_argument("--work", type=Path, default=Path("out/reconstruction"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after so long")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help='measure only these now: "refined" or "refined, down-ratio 1"'
    )
    parser.add_argument("--features", type=Path)
    parser.add_argument("--office", type=Path)
    parser.add_argument("--office-size", default="240x360", metavar="HxW")
    parser.add_argument("--splats", type=int, default=BUDGET, help="at most so many of a scene")
    parser.add_argument("--looks", type=Path, help="put held-out frames beside their renders here")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    notes, until = Notes(options.work / "figures.jsonl"), time.monotonic() + 60 * options.minutes
    methods, features = _methods(options), _features(options.features)
    for kind, name, walk in _walks(options):
        for method in methods:
            if (kind, name, method.key) in notes.rows or time.monotonic() > until:
                continue
            if options.only and not method.key.startswith(tuple(options.only)):
                continue
            row, pair = _measured(walk(), method, features)
            notes.add(kind, name, method.key, row)
            if options.looks is not None:
                options.looks.mkdir(parents=True, exist_ok=True)
                write_png(options.looks / f"{kind}_{name}_{method.key.replace(', ', '_')}.png", pair)
    print(_table(notes, [method.key for method in methods]))


class Notes:
    """Rows in a file, one a line, by kind of walk, walk and method."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows = {tuple(line["key"]): Row(**line["row"]) for line in map(json.loads, lines)}

    def add(self, kind: str, walk: str, method: str, row: Row) -> None:
        self.rows[kind, walk, method] = row
        with self.file.open("a") as file:
            file.write(json.dumps({"key": (kind, walk, method), "row": asdict(row)}) + "\n")


def _table(notes: Notes, methods: Sequence[str]) -> str:
    head = f"{'walks':14} {'splats':52} {'N':>3} {'PSNR':>6} {'evened':>6} {'mended':>6} {'SSIM':>6} {'look':>6}"
    lines = [f"{head} {'count':>8} {'/frame':>7} {'CPU s':>6}"]
    for kind in dict.fromkeys(key[0] for key in notes.rows):
        for method in methods:
            rows = [row for key, row in notes.rows.items() if (key[0], key[2]) == (kind, method)]
            if rows:
                a = Row(*(mean(values) for values in zip(*(vars(row).values() for row in rows))))
                line = f"{kind:14} {method:52} {len(rows):3} {a.psnr:6.2f} {a.evened:6.2f} {a.mended:6.2f}"
                line = f"{line} {a.ssim:6.3f} {a.look:6.3f}"
                lines.append(f"{line} {a.splats:8.0f} {a.splats_per_frame:7.0f} {a.seconds:6.1f}")
    return "\n".join(lines)


def _methods(options: argparse.Namespace) -> list[Method]:
    weights, refined = options.weights, options.refine
    methods = [Method("pixel-aligned", PixelAligned(), "no network")]
    if options.exact_only is not None:
        methods.append(Method("exact walks only", *_learnt(options.exact_only, 1)))
    methods += [Method("nano", *_learnt(weights, 1)), Method("fitted", *_learnt(weights, 1), fitted=True)]
    methods += [Method("refined", *_learnt(weights, 1), refined)]
    methods += [Method("pixel-aligned", PixelAligned(2), "no network"), Method("nano", *_learnt(weights, 2))]
    methods += [Method("fitted", *_learnt(weights, 2), fitted=True), Method("refined", *_learnt(weights, 2), refined)]
    return [replace(method, budget=options.splats) for method in methods]


def _learnt(weights: Path, ratio: int) -> tuple[LearntLift, str]:
    network = SplatHead(nano_splat_head())
    load_weights(network, weights)
    return LearntLift(network.eval(), ratio), hashlib.sha256(weights.read_bytes()).hexdigest()[:8]


def _features(file: Path | None) -> SqueezeFeatures:
    if file is None:
        return nano_depth_network(choose_placement()).encoder
    features = SqueezeFeatures()
    features.load_state_dict(load_file(file))
    return features


def _measured(clip: Clip, method: Method, features: SqueezeFeatures) -> tuple[Row, Tensor]:
    """The figures, and a held-out frame beside its render [3, H, 2W]."""
    held_out = list(range(HELD_OUT_EVERY // 2 + 2, len(clip), HELD_OUT_EVERY))  # 6, 14, ...: without depth
    known = clip[[frame for frame in range(len(clip)) if frame not in held_out]]
    assert known.depth is not None
    with_depth = int((known.depth > 0).any(-1).any(-1).sum())
    start = time.process_time()
    made = _refined(known, method) if method.steps else Refined(_made([known], method), Corrections.of({}, {}))
    if method.fitted:
        closed = closed_from_nearer(made.scene, ratio=method.lifter.ratio)
        made = replace(made, scene=fit_colours(closed, [known], frames=len(known)))
    seconds = time.process_time() - start
    between = [frame - number - 0.5 for number, frame in enumerate(held_out)]  # their places among the known ones
    return _judged(_evened(made, known, between), clip[held_out], between, features, with_depth, seconds)


def _made(clips: Iterable[Clip], method: Method) -> Scene:
    with torch.no_grad():
        return reconstruct(clips, lifter=method.lifter, budget=method.budget)


def _refined(known: Clip, method: Method) -> Refined:
    return refine(
        partial(_made, method=method), lambda: [known], frames=len(known), steps=method.steps, lifter=method.lifter
    )


@torch.no_grad()
def _evened(made: Refined, known: Clip, between: Sequence[float]) -> Refined:
    """With the gains of the known frames before and after those at `between`, as they are now."""
    gains = {}
    for frame in {frame for place in between for frame in (int(place), min(int(place) + 1, len(known) - 1))}:
        camera = made.corrections.camera(known.cameras[frame], frame)
        picture = render(made.scene.everything, camera).image
        gains[frame] = exposure_gain(known.video[frame].flatten(1).T, picture.flatten(1).T)
    return replace(made, corrections=replace(made.corrections, gains=Track.of(gains, torch.ones(3))))


@torch.no_grad()
def _judged(
    made: Refined, truth: Clip, between: Sequence[float], features: SqueezeFeatures, with_depth: int, seconds: float
) -> tuple[Row, Tensor]:
    splats, corrections = made.scene.everything, made.corrections
    pictures = render(splats, truth.cameras).image.clamp(0, 1)
    mended = torch.stack(
        [
            render(splats, corrections.camera(truth.cameras[number], frame)).image
            * corrections.gains.at(frame)[:, None, None]
            for number, frame in enumerate(between)
        ]
    ).clamp(0, 1)
    gains = [exposure_gain(b.flatten(1).T, a.flatten(1).T) for a, b in zip(pictures, truth.video, strict=True)]
    evened = (pictures * torch.stack(gains)[..., None, None]).clamp(0, 1)
    likeness = (
        psnr(pictures, truth.video).mean(),
        psnr(evened, truth.video).mean(),
        psnr(mended, truth.video).mean(),
        ssim(pictures, truth.video).mean(),
        feature_distance(features(pictures), features(truth.video)).mean(),
    )
    count, middle = len(made.scene.splats), len(pictures) // 2
    pair = torch.cat([truth.video[middle], mended[middle]], dim=-1)
    return Row(*map(float, likeness), count, count / with_depth, seconds), pair


def _walks(options: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Clip]]]:
    """Kind, name and how to come by each walk."""
    frames = options.frames
    for seed in HELD_OUT_SEEDS[: options.walks]:
        name = f"{seed}_{frames}"
        yield "synthetic", name, cache(partial(_synthetic, seed, frames, options.work / "synthetic" / name))
        yield "generated", name, cache(partial(_generated, seed, frames, options.work / "worlds" / name))
    if options.office is not None:
        name = f"{options.office.name}_{frames}"
        yield (
            f"office {options.office_size}",
            name,
            cache(partial(_office, options.office, options.office_size, frames)),
        )


def _synthetic(seed: int, frames: int, folder: Path) -> Clip:
    """Rendered once and then read again."""
    if not (folder / "clip.json").exists():
        world = SyntheticWorld.sample(seed)
        clip = world.render(world.walk(frames, seed, size=SIZE))
        write_clip(folder, clip, source=f"photowalk.synthetic, seed {seed}", licence="CC0-1.0")
    clip = read_clip(folder)
    assert clip.depth is not None
    depth = torch.zeros_like(clip.depth)
    depth[::DEPTH_EVERY] = clip.depth[::DEPTH_EVERY]
    return Clip(clip.video, clip.cameras, depth)


def _generated(seed: int, frames: int, folder: Path) -> Clip:
    """nano's walk from the synthetic world's first frame, which is made if it is not there."""
    world = SyntheticWorld.sample(seed)
    cameras = world.walk(frames, seed, size=SIZE)
    first = world.render(cameras[:1])
    assert first.depth is not None
    still = Clip(first.video.expand(frames, -1, -1, -1), cameras, first.depth.expand(frames, -1, -1), first.prompt)
    walk_into(still, folder, load_preset("nano"))
    store = WorldStore(folder)
    clips = [store.chunk(index).clip for index in range(len(store.manifest.chunks))]
    depth = torch.cat([torch.zeros_like(clip.video[:, 0]) if clip.depth is None else clip.depth for clip in clips])
    return Clip(torch.cat([clip.video for clip in clips]), store.cameras(), depth)


def _office(folder: Path, size: str, frames: int) -> Clip:
    height, width = map(int, size.split("x"))
    return read_rgbd_walk(folder, height, width, frames=slice(frames))


if __name__ == "__main__":
    main()
