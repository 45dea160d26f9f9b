"""One step of the published training, as `Objective.as_released` sets ours, with the recorded chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Generator as Comparing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from parity_checks.pipeline import Cells, Texts, build_generator, given
from parity_checks.scenes import formula_cameras, formula_video, room_depth, stated_seed
from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule, clean_estimate, interpolate
from photowalk.diffusion.unipc import UniPC
from photowalk.geometry.cameras import Cameras
from photowalk.memory.policies import Candidates, RandomOwnership
from photowalk.models.conditioning import Conditioning
from photowalk.scene.types import Clip
from photowalk.train.films import Film, chunk_frames, clean_latents, condition, drawn_again, film_of
from photowalk.train.objective import Kind, Objective, corrupted, prediction_error, recalled_frames
from photowalk.world.generator import Generator
from photowalk.world.preview import Preview

Comparison = tuple[str, float, float]

TOLERANCE = 1e-4
KINDS: dict[str, Kind] = {"plain": "plain", "i2v": "first", "selfaug": "own"}
GRADIENT_STRIDE = 7919  # every so many values, around the end, are kept of a gradient
RAYS, CORRESPONDENCE = "camera_every_32nd_channel", "buffer_every_64th_channel"
PARTS = ("spatial_sigma", "spatial_clean", "spatial_noise", "cond", RAYS, CORRESPONDENCE)
NOTHING_SAID = "nothing"  # the prompt that stands for the negative features


def check_step(folder: Path, name: str) -> Iterable[Comparison]:
    golden, stated = load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text())
    draws, objective = _Draws(stated["draws_in_order"]), _objective(stated["config"])
    yield "objective", float(objective != Objective.as_released()), 0.0
    kind = objective.kind(stated["iteration"], draws.next("torch.uniform_")[0])
    yield "kind of step", float(kind != KINDS[stated["branch"]]), 0.0
    generator, film = _setting(folder, stated)
    setting = _Setting(golden, stated, kind, objective, generator, draws)
    *before, last = [_Stage(window, recall, stated) for window, recall in zip(stated["windows"], stated["recalls"])]
    with torch.no_grad():
        for stage in before:
            film = yield from _drawn_again(setting, stage, film)
        conditioning, _ = yield from _conditioned(setting, last, film, "")
        clean = clean_latents(film, last.first, generator)[None]
    yield "x0_target", _error(clean, golden["x0_target"]), TOLERANCE
    yield "clip_tokens_first", _error(conditioning.image[:, :2], golden["clip_tokens_first"]), TOLERANCE
    yield from _step(setting, conditioning, clean)


@dataclass(frozen=True)
class _Stage:
    """One chunk, as the golden's .json describes it."""

    window: dict
    recall: dict
    stated: dict

    @property
    def first(self) -> int:
        return self.window["target_frames"][0]

    def condition(self, film: Film, generator: Generator) -> tuple[Conditioning, Preview]:
        """With the views that the golden recalled."""
        policy = _Recorded(tuple(self.recall["used_after_drop"]))
        prompt = str(max(key for key in self.stated["captions"]["keys"] if key <= self.first))
        return condition(replace(film, prompt=prompt), self.first, self.recall["candidates"], policy, generator)


@dataclass(frozen=True)
class _Recorded:
    frames: tuple[int, ...]

    def choose(self, candidates: Candidates, targets: Cameras, count: int) -> list[int]:
        return [list(candidates.frames).index(frame) for frame in self.frames]


class _Draws:
    """The golden's chance, taken in order; what we do not draw is passed over."""

    def __init__(self, draws: list[dict]) -> None:
        self.left = list(draws)

    def next(self, operation: str) -> list[float]:
        return self.record(operation)["value"]

    def record(self, operation: str) -> dict:
        while self.left:
            record = self.left.pop(0)
            if record["op"] == operation and record["value"] != "large":
                return record
        raise ValueError(f"the golden has no more draw of {operation}")


@dataclass(frozen=True)
class _Setting:
    golden: dict[str, Tensor]
    stated: dict
    kind: Kind
    objective: Objective
    generator: Generator
    draws: _Draws


