"""Codec, conditioning and whole chunks of a walk against the published system with small random weights."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from parity_checks.geometry import check_prepare_inputs
from parity_checks.network import tiny_network
from parity_checks.scenes import formula_video, room_depth, stated_seed
from photowalk.checkpoints import namings
from photowalk.checkpoints.names import links
from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.sampler import OnStep, Renoise, Sampler, Velocity
from photowalk.diffusion.unipc import UniPC
from photowalk.geometry.cameras import Cameras
from photowalk.memory.policies import GreedyCoverage
from photowalk.models.conditioning import Conditioning
from photowalk.models.protocols import ImageEncoder, TextEncoder
from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.models.wan_codec import WanCodec
from photowalk.perception.depth import DepthEstimate, DepthEstimator
from photowalk.presets.published import lyra2_14b_generation
from photowalk.scene.types import Clip
from photowalk.world import progress
from photowalk.world.generator import Generator
from photowalk.world.placement import Placement
from photowalk.world.preview import Preview
from photowalk.world.state import Chunk, WorldState

Comparison = tuple[str, float, float]

CODEC_TOLERANCE = 2e-5  # convolutions round differently
LATENT_TOLERANCE = 1e-5
WALK_TOLERANCE = 1e-4


def check_codec(folder: Path) -> Iterable[Comparison]:
    golden, codec = load_file(folder / "vae_tiny.safetensors"), tiny_codec(folder)
    with torch.inference_mode():
        latents, whole = codec.encode(golden["x"], {})
        yield "z", _error(latents, golden["z"]), CODEC_TOLERANCE
        first, state = codec.encode(golden["x"][:, :, :1], {})
        yield "z1", _error(first, golden["z1"]), CODEC_TOLERANCE
        rest, state = codec.encode(golden["x"][:, :, 1:], state)
        yield "encoded in pieces", _error(torch.cat([first, rest], dim=2), latents), 0.0
        yield "state of pieces", float(any(not torch.equal(state[name], whole[name]) for name in whole)), 0.0
        video, _ = codec.decode(golden["z"], {})
        yield "y", _error(video, golden["y"]), CODEC_TOLERANCE
        first, state = codec.decode(golden["z"][:, :, :1], {})
        rest, _ = codec.decode(golden["z"][:, :, 1:], state)
        yield "decoded in pieces", _error(torch.cat([first, rest], dim=2), video), 0.0


def tiny_codec(folder: Path) -> WanCodec:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    stated = _json(folder / "vae_tiny.json")
    config, offset = stated["config"], re.search(r"crc32\(name\) ?\+ ?(\d+)", stated["weights_rule"])
    network = AutoencoderKLWan(
        base_dim=config["dim"],
        z_dim=config["z_dim"],
        dim_mult=config["dim_mult"],
        num_res_blocks=config["num_res_blocks"],
        attn_scales=config["attn_scales"],
        temperal_downsample=config["temperal_downsample"],
    )
    stored, weights = load_file(folder / "vae_tiny.safetensors"), {}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for link in links(shapes, namings.WAN_CODEC):
        published = stored.get(f"w.{link.source}")
        if published is None:  # goldens may be kept in part
            published = _drawn_weight(link.source, link.shape, int(offset[1]) if offset else 0)
        weights |= link.ours(published)
    network.load_state_dict(weights)
    return WanCodec(network).eval()


def _drawn_weight(name: str, shape: tuple[int, ...], offset: int) -> Tensor:
    """By the goldens' rule for the codec."""
    values = _normal((zlib.crc32(name.encode()) + offset) & 0x7FFFFFFF, shape)
    if name.endswith("gamma"):
        return 1 + 0.1 * values
    return values * float(np.float32(1 / np.sqrt(np.prod(shape[1:])))) if len(shape) > 1 else 0.1 * values


