"""What nano's parts and whole reach on held-out worlds, beside the bars that they are to reach.

    python benchmarks/nano_quality.py [--worlds 20] [--frames 401] [--only codec,depth,walks,drift,steps,pace]
        [--photos FOLDER] [--office FOLDER] [--weights FOLDER] [--plain FOLDER] [--processes 2]
        [--results runs/nano_quality]

PHOTOS is a folder of photographs that nothing was fitted on, OFFICE an RGB-D walk whose last 50 frames nothing was
trained on; without them their rows are left out. All worlds have held-out seeds; codec and depth are judged on all
twenty, walks on the first --worlds of them. WEIGHTS holds another denoiser and text encoder than the package's, PLAIN
those of one that never trained behind a past of its own, which drift is compared with. Drift is measured with frames
as they are and without the detail stage, where it is the denoiser's alone.

What was measured is kept in RESULTS, apart for every set of weights: a call that was stopped goes on, one with more
worlds adds to what is there, and --only NAMES shows some of the rows. Measure again after changes of code by removing
the folder. Every process computes on one thread, but for the pace of a chunk, which is measured first, on all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from photowalk.data.rgbd_walk import count_frames, read_rgbd_walk
from photowalk.diffusion.euler import Euler
from photowalk.diffusion.sampler import Sampler
from photowalk.evaluate.cameras import camera_error
from photowalk.evaluate.images import masked_psnr, psnr, sharpness_where
from photowalk.models.weights import load_weights
from photowalk.presets import load_preset
from photowalk.presets.nano import WEIGHTS
from photowalk.scene.images import quantise, read_photo, write_atomically
from photowalk.scene.types import Clip
from photowalk.scene.warping import composite
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld
from photowalk.world.generator import Generator
from photowalk.world.placement import choose_placement
from photowalk.world.preview import preview_chunk

SIZE = (256, 448)
CHUNK = 80
MOVING = 33  # frames that the codec is judged on
OFFICE_HELD_OUT = 50  # frames at the end
CAMERA_EVERY = 20  # frames
KNOWN_EARLY, KNOWN_LATE = 80, 400  # the frames whose colour and sharpness are compared, seen from the same place
STEP_WORLDS = 3  # that are sampled in 35 steps too
ROWS = ("pace", "codec", "depth", "walks", "drift", "steps")

Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    what: str
    figure: str
    bar: str = ""
    passed: bool | None = None  # None: nothing to pass


@dataclass(frozen=True)
class Job:
    """One measurement; its name is that of its file."""

    name: str
    measure: Callable[..., Figures]
    arguments: tuple = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=len(HELD_OUT_SEEDS))
    parser.add_argument("--frames", type=int, default=5 * CHUNK + 1)
    parser.add_argument("--only", default=",".join(ROWS), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--office", type=Path)
    parser.add_argument("--weights", type=Path, help="a folder with another denoiser and its text encoder")
    parser.add_argument("--plain", type=Path, help="a folder with a denoiser that saw true pasts alone, for drift")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=Path("runs/nano_quality"))
    arguments = parser.parse_args()
    if (arguments.frames - 1) % CHUNK:
        parser.error(f"--frames is 1 and whole chunks of {CHUNK}, for instance {2 * CHUNK + 1}")
    only = arguments.only.split(",")
    if unknown := set(only) - set(ROWS):
        parser.error(f"--only knows {', '.join(ROWS)}, not {', '.join(sorted(unknown))}")
    folder = arguments.results / digest(arguments.weights)
    found = {kind: measure_all(jobs(kind, arguments), folder, arguments.processes) for kind in ROWS if kind in only}
    print(f"{'what':58} {'figure':>24} {'bar':>14}")
    for kind, figures in found.items():
        for row in TABLES[kind](figures) if figures else ():
            verdict = "" if row.passed is None else "pass" if row.passed else "FAIL"
            print(f"{row.what:58} {row.figure:>24} {row.bar:>14} {verdict}")


def digest(weights: Path | None) -> str:
    """Of everything that nano is made of."""
    kept = {
        path.name: path for folder in (WEIGHTS / "nano", weights) if folder for path in folder.glob("*.safetensors")
    }
    return hashlib.sha256(b"".join(kept[name].read_bytes() for name in sorted(kept))).hexdigest()[:12]


def nano_with(weights: Path | None) -> Generator:
    """Nano, with the denoiser and the text encoder of a folder if one is given."""
    generator = load_preset("nano").build(choose_placement())
    if weights:
        assert isinstance(generator.text, nn.Module)
        load_weights(generator.denoiser, weights / "denoiser.safetensors")
        load_weights(generator.text, weights / "text.safetensors")
    return generator


# ---- measuring


def jobs(kind: str, arguments: argparse.Namespace) -> list[Job]:
    weights, frames, walked = arguments.weights, arguments.frames, HELD_OUT_SEEDS[: arguments.worlds]
    if kind == "pace":
        return [Job("pace", _pace, (weights,))]
    if kind == "codec":
        photos = [Job("codec_photographs", _codec_photographs, (arguments.photos,))] if arguments.photos else []
        return [Job(f"codec_{seed}", _codec, (seed,)) for seed in HELD_OUT_SEEDS] + photos
    if kind == "depth":
        office = [Job("depth_office", _depth_office, (arguments.office,))] if arguments.office else []
        return [Job(f"depth_{seed}", _depth, (seed, frames)) for seed in HELD_OUT_SEEDS] + office
    if kind == "walks":
        return [Job(f"walk_{seed}_{frames}", _walk, (seed, frames, weights)) for seed in walked]
    if kind == "drift":
        plain = {f"plain_{digest(arguments.plain)}": arguments.plain} if arguments.plain else {}
        return [
            Job(f"drift_{name}_{seed}_{frames}", _drift, (seed, frames, folder))
            for name, folder in {"kept": weights, **plain}.items()
            for seed in walked
        ]
    return [Job(f"steps_{seed}", _steps, (seed, weights)) for seed in walked[:STEP_WORLDS]]


def measure_all(wanted: list[Job], folder: Path, processes: int) -> dict[str, Figures]:
    """Figures by the names of the jobs; those in `folder` are read."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [job for job in wanted if not (folder / f"{job.name}.json").exists()]
    if len(missing) == 1 or processes == 1:
        for job in missing:
            _measure(job, folder)
    elif missing:
        with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            list(pool.map(_measure, missing, [folder] * len(missing)))
    return {job.name: json.loads((folder / f"{job.name}.json").read_text()) for job in wanted}


