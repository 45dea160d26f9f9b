"""Does a robot stay on the floor of ten held-out worlds and drive 5 m, or to the end of the free floor?

python benchmarks/simulate.py [--worlds 10] [--folder WORLDS]

Synthetic worlds with exact depth; --folder takes world folders that `photowalk reconstruct` has finished instead, such
as walks that were generated from their first pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from photowalk.reconstruct.meshing import mesh_walk
from photowalk.scene.types import View
from photowalk.simulate import Report, simulate, simulate_world
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--cells", type=int, default=250_000)
    options = parser.parse_args()
    if options.folder is not None:
        made = {path.parent.name: path.parent for path in sorted(options.folder.glob("*/world.json"))}
        reports = {name: simulate_world(folder) for name, folder in made.items()}
    else:
        reports = {}
        for seed in HELD_OUT_SEEDS[: options.worlds]:
            reports[f"{seed}"] = report = synthetic(seed, options.frames, options.cells)
            print(f"{seed}: {'; '.join(report.lines())}", flush=True)
    of_seen = [report for report in reports.values() if report.seen_route > 0.2]
    seen, route = sum(report.seen_route for report in of_seen), sum(report.route for report in reports.values())
    print(f"{seen:.1f} m of {route:.1f} m of all routes are on floor that was seen")
    print(
        f"{sum(report.passed_seen for report in of_seen)} of {len(of_seen)} worlds with seen floor passed on it alone"
    )
    print(f"{sum(report.passed for report in reports.values())} of {len(reports)} worlds passed")


def synthetic(seed: int, frames: int, cells: int) -> Report:
    """The report of a walk onward through a held-out world."""
    world = SyntheticWorld.sample(seed)
    cameras = world.walk(161, seed, size=(96, 168), style="onward")
    clip = world.render(cameras[:: max(1, 160 // (frames - 1))])
    assert clip.depth is not None
    views = [View(clip.video[i], clip.depth[i], clip.cameras[i], i) for i in range(len(clip))]
    meshes = mesh_walk(views, cells=cells, texture=64, faces=1000)
    return simulate(meshes.collision, meshes.ground, cameras)[0]


if __name__ == "__main__":
    main()
