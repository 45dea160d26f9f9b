"""The denoiser, its rotary angles and its adaptations against the published network with small random weights."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from photowalk.models.history_layout import HistoryLayout
from photowalk.models.lora import add_lora, merge_layer, merge_lora, merged_and_beside, read_lora
from photowalk.models.rope import packed_angles
from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.models.world_transformer import NetworkInputs, PreparedConditioning, WorldTransformer

Comparison = tuple[str, float, float]
Prepare = Callable[[NetworkInputs], PreparedConditioning]

NETWORK_TOLERANCE = 1e-5  # float32 and another order of additions
ANGLE_TOLERANCE = 1e-6
PUBLISHED_LAYOUT = "f1k1f4s2f1s1f16k4f2k2f1k1_g20"
PUBLISHED_HEAD_DIM = 128
BOOKKEEPING = "accum_"  # counters of the published trainer, no part of the network


def check_weights(folder: Path) -> Iterable[Comparison]:
    """The weights drawn by rule are the recorded ones, and the network wants exactly these tensors."""
    tensors = _json(folder / "dit_tiny_weights.json")["tensors"]
    weights = tiny_weights(folder)
    shapes = {name: list(value.shape) for name, value in tiny_network(folder).state_dict().items()}
    yield "names and shapes", _differences(shapes, {name: record["shape"] for name, record in tensors.items()}), 0.0
    first = (_error(weights[n].flatten()[: len(r["first"])], torch.tensor(r["first"])) for n, r in tensors.items())
    yield "first values", max(first), 0.0
    sums = (abs(float(weights[n].double().sum()) - r["sum"]) / max(1, abs(r["sum"])) for n, r in tensors.items())
    yield "sums", max(sums), 1e-9


def check_published_keys(folder: Path) -> Iterable[Comparison]:
    """Names and shapes of every tensor of the published network."""
    lines = [line.split("\t") for line in (folder / "keys14b.txt").read_text().splitlines() if line.strip()]
    wanted = {name: [int(n) for n in re.findall(r"\d+", shape)] for name, shape in lines}
    wanted = {name: shape for name, shape in wanted.items() if not name.startswith(BOOKKEEPING)}
    with torch.device("meta"):
        network = WorldTransformer(config_from_shapes(wanted, HistoryLayout.parse(PUBLISHED_LAYOUT)))
    yield "names and shapes", _differences({n: list(v.shape) for n, v in network.state_dict().items()}, wanted), 0.0


def check_case(folder: Path, name: str, savings: Savings = ALL_SAVINGS) -> Iterable[Comparison]:
    """One pass through the network: what goes in, what every block makes of it, what comes out."""
    network, golden = tiny_network(folder), load_file(folder / f"{name}.safetensors")
    case = read_case(folder / f"{name}.json", network.config.layout)
    with torch.inference_mode():
        prepare = partial(network.prepare_inputs, savings=savings)
        parts = (_packed(network, prepare, case), _blocks(network, prepare, case), _velocities(network, prepare, case))
        for what, ours, located in chain(*parts):
            wanted = golden[what] if located is None else golden[what][:, located]
            yield what, _error(ours, wanted), ANGLE_TOLERANCE if what == "tok_freqs" else NETWORK_TOLERANCE


def check_copied_embeddings(folder: Path) -> Iterable[Comparison]:
    """History embeddings that begin as copies of the base embedding."""
    network = tiny_network(folder)
    slots, stated = network.config.layout.slots, _json(folder / "dit_tiny_copyinit.json")
    kinds = ["k" if slot.kind == "time" else "s" for slot in slots]
    yield "kernel types", _differences(dict(enumerate(kinds)), dict(enumerate(stated["kernel_types"]))), 0.0
    yield "kernel sizes", max(abs(s.shrink - k) for s, k in zip(slots, stated["kernel_sizes"])), 0.0
    network.init_history_embeddings_from_base()
    weights = network.state_dict()
    for name, wanted in load_file(folder / "dit_tiny_copyinit.safetensors").items():
        yield name, _error(weights[name][: len(wanted)], wanted), 0.0


def check_angles(folder: Path) -> Iterable[Comparison]:
    """Rotary angles at full size."""
    stated, golden = _json(folder / "rope_real_geometry.json"), load_file(folder / "rope_real_geometry.safetensors")
    layout = HistoryLayout.parse(stated.get("framepack_type", PUBLISHED_LAYOUT))
    rows, columns = (size // 2 for size in stated["latent_hw"])
    edges = [segment.tokens.start for segment in layout.segments(rows, columns)] + [layout.tokens(rows, columns)]
    yield "segment edges", _differences(dict(enumerate(edges)), dict(enumerate(stated["segment_edges"]))), 0.0
    angles = packed_angles(layout, 2 * golden["freqs"].shape[1], rows, columns)
    yield "freqs", _error(angles[golden["rows"]], golden["freqs"]), ANGLE_TOLERANCE


def check_lora_file(folder: Path) -> Iterable[Comparison]:
    """The low-rank matrices are those of the rule, and every one finds its layer."""
    tensors, rule = load_file(folder / "lora_tiny.safetensors"), _json(folder / "lora_out.json")["lora_tiny"]
    offset = int(re.findall(r"crc32\(key\) ?\+ ?(\d+)", rule)[0])
    scales = {"lora_A": 0.02, "lora_B": 0.2}
    for name, tensor in tensors.items():
        scale = next((value for part, value in scales.items() if part in name), None)
        if scale is not None:
            random = np.random.RandomState((zlib.crc32(name.encode()) + offset) & 0x7FFFFFFF)
            drawn = torch.from_numpy(random.standard_normal(tuple(tensor.shape)).astype(np.float32)) * scale
            yield name, _error(tensor, drawn), 1e-7
    network = tiny_network(folder)
    merge_lora(network, tensors, 1.0)
    merge_lora(network, tensors, -1.0)
    for name, value in tiny_weights(folder).items():
        yield f"{name} with and without", _error(network.state_dict()[name], value), 1e-6


def check_lora(folder: Path, savings: Savings = ALL_SAVINGS) -> Iterable[Comparison]:
    """The velocity with an adaptation, merged into the weights or beside them."""
    network, stated = tiny_network(folder), _json(folder / "lora_out.json")
    case = read_case(folder / "lora_out.json", network.config.layout)
    changes = [(read_lora(network, load_file(folder / "lora_tiny.safetensors")), stated["weight"])]
    merged, beside = merged_and_beside(changes, all_merged=savings.merged_loras)
    modules = dict(network.named_modules())
    for layers, weight in merged:
        for name, parts in layers.items():
            merge_layer(modules[name], parts, weight)
    for layers, weight in beside:
        for name, parts in layers.items():
            add_lora(modules[name], parts, weight)
    with torch.inference_mode():
        velocity = network(case.noisy, case.timestep, network.prepare_inputs(case.inputs, savings=savings))
    yield "out", _error(velocity, load_file(folder / "lora_out.safetensors")["out"]), NETWORK_TOLERANCE


@dataclass(frozen=True)
class Case:
    inputs: NetworkInputs
    noisy: Tensor
    timestep: Tensor


def read_case(file: Path, layout: HistoryLayout) -> Case:
    """Draw the inputs that a golden's .json describes."""
    stated = _json(file)["inputs"]
    offset = re.search(r"s = base ?\+ ?(\d+)", stated["rule"])
    first = int(offset[1]) if offset else 0
    drawn = {name: _draw(rule, first) for name, rule in stated.items() if isinstance(rule, dict) and "shape" in rule}
    noisy, condition = drawn["x"], drawn["cond"]
    seen = torch.ones_like(condition[:, :1]).expand(-1, 4, -1, -1, -1)
    old = layout.history_frames
    segments = layout.segments(1, 1)
    located = [frame for segment in segments if segment.kind != "time" for frame in segment.frames]
    inputs = NetworkInputs(
        history=torch.cat([noisy, seen, condition], dim=1)[:, :, :old],
        new=torch.cat([seen, condition], dim=1)[:, :, old:],
        rays=drawn["camera"],
        correspondence=drawn["y_buffer"][:, :, located],
        text=drawn["text"],
        image=drawn["img"],
    )
    return Case(inputs, noisy[:, :, old:], torch.tensor([float(stated["t"])]))


