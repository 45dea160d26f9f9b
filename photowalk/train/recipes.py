"""The recipes that nano's parts are trained by; `recipes/nano.sh` runs them all.

Each takes clip folders (or pictures, for the codec), works in a folder of its own that a later call resumes from, and
writes one file of weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from photowalk.data.clips import ClipError, find_clips, validate
from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.flow import TrainingSchedule
from photowalk.models.depth_network import DepthNetwork
from photowalk.models.detail import DetailNetwork
from photowalk.models.nano_codec import NanoCodec
from photowalk.models.splat_head import SplatHead
from photowalk.models.weights import load_weights
from photowalk.presets.nano import (
    WEIGHTS,
    nano,
    nano_conditioning,
    nano_depth,
    nano_depth_network,
    nano_detail,
    nano_splat_head,
    nano_untrained,
)
from photowalk.train.codec import CodecRecipe, train_codec
from photowalk.train.denoiser import DenoiserRecipe, train_denoiser
from photowalk.train.depth import DepthRecipe, train_depth
from photowalk.train.detail import DetailRecipe, DetailRules, train_detail
from photowalk.train.detail import prepare_samples as prepare_detail_samples
from photowalk.train.distil import DistilRecipe, train_student
from photowalk.train.full_size import train_full_size
from photowalk.train.live import FromWorlds, Live
from photowalk.train.objective import Kind, Objective
from photowalk.train.parallel import processes, wait_for_all
from photowalk.train.samples import prepare_samples
from photowalk.train.splats import SplatRecipe, clip_of_world, train_splats, worlds_under
from photowalk.train.trainer import TrainingConfig, export_weights
from photowalk.world.generator import Generator
from photowalk.world.placement import choose_placement

NANO = WEIGHTS / "nano"
DENOISER_OBJECTIVE = Objective(look=0.1)
_logger = logging.getLogger(__name__)
ABOUT = {"licence": "Apache-2.0", "project": "photowalk nano"}


@dataclass(frozen=True)
class Order:
    """What to train on, for how long, and where."""

    data: tuple[Path, ...]
    minutes: float
    work: Path  # samples, checkpoints and the log
    out: Path  # folder for the weights
    skies: Path | None = None  # pictures of nothing but sky, for the depth networks
    features: Path | None = None  # SqueezeNet weights that the depth networks start from
    start: Path | None = None  # a folder of weights of an earlier training to start from
    batch_factor: int = 1  # how many of the recipe's batches a step takes
    preset: str = "nano"  # of the denoiser: nano or lyra2-14b
    synthetic: bool = False  # depth and denoiser: worlds drawn on the way, without end, instead of `data`
    workers: int = 0  # processes that draw batches ahead
    training: Mapping[str, object] = field(default_factory=dict)  # fields of TrainingConfig in place of the recipe's
    generated: tuple[Path, ...] = ()  # folders of worlds, whose walks splats learn from beside the clips
    teacher: Path | None = None  # a folder with the weights of the denoiser to distil; None: nano's
    retakes: int = 0  # denoiser and distil: other recordings of every clip, by mirror, backwards and in other light
    own_past: float | None = None  # denoiser: share of samples behind one; None: the objective's, none without start
    rank: int | None = None  # of the change that a distilled student learns; None: all its weights learn

    def config(self, recipe: TrainingConfig) -> TrainingConfig:
        return replace(recipe, workers=self.workers, **self.training)


def train_part(part: str, order: Order) -> list[Path]:
    """Train one part of nano and write its weights; returns their files. Raises ValueError for an unknown part.

    Among processes that were `joined` it is one training: each has to call it, and the first writes.
    """
    if part not in PARTS:
        raise ValueError(f"there is no part {part!r} to train; known are {', '.join(PARTS)}")
    if order.synthetic and part not in ("depth", "denoiser"):
        raise ValueError(
            f"{part} does not learn from worlds drawn on the way; render some with python -m photowalk.synthetic FOLDER"
        )
    if order.training.get("context", 1) != 1 and part != "denoiser":
        raise ValueError(f"processes cannot work on a batch of {part} together; --context is for the denoiser")
    shard = order.training.get("shard", 1)
    if shard != 1 and part not in ("depth", "denoiser"):
        raise ValueError(
            f"weights of {part} are not split among processes, got --shard {shard}; it is for depth and the denoiser. "
            "Leave it out, and every process has all weights"
        )
    weights = PARTS[part](order)
    paths = [order.out / f"{name}.safetensors" for name in weights]
    for path, module in zip(paths, weights.values()):
        export_weights(module, path, ABOUT)
    return paths


def _codec(order: Order) -> dict[str, nn.Module]:
    return {"codec": train_codec(CodecRecipe(order.data))}


def _depth(order: Order) -> dict[str, nn.Module]:
    network = DepthNetwork(nano_depth())
    if order.start:
        load_weights(network, order.start / "depth.safetensors")
    elif order.features:
        load_weights(network.encoder, order.features)
    else:
        raise ValueError("training depth wants SqueezeNet features to start from; give their file with --features")
    training = order.config(TrainingConfig(order.minutes, 8e-4, average=0.99, final_rate=0.1, gentle=("encoder.",)))
    clips = () if order.synthetic else tuple(_clips(order))
    recipe = DepthRecipe(clips, training, skies=order.skies)
    recipe = replace(recipe, pixels=recipe.pixels * order.batch_factor)
    train_depth(network, recipe, order.work, choose_placement())
    return {"depth": network}


def _detail(order: Order) -> dict[str, nn.Module]:
    placement = choose_placement()
    codec, network = NanoCodec(NanoCodec.Config()), DetailNetwork(nano_detail())
    load_weights(codec, NANO / "codec.safetensors")
    if order.start:
        load_weights(network, order.start / "detail.safetensors")
    training = order.config(TrainingConfig(order.minutes, learning_rate=1.5e-3, average=0.995))
    rules = DetailRules(nano_conditioning().preview)
    folder = order.work / "samples"
    samples = _shared(_clips(order), lambda clips: prepare_detail_samples(clips, codec, rules, folder))
    features = nano_depth_network(placement).encoder
    recipe = DetailRecipe(training, rules, batch=4 * order.batch_factor)
    train_detail(network.to(placement.device), features, samples, recipe, order.work, placement)
    return {"detail": network}


def _denoiser(order: Order) -> dict[str, nn.Module]:
    if order.preset != "nano":
        given = {
            "--start": order.start,
            "--own-past": order.own_past is not None,
            "--batch-factor": order.batch_factor != 1,
            "--retakes": order.retakes,
        }
        if ignored := [name for name, value in given.items() if value]:
            raise ValueError(
                f"{', '.join(ignored)} is for nano; {order.preset} is trained by its recipe, from Wan 2.1 "
                "(--micro-batches makes its batches larger)"
            )
        return train_full_size(order.preset, _clips(order), order.config, order.work)
    generator = nano_untrained(choose_placement())
    codec, text = generator.codec, generator.text
    assert isinstance(codec, NanoCodec)
    assert isinstance(text, nn.Module)
    if order.start:
        load_weights(generator.denoiser, order.start / "denoiser.safetensors")
        load_weights(text, order.start / "text.safetensors")
    training = order.config(TrainingConfig(order.minutes, 5e-4, warmup_steps=80, average=0.995))
    objective = _own_share(order)
    recipe = DenoiserRecipe(training, objective, TrainingSchedule(), batch=order.batch_factor)
    if order.synthetic:
        if order.batch_factor != 1 or order.retakes:
            raise ValueError(
                "worlds drawn on the way are single and new each time; leave --batch-factor and --retakes out "
                "(--micro-batches makes batches larger)"
            )
        samples = Live(FromWorlds((nano().height, nano().width)), objective, nano().chunk_frames)
    else:
        samples = denoiser_samples(order, generator, own=objective.own_past > 0)
    train_denoiser(generator, samples, recipe, order.work, codec.deviation)  # what varies most is seen most
    return {"denoiser": generator.denoiser, "text": text}


def _own_share(order: Order) -> Objective:
    """Who begins from nothing has no past of its own. Raises ValueError for a share that cannot be."""
    share = order.own_past
    if share is None:
        share = DENOISER_OBJECTIVE.own_past if order.start else 0.0
    if not 0 <= share <= 1 or (share and not order.start):
        raise ValueError(
            f"{share:g} is no share of samples behind a past of its own; give 0 to 1, and more than 0 with --start only"
        )
    return replace(DENOISER_OBJECTIVE, own_past=share)


def _distil(order: Order) -> dict[str, nn.Module]:
    """The student begins as the teacher, or from `start`; the text encoder stays the teacher's."""
    generator = nano_untrained(choose_placement())
    denoiser, text, teacher = generator.denoiser, generator.text, order.teacher or NANO
    assert isinstance(text, nn.Module)
    load_weights(denoiser, teacher / "denoiser.safetensors")
    load_weights(text, teacher / "text.safetensors")
    student = deepcopy(denoiser)
    if order.start:
        load_weights(student, order.start / "denoiser.safetensors")
    training = order.config(TrainingConfig(order.minutes, 5e-5, warmup_steps=20, average=0.99))
    sampler = FewStep(steps=4)
    recipe = DistilRecipe(
        training, DENOISER_OBJECTIVE, TrainingSchedule(), sampler, batch=order.batch_factor, rank=order.rank
    )
    kept = train_student(generator, student, denoiser_samples(order, generator, own=True), recipe, order.work)
    return {"denoiser_lora": kept} if order.rank else {"denoiser": kept, "text": text}


