"""Seconds and memory of a whole chunk of the published 14B at 832x480 on one large GPU, with random weights.

    python benchmarks/gpu/full_size.py [--only NAME] [--out full_size.jsonl] [--tiny] [--no-geometry]

Measured is a chunk of 80 frames as `photowalk extend` makes it: recall, warps, correspondence and rays, the encoders of
text and picture, sampling, decoding, encoding again, depth. Each configuration is a process of its own, prints what it
measured and appends it to --out as JSON lines, so a run that is cut off keeps what it has; --only takes one of

    4-steps           few steps, everything stays on the GPU
    35-steps          UniPC with guidance, everything stays on the GPU
    4-steps-vram24, 35-steps-vram24        in 24 GB, with weights that travel
    4-steps-float8, 4-steps-int8           in 16 GB, with weights in one byte
    4-steps-float8-matmul                  all stays on the GPU, products in float8 too

A limit on memory is enforced: a configuration that wants more fails. Weights are drawn on the device from the presets'
own classes; no file is read. What the machine lacks is said and left out: without warp-lang the geometry (conditioning
is then random), without diffusers the codec. A warm-up chunk of one step goes before. --tiny runs the same on any
computer in a minute, with small networks and all of their blocks streamed wherever a limit is named.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

WANTED_FOR = {
    "warp": "recall, warps, correspondence and rays; the conditioning is random instead",
    "diffusers": "the codec; chunks are neither encoded nor decoded, and take that much less than they would",
    "av": "videos, which this does not touch",
    "ftfy": "cleaning prompts, which costs nothing here",
}
LACKING = [name for name in WANTED_FOR if find_spec(name) is None]
for name in LACKING:  # imported on the way, and not called below but for ftfy's cleaning of texts
    sys.modules[name] = MagicMock(fix_text=str)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel  # noqa: E402

from photowalk.diffusion.few_step import FewStep  # noqa: E402
from photowalk.diffusion.guidance import guided  # noqa: E402
from photowalk.diffusion.sampler import Sampler  # noqa: E402
from photowalk.diffusion.unipc import UniPC  # noqa: E402
from photowalk.geometry.cameras import Cameras  # noqa: E402
from photowalk.geometry.paths import forward  # noqa: E402
from photowalk.models.clip_image import ClipImage  # noqa: E402
from photowalk.models.conditioning import Conditioning  # noqa: E402
from photowalk.models.depth_anything3.network import DepthAnything3, normalise  # noqa: E402
from photowalk.models.umt5_text import Umt5Text  # noqa: E402
from photowalk.models.wan_codec import WanCodec  # noqa: E402
from photowalk.models.world_transformer import WorldTransformer  # noqa: E402
from photowalk.perception.depth import DepthEstimate  # noqa: E402
from photowalk.presets import depth_anything, published  # noqa: E402
from photowalk.world.generator import Generator  # noqa: E402
from photowalk.world.placement import GB, Placement, choose_placement  # noqa: E402
from photowalk.world.residency.arrange import arrange  # noqa: E402
from photowalk.world.residency.footprint import footprint  # noqa: E402
from photowalk.world.residency.plan import Plan, Weights, choose_plan  # noqa: E402
from photowalk.world.residency.visiting import VisitingCodec, let_visit  # noqa: E402


@dataclass(frozen=True)
class Configuration:
    sampler: Sampler
    guidance: float
    vram: int | None = None  # GB
    weights: Weights | None = None
    seconds: float | None = None  # the goal, on an H200
    ratio: tuple[str, float] | None = None  # the goal against another configuration


FEW, MANY = (FewStep(4), 1.0), (UniPC(35), 5.0)
CONFIGURATIONS = {
    "4-steps": Configuration(*FEW, seconds=20),
    "35-steps": Configuration(*MANY, seconds=260),
    "4-steps-vram24": Configuration(*FEW, vram=24, ratio=("4-steps", 1.25)),
    "35-steps-vram24": Configuration(*MANY, vram=24, ratio=("35-steps", 1.25)),
    "4-steps-float8": Configuration(*FEW, vram=16, weights="float8"),
    "4-steps-int8": Configuration(*FEW, vram=16, weights="int8"),
    "4-steps-float8-matmul": Configuration(*FEW, weights="float8-matmul"),
}
COMPARED = "for comparison, the reference's README: a 4-step chunk in about 35 s on an H100; the paper: 15 s on a GB200"


@dataclass(frozen=True)
class Size:
    """The networks, built where torch's default device says, and the frames."""

    height: int
    width: int
    denoiser: WorldTransformer.Config
    codec: Callable[[], nn.Module]
    text: Callable[[], UMT5EncoderModel]
    image: Callable[[], CLIPVisionModel]
    depth: Callable[[], DepthAnything3]


