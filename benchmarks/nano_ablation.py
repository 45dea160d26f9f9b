"""What nano's parts of the method are worth: trained without one, or the memory emptied when it walks.

    python benchmarks/nano_ablation.py --data CLIPS [--work runs/ablation] [--steps 100] [--worlds 2] [--frames 401]

Every variant is trained on with the same steps, clips and chance from the same weights (--start, default: those that
come with the package); then all walk to and fro through held-out worlds, so that frames 80, 240 and 400 look from one
place. One table: revisits, camera, drift. "Denoiser alone" leaves the detail stage out, which keeps pictures near what
memory shows. Stop it at any time; the next call goes on. CLIPS are folders of clips (python -m photowalk.synthetic
makes some).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from nano_quality import CHUNK, camera_errors, drift, generate, nano_with, seen_again, to_and_fro
from torch import nn

from photowalk.data.clips import find_clips
from photowalk.diffusion.flow import TrainingSchedule
from photowalk.models.nano_codec import NanoCodec
from photowalk.scene.images import write_atomically
from photowalk.scene.types import Clip
from photowalk.synthetic import HELD_OUT_SEEDS
from photowalk.train.denoiser import DenoiserRecipe, train_denoiser
from photowalk.train.objective import Objective
from photowalk.train.recipes import NANO
from photowalk.train.samples import Samples, prepare_samples
from photowalk.train.trainer import TrainingConfig, export_weights
from photowalk.world.generator import Generator

SCORES = ("revisit, dB", "turned, deg", "walked, %", "colour lost, of 255", "sharpness lost, %")


rendered = lru_cache(1)(to_and_fro)  # all variants walk through a world before the next is drawn


@dataclass(frozen=True)
class Variant:
    trained: str  # which training's weights it walks with
    own_past: float = Objective.own_past
    correspondence: bool = True
    memory: bool = True
    detail: bool = True

    def dress(self, generator: Generator) -> Generator:
        config = generator.config
        conditioning = replace(config.conditioning, correspondence=self.correspondence)
        return replace(
            generator,
            detail=generator.detail if self.detail else None,
            config=replace(config, conditioning=conditioning, recall=config.recall if self.memory else None),
        )


VARIANTS = {
    "whole": Variant("whole"),
    "without self-augmentation": Variant("plain", own_past=0.0),
    "without correspondence": Variant("uncorresponding", correspondence=False),
    "memory emptied at run time": Variant("whole", memory=False),
    "denoiser alone": Variant("whole", detail=False),
    "alone, without self-augmentation": Variant("plain", own_past=0.0, detail=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--start", type=Path, default=NANO, help="weights that every training starts from")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--worlds", type=int, default=2)
    parser.add_argument("--frames", type=int, default=5 * CHUNK + 1)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    clips = [clip for folder in arguments.data for clip in find_clips(folder)]
    variants = {name: VARIANTS[name] for name in arguments.variants}
    for variant in variants.values():
        _train(variant, clips, arguments.work, arguments.start, arguments.steps, arguments.rate)
    rows = {name: [] for name in variants}
    for seed in HELD_OUT_SEEDS[: arguments.worlds]:
        for name, variant in variants.items():
            scores = _walked(name, variant, seed, arguments.frames, arguments.work)
            print(f"world {seed}, {name}: " + ", ".join(f"{s} {v:.2f}" for s, v in zip(SCORES, scores)), flush=True)
            rows[name].append(scores)
    print(f"{arguments.worlds} held-out worlds, {arguments.frames} frames, {arguments.steps} steps of training")
    print(f"{'':34}" + "".join(f"{score:>22}" for score in SCORES))
    for name, scores in rows.items():
        print(f"{name:34}" + "".join(f"{value:22.2f}" for value in torch.tensor(scores).nanmean(0).tolist()))


def _train(variant: Variant, clips: list[Path], work: Path, start: Path, steps: int, rate: float) -> None:
    out = work / variant.trained / "weights"
    if (out / "text.safetensors").exists():
        return
    generator, objective = variant.dress(nano_with(start)), Objective(own_past=variant.own_past)
    samples: Samples = {
        "plain": prepare_samples(clips, nano_with(start), objective, work / "samples"),
        "own": prepare_samples(clips, nano_with(start), objective, work / "own_samples", "own"),
    }
    training = TrainingConfig(float("inf"), rate, warmup_steps=20, average=0.98, final_rate=1.0, max_steps=steps)
    recipe = DenoiserRecipe(training, objective, TrainingSchedule(), batch=1)
    codec, text = generator.codec, generator.text
    assert isinstance(codec, NanoCodec)
    assert isinstance(text, nn.Module)
    assert isinstance(codec.deviation, torch.Tensor)
    train_denoiser(generator, samples, recipe, work / variant.trained, codec.deviation)
    about = {"steps": str(steps), "project": "photowalk ablation"}
    export_weights(generator.denoiser, out / "denoiser.safetensors", about)
    export_weights(text, out / "text.safetensors", about)


def _walked(name: str, variant: Variant, seed: int, frames: int, work: Path) -> list[float]:
    """The scores of one walk, from the file of an earlier call if there is one."""
    path = work / "walks" / f"{name.replace(' ', '_')}_{seed}_{frames}.json"
    if not path.exists():
        scores = _scores(variant.dress(nano_with(work / variant.trained / "weights")), rendered(seed, frames))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(scores)))
    return json.loads(path.read_text())


def _scores(generator: Generator, clip: Clip) -> list[float]:
    video = generate(generator, clip)
    errors = camera_errors(video, clip)
    turned, walked = torch.tensor(errors).mean(0).tolist() if errors else (float("nan"), float("nan"))
    colour, sharpness = (float(loss) for loss in drift(video, clip))
    return [float(seen_again(video)), turned, 100 * walked, colour, 100 * sharpness]


if __name__ == "__main__":
    main()