def _draw(rule: dict[str, Any], offset: int) -> Tensor:
    random = np.random.RandomState(rule["base"] + offset)
    values = torch.from_numpy(random.standard_normal(rule["shape"]).astype(np.float32))
    return values.tanh() if rule.get("then") == "tanh" else values


def _packed(
    network: WorldTransformer, prepare: Prepare, case: Case
) -> Iterator[tuple[str, Tensor, Tensor | slice | None]]:
    """Tokens and angles; the third value picks the golden's tokens that ours correspond to."""
    prepared = prepare(case.inputs)
    rows, columns = (size // side for size, side in zip(case.noisy.shape[-2:], network.config.patch[1:]))
    head_dim = network.config.width // network.config.heads
    yield "tok_freqs", packed_angles(network.config.layout, head_dim, rows, columns), None
    tokens = network.config.layout.segments(rows, columns)[-1].tokens
    yield "gen_range", torch.tensor([tokens.start, tokens.stop]), None
    yield "tok_x", prepared.history, slice(0, prepared.history.shape[1])
    yield "tok_cam_mean", prepared.rays.mean(-1), None
    yield "tok_cam_head", prepared.rays[..., :64], None
    correspondence = network.correspondence_tokens(case.inputs.correspondence)
    valid = torch.ones_like(correspondence[..., :1])
    located = (prepared.located < correspondence.shape[1]).nonzero()[:, 0]
    yield "tok_buf_mean", torch.cat([correspondence, valid], dim=-1).mean(-1), located
    yield "tok_buf_head", correspondence[..., :64], located


def _blocks(network: WorldTransformer, prepare: Prepare, case: Case) -> Iterator[tuple[str, Tensor, slice | None]]:
    """What every block gives; the last one for the new frames only, unless that is not to be saved."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, tokens: seen.append(tokens)) for block in network.blocks
    ]
    network(case.noisy, case.timestep, prepare(case.inputs))
    for hook in hooks:
        hook.remove()
    for i, tokens in enumerate(seen):
        last = i == len(seen) - 1
        yield f"block{i}", tokens, slice(-tokens.shape[1], None) if last else None


def _velocities(network: WorldTransformer, prepare: Prepare, case: Case) -> Iterator[tuple[str, Tensor, None]]:
    inputs = case.inputs
    without_correspondence = replace(inputs, correspondence=torch.zeros_like(inputs.correspondence))
    without_rays = replace(inputs, rays=torch.zeros_like(inputs.rays))
    for name, given in {"out": inputs, "out_nobuf": without_correspondence, "out_nocam": without_rays}.items():
        yield name, network(case.noisy, case.timestep, prepare(given)), None
    yield "out_int_t", network(case.noisy, case.timestep.long(), prepare(inputs)), None


def tiny_network(folder: Path) -> WorldTransformer:
    """The small network of the goldens with its weights."""
    stated = _json(folder / "dit_tiny_weights.json")
    shapes = {name: record["shape"] for name, record in stated["tensors"].items()}
    config = config_from_shapes(shapes, _layout(folder))
    config = replace(config, heads=stated["num_heads"], text_length=stated["text_len"], eps=stated["eps"])
    config = replace(config, waves=stated["buffer_sincos_multires"])
    network = WorldTransformer(config)
    network.load_state_dict(tiny_weights(folder))
    return network


def config_from_shapes(shapes: dict[str, list[int]], layout: HistoryLayout) -> WorldTransformer.Config:
    """What the shapes of a state dict say of a network; what they do not say is as published."""
    patch = (1, 2, 2)
    width = shapes["patch_embedding.weight"][0]
    return WorldTransformer.Config(
        width=width,
        heads=width // PUBLISHED_HEAD_DIM,
        depth=1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        ffn=shapes["blocks.0.ffn.0.weight"][0],
        layout=layout,
        channels=shapes["head.head.weight"][0] // 4,
        text_dim=shapes["text_embedding.0.weight"][1],
        text_length=512,
        image_dim=shapes["img_emb.proj.0.weight"][0],
        condition_side=round((shapes["blocks.0.cam_encoder.weight"][1] / (6 * 4)) ** 0.5),
        squeeze=shapes["blocks.0.buffer_encoder.0.weight"][0],
        patch=patch,
        freq_dim=shapes["time_embedding.0.weight"][1],
    )


@cache
def tiny_weights(folder: Path) -> dict[str, Tensor]:
    """All weights by the rule of the goldens: normal numbers seeded by the name, scaled by the kind of tensor."""
    tensors = _json(folder / "dit_tiny_weights.json")["tensors"]
    offset = _seed_offset(folder, tensors)
    return {name: torch.from_numpy(_weight(name, record["shape"], offset)) for name, record in tensors.items()}


def _weight(name: str, shape: list[int], offset: int) -> np.ndarray:
    seed = (zlib.crc32(name.encode()) + offset) & 0x7FFFFFFF
    values = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if name.endswith("modulation"):
        return values * np.float32(0.1)
    if len(shape) > 1:
        return values * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    return 1 + np.float32(0.1) * values if name.endswith(".weight") else np.float32(0.1) * values


def _seed_offset(folder: Path, tensors: dict[str, Any]) -> int:
    """What is added to the name's checksum. Files may state it or leave it to be recognised by the recorded values."""
    texts = [file.read_text() for file in sorted(folder.glob("dit_tiny*.json"))]
    stated = (int(n) for text in texts for n in re.findall(r'(?:net_seed": |crc32\(name\) ?\+ ?)(\d+)', text))
    name, record = min(tensors.items(), key=lambda item: (np.prod(item[1]["shape"]), item[0]))
    for offset in chain(stated, range(10_000)):
        if np.allclose(
            _weight(name, record["shape"], offset).flatten()[: len(record["first"])], record["first"], atol=0
        ):
            return offset
    raise ValueError(f"no seed reproduces the recorded values of {name}: the goldens follow another rule")


def _layout(folder: Path) -> HistoryLayout:
    stated = (_json(file).get("framepack_type") for file in sorted(folder.glob("dit_tiny_case_*.json")))
    return HistoryLayout.parse(next((text for text in stated if text), PUBLISHED_LAYOUT))


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def _error(ours: Tensor, wanted: Tensor) -> float:
    if ours.shape != wanted.shape:
        raise ValueError(f"wanted shape {tuple(wanted.shape)}, got {tuple(ours.shape)}")
    return float((ours.double() - wanted.double()).abs().max())


def _differences(ours: dict, wanted: dict) -> float:
    """How many entries differ or are missing on one side."""
    return float(sum(ours.get(name) != wanted.get(name) for name in ours.keys() | wanted.keys()))


CHECKS: dict[str, Callable[..., Iterable[Comparison]]] = {
    "dit_tiny_weights": check_weights,
    "dit_tiny_case_*": check_case,
    "dit_tiny_copyinit": check_copied_embeddings,
    "keys14b": check_published_keys,
    "lora_out": check_lora,
    "lora_tiny": check_lora_file,
    "rope_real_geometry": check_angles,
}
