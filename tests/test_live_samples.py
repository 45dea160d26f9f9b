"""Samples made while training are those that are prepared beforehand; worlds without end are drawn on the way."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import rooms
import torch
from tiny import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_preset

from photowalk.data.clips import write_clip
from photowalk.diffusion.flow import TrainingSchedule
from photowalk.scene.images import read_png
from photowalk.train.denoiser import DenoiserRecipe, train_denoiser
from photowalk.train.live import FromClips, FromWorlds, Live, live_batch
from photowalk.train.objective import Objective
from photowalk.train.samples import build_samples
from photowalk.train.trainer import TrainingConfig
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")
SIZE = (HEIGHT, WIDTH)
TRAINING = TrainingConfig(1e6, 1e-3, max_steps=3, warmup_steps=1, log_every=1, final_rate=1.0, micro_batches=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "world", rooms.walk(2 * CHUNK_FRAMES + 1, SIZE), source="test", licence="CC0-1.0")
    return folder / "world"


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def live(clips: Path, objective: Objective) -> Live:
    return Live(FromClips((clips,), SIZE), objective, CHUNK_FRAMES)


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_a_live_sample_is_the_prepared_one_of_its_chunk(clips, own):
    objective = Objective(own_past=own)
    generator = tiny_preset().build(CPU)
    drawn = live(clips, objective).draw(random(4))
    assert drawn.kind == ("own" if own else "plain")
    chunks = (len(drawn.clip) - 1) // CHUNK_FRAMES
    assert len(drawn.clip) == 1 + chunks * CHUNK_FRAMES
    still = replace(objective, random_starts=False)
    *_, prepared = build_samples(drawn.clip, generator, still, drawn.kind, drawn.seed)
    batch = live_batch(drawn, generator, objective, TrainingSchedule())
    assert batch.prompts == [prepared.prompt]
    assert batch.tensors.keys() == prepared.tensors.keys()
    for name, value in prepared.tensors.items():
        torch.testing.assert_close(batch.tensors[name][0], value.float())


def test_a_live_sample_is_told_the_caption_of_its_chunk(clips):
    drawn = live(clips, Objective(own_past=1.0)).draw(random(4))
    captions = (1 + CHUNK_FRAMES) * ("a hall",) + CHUNK_FRAMES * ("its end",)
    drawn = replace(drawn, clip=replace(drawn.clip, captions=captions))
    told = [
        live_batch(each, tiny_preset().build(CPU), Objective(own_past=1.0), TrainingSchedule()).prompts
        for each in (replace(drawn, silent=False), replace(drawn, silent=True))
    ]
    assert told == [["its end"], [None]]


def test_a_walk_that_draws_its_past_has_one(clips):
    drawn = [live(clips, Objective(own_past=0.5, first=0.2)).draw(random(seed)) for seed in range(12)]
    lengths = {kind: {len(each.clip) for each in drawn if each.kind == kind} for kind in ("plain", "first", "own")}
    assert lengths["first"] == {1 + CHUNK_FRAMES}
    assert lengths["own"] == {1 + 2 * CHUNK_FRAMES}
    assert lengths["plain"] <= {1 + CHUNK_FRAMES, 1 + 2 * CHUNK_FRAMES}


def test_a_clip_that_is_too_short_is_named(clips):
    with pytest.raises(ValueError, match=r"world has 33 frames; a sample wants 97"):
        FromClips((clips,), SIZE)(random(), 48, 2)


def test_the_denoiser_learns_from_worlds_without_end(tmp_path):
    objective = Objective(own_past=0.0)
    training = replace(TRAINING, workers=1, max_steps=1, picture_every=1)
    recipe = DenoiserRecipe(training, objective, TrainingSchedule(), batch=1)
    source = Live(FromWorlds(SIZE), objective, CHUNK_FRAMES)
    train_denoiser(tiny_preset().build(CPU), source, recipe, tmp_path)
    found = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(found) == 1
    assert math.isfinite(found[0])
    assert read_png(tmp_path / "pictures" / "0000001.png").shape == (3, 3 * HEIGHT, 4 * WIDTH)  # warp, drawn, true


def test_a_stopped_live_run_goes_on_with_the_same_losses(clips, tmp_path):
    objective = Objective(own_past=0.0)
    for name, stops in (("whole", (3,)), ("cut", (1, 3))):
        for steps in stops:
            recipe = DenoiserRecipe(replace(TRAINING, max_steps=steps), objective, TrainingSchedule(), batch=1)
            train_denoiser(tiny_preset().build(CPU), live(clips, objective), recipe, tmp_path / name)
    whole, cut = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "cut"))
    assert [json.loads(line)["loss"] for line in cut] == [json.loads(line)["loss"] for line in whole]
