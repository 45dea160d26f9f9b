"""Render synthetic walks into clip folders: python -m photowalk.synthetic FOLDER --worlds 40

Folders that are complete are skipped, so the command may be stopped and called again.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from photowalk.data.clips import write_clip
from photowalk.scene.images import write_png
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld, training_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--frames", type=int, default=161)
    parser.add_argument("--every", type=int, default=1, help="keep every n-th frame: more places in less time")
    parser.add_argument("--size", default="256x448", help="height x width")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="the worlds kept for judging, never to be trained on")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of pictures and depth")
    arguments = parser.parse_args()
    height, width = (int(side) for side in arguments.size.split("x"))
    seeds = list(
        islice(HELD_OUT_SEEDS if arguments.held_out else training_seeds(arguments.first_seed), arguments.worlds)
    )
    make = partial(_make, arguments.folder, arguments.frames, arguments.every, (height, width))
    with ProcessPoolExecutor(arguments.processes) as pool:
        for done, folder in enumerate(pool.map(make, seeds), 1):
            print(f"{done}/{len(seeds)} {folder}", flush=True)
    if arguments.sheet:
        _write_sheet(arguments.sheet, seeds[:8], arguments.frames)


def _make(parent: Path, frames: int, every: int, size: tuple[int, int], seed: int) -> Path:
    torch.set_num_threads(1)  # the processes are the threads
    folder = parent / f"{seed:07d}"
    if not (folder / "clip.json").exists():
        world = SyntheticWorld.sample(seed)
        clip = world.render(world.walk(frames, seed, size=size)[::every])
        write_clip(folder, clip, source=f"photowalk.synthetic, seed {seed}", licence="CC0-1.0")
    return folder


def _write_sheet(path: Path, seeds: list[int], frames: int) -> None:
    """A row per world: three moments of its walk, each as picture and depth."""
    rows = []
    for seed in seeds:
        world = SyntheticWorld.sample(seed)
        clip = world.render(world.walk(frames, seed, size=(128, 224))[:: max(frames // 3, 1)][:3])
        assert clip.depth is not None
        near = 1 / (1 + clip.depth / 3)  # white is near, black is the sky
        near = near[:, None].expand(-1, 3, -1, -1)
        rows.append(torch.cat([*torch.stack([clip.video, near], dim=1).flatten(0, 1)], dim=-1))
    write_png(path, torch.cat(rows, dim=-2))


if __name__ == "__main__":
    main()
