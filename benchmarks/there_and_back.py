"""Walk there and back through held-out synthetic worlds, with memory and with the memory slots emptied.

    python benchmarks/there_and_back.py [--worlds 10] [--out FOLDER]

For every frame of the way back, PSNR against the frame that the way out made at the same place (does the world stay
itself?) and against the world's true picture (is it right?). The floor beside them is warp-and-fill without a network.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from photowalk.evaluate.images import psnr
from photowalk.presets import load_preset
from photowalk.scene.videos import write_mp4
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="keep the walks here as videos, side by side with the truth")
    arguments = parser.parse_args()
    preset = load_preset("nano")
    with_memory = preset.build()
    without = replace(with_memory, config=replace(with_memory.config, recall=None))
    rows = []
    for seed in HELD_OUT_SEEDS[: arguments.worlds]:
        world = SyntheticWorld.sample(seed)
        cameras = world.walk(
            2 * preset.chunk_frames + 1, seed, style="there_and_back", size=(preset.height, preset.width)
        )
        truth = world.render(cameras)
        walks = [_walk(generator, truth, preset.chunk_frames) for generator in (with_memory, without)]
        rows.append([figure for walk in walks for figure in _revisit(walk, truth.video)])
        print(f"world {seed}: " + "  ".join(f"{figure:5.2f}" for figure in rows[-1]), flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            write_mp4(arguments.out / f"{seed}.mp4", torch.cat([truth.video, *walks], dim=-1), fps=16)
    mean = torch.tensor(rows).mean(0)
    print("PSNR in dB of revisited frames   | against the first visit | against the true world")
    print(f"with memory                      | {mean[0]:23.2f} | {mean[1]:22.2f}")
    print(f"memory slots emptied             | {mean[2]:23.2f} | {mean[3]:22.2f}")
    ahead, truer = mean[0] - mean[2], mean[1] - mean[3]
    print(f"memory is ahead by {ahead:.2f} dB against the first visit, {truer:.2f} dB against the true world")


def _walk(generator, truth, chunk_frames: int) -> torch.Tensor:
    state = generator.start(truth.video[0], camera=truth.cameras[0], depth=truth.depth[0], prompt=truth.prompt)
    for first in range(1, len(truth), chunk_frames):
        state = generator.extend(state, truth.cameras[first : first + chunk_frames], truth.prompt, seed=first)
    return state.video


def _revisit(walk: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Mean PSNR of the way back against the way out and against the truth; the turning point itself is left out."""
    turn = len(walk) // 2
    back, out, true = walk[turn + 1 :], walk[:turn].flip(0), truth[turn + 1 :]
    return float(psnr(back, out).mean()), float(psnr(back, true).mean())


if __name__ == "__main__":
    main()