def _objective(stated: dict) -> Objective:
    return replace(
        Objective.as_released(),
        every=stated["self_aug_every_k"],
        first=stated["self_aug_i2v_ratio"],
        own_past=(1 - stated["self_aug_i2v_ratio"]) * stated["self_aug_prob"],
        own_noise=stated["self_aug_max_T"] / TIMESTEPS,
        recall_noise=(stated["augment_sigma_sample_p_mean"], stated["augment_sigma_sample_p_std"]),
        memory_stride=stated["spatial_memory_stride"],
        memory_gap=stated["spatial_memory_skip_recent"],
        forget=stated["spatial_memory_drop_rate"],
    )


def _setting(folder: Path, stated: dict) -> tuple[Generator, Film]:
    """The tiny networks and the clip that the .json describes by formulas."""
    captions = stated["captions"]
    drawn = dict(zip(captions["keys"], given({}, captions, "embeddings")[0]))
    texts = {str(key): features[None] for key, features in drawn.items()}
    texts[NOTHING_SAID] = given({}, captions, "replaced_by")
    image = Cells(given({}, stated, "clip_W"), given({}, stated, "clip_P"))
    generator = build_generator(folder, UniPC(1), Texts(texts), image)
    frames = range(stated["clip_frames"])
    height, width = stated["resolution"]
    cameras = formula_cameras(stated["camera"], frames, height, width)
    seed = stated_seed(r"seed (\d+) \+ frame", stated["depth"])
    depth = torch.stack([room_depth(cameras[i], seed + i) for i in frames])
    video = formula_video(stated_seed(r"seed (\d+), t =", stated["video"]), frames, height, width)
    with torch.no_grad():
        return generator, film_of(Clip(video / 2 + 0.5, cameras, depth), generator)


def _recalled(setting: _Setting, stage: _Stage, film: Film) -> Iterator[Comparison]:
    """Which frames memory holds, how likely each is drawn, and which are dropped."""
    generator, objective, draws = setting.generator, setting.objective, setting.draws
    chunk, wanted = chunk_frames(generator), stage.recall["candidates"]
    held = objective.remembered(setting.kind, len(film.views), stage.first, chunk, generator.config.depth_stride)
    yield "remembered", float(held != wanted), 0.0
    memory = generator.config.memory.remember([film.views[i] for i in wanted])
    points, frames = [entry.points for entry in memory.entries], list(memory.frames)
    target = film.cameras[stage.first + chunk - 1][None]
    weights = RandomOwnership.weights(Candidates(points, frames, memory.point_stride, memory.pixel_centre), target)
    recorded = draws.record("torch.multinomial")
    if "weights" in recorded:
        yield "weights of recall", _error(weights, torch.tensor(recorded["weights"])), TOLERANCE
    chosen = [frames[i] for i in recorded["value"]][::-1]
    yield "recalled", float(chosen != stage.recall["chosen"]), 0.0
    if draws.next("torch.rand")[0] < objective.forget:
        forgotten, order = int(draws.next("torch.randint")[0]), draws.next("torch.randperm")
        chosen = [chosen[i] for i in sorted(int(i) for i in order[forgotten:])]
    yield "kept", float(chosen != stage.recall["used_after_drop"]), 0.0


def _conditioned(
    setting: _Setting, stage: _Stage, film: Film, prefix: str
) -> Comparing[Comparison, None, tuple[Conditioning, Preview]]:
    """What the network is told of a chunk, its recalled latents corrupted and its text perhaps dropped."""
    golden, objective = {name: setting.golden[prefix + name] for name in PARTS}, setting.objective
    yield from _recalled(setting, stage, film)
    conditioning, preview = stage.condition(film, setting.generator)
    layout = setting.generator.config.conditioning.layout
    frames, old = recalled_frames(layout), layout.history_frames
    uniform = torch.tensor(setting.draws.next("np.random.uniform"), dtype=torch.float64)
    levels = objective.recall_levels(uniform)[None]
    yield from _close(prefix, golden, "spatial_sigma", levels)
    yield from _close(prefix, golden, "spatial_clean", conditioning.history[:, :, frames])
    history = corrupted(conditioning.history, layout, golden["spatial_noise"], levels)
    if setting.draws.next("torch.bernoulli")[0] == 0:
        conditioning = replace(conditioning, text=setting.generator.text.encode([NOTHING_SAID]))
    conditioning = replace(conditioning, history=history)
    yield from _close(prefix, golden, "cond", torch.cat([history, conditioning.warp], dim=2))
    yield from _close(prefix, golden, RAYS, conditioning.rays[:, ::32])
    located = golden[CORRESPONDENCE]
    yield from _close(prefix, {"buffer": located[:, :, old:]}, "buffer", conditioning.correspondence[:, ::64])
    yield f"{prefix}mask", float((conditioning.known != 1).sum()), 0.0
    return conditioning, preview