def full_size() -> Size:
    preset = published.lyra2_14b()
    return Size(
        preset.height,
        preset.width,
        published.lyra2_14b_denoiser(),
        published.wan_codec_network,
        published.umt5_xxl_network,
        published.clip_vit_h_network,
        lambda: DepthAnything3(depth_anything.lyra2_reconstruction()),
    )


def tiny() -> Size:
    def codec() -> nn.Module:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        return AutoencoderKLWan(base_dim=4, num_res_blocks=1)

    def text() -> UMT5EncoderModel:
        kind: dict[str, Any] = {"num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
        return UMT5EncoderModel(UMT5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=24, **kind))

    def image() -> CLIPVisionModel:
        sides: dict[str, Any] = {"image_size": 28, "patch_size": 14, "num_hidden_layers": 3, "num_attention_heads": 2}
        return CLIPVisionModel(CLIPVisionConfig(hidden_size=16, intermediate_size=32, **sides))

    small: dict[str, Any] = {
        "width": 64,
        "heads": 2,
        "depth": 4,
        "ffn": 96,
        "text_dim": 16,
        "text_length": 32,
        "image_dim": 16,
    }
    denoiser = replace(published.lyra2_14b_denoiser(), squeeze=8, **small)
    return Size(32, 48, denoiser, codec, text, image, lambda: DepthAnything3(depth_anything.nano_reconstruction()))


class Clock:
    """Seconds and calls of each part; the device is waited for before and after."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.flops: dict[str, int] = {}  # of one call, of parts that are counted

    def time(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def watch(self, owner: object, method: str, part: str, *, counted: bool = False) -> None:
        """From now on `owner.method` is timed as `part`; the operations of its first call are counted."""
        inner = getattr(owner, method)

        def outer(*args: Any, **kwargs: Any) -> Any:
            start = self.time()
            if counted and part not in self.flops:
                with FlopCounterMode(display=False) as counter:
                    result = inner(*args, **kwargs)
                self.flops[part] = counter.get_total_flops()
            else:
                result = inner(*args, **kwargs)
            self.seconds[part] += self.time() - start
            self.calls[part] += 1
            return result

        setattr(owner, method, outer)

    def reset(self) -> None:
        self.seconds.clear()
        self.calls.clear()


class RandomWords:
    """A tokenizer's answer of the full length."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def __call__(self, texts: list[str], *, max_length: int, **_: object) -> dict[str, Tensor]:
        shape = (len(texts), max_length)
        return {"input_ids": torch.randint(self._vocabulary, shape), "attention_mask": torch.ones(shape).long()}


class TimedDepth:
    """Implements `DepthEstimator`: runs the network, whose answer means nothing, and gives what memory knows."""

    name = "random"

    def __init__(self, network: DepthAnything3) -> None:
        self.network = network

    def estimate_photo(self, photo: Tensor, focal_px: float | None = None) -> DepthEstimate:
        return DepthEstimate(torch.full_like(photo[0], 3.0), focal_px or float(photo.shape[2]))

    def estimate_frames(self, video: Tensor, cameras: Cameras, known: Tensor) -> Tensor:
        patch = self.network.config.backbone.patch
        size = [max(round(side / patch), 1) * patch for side in video.shape[2:]]
        images = normalise(F.interpolate(video.float(), size, mode="bilinear"))
        smaller = cameras.resized(*size)
        self.network(images, smaller.camera_from_world, smaller.intrinsics)
        if self.network.config.metric_backbone is not None:
            self.network.metric(images)
        return torch.where(known.isfinite() & (known > 0), known, 3.0)


def randomise(network: nn.Module) -> None:
    """Every pass through the network keeps the order of magnitude of what it is given."""
    for parameter in network.parameters(recurse=False):
        if parameter.dim() > 1 and parameter.numel() > 4 * len(parameter):
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.constant_(parameter, 0.0 if parameter is getattr(network, "bias", None) else 1.0)