def check_prepared_chunk(folder: Path, savings: Savings = ALL_SAVINGS) -> Iterable[Comparison]:
    """The whole conditioning of a late chunk, as the generator builds it after frames that are given by a formula."""
    yield from check_prepare_inputs(folder)
    golden, stated = load_file(folder / "prepare_inputs.safetensors"), _json(folder / "prepare_inputs.json")
    generator = build_generator(
        folder, UniPC(1), Texts({"": torch.zeros(1, 1, 1)}), Cells(torch.zeros(192, 1), torch.zeros(1, 1))
    )
    generator = replace(generator, placement=replace(generator.placement, savings=savings))
    height, width = stated["resolution"]
    cameras = Cameras(golden["w2c"][0], golden["K"][0], height, width)
    first, last = stated["target_frames"]
    seed = stated_seed(r"seed (\d+), t =", stated["rgb"])
    video = formula_video(seed, range(first), height, width)
    yield "frames", _error(video[::40].transpose(0, 1)[None], golden["rgb_every_40th"]), LATENT_TOLERANCE
    depth = torch.zeros(first, height, width)
    depth[stated["cache_frame_ids"]] = golden["depth_cache"]
    with torch.inference_mode():
        state = generator.start(_unit(video[0]), depth=depth[0], camera=cameras[0])
        chunk = slice(1, first)
        latents, encoder = generator.codec.encode(video[chunk].transpose(0, 1)[None], state.encoder)
        clip = Clip(_unit(video[chunk]), cameras[chunk], depth[chunk])
        state = state.append(Chunk(clip, latents[0], "", 0, encoder=encoder))
        yield "history_latents", _error(state.latents[None], golden["history_latents"]), LATENT_TOLERANCE
        conditioning, preview = generator.condition(state, cameras[first : last + 1], "", lambda progress: None)
    old = conditioning.history.shape[2]
    yield "latents", _error(conditioning.history, golden["latents"][:, :, :old]), LATENT_TOLERANCE
    packed = torch.cat([conditioning.history, conditioning.warp], dim=2)
    yield "cond", _error(packed, golden["cond"]), LATENT_TOLERANCE
    yield "camera", _error(conditioning.rays[:, ::16], golden["camera_every_16th_channel"]), LATENT_TOLERANCE
    wanted = golden["buffer_every_16th_channel"][:, :, old:]
    yield "buffer", _error(conditioning.correspondence[:, ::16], wanted), LATENT_TOLERANCE
    yield "warp_rgb", _error(2 * preview.video[7::8] - 1, golden["warp_rgb_every_8th"]), LATENT_TOLERANCE
    yield "mask", float((conditioning.known != 1).sum()), 0.0


def check_walk(folder: Path, name: str, savings: Savings = ALL_SAVINGS) -> Iterable[Comparison]:
    """A photo and its chunks through the generator as the preset assembles it, on tiny networks."""
    golden, stated = load_file(folder / f"{name}.safetensors"), _json(folder / f"{name}.json")
    cameras = Cameras(golden["w2c"][0], golden["K"][0], *stated["resolution"])
    generator, recorder = _tiny_generator(folder, golden, stated)
    generator = replace(generator, placement=replace(generator.placement, savings=savings))
    frames = generator.config.conditioning.layout.new_frames * generator.codec.temporal_factor
    with torch.inference_mode():
        state = generator.start(_unit(golden["rgb0"][0, :, 0]), depth=golden["depth0"][0, 0, 0], camera=cameras[0])
        videos, warps = [state.video], [state.video]
        for chunk in range(stated["chunks"]):
            targets = cameras[1 + frames * chunk : 1 + frames * (chunk + 1)]
            yield f"recall {chunk}", _recall_differences(state, targets, stated["retrieval"], chunk), 0.0
            state = generator.extend(state, targets, "text", seed=stated["seed"] + chunk)
            conditioning, preview = generator.conditioned[-1]
            yield from _conditioning(golden, conditioning, chunk)
            warps.append(preview.video[7::8])
            yield from _stored(golden, f"gen{chunk}", recorder.sampled[-1])
            clip = state.chunks[-1].clip
            videos.append(clip.video[7::8])
            if chunk == 0 and clip.depth is not None:
                yield from _stored(golden, "da3_depth", clip.depth[7::8])
    yield "timesteps", _timestep_error(recorder, stated), 1e-6
    asked = [frame for frame in state.memory.frames if frame <= frames * (stated["chunks"] - 1)]  # of the last: nobody
    yield "remembered", float(asked != stated["cache_frame_ids_at_the_end"]), 0.0
    yield from _stored(golden, "history_latents", state.latents[None])
    yield from _stored(golden, "video_every_8th", 2 * torch.cat(videos).transpose(0, 1)[None] - 1)
    yield from _stored(golden, "warp_video", 2 * torch.cat(warps).transpose(0, 1)[None] - 1)


