"""Distillation: on a line, where everything is known; through the trainer, at tiny size; as a change of low rank."""

import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_preset
from torch import Tensor, nn

from photowalk.cli import main
from photowalk.data.clips import find_clips, write_clip
from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule
from photowalk.models.lora import merge_lora
from photowalk.models.world_transformer import WorldTransformer
from photowalk.synthetic import SyntheticWorld
from photowalk.train import recipes
from photowalk.train.adaptation import adapt
from photowalk.train.distil import DistilRecipe, Matching, train_student
from photowalk.train.objective import Objective
from photowalk.train.samples import Samples, prepare_samples
from photowalk.train.trainer import TrainingConfig, export_weights, train
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")
FOUR, SCHEDULE = FewStep(4), TrainingSchedule()
MEAN, DEVIATION, NUMBERS = 1.0, 0.5, 16  # of what the teacher knows, and how many there are in a sample


def exact_velocity(noisy: Tensor, timestep: Tensor, known: None = None) -> Tensor:
    """Of normally distributed numbers; the clean number's mean given the noisy one is linear in it."""
    sigma = (timestep / TIMESTEPS).view(-1, 1)
    gain = (1 - sigma) * DEVIATION**2 / ((1 - sigma) ** 2 * DEVIATION**2 + sigma**2)
    clean = MEAN + gain * (noisy - (1 - sigma) * MEAN)
    return (noisy - clean) / sigma