def built(size: Size, chosen: Configuration, placement: Placement, *, is_tiny: bool) -> Generator:
    """The generator with random weights, laid out by its plan; a codec that is lacking is left to fail when called."""
    device, memory = placement.device, placement.memory
    with torch.device("meta"):
        denoiser = WorldTransformer(size.denoiser).to(placement.dtype).eval()

    def made(build: Callable[[], nn.Module], dtype: torch.dtype) -> Any:
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                return build().eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(torch.float32)

    text, image = made(size.text, placement.dtype), made(size.image, placement.dtype)
    codec = WanCodec(made(size.codec, placement.dtype)) if "diffusers" not in LACKING else None
    depth = made(size.depth, torch.float32)
    factors = (4, 8) if codec is None else (codec.temporal_factor, codec.spatial_factor)
    plan = None
    if memory is not None or is_tiny:
        needed = footprint(
            denoiser,
            text,
            image,
            codec or nn.Module(),
            depth,
            latent_size=(size.height // factors[1], size.width // factors[1]),
            codec_factors=factors,
            branches=1 if chosen.guidance == 1 else 2,
            views=10,
        )
        memory = memory or (chosen.vram or 1000) * GB
        plan = choose_plan(needed, memory, placement.host, chosen.weights)
        if is_tiny and chosen.vram:
            plan = Plan(needed, memory, tuple(range(needed.blocks)), plan.weights, visiting=True)
        print(plan.described(), flush=True)
    visiting = plan is not None and plan.visiting
    for network in (text, image, depth):
        if visiting:
            let_visit(network.cpu(), device)
    if visiting and codec is not None:
        codec = VisitingCodec(codec.cpu(), device)

    def fill(_: str, module: nn.Module) -> None:
        randomise(module.to_empty(device=device, recurse=False).requires_grad_(False))

    arrange(denoiser, plan, placement.copies(), fill)
    words = cast("Any", RandomWords(text.config.vocab_size))
    return Generator(
        denoiser=denoiser,
        codec=cast("WanCodec", codec),
        text=Umt5Text(text, words, length=size.denoiser.text_length, device=device),
        image=ClipImage(image),
        depth=TimedDepth(depth),
        detail=None,
        sampler=chosen.sampler,
        placement=replace(placement, plan=plan),
        config=replace(published.lyra2_14b_generation(chosen.guidance)),
    )


def bare_chunk(generator: Generator, size: Size) -> Callable[[Generator], None]:
    """What `Generator.extend` does besides geometry, on random conditioning. What it calls makes a chunk."""
    config, layout, device = size.denoiser, size.denoiser.layout, generator.placement.device
    h, w = size.height // 8, size.width // 8

    def drawn(*shape: int) -> Tensor:
        return torch.randn(1, *shape, device=device)

    picture, encoder, decoder = torch.rand(1, 3, size.height, size.width, device=device), {}, {}
    with torch.inference_mode(), generator.placement.autocast():
        if generator.codec is not None:
            still = picture[:, :, None].expand(-1, -1, 4 * layout.history_frames - 3, -1, -1)
            latents, encoder = generator.codec.encode(still, {})
            decoder = generator.codec.decode(latents, {})[1]

    def make(by: Generator) -> None:
        with torch.inference_mode(), by.placement.autocast():
            if by.codec is not None:
                by.codec.encode(picture[:, :, None].expand(layout.space_frames, -1, -1, -1, -1), {})
                by.codec.encode(picture[:, :, None].expand(-1, -1, 4 * layout.new_frames + 1, -1, -1), {})
            block = config.condition_side**2
            conditioning = Conditioning(
                history=drawn(config.channels, layout.history_frames, h, w),
                warp=drawn(config.channels, layout.new_frames, h, w),
                known=torch.ones(1, 4, layout.new_frames, h, w, device=device),
                rays=drawn(6 * block, layout.frames, h, w),
                correspondence=drawn(layout.space_frames * 4 * block, layout.new_frames, h, w),
                text=by.text.encode(["a hall"]),
                image=by.image.encode(picture),
            )
            guidance = by.config.guidance
            negative = None if guidance == 1 else replace(conditioning, text=by.text.encode([""]))
            velocity = guided(by.denoiser, conditioning, negative, guidance)
            sampled = by.sampler.sample(velocity, drawn(config.channels, layout.new_frames, h, w))
            video = picture.expand(4 * layout.new_frames, -1, -1, -1)
            if by.codec is not None:
                video = by.codec.decode(sampled, decoder)[0][0].transpose(0, 1).float()
                by.codec.encode(video.transpose(0, 1)[None], encoder)
            cameras = Cameras.from_fov(torch.eye(4, device=device).expand(10, 4, 4), 60.0, size.height, size.width)
            by.depth.estimate_frames(video[7::8], cameras, torch.ones_like(video[7::8, 0]))

    return make


def whole_chunk(generator: Generator, size: Size) -> Callable[[Generator], None]:
    """`Generator.extend` after the photo; what it calls makes a chunk."""
    device = generator.placement.device
    photo = torch.rand(3, size.height, size.width, generator=torch.Generator().manual_seed(0)).to(device)
    state = generator.start(photo, focal_px=float(size.width), depth=torch.full_like(photo[0], 3.0), prompt="a hall")
    cameras = forward(state.cameras[-1].to("cpu"), 4 * size.denoiser.layout.new_frames + 1, distance=0.5)[1:].to(device)

    def make(by: Generator) -> None:
        by.extend(state, cameras, "a hall", seed=1)

    return make


def measure(name: str, out: Path, *, is_tiny: bool, geometry: bool) -> None:
    chosen, size = CONFIGURATIONS[name], tiny() if is_tiny else full_size()
    placement = choose_placement("cpu" if is_tiny else None, vram_gb=chosen.vram)
    on_gpu = placement.device.type == "cuda"
    common: dict[str, object] = {"size": [size.width, size.height], "geometry": geometry, "lacking": LACKING}
    note = Notes(out, {"configuration": name, "machine": placement.reason, **common})
    note(matmul_tflops=(limit := matmul_limit(placement)))
    started = time.perf_counter()
    generator = built(size, chosen, placement, is_tiny=is_tiny)
    note(loading_seconds=time.perf_counter() - started, torch_version=torch.__version__)
    if on_gpu:
        torch.cuda.empty_cache()
        if chosen.vram:
            total = torch.cuda.get_device_properties(placement.device).total_memory
            torch.cuda.set_per_process_memory_fraction(chosen.vram * GB / total)
    clock = Clock(placement.device)
    clock.watch(generator.denoiser, "prepare", "denoiser, once a chunk")
    clock.watch(generator.denoiser, "forward", "denoiser, a pass", counted=True)
    clock.watch(generator.text, "_features", "text")
    clock.watch(generator.image, "encode", "picture")
    clock.watch(generator.depth, "estimate_frames", "depth")
    if generator.codec is not None:
        clock.watch(generator.codec, "encode", "codec, encoding")
        clock.watch(generator.codec, "decode", "codec, decoding")
    chunk = (whole_chunk if geometry else bare_chunk)(generator, size)
    chunk(replace(generator, sampler=FewStep(1)))
    note(text_seconds=clock.seconds["text"] / max(clock.calls["text"], 1))
    clock.reset()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = clock.time()
    chunk(generator)
    total = clock.time() - start
    for part, seconds in clock.seconds.items():
        note(part=part, seconds=seconds, calls=clock.calls[part])
    note(part="geometry and the rest" if geometry else "the rest", seconds=total - sum(clock.seconds.values()))
    passes = "denoiser, a pass"
    rate = clock.flops[passes] * clock.calls[passes] / clock.seconds[passes] / 1e12
    note(denoiser_tflops=rate, share_of_matmul_limit=rate / limit)
    peak = torch.cuda.max_memory_reserved() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    planned = generator.placement.plan.peak / GB if generator.placement.plan is not None else None
    note(peak_gb=peak / GB, planned_gb=planned)
    note(chunk_seconds=total, **goal(chosen, total, out, common))


def goal(chosen: Configuration, total: float, out: Path, common: dict[str, object]) -> dict[str, object]:
    """What is aimed at, and how far a configuration is from the one that it is compared with, if that was measured."""
    if chosen.seconds is not None:
        return {"goal_seconds": chosen.seconds}
    if chosen.ratio is None:
        return {}
    other, bound = chosen.ratio
    like = {"configuration": other, **common}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    seconds = [
        line["chunk_seconds"]
        for line in lines
        if all(line[key] == value for key, value in like.items()) and "chunk_seconds" in line
    ]
    return {"times_of_resident": total / seconds[-1] if seconds else None, "goal_times_of_resident": bound}


class Notes:
    """Prints figures as they come and appends them to a file."""

    def __init__(self, file: Path, every: dict[str, object]) -> None:
        self._file, self._every = file, every

    def __call__(self, **figures: object) -> None:
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
        with self._file.open("a") as file:
            file.write(json.dumps({**self._every, **rounded}) + "\n")
        print("  " + ", ".join(f"{key} {value}" for key, value in rounded.items()), flush=True)


def matmul_limit(placement: Placement) -> float:
    """TFLOP/s of a large product in the format of the networks, the best of ten."""
    side = 8192 if placement.device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=placement.device, dtype=placement.dtype) for _ in range(2))
    clock, seconds = Clock(placement.device), []
    for _ in range(13):
        start = clock.time()
        a @ b
        seconds.append(clock.time() - start)
    return 2 * side**3 / min(seconds[3:]) / 1e12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("full_size.jsonl"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-geometry", action="store_true", help="as where warp-lang is lacking")
    options = parser.parse_args()
    for name in LACKING:
        print(f"left out, as {name} is not installed: {WANTED_FOR[name]}", flush=True)
    geometry = not ({"warp", "diffusers"} & set(LACKING) or options.no_geometry)
    if options.only is not None:
        print(options.only, flush=True)
        measure(options.only, options.out, is_tiny=options.tiny, geometry=geometry)
        return 0
    failed = 0
    for name in CONFIGURATIONS:
        failed |= subprocess.run([sys.executable, *sys.argv, "--only", name]).returncode
    with suppress(OSError):
        print(f"\n{COMPARED}")
        for line in map(json.loads, options.out.read_text().splitlines()):
            if "chunk_seconds" in line:
                print({key: value for key, value in line.items() if key not in ("machine", "lacking")})
    return failed


if __name__ == "__main__":
    sys.exit(main())