def _recall_differences(state: WorldState, targets: Cameras, stated: dict, chunk: int) -> float:
    policy = GreedyCoverage(tolerance=stated["depth_threshold"], relative_tolerance=0.0)
    return _differences(state.memory.recall(targets[-1:], stated["slots"], policy), stated["calls"][chunk]["chosen"])


def _conditioning(golden: dict[str, Tensor], ours: Conditioning, chunk: int) -> Iterator[Comparison]:
    history = torch.cat([ours.history, torch.zeros_like(ours.warp)], dim=2)
    yield from _stored(golden, f"lat{chunk}", history)
    yield from _stored(golden, f"cond{chunk}", torch.cat([ours.history, ours.warp], dim=2))
    if chunk == 1:
        yield from _stored(golden, "cam1_every_16th_channel", ours.rays[:, ::16])
        yield from _stored(golden, "buf1_every_4th_channel", ours.correspondence[:, ::4, ::4])


def _stored(golden: dict[str, Tensor], name: str, ours: Tensor) -> Iterator[Comparison]:
    """Goldens may be kept in part."""
    if name in golden:
        yield name, _error(ours, golden[name]), WALK_TOLERANCE


def _tiny_generator(folder: Path, golden: dict[str, Tensor], stated: dict) -> tuple[_Watched, _Recorder]:
    sampler = UniPC(stated["steps"], stated["shift"]) if "UniPC" in stated["sampler"] else FewStep(stated["steps"])
    draws = [golden[f"renoise{i}"] for i in range(stated["chunks"])] if "renoise0" in golden else []
    recorder = _Recorder(sampler, draws)
    texts = Texts({name: given(golden, stated, name) for name in ("text", "neg")})
    image = Cells(given(golden, stated, "clip_W"), given(golden, stated, "clip_P"))
    depth = _Depths(stated_seed(r"seed = (\d+) \+ index in the window", stated["depth_prediction"]["rule"]))
    generator = build_generator(folder, recorder, texts, image, depth)
    config = replace(generator.config, guidance=stated["guidance"] or 1.0, negative_prompt="neg")
    parts: dict[str, Any] = {**vars(generator), "config": config}
    return _Watched(**parts), recorder


def build_generator(
    folder: Path, sampler: Sampler, text: TextEncoder, image: ImageEncoder, depth: DepthEstimator | None = None
) -> Generator:
    """The published preset's arrangement around the goldens' networks; frames stay as they were decoded."""
    return Generator(
        denoiser=tiny_network(folder).eval(),
        codec=tiny_codec(folder),
        text=text,
        image=image,
        depth=depth or _Depths(0),
        detail=None,
        sampler=sampler,
        placement=Placement(torch.device("cpu"), torch.float32, "as the goldens"),
        config=replace(lyra2_14b_generation(), rounded=False),
    )


def given(golden: dict[str, Tensor], stated: dict, name: str) -> Tensor:
    """A tensor that is stored, or drawn by the rule that the .json states."""
    if name in golden:
        return golden[name]
    rule = re.fullmatch(
        r"(?:([\d.]+) \* )?RandomState\((\d+)\)\.standard_normal\(\(([\d, ]+)\)\)(?: / sqrt\((\d+)\))?", stated[name]
    )
    if rule is None:
        raise ValueError(f"{name} is neither stored nor drawn by a known rule: {stated[name]}")
    factor, seed, shape, under_root = rule.groups()
    values = np.random.RandomState(int(seed)).standard_normal([int(n) for n in shape.split(",")])
    return torch.from_numpy((values * float(factor or 1) / np.sqrt(float(under_root or 1))).astype(np.float32))


