"""The denoiser and the depth network learn from clip folders, at tiny size; a stopped run goes on."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_preset

from photowalk.data.clips import find_clips, write_clip
from photowalk.diffusion.flow import TrainingSchedule
from photowalk.models.depth_network import DepthNetwork
from photowalk.synthetic import SyntheticWorld
from photowalk.train.denoiser import DenoiserRecipe, SampleRules, prepare_samples, train_denoiser
from photowalk.train.depth import DepthRecipe, train_depth
from photowalk.train.trainer import TrainingConfig
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")
RULES = SampleRules(chunk_frames=CHUNK_FRAMES, memory_stride=4, memory_gap=4, depth_noise=0.05, seed=0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    world = SyntheticWorld.sample(3)
    clip = world.render(world.walk(2 * CHUNK_FRAMES + 1, 3, size=(HEIGHT, WIDTH)))
    write_clip(folder / "world", clip, source="test", licence="CC0-1.0")
    return folder


@pytest.fixture(scope="module")
def samples(clips, tmp_path_factory) -> list[Path]:
    generator = tiny_preset().build(CPU)
    return prepare_samples(find_clips(clips), generator, RULES, tmp_path_factory.mktemp("samples"))


def recipe(steps: int, rate: float = 3e-3) -> DenoiserRecipe:
    training = TrainingConfig(1e6, rate, max_steps=steps, warmup_steps=2, log_every=1, average=0.5, final_rate=1.0)
    return DenoiserRecipe(training, RULES, TrainingSchedule(), hole_weight=4.0, batch=2)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_denoiser_learns_what_a_chunk_shows(samples, tmp_path):
    assert len(samples) == 2
    found = {}
    for rate in (0.0, 3e-3):  # the same batches, so that only learning differs
        train_denoiser(tiny_preset().build(CPU), samples, recipe(60, rate), tmp_path / str(rate))
        found[rate] = losses(tmp_path / str(rate))
    assert all(math.isfinite(loss) for loss in found[3e-3])
    assert sum(found[3e-3][-20:]) < 0.97 * sum(found[0.0][-20:])


def test_a_stopped_denoiser_run_goes_on_with_the_same_losses(samples, tmp_path):
    for name, stops in (("whole", (6,)), ("cut", (2, 6))):
        for steps in stops:
            train_denoiser(tiny_preset().build(CPU), samples, recipe(steps), tmp_path / name)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_no_samples_no_training(tmp_path):
    with pytest.raises(ValueError, match="prepare_samples"):
        train_denoiser(tiny_preset().build(CPU), [], recipe(1), tmp_path)


def test_the_depth_network_learns_from_clips(clips, tmp_path):
    torch.manual_seed(0)
    training = TrainingConfig(1e6, 2e-3, max_steps=12, warmup_steps=2, log_every=1, gentle=("encoder.",))
    depth = DepthRecipe((clips,), training, sizes=((64, 96),), pixels=2 * 64 * 96)
    train_depth(DepthNetwork(DepthNetwork.Config(attention=1)), depth, tmp_path / "run", CPU)
    found = losses(tmp_path / "run")
    assert all(math.isfinite(loss) for loss in found)
    assert sum(found[-4:]) < sum(found[:4])


def test_depth_wants_clips(tmp_path):
    with pytest.raises(ValueError, match="clip folders"):
        train_depth(
            DepthNetwork(DepthNetwork.Config()), DepthRecipe((tmp_path,), TrainingConfig(1, 1e-3)), tmp_path, CPU
        )


def test_the_past_may_be_drawn_by_the_network_itself(clips, samples, tmp_path):
    generator = tiny_preset().build(CPU)
    own = {}
    for level in (1e-4, 0.5):
        rules = replace(RULES, own_past=level)
        (path,) = prepare_samples(find_clips(clips), generator, rules, tmp_path / str(level))
        own[level] = load_file(path)
    plain = load_file(samples[1])  # of the second chunk; the first has no chunk before it

    def change(level: float, name: str) -> float:
        return float((own[level][name].float() - plain[name].float()).abs().mean())

    for level in own:
        assert torch.equal(own[level]["clean"], plain["clean"])  # what is to be drawn stays true
    for name in ("history", "warp", "latest"):
        assert change(0.5, name) > 1.1 * change(1e-4, name)  # hardly noised it is the codec's error alone