def denoiser_samples(order: Order, generator: Generator, *, own: bool) -> dict[Kind, list[Path]]:
    """Plain ones, and if the generator has learnt to draw, those that show it its own drawings (self-augmentation), of
    the clips as they are."""
    clips = _clips(order)
    kinds: dict[Kind, str] = {"plain": "samples", "own": "own_samples"} if own else {"plain": "samples"}
    return {
        kind: _shared(
            clips,
            lambda part, kind=kind, name=name: prepare_samples(
                part,
                generator,
                DENOISER_OBJECTIVE,
                order.work / name,
                kind,
                retakes=order.retakes if kind == "plain" else 0,
            ),
        )
        for kind, name in kinds.items()
    }


def _shared(clips: Sequence[Path], prepare: Callable[[Sequence[Path]], list[Path]]) -> list[Path]:
    """The samples of all clips; each process makes those of its share."""
    here = processes()
    prepare(clips[here.rank :: here.count])
    wait_for_all()
    return prepare(clips)


def _splats(order: Order) -> dict[str, nn.Module]:
    placement = choose_placement()
    network = SplatHead(nano_splat_head())
    if order.start:
        load_weights(network, order.start / "splats.safetensors")
    training = order.config(TrainingConfig(order.minutes, learning_rate=1e-3, average=0.99))
    walks = [_clips(order)]
    if order.generated:
        worlds = worlds_under(order.generated)
        walks.append(_shared(worlds, lambda part: [clip_of_world(world, order.work / "walks") for world in part]))
    recipe = SplatRecipe(training, targets=2 * order.batch_factor)
    train_splats(network, nano_depth_network(placement).encoder, walks, recipe, order.work, placement)
    return {"splats": network}


def _clips(order: Order) -> list[Path]:
    """The clips to learn from. Raises ClipError, naming the faults of all, or leaves out those that have any."""
    clips = [clip for folder in order.data for clip in find_clips(folder)]
    if not clips:
        raise ValueError(
            f"there are no clip folders in {', '.join(map(str, order.data))}; "
            "python -m photowalk.synthetic FOLDER makes some"
        )
    faults = {clip: "; ".join(found) for clip in clips if (found := validate(clip))}
    listed = "\n  ".join(f"{clip}: {text}" for clip, text in faults.items())
    if faults and (order.training.get("on_fault") != "skip" or len(faults) == len(clips)):
        raise ClipError(f"{len(faults)} of {len(clips)} clips have faults (--on-fault skip leaves them):\n  {listed}")
    if faults:
        _logger.warning("left out:\n  %s", listed)
    return [clip for clip in clips if clip not in faults]


PARTS: dict[str, Callable[[Order], dict[str, nn.Module]]] = {
    "codec": _codec,
    "depth": _depth,
    "detail": _detail,
    "denoiser": _denoiser,
    "distil": _distil,
    "splats": _splats,
}