class Line(nn.Module):
    """Tells the velocity of numbers, each by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, noisy: Tensor, timestep: Tensor, known: None) -> Tensor:
        sigma = (timestep / TIMESTEPS).view(-1, 1)
        seen = torch.stack([noisy, 2 * sigma.expand_as(noisy) - 1], dim=-1)
        clean = self.layers(seen)[..., 0]
        return (noisy - clean) / sigma


def test_a_student_moves_to_its_teachers_distribution(tmp_path):
    torch.manual_seed(0)
    networks = nn.ModuleDict({"student": Line(), "critic": Line()})
    matching = Matching(
        networks["student"], networks["critic"], lambda known: lambda x, t: exact_velocity(x, t), FOUR, SCHEDULE
    )

    def made() -> Tensor:
        noise = torch.randn(64, NUMBERS, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return FOUR.sample(lambda x, t: networks["student"](x, t, None), noise)

    def draw(random: torch.Generator) -> tuple[Tensor, bool, int]:
        seed = int(torch.randint(2**31, (), generator=random))
        return torch.randn(16, NUMBERS, generator=random), bool(torch.rand((), generator=random) < 0.5), seed

    def loss_of(drawn: tuple[Tensor, bool, int]) -> dict[str, Tensor]:
        noise, learns, seed = drawn
        return matching.losses(None, noise, learns, torch.Generator().manual_seed(seed))

    before = made()
    training = TrainingConfig(1e6, 4e-3, max_steps=1000, average=0.98, warmup_steps=20, log_every=300, final_rate=0.3)
    train(networks, draw, loss_of, training, tmp_path, CPU)
    after = made()
    assert abs(after.mean() - MEAN) < 0.25 * abs(before.mean() - MEAN)
    assert 0.5 * DEVIATION < after.std() < 1.5 * DEVIATION  # neither one number for all nor the noise itself


def test_a_student_that_does_not_learn_gets_no_gradient():
    torch.manual_seed(0)
    student, critic = Line(), Line()
    matching = Matching(student, critic, lambda known: lambda x, t: exact_velocity(x, t), FOUR, SCHEDULE)
    for learns in (False, True):
        found = matching.losses(None, torch.randn(8, NUMBERS), learns, torch.Generator().manual_seed(0))
        found["loss"].backward()
        assert all((parameter.grad is not None) == learns for parameter in student.parameters())
        assert all(parameter.grad is not None for parameter in critic.parameters())


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Samples:
    folder = tmp_path_factory.mktemp("clips")
    world = SyntheticWorld.sample(3)
    clip = world.render(world.walk(2 * CHUNK_FRAMES + 1, 3, size=(HEIGHT, WIDTH)))
    write_clip(folder / "world", clip, source="test", licence="CC0-1.0")
    generator, clips = tiny_preset().build(CPU), find_clips(folder)
    return {
        "plain": prepare_samples(clips, generator, Objective(), folder / "plain"),
        "own": prepare_samples(clips, generator, Objective(), folder / "own", "own"),
    }


def recipe(steps: int, rank: int | None = None) -> DistilRecipe:
    training = TrainingConfig(1e6, 1e-3, max_steps=steps, warmup_steps=2, log_every=1, average=0.5, final_rate=1.0)
    return DistilRecipe(training, Objective(), SCHEDULE, FewStep(2), batch=1, student_every=2, rank=rank)


def weight(network: nn.Module, name: str) -> Tensor:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer.weight


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_denoiser_is_distilled_and_a_stopped_run_goes_on(samples, tmp_path):
    for name, stops in (("whole", (6,)), ("cut", (2, 6))):
        for steps in stops:
            generator = replace(tiny_preset().build(CPU), config=replace(tiny_preset().build(CPU).config, guidance=2.0))
            student = deepcopy(generator.denoiser)
            train_student(generator, student, samples, recipe(steps), tmp_path / name)
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "whole"))
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    changed = [not torch.equal(a, b) for a, b in zip(student.parameters(), generator.denoiser.parameters())]
    assert sum(changed) > len(changed) / 2


def test_a_change_of_low_rank_is_the_students_whole_difference(samples, tmp_path):
    generator = tiny_preset().build(CPU)
    student, merged = deepcopy(generator.denoiser), deepcopy(generator.denoiser)
    change = train_student(generator, student, samples, recipe(6, rank=2), tmp_path)
    merge_lora(merged, change.state_dict(), 1.0)
    changed = 0
    for name, layer in merged.named_modules():
        if isinstance(layer, nn.Linear):
            assert torch.allclose(layer.weight, weight(student, name), atol=1e-6), name
            changed += not torch.equal(layer.weight, weight(generator.denoiser, name))
    assert changed > 5


def test_an_adaptation_begins_as_nothing_and_has_a_rank():
    network = WorldTransformer(tiny_preset().build(CPU).denoiser.config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    change = adapt(network, 3)
    assert torch.equal(weight(network, "blocks.0.self_attn.q"), before["blocks.0.self_attn.q.weight"])
    assert change.state_dict()["blocks.0.self_attn.q.lora_A.weight"].shape[0] == 3
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        name for name, _ in network.named_parameters() if ".parts." in name
    }
    with pytest.raises(ValueError, match="rank"):
        adapt(network, 0)


def test_distillation_wants_samples(tmp_path):
    generator = tiny_preset().build(CPU)
    with pytest.raises(ValueError, match="prepare_samples"):
        train_student(generator, deepcopy(generator.denoiser), {}, recipe(1), tmp_path)


def test_distillation_keeps_its_weights_whole(samples, tmp_path):
    generator = tiny_preset().build(CPU)
    split = replace(recipe(1), training=replace(recipe(1).training, shard=2))
    with pytest.raises(ValueError, match="got shards of 2; give 1"):
        train_student(generator, deepcopy(generator.denoiser), samples, split, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["distil", "detail", "splats", "codec"])
def test_parts_that_cannot_be_split_say_so(part, tmp_path, capsys):
    call = ["train", part, "--data", str(tmp_path), "--shard", "2", "--work", str(tmp_path / "run")]
    assert main([*call, "-o", str(tmp_path / "weights")]) == 2
    said = capsys.readouterr().err
    assert f"weights of {part} are not split among processes, got --shard 2; it is for depth and the denoiser" in said
    assert not list(tmp_path.iterdir())


def test_recipes_distil_into_all_weights_or_a_change(tmp_path, monkeypatch):
    """The command's recipe, with tiny networks in nano's place."""
    monkeypatch.setattr(recipes, "nano_untrained", lambda placement: tiny_preset().build(CPU))
    world = SyntheticWorld.sample(3)
    clip = world.render(world.walk(2 * CHUNK_FRAMES + 1, 3, size=(HEIGHT, WIDTH)))
    write_clip(tmp_path / "clips/world", clip, source="test", licence="CC0-1.0")
    teacher, text = tiny_preset().build(CPU).denoiser, tiny_preset().build(CPU).text
    assert isinstance(text, nn.Module)
    export_weights(teacher, tmp_path / "teacher/denoiser.safetensors", {})
    export_weights(text, tmp_path / "teacher/text.safetensors", {})
    order = recipes.Order(
        (tmp_path / "clips",),
        1e6,
        tmp_path / "run",
        tmp_path / "full",
        training={"max_steps": 2},
        teacher=tmp_path / "teacher",
    )
    written = recipes.train_part("distil", order)
    assert [path.name for path in written] == ["denoiser.safetensors", "text.safetensors"]
    low = replace(order, work=tmp_path / "low", out=tmp_path / "low", rank=2)
    (change,) = recipes.train_part("distil", low)
    merge_lora(teacher, load_file(change), 1.0)