def _normal(seed: int, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


@dataclass(frozen=True)
class _Watched(Generator):
    """A generator that keeps what it told its denoiser."""

    conditioned: list[tuple[Conditioning, Preview]] = field(default_factory=list)

    def condition(
        self, state: WorldState, cameras: Cameras, prompt: str, on_step: progress.OnStep
    ) -> tuple[Conditioning, Preview]:
        self.conditioned.append(super().condition(state, cameras, prompt, on_step))
        return self.conditioned[-1]


class _Recorder:
    """A sampler that adds the noise of the golden and keeps what it sampled and which timesteps it asked for."""

    def __init__(self, sampler: Sampler, draws: Sequence[Tensor]) -> None:
        self.sampler, self.draws = sampler, list(draws)
        self.sampled: list[Tensor] = []
        self.timesteps: list[float] = []

    def sample(
        self, velocity: Velocity, noise: Tensor, *, on_step: OnStep | None = None, renoise: Renoise | None = None
    ) -> Tensor:
        def asked(noisy: Tensor, timestep: Tensor) -> Tensor:
            self.timesteps.append(float(timestep[0]))
            return velocity(noisy, timestep)

        if self.draws:
            drawn = self.draws[len(self.sampled)]  # [steps - 1, T, C, h, w]
            renoise = lambda done, sample: drawn[done - 1].transpose(0, 1)[None]  # noqa: E731
        self.sampled.append(self.sampler.sample(asked, noise, on_step=on_step, renoise=renoise))
        return self.sampled[-1]


@dataclass(frozen=True)
class Texts:
    known: dict[str, Tensor]

    def encode(self, prompts: list[str]) -> Tensor:
        return torch.cat([self.known[prompt] for prompt in prompts])


@dataclass(frozen=True)
class Cells:
    """The goldens' stand-in for a picture encoder: 8x8 cells, times a matrix, plus a constant."""

    matrix: Tensor  # [192, D]
    constant: Tensor  # [L, D]

    def encode(self, images: Tensor) -> Tensor:
        cells = F.adaptive_avg_pool2d(2 * images - 1, 8).flatten(1)
        return (cells @ self.matrix)[:, None] + self.constant


@dataclass
class _Depths:
    """What the goldens put in the place of a depth network: a room, cast from the cameras, with noise."""

    seed: int  # of the first frame's noise
    name: str = "the golden"

    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        raise ValueError("the goldens give the photo's depth")

    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        return torch.stack([room_depth(cameras[i], self.seed + i) for i in range(len(cameras))])


def _timestep_error(recorder: _Recorder, stated: dict) -> float:
    wanted = [values[0] for values in stated["timesteps_seen_by_the_network"]]
    wanted = wanted[:: len(wanted) // (stated["steps"])] if stated["guidance"] else wanted
    return max(abs(a - b) for a, b in zip(recorder.timesteps, wanted * stated["chunks"], strict=True))


def _unit(image: Tensor) -> Tensor:
    return image / 2 + 0.5


def _error(ours: Tensor, wanted: Tensor) -> float:
    if ours.shape != wanted.shape:
        raise ValueError(f"wanted shape {tuple(wanted.shape)}, got {tuple(ours.shape)}")
    return float((ours.double() - wanted.double()).abs().max())


def _differences(found: Sequence, expected: Sequence[int]) -> float:
    frames = [view.frame for view in found]
    return float(sum(a != b for a, b in zip(frames, expected)) + abs(len(frames) - len(expected)))


def _json(file: Path) -> dict:
    return json.loads(file.read_text())


CHECKS: dict[str, Callable[..., Iterable[Comparison]]] = {
    "vae_tiny": check_codec,
    "prepare_inputs": check_prepared_chunk,
    "ar_*": check_walk,
}