def _measure(job: Job, folder: Path) -> None:
    started, figures = time.perf_counter(), job.measure(*job.arguments)
    write_atomically(folder / f"{job.name}.json", lambda temporary: temporary.write_text(json.dumps(figures)))
    told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    print(f"{job.name}: {told} ({time.perf_counter() - started:.0f} s)", flush=True)


def _pace(weights: Path | None) -> Figures:
    """Seconds of a chunk, everything included, on all threads; the first walk warms up."""
    generator, clip = nano_with(weights), walk(HELD_OUT_SEEDS[0], 2 * CHUNK + 1)
    state = generator.extend(begin(generator, clip), clip.cameras[1 : CHUNK + 1], clip.prompt, seed=1)
    started = time.perf_counter()
    generator.extend(state, clip.cameras[CHUNK + 1 :], clip.prompt, seed=CHUNK + 1)
    return {"seconds": time.perf_counter() - started, "threads": float(torch.get_num_threads())}


def _codec(seed: int) -> Figures:
    codec, clip = load_preset("nano").build().codec, walk(seed, 2 * CHUNK + 1, MOVING)
    return {"first": _round_trip(codec, clip.video[:1]), "moving": _round_trip(codec, clip.video)}


def _codec_photographs(folder: Path) -> Figures:
    codec = load_preset("nano").build().codec
    pictures = [read_photo(path, *SIZE).image[None] for path in sorted(folder.glob("*.jpg"))]
    return {"picture": _mean([_round_trip(codec, picture) for picture in pictures]), "count": float(len(pictures))}


