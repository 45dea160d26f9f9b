"""Several processes that denoise together give what one gives, however many they are.

Processes speak gloo on the CPU; torchrun's variables are set by hand, or by torchrun itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from tiny import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_preset

from photowalk import World
from photowalk.diffusion.guidance import guided
from photowalk.geometry.paths import forward
from photowalk.models.savings import Savings
from photowalk.models.world_transformer import WorldTransformer
from photowalk.parallel.team import joined
from photowalk.parallel.tokens import TokensAmong
from photowalk.world.generator import Generator
from photowalk.world.placement import Placement

ALONE = Placement(torch.device("cpu"), torch.float32, "a test")
TOLERANCE = 2e-5  # attention adds up in another order


def build(placement: Placement) -> Generator:
    """Two branches of guidance, and a denoiser of two blocks that does not begin at zero, as an untrained one would."""
    generator = tiny_preset().build(placement)
    torch.manual_seed(1)
    denoiser = WorldTransformer(replace(generator.denoiser.config, depth=2)).eval()
    torch.nn.init.normal_(denoiser.head.head.weight, std=0.05)
    return replace(generator, denoiser=denoiser, config=replace(generator.config, guidance=3.0))


def photo() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    return torch.stack([rows, columns, (9 * rows * columns).sin() / 2 + 0.5])


def walk(generator: Generator, together: bool, savings: Savings) -> dict[str, torch.Tensor]:
    """Velocities of two chunks' conditionings, and the frames of a walk."""
    depth = torch.linspace(3, 2, HEIGHT)[:, None].expand(HEIGHT, WIDTH).contiguous()
    state = generator.start(photo(), depth=depth, focal_px=80.0)
    cameras = forward(state.cameras[-1], CHUNK_FRAMES + 1, distance=0.3)[1:]
    conditioning, _ = generator.condition(state, cameras, "a hall", lambda progress: None)
    negative = replace(conditioning, text=-conditioning.text)
    team = generator.placement.team
    found = {}
    with torch.inference_mode():
        for name, known in {
            "first": conditioning,
            "moved": replace(conditioning, rays=conditioning.rays.flip(1)),
        }.items():
            denoiser: Any = generator.denoiser if team is None else team.shared(generator.denoiser)
            velocity = guided(
                denoiser,
                known,
                replace(negative, rays=known.rays),
                3.0,
                together=together,
                prepare=lambda known, like=None, by=denoiser: by.prepare(known, like, savings=savings),
            )
            noise = torch.randn(known.warp.shape, generator=torch.Generator().manual_seed(2))
            found[name] = velocity(noise, torch.tensor([700.0]))
    found["walk"] = generator.extend(state, cameras, "a hall", seed=3).video
    return found


def one_of(rank: int, processes: int, port: int, file: Path, together: bool, savings: Savings) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with joined() as team:
        generator = build(replace(ALONE, team=team, branches_together=together, savings=savings))
        if team.leads:
            torch.save(walk(generator, together, savings), file)
        else:
            team.help(generator.denoiser, generator.placement.device)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def alone():
    return walk(build(ALONE), False, Savings())


@pytest.mark.parametrize(
    ("processes", "together", "savings"),
    [(2, False, Savings()), (3, True, Savings.without(["correspondence_once", "texts_once"]))],
)
def test_processes_give_what_one_gives(processes, together, savings, alone, tmp_path):
    file = tmp_path / "found.pt"
    mp.spawn(one_of, (processes, free_port(), file, together, savings), nprocs=processes)
    found = torch.load(file)
    for name in ("first", "moved"):
        torch.testing.assert_close(found[name], alone[name], atol=TOLERANCE, rtol=TOLERANCE)
    difference = (found["walk"] - alone["walk"]).abs()
    assert difference.max() < 1.5 / 255  # a frame is rounded to 8 bits
    assert difference.mean() < 1e-5
    assert (alone["walk"][-1] - alone["walk"][0]).abs().mean() > 0.01


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 21])
def test_tokens_are_shared_out_evenly(processes, count):
    slices = [TokensAmong(rank, processes).mine(count) for rank in range(processes)]
    assert [index for part in slices for index in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes) - min(sizes) <= 1


def test_torchrun_walks_with_all_processes_and_only_the_first_writes(tmp_path):
    Image.fromarray((photo() * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "photowalk"]
    call += ["generate", "photo.png", "-o", "world", "--size", "64x96", "--path", "forward 0.2", "--seed", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(call, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip().splitlines() == ["world: 81 frames, world/walk.mp4"]
    world = World.open(tmp_path / "world")
    world.verify()
    assert world.manifest.frames == 81
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "world"]
