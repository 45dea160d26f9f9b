"""The denoiser and the depth network learn from clip folders, at tiny size; a stopped run goes on."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CHUNK_FRAMES, HEIGHT, LAYOUT, WIDTH, tiny_preset

from photowalk.data.clips import find_clips, read_clip, write_clip
from photowalk.diffusion.flow import TrainingSchedule
from photowalk.memory.policies import GreedyCoverage
from photowalk.models.depth_network import DepthNetwork
from photowalk.scene.images import read_png
from photowalk.scene.types import Clip
from photowalk.synthetic import SyntheticWorld
from photowalk.train.denoiser import DenoiserRecipe, train_denoiser
from photowalk.train.depth import DepthRecipe, train_depth
from photowalk.train.films import condition, film_of
from photowalk.train.objective import PUBLISHED_TRAINABLE, Kind, Objective, corrupted, recalled_frames
from photowalk.train.prepared import place_of, read_prompt, read_tensors
from photowalk.train.samples import build_samples, draw_batch, prepare_samples, texts_of
from photowalk.train.trainer import TrainingConfig
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")
CONDITIONING = tiny_preset().build(CPU).config.conditioning
OURS, RELEASED = Objective(), Objective.as_released()


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
    return prepare_samples(find_clips(clips), generator, OURS, tmp_path_factory.mktemp("samples"))


def test_clips_of_one_name_have_samples_of_their_own(clips, samples, tmp_path):
    (one,) = find_clips(clips)
    other = tmp_path / "elsewhere" / one.name
    clip = read_clip(one)
    write_clip(other, replace(clip, video=1 - clip.video, prompt="inside out"), source="test", licence="CC0-1.0")
    both = prepare_samples([one, other], tiny_preset().build(CPU), OURS, tmp_path / "samples")
    assert len(set(both)) == 4
    assert [read_prompt(path) for path in both] == 2 * [clip.prompt] + 2 * ["inside out"]
    assert torch.equal(load_file(both[0])["clean"], load_file(samples[0])["clean"])  # wherever its samples lie
    assert not torch.equal(load_file(both[0])["clean"], load_file(both[2])["clean"])
    again = prepare_samples([other], tiny_preset().build(CPU), OURS, tmp_path / "samples")
    assert again == both[2:]  # those of the other clip are there, but nobody asked


def test_samples_are_found_from_within_their_clip_as_from_outside(tmp_path, monkeypatch):
    (tmp_path / "walk").mkdir()
    monkeypatch.chdir(tmp_path / "walk")
    assert place_of(Path(), tmp_path) == place_of(Path("..", "walk"), tmp_path) == place_of(Path.cwd(), tmp_path)


def test_a_damaged_sample_is_named_with_what_to_remove(samples, tmp_path):
    damaged = tmp_path / samples[0].name
    damaged.write_bytes(samples[0].read_bytes()[:100])
    with pytest.raises(ValueError, match=r"0_0000.safetensors cannot be read .*remove it and 0.done beside it"):
        read_tensors(damaged)


def recipe(steps: int, rate: float = 3e-3, objective: Objective = OURS) -> DenoiserRecipe:
    training = TrainingConfig(1e6, rate, max_steps=steps, warmup_steps=2, log_every=1, average=0.5, final_rate=1.0)
    return DenoiserRecipe(training, objective, TrainingSchedule(), batch=2)


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


def test_how_pictures_look_may_count_too(samples, tmp_path):
    lines = {}
    for look in (0.0, 0.5):
        train_denoiser(
            tiny_preset().build(CPU), samples, recipe(2, objective=replace(OURS, look=look)), tmp_path / str(look)
        )
        lines[look] = json.loads((tmp_path / str(look) / "log.jsonl").read_text().splitlines()[0])
    assert "look" not in lines[0.0]
    assert lines[0.5]["loss"] == pytest.approx(lines[0.0]["loss"] + 0.5 * lines[0.5]["look"], rel=1e-5)


def test_no_samples_no_training(tmp_path):
    with pytest.raises(ValueError, match="prepare_samples"):
        train_denoiser(tiny_preset().build(CPU), [], recipe(1), tmp_path)


def test_the_depth_network_learns_from_clips(clips, tmp_path):
    torch.manual_seed(0)
    training = TrainingConfig(
        1e6, 2e-3, max_steps=12, warmup_steps=2, log_every=1, picture_every=12, gentle=("encoder.",)
    )
    depth = DepthRecipe((clips,), training, sizes=((64, 96),), pixels=2 * 64 * 96)
    train_depth(DepthNetwork(DepthNetwork.Config(attention=1)), depth, tmp_path / "run", CPU)
    found = losses(tmp_path / "run")
    assert all(math.isfinite(loss) for loss in found)
    assert sum(found[-4:]) < sum(found[:4])
    assert read_png(tmp_path / "run/pictures/0000012.png").shape == (3, 3 * 64, 2 * 96)  # photo, guess, true


def test_depth_wants_clips(tmp_path):
    with pytest.raises(ValueError, match="clip folders"):
        train_depth(
            DepthNetwork(DepthNetwork.Config()), DepthRecipe((tmp_path,), TrainingConfig(1, 1e-3)), tmp_path, CPU
        )


def test_the_past_may_be_drawn_by_the_network_itself(clips, samples, tmp_path):
    generator = replace(tiny_preset().build(CPU), detail=None)  # which would keep what is drawn near the warp
    own = {}
    for level in (1e-4, 0.5):
        objective = replace(OURS, own_noise=level)
        (path,) = prepare_samples(find_clips(clips), generator, objective, tmp_path / str(level), "own")
        own[level] = load_file(path)
    plain = load_file(samples[1])  # of the second chunk; the first has no chunk before it

    def change(level: float, name: str) -> float:
        return float((own[level][name].float() - plain[name].float()).abs().mean())

    for level in own:
        assert torch.equal(own[level]["clean"], plain["clean"])  # what is to be drawn stays true
    for name in ("history", "warp", "latest"):
        assert change(0.5, name) > 1.1 * change(1e-4, name)  # hardly noised it is the codec's error alone


def test_the_past_of_every_clip_is_drawn_with_noise_of_its_own(clips, tmp_path):
    generator, clip = tiny_preset().build(CPU), read_clip(find_clips(clips)[0])
    one, other = (next(build_samples(clip, generator, OURS, "own", seed)).tensors for seed in (1, 2))
    assert not torch.equal(one["history"], other["history"])


def test_own_pasts_have_the_share_that_is_stated():
    def share(objective: Objective, kind: str) -> float:
        chances = (torch.arange(1000) + 0.5) / 1000
        return sum(objective.kind(step, float(c)) == kind for step in range(2) for c in chances) / 2000

    assert share(OURS, "own") == pytest.approx(OURS.own_past, abs=1e-3)
    assert share(RELEASED, "own") == pytest.approx(0.35, abs=1e-3)
    assert share(RELEASED, "first") == pytest.approx(0.15, abs=1e-3)


def test_memory_in_training_holds_what_a_walk_would():
    assert OURS.remembered("plain", 240, 81, 80, stride=4) == [*range(0, 81, 4)]
    assert all(frame >= 264 or frame <= 144 for frame in RELEASED.remembered("plain", 333, 161, 80, stride=8))
    assert 264 in RELEASED.remembered("plain", 333, 161, 80, stride=8)  # the future, as released
    assert RELEASED.remembered("first", 333, 1, 80, stride=8) == [0]


def test_every_chunk_is_told_the_caption_of_its_first_frame(clips):
    generator, clip = tiny_preset().build(CPU), read_clip(find_clips(clips)[0])
    captions = (1 + CHUNK_FRAMES) * ("a hall",) + CHUNK_FRAMES * ("its end",)
    clip = replace(clip, captions=captions)
    assert [sample.prompt for sample in build_samples(clip, generator, OURS, "plain", 0)] == ["a hall", "its end"]
    (own,) = build_samples(clip, generator, OURS, "own", 0)
    assert own.prompt == "its end"
    film = film_of(clip, generator)
    texts = [condition(film, first, [0], None, generator)[0].text for first in (1, 1 + CHUNK_FRAMES)]
    assert torch.equal(texts[0], generator.text.encode(["a hall"]))
    assert torch.equal(texts[1], generator.text.encode(["its end"]))


def test_clips_begin_at_random_frames_where_that_costs_no_past(tmp_path):
    generator = tiny_preset().build(CPU)
    world = SyntheticWorld.sample(3)
    clip = world.render(world.walk(3 * CHUNK_FRAMES + 1, 3, size=(HEIGHT, WIDTH)))

    def targets(objective: Objective, clip: Clip) -> set[float]:
        seeds = range(3)
        return {
            float(next(build_samples(clip, generator, objective, "plain", s)).tensors["clean"].sum()) for s in seeds
        }

    assert len(targets(OURS, clip)) == 3
    assert len(targets(replace(OURS, random_starts=False), clip)) == 1
    assert len(targets(OURS, clip[: 2 * CHUNK_FRAMES + 1])) == 1


def test_what_is_frozen_stays_and_the_rest_learns(samples, tmp_path):
    generator = tiny_preset().build(CPU)
    before = {name: value.clone() for name, value in generator.denoiser.state_dict().items()}
    objective = replace(OURS, trainable=PUBLISHED_TRAINABLE)
    train_denoiser(generator, samples, recipe(3, objective=objective), tmp_path)
    changed = {name for name, value in generator.denoiser.state_dict().items() if not torch.equal(value, before[name])}
    assert any(".self_attn." in name for name in changed)
    assert all(any(part in name for part in PUBLISHED_TRAINABLE) for name in changed)
    with pytest.raises(ValueError, match="nonsense"):
        replace(OURS, trainable=("nonsense",)).freeze(generator.denoiser)


def test_weights_in_bfloat16_stand_still_under_small_steps(samples, tmp_path):
    moved = {}
    for master in (True, False):
        generator = tiny_preset().build(CPU)
        name = "blocks.0.ffn.0.weight"
        before = generator.denoiser.state_dict()[name].clone()
        if not master:
            before = before.bfloat16()
        objective = replace(OURS, master_weights=master)
        train_denoiser(generator, samples, recipe(3, 3e-5, objective), tmp_path / str(master))
        moved[master] = float((generator.denoiser.state_dict()[name] != before).float().mean())
    assert moved[False] < 0.7 * moved[True]


def test_the_released_objective_trains_too(clips, tmp_path):
    generator = tiny_preset().build(CPU)
    order: tuple[Kind, ...] = ("plain", "first", "own")
    kinds = {kind: prepare_samples(find_clips(clips), generator, RELEASED, tmp_path / kind, kind) for kind in order}
    assert [len(paths) for paths in kinds.values()] == [2, 1, 1]
    train_denoiser(generator, kinds, recipe(4, objective=RELEASED), tmp_path / "run")
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "run"))


def test_correspondence_may_be_left_out_in_training_as_in_walks(samples):
    generator = tiny_preset().build(CPU)
    mute = replace(
        generator, config=replace(generator.config, conditioning=replace(CONDITIONING, correspondence=False))
    )
    batch = draw_batch({"plain": samples}, OURS, TrainingSchedule(), 1, torch.Generator().manual_seed(0))
    told, untold = (batch.conditioning(one, OURS).correspondence for one in (generator, mute))
    world = SyntheticWorld.sample(3)
    film = film_of(world.render(world.walk(CHUNK_FRAMES + 1, 3, size=(HEIGHT, WIDTH))), mute)
    built, _ = condition(film, 1, [0], GreedyCoverage(), mute)
    assert torch.equal(untold, built.correspondence)
    assert not torch.equal(told, untold)


def test_noise_levels_of_the_past_are_the_published_ones():
    """Numbers of the published training for the same chance."""
    level = RELEASED.own_level(torch.tensor([0.8109287023544312]), TrainingSchedule())
    assert level.tolist() == pytest.approx([0.27037617564201355], abs=1e-6)
    assert float(OURS.own_level(torch.zeros(1), TrainingSchedule())) <= 0.5 + 1e-3  # from pure noise, a half of it
    levels = RELEASED.recall_levels(torch.tensor([0.20494081139967302, 0.9839197895900581]))
    assert levels.tolist() == pytest.approx([0.00957879, 3.61402484], rel=1e-5)


def test_noise_of_recalled_latents_leaves_the_others():
    history = torch.zeros(1, 2, LAYOUT.history_frames, 4, 6)
    noise = torch.ones(1, 2, LAYOUT.space_frames, 4, 6)
    levels = torch.arange(1.0, LAYOUT.space_frames + 1)[None]
    noisy = corrupted(history, LAYOUT, noise, levels)
    frames = recalled_frames(LAYOUT)
    assert noisy[0, 0, frames, 0, 0].tolist() == levels[0].tolist()
    others = [i for i in range(LAYOUT.history_frames) if i not in frames]
    assert not noisy[:, :, others].any()


def test_dropped_prompts_are_what_guidance_leads_away_from():
    generator = tiny_preset().build(CPU)
    dropped, nothing = texts_of(generator, ["a room", None]), texts_of(generator, ["", ""])
    assert torch.equal(dropped[1], nothing[1])
    assert not torch.equal(dropped[0], nothing[0])
    negative = torch.full_like(nothing[:1], 3.0)
    assert torch.equal(texts_of(replace(generator, negative=negative), ["a room", None])[1:], negative)