@torch.inference_mode()
def _round_trip(codec, video: Tensor) -> float:
    latents, _ = codec.encode((video * 2 - 1).transpose(0, 1)[None], {})
    decoded, _ = codec.decode(latents, {})
    return float(psnr(quantise(decoded[0].transpose(0, 1) / 2 + 0.5), video).mean())


def _depth(seed: int, frames: int) -> Figures:
    world = SyntheticWorld.sample(seed)
    cameras = world.walk(frames, seed, style="there_and_back", size=SIZE)
    return _relative_errors(world.render(cameras[[0, frames // 4]]))


def _depth_office(folder: Path) -> Figures:
    first = count_frames(folder) - OFFICE_HELD_OUT
    return _relative_errors(read_rgbd_walk(folder, *SIZE, frames=slice(first, None)))


def _relative_errors(clip: Clip) -> Figures:
    """Means of |estimate - truth| / truth after each frame's median ratio is taken out; of a constant depth too."""
    estimator = load_preset("nano").build().depth
    errors, constant = [], []
    for view in (clip.view(i) for i in range(len(clip))):
        estimate = estimator.estimate_photo(view.image, float(view.camera.intrinsics[0, 0])).depth
        both = (view.depth > 0) & view.depth.isfinite() & estimate.isfinite()
        errors.append(_off(estimate[both] / view.depth[both]))
        constant.append(_off(1 / view.depth[(view.depth > 0) & view.depth.isfinite()]))
    return {"error": _mean(errors), "constant": _mean(constant)}


def _off(ratio: Tensor) -> float:
    return float((ratio / ratio.median() - 1).abs().mean())


def _walk(seed: int, frames: int, weights: Path | None) -> Figures:
    """A walk there and back with memory, and once more with the memory slots emptied."""
    generator, clip = nano_with(weights), walk(seed, frames)
    emptied = replace(generator, config=replace(generator.config, recall=None))
    video = generate(generator, clip)
    turned, walked = torch.tensor(camera_errors(video, clip) or [(float("nan"),) * 2]).mean(0).tolist()
    return {
        "revisit": float(revisits(video)),
        "emptied": float(revisits(generate(emptied, clip))),
        "turned": turned,
        "walked": walked,
        **_first_chunk(generator, video, clip),
    }


def _drift(seed: int, frames: int, weights: Path | None) -> Figures:
    """A walk to and fro between the same two places, with nano as it is and with its denoiser alone."""
    generator, clip = nano_with(weights), to_and_fro(seed, frames)
    figures = {}
    for name, walker in (("", generator), ("alone_", replace(generator, detail=None))):
        colour, sharpness = drift(generate(walker, clip), clip)
        figures |= {f"{name}colour": float(colour), f"{name}sharpness": float(sharpness)}
    return figures


def _first_chunk(generator: Generator, video: Tensor, clip: Clip) -> Figures:
    """Known and invented pixels against the truth, of the walk and of what geometry alone makes of the photo."""
    some = slice(8, CHUNK + 1, 8)
    plain = preview_chunk(clip.view(0), (), clip.cameras[some], generator.config.conditioning.preview)
    seen, truth = plain.known > 0, clip.video[some]
    return {
        f"{name}{place}": float(masked_psnr(pictures, truth, where).nanmean())
        for name, pictures in (("", video[some]), ("warp_", plain.video))
        for place, where in (("known", seen), ("invented", ~seen))
    }


def _steps(seed: int, weights: Path | None) -> Figures:
    """Four steps against thirty-five of the same denoiser, on a walk of two chunks there and back."""
    generator, clip, figures = nano_with(weights), walk(seed, 2 * CHUNK + 1), {}
    for name, sampler in (("few", generator.sampler), ("many", Euler(steps=35))):
        timed = _Timed(sampler)
        figures[name] = float(revisits(generate(replace(generator, sampler=timed), clip)))
        figures[f"{name}_seconds"] = sum(timed.seconds)
    return figures


@dataclass(frozen=True)
class _Timed:
    """Another sampler, and how long it takes."""

    sampler: Sampler
    seconds: list[float] = field(default_factory=list)

    def sample(self, *arguments, **options) -> Tensor:
        started = time.perf_counter()
        sampled = self.sampler.sample(*arguments, **options)
        self.seconds.append(time.perf_counter() - started)
        return sampled


# ---- walks and what is seen in them


def walk(seed: int, frames: int, shown: int | None = None) -> Clip:
    """The held-out walk there and back through a world; the first `shown` frames of it, if that is given."""
    world, half = SyntheticWorld.sample(seed), frames // 2 + 1
    cameras = world.walk(frames, seed, style="there_and_back", size=SIZE)
    out = world.render(cameras[: shown or half])
    return out if shown else out[[*range(half), *range(half - 2, -1, -1)]]  # the way back shows the same frames


def to_and_fro(seed: int, frames: int) -> Clip:
    """A chunk's way out through a held-out world, back, out again, and so on."""
    out = walk(seed, 2 * CHUNK + 1, CHUNK + 1)
    return out[to_and_fro_places(frames)]


def to_and_fro_places(frames: int) -> list[int]:
    return [CHUNK - abs(CHUNK - frame % (2 * CHUNK)) for frame in range(frames)]


def seen_again(video: Tensor) -> Tensor:
    """PSNR of a walk to and fro against its first chunk."""
    return psnr(video[CHUNK + 1 :], video[to_and_fro_places(len(video))[CHUNK + 1 :]]).mean()


def begin(generator: Generator, clip: Clip):
    """The world of the clip's first frame, whose depth is given."""
    photo = clip.view(0)
    return generator.start(photo.image, camera=photo.camera, depth=photo.depth, prompt=clip.prompt)


def generate(generator: Generator, clip: Clip) -> Tensor:
    """[F, 3, H, W] the walk of the clip's cameras from its first frame."""
    state = begin(generator, clip)
    for first in range(1, len(clip), CHUNK):
        state = generator.extend(state, clip.cameras[first : first + CHUNK], clip.prompt, seed=first)
    return state.video


def revisits(video: Tensor) -> Tensor:
    """PSNR of a walk's way back against its way out."""
    turn = len(video) // 2
    return psnr(video[turn + 1 :], video[:turn].flip(0)).mean()


def drift(video: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
    """How much worse a late frame is than an early one from the same place where they show what the photo showed: in
    colour (mean error of a channel's mean, of 255) and in sharpness (share of the truth's that is lost). `clip` goes
    to and fro; late is the last frame of a walk that is too short."""
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


# ---- the table


def _pace_rows(found: dict[str, Figures]) -> Iterator[Row]:
    pace = found["pace"]
    seconds = pace["seconds"]
    yield Row(f"seconds of a chunk, {pace['threads']:.0f} threads", f"{seconds:.1f} s", "<= 30 s", seconds <= 30)


def _codec_rows(found: dict[str, Figures]) -> Iterator[Row]:
    photographs = found.pop("codec_photographs", None)
    first, moving = (_mean([each[name] for each in found.values()]) for name in ("first", "moving"))
    yield Row(f"codec, {len(found)} held-out worlds, first frame", f"{first:.1f} dB", ">= 31 dB", first >= 31)
    yield Row(f"codec, {len(found)} held-out worlds, {MOVING} moving frames", f"{moving:.1f} dB")
    if photographs:
        figure = photographs["picture"]
        yield Row(f"codec, {photographs['count']:.0f} photographs", f"{figure:.1f} dB", ">= 28 dB", figure >= 28)


def _depth_rows(found: dict[str, Figures]) -> Iterator[Row]:
    office = found.pop("depth_office", None)
    error, constant = (_mean([each[name] for each in found.values()]) for name in ("error", "constant"))
    yield Row(f"depth, {len(found)} held-out worlds, AbsRel, one scale", f"{error:.3f}", "<= 0.10", error <= 0.1)
    yield Row("the same of a constant depth", f"{constant:.3f}")
    if office:
        error = office["error"]
        yield Row(
            f"depth, office, last {OFFICE_HELD_OUT} frames, AbsRel, one scale", f"{error:.3f}", "<= 0.25", error <= 0.25
        )
        yield Row("the same of a constant depth", f"{office['constant']:.3f}")


def _walk_rows(found: dict[str, Figures]) -> Iterator[Row]:
    names = next(iter(found.values()))
    mean = {name: _mean([each[name] for each in found.values()]) for name in names}
    revisit, ahead = mean["revisit"], mean["revisit"] - mean["emptied"]
    yield Row(f"revisits against first visits, {len(found)} worlds", f"{revisit:.1f} dB", ">= 20 dB", revisit >= 20)
    yield Row("the same, ahead of the memory slots emptied", f"{ahead:.1f} dB", ">= 3 dB", ahead >= 3)
    turned, walked = mean["turned"], 100 * mean["walked"]
    yield Row("camera, found again from the frames: turned", f"{turned:.2f} deg", "<= 2 deg", turned <= 2)
    yield Row("camera: walked, share of the path", f"{walked:.1f} %", "<= 5 %", walked <= 5)
    for what, name in (("nano", ""), ("warp and fill", "warp_")):
        figure = f"{mean[f'{name}known']:.1f} / {mean[f'{name}invented']:.1f} dB"
        yield Row(f"first chunk, known / invented pixels: {what}", figure)


def _drift_rows(found: dict[str, Figures]) -> Iterator[Row]:
    """What is lost at frame 400 beyond frame 80; a plain denoiser's loss first, as far as it was measured."""
    kept, plain = ([each for name, each in found.items() if (f"_{kind}_" in name)] for kind in ("kept", "plain"))
    for what, place in (("known surfaces", ""), ("the same, denoiser alone", "alone_")):
        for thing, unit, scale in (("colour", "of 255", 1), ("sharpness", "%", 100)):
            lost = scale * _mean([each[place + thing] for each in kept])
            figure, passed = f"{lost:+.2f} {unit}", None
            if plain:
                before = scale * _mean([each[place + thing] for each in plain])
                figure, passed = f"{before:+.2f} to {figure}", lost <= before / 2 if before > 0 else None
            yield Row(f"{thing} lost, {what}, frame {KNOWN_LATE} over {KNOWN_EARLY}", figure, "half of plain", passed)


def _step_rows(found: dict[str, Figures]) -> Iterator[Row]:
    few, many, quick, slow = (
        _mean([each[name] for each in found.values()]) for name in ("few", "many", "few_seconds", "many_seconds")
    )
    yield Row(
        f"four steps against 35, revisits, {len(found)} worlds",
        f"{few:.1f} / {many:.1f} dB",
        "within 1 dB",
        few >= many - 1,
    )
    yield Row("the same, seconds of sampling two chunks", f"{quick:.1f} / {slow:.1f} s", ">= 8x", slow >= 8 * quick)


def _mean(values: list[float]) -> float:
    """Of those that are numbers."""
    return float(torch.tensor(values, dtype=torch.float64).nanmean())


TABLES: dict[str, Callable[[dict[str, Figures]], Iterator[Row]]] = {
    "pace": _pace_rows,
    "codec": _codec_rows,
    "depth": _depth_rows,
    "walks": _walk_rows,
    "drift": _drift_rows,
    "steps": _step_rows,
}


if __name__ == "__main__":
    main()