def _drawn_again(setting: _Setting, stage: _Stage, film: Film) -> Comparing[Comparison, None, Film]:
    """The film with the stage's chunk as the network makes it in one step."""
    golden, generator, objective = setting.golden, setting.generator, setting.objective
    conditioning, preview = yield from _conditioned(setting, stage, film, "A_")
    uniform = torch.sigmoid(torch.tensor(setting.draws.next("torch.randn")))
    sigma = objective.own_level(uniform, TrainingSchedule())[0]
    yield "A_sigma", abs(float(sigma) - setting.stated["A"]["sigma"]), TOLERANCE
    noise = golden["A_eps"]
    noisy = interpolate(clean_latents(film, stage.first, generator)[None], noise, sigma)
    yield from _close("", golden, "A_x_in", torch.cat([conditioning.history, noisy], dim=2))
    velocity = generator.denoiser(noisy, (sigma * TIMESTEPS).long()[None].float(), conditioning)
    yield from _close("", golden, "A_v_pred", velocity)
    yield from _close("", golden, "A_x0hat", clean_estimate(noisy, velocity, sigma))
    worn = objective.worn_history
    again = drawn_again(
        film, stage.first, conditioning, preview, generator, sigma=sigma, noise=noise[0], worn_history=worn
    )
    tail = golden["A_decoded_tail_every_16th"][0].transpose(0, 1).clamp(-1, 1)
    numbers = [stage.first - 96 + 16 * i for i in range(len(tail))]
    for number, picture in zip(numbers, tail):
        if number >= 0:
            yield f"A frame {number}", _error(2 * again.views[number].image - 1, picture), TOLERANCE
    return again


def _step(setting: _Setting, conditioning: Conditioning, clean: Tensor) -> Iterator[Comparison]:
    """Noise, loss and gradients."""
    golden, stated, noise = setting.golden, setting.stated, setting.golden["eps"]
    chance = torch.sigmoid(torch.tensor(setting.draws.next("torch.randn")))
    sigma, weight = TrainingSchedule(stated["config"]["shift"]).at(chance)
    yield "sigma", abs(float(sigma) - stated["sigma"]), TOLERANCE
    yield "loss weight", abs(float(weight) - stated["loss_weight"]), TOLERANCE
    noisy = interpolate(clean, noise, sigma)
    yield from _close("", golden, "x_in", torch.cat([conditioning.history, noisy], dim=2))
    network = setting.generator.denoiser
    velocity = network(noisy, sigma * TIMESTEPS, conditioning)
    yield from _close("", golden, "v_pred", velocity.detach())
    loss = prediction_error(setting.objective, velocity, noisy, clean, noise, sigma, weight).mean()
    yield "loss", abs(float(loss.detach()) - stated["loss"]), TOLERANCE * max(1, stated["loss"])
    loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    yield "parameters with gradient", float(gradients.keys() != stated["grad_norms"].keys()), 0.0
    for name, norm in stated["grad_norms"].items():
        yield f"norm of {name}", abs(float(gradients[name].norm()) - norm), TOLERANCE * max(1, norm)
    for name, wanted in golden.items():
        if name.startswith("grad."):
            flat = gradients[name.removeprefix("grad.")].flatten()
            places = torch.arange(len(wanted)) * GRADIENT_STRIDE % len(flat)
            yield name, _error(flat[places], wanted), TOLERANCE
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    yield "norm of all", abs(float(total) - stated["grad_norm_total"]), TOLERANCE * stated["grad_norm_total"]


def _close(prefix: str, golden: dict[str, Tensor], name: str, ours: Tensor) -> Iterator[Comparison]:
    yield prefix + name, _error(ours, golden[name]), TOLERANCE


def _error(ours: Tensor, wanted: Tensor) -> float:
    if ours.shape != wanted.shape:
        raise ValueError(f"wanted shape {tuple(wanted.shape)}, got {tuple(ours.shape)}")
    return float((ours.double() - wanted.double()).abs().max())


CHECKS: dict[str, Callable[..., Iterable[Comparison]]] = {"train_*": check_step}
