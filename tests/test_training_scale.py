"""One training on several processes: the same losses however its micro-batches and its weights are shared out.

Processes speak gloo on the CPU; torchrun's variables are set by hand.
"""

import json
import os
import socket
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from tiny import tiny_preset
from torch import nn

from photowalk.models.conditioning import Conditioning
from photowalk.models.world_transformer import WorldTransformer
from photowalk.train.checkpoints import ABOUT
from photowalk.train.parallel import joined, recompute_blocks, token_share
from photowalk.train.trainer import TrainingConfig, export_weights, train
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")
CONFIG = TrainingConfig(
    1e6, 3e-3, max_steps=4, warmup_steps=1, log_every=1, final_rate=1.0, average=0.5, micro_batches=4
)
TOLERANCE = 1e-5  # relative: sums in float32 take another order


def losses(folder: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return torch.tensor([[line["loss"], line["gradient_norm"]] for line in lines], dtype=torch.float64)


@cache
def denoiser_config() -> WorldTransformer.Config:
    return tiny_preset().build(CPU).denoiser.config


def draw(random: torch.Generator) -> dict[str, torch.Tensor]:
    """One chunk of nothing in particular in the shapes of the tiny preset, with its noise."""
    config = denoiser_config()
    layout, side, c = config.layout, config.condition_side**2, config.channels
    shapes = {
        "history": (1, c, layout.history_frames, 4, 6),
        "warp": (1, c, layout.new_frames, 4, 6),
        "known": (1, 4, layout.new_frames, 4, 6),
        "rays": (1, 6 * side, layout.frames, 4, 6),
        "correspondence": (1, layout.space_frames * 4 * side, layout.new_frames, 4, 6),
        "image": (1, 6, config.image_dim),
        "noise": (1, c, layout.new_frames, 4, 6),
    }
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def learned_parts() -> nn.ModuleDict:
    generator = tiny_preset().build(CPU)
    return nn.ModuleDict({"denoiser": generator.denoiser, "text": generator.text})


def learn(folder: Path, config: TrainingConfig) -> None:
    """Train the tiny denoiser and its text encoder, and export them."""
    parts = learned_parts()
    share = token_share(config.context)
    if "RANK" in os.environ and config.shard == 1:  # they begin with weights of their own; the first one's count
        for parameter in parts.parameters():
            parameter.data += int(os.environ["RANK"])

    def loss_of(batch):
        noise, text = batch["noise"], parts["text"].encode(["a room"])
        conditioning = Conditioning(**{name: value for name, value in batch.items() if name != "noise"}, text=text)
        velocity = parts["denoiser"](noise, torch.tensor([700.0]), conditioning, share=share)
        return {"loss": (velocity - noise).square().mean()}

    train(parts, draw, loss_of, config, folder, CPU)
    export_weights(parts, folder / "weights.safetensors", {})


def together(rank: int, port: int, jobs: list[tuple[Path, TrainingConfig]]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(1)
    with joined():
        for folder, config in jobs:
            learn(folder, config)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folders of finished trainings: `alone` by this process, the others by two processes."""
    folder = tmp_path_factory.mktemp("runs")
    recomputed = replace(CONFIG, checkpoint_activations=True)
    learn(folder / "alone", CONFIG)
    learn(folder / "alone_recomputed", recomputed)
    jobs = [
        (folder / "replicas", CONFIG),
        (folder / "shards", replace(CONFIG, shard=2)),
        (folder / "shards_recomputed", replace(recomputed, shard=2)),
        (folder / "context", replace(CONFIG, context=2)),
        (folder / "context_shards_recomputed", replace(recomputed, context=2, shard=2)),
        (folder / "replicas_cut", replace(CONFIG, max_steps=2)),
        (folder / "replicas_cut", CONFIG),
        (folder / "shards_cut", replace(CONFIG, shard=2, max_steps=2)),
        (folder / "shards_cut", replace(CONFIG, shard=2)),
        (folder / "to_one", replace(CONFIG, shard=2, max_steps=2)),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(together, (port, jobs), nprocs=2)
    learn(folder / "to_one", CONFIG)
    return folder


@pytest.mark.parametrize("name", ["replicas", "shards", "context"])
def test_two_processes_give_the_losses_of_one(runs, name):
    torch.testing.assert_close(losses(runs / name), losses(runs / "alone"), rtol=TOLERANCE, atol=0)
    alone, shared = (load_file(runs / folder / "weights.safetensors") for folder in ("alone", name))
    before = learned_parts().state_dict()
    assert alone.keys() == shared.keys() == before.keys()
    for key, value in alone.items():  # as a whole: Adam moves a number without a gradient by rounding alone
        way = value.float() - before[key]
        assert (shared[key].float() - value.float()).norm() <= 0.01 * way.norm(), key


@pytest.mark.parametrize("name", ["alone_recomputed", "shards_recomputed", "context_shards_recomputed"])
def test_blocks_computed_twice_give_the_same_losses(runs, name):
    torch.testing.assert_close(losses(runs / name), losses(runs / "alone"), rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize("name", ["replicas", "shards"])
def test_two_processes_go_on_with_exactly_the_same_losses(runs, name):
    assert torch.equal(losses(runs / f"{name}_cut"), losses(runs / name))


def test_one_process_goes_on_from_what_two_have_split(runs):
    torch.testing.assert_close(losses(runs / "to_one"), losses(runs / "alone"), rtol=TOLERANCE, atol=0)
    assert (runs / "to_one" / "checkpoint.pt").exists()
    assert not list((runs / "to_one").glob(f"*/{ABOUT}"))


def test_a_group_of_micro_batches_is_one_large_batch(tmp_path):
    found = {}
    for micro_batches in (1, 4):
        module = nn.Linear(3, 1)
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        every = torch.arange(24.0).view(2, 4, 3) / 24

        def draw(random, count=4 // micro_batches, every=every):
            first = random.initial_seed() * count
            return every.flatten(0, 1)[first : first + count]

        config = replace(CONFIG, max_steps=2, micro_batches=micro_batches)
        train(module, draw, lambda x, m=module: {"loss": (m(x) - x.sum(1, True)).square().mean()}, config,
              tmp_path / str(micro_batches), CPU)  # fmt: skip
        found[micro_batches] = losses(tmp_path / str(micro_batches))
    torch.testing.assert_close(found[4], found[1], rtol=TOLERANCE, atol=0)


def test_recomputing_keeps_less_for_the_backward_pass():
    kept = []
    for recompute in (False, True):
        generator = tiny_preset().build(CPU)
        if recompute:
            recompute_blocks(generator.denoiser)
        batch = draw(torch.Generator().manual_seed(0))
        noise = batch.pop("noise")
        sizes = []

        def keep(value, sizes=sizes):
            sizes.append(0 if value.is_leaf else value.numel())  # weights are there in any case
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            conditioning = Conditioning(**batch, text=generator.text.encode(["a room"]))
            generator.denoiser(noise, torch.tensor([700.0]), conditioning)
        kept.append(sum(sizes))
    assert kept[1] < 0.95 * kept[0]  # one small block among larger embeddings


def test_micro_batches_and_shards_must_fit_the_processes(tmp_path):
    with pytest.raises(ValueError, match="shards of 2 among 1 processes"):
        learn(tmp_path, replace(CONFIG, shard=2))
