"""Commands that make something of a walk: reconstruct, simulate, export."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from photowalk.cli.bars import note, progress_bars
from photowalk.cli.options import command

if TYPE_CHECKING:
    from photowalk import World


def add_commands(commands) -> None:
    parser = command(commands, "reconstruct", reconstruct, "make splats and meshes of the walk, in WORLD/scene")
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument(
        "--scale-to",
        metavar="TEXT",
        help="'camera height 1.6m', 'floor to ceiling 2.5m', 'door 2m from X,Y to X,Y' (pixels)",
    )

    parser.add_argument(
        "--splats", type=_splat_count, metavar="N", default=500_000, help="at most: 500k, 2M, all (default: 500k)"
    )
    parser.add_argument("--refine", type=_steps, metavar="STEPS", default=0, help="fit the splats to so many frames")
    parser.add_argument("--no-mesh", action="store_true", help="splats alone; meshes hold all frames with depth")
    parser.add_argument(
        "--down-ratio", type=int, choices=(1, 2), help="2: a splat for 2x2 pixels (default: 1; with --network: 2)"
    )
    parser.add_argument(
        "--network", metavar="NAME", nargs="?", const="da3", help="splats from a network of the store (default: da3)"
    )
    parser.add_argument("--legacy", action="store_true", help="use that network as the published programs do")
    parser.add_argument("--pixel-aligned", action="store_true", help="splats without the preset's network for them")

    parser = command(commands, "simulate", simulate, "let a robot drive along the walk in MuJoCo; video and report")
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument("--seconds", type=float, default=60, help="that it may take at most (default: 60)")

    parser = command(commands, "export", export, "write files for viewers, engines and simulators; see docs/export.md")
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument("files", metavar="FILE", nargs="+")


def reconstruct(options: argparse.Namespace) -> None:
    from photowalk import World

    with progress_bars() as on_step:
        world = World.open(options.world).reconstruct(
            on_step,
            scale_to=options.scale_to,
            splats=options.splats,
            refine_steps=options.refine,
            mesh=not options.no_mesh,
            down_ratio=options.down_ratio,
            pixel_aligned=options.pixel_aligned,
            network=options.network,
            legacy=options.legacy,
        )
    scene = world.folder / "scene"
    made = [scene / name for name in ("splats.ply", "mesh.glb", "collision.ply") if (scene / name).exists()]
    print(", ".join(str(file) for file in [*made, world.folder / "preview.png"]))


def simulate(options: argparse.Namespace) -> None:
    from photowalk import World
    from photowalk.simulate import simulate_world

    report = simulate_world(options.world, seconds=options.seconds)
    _tell_if_stale(World.open(options.world))
    print("\n".join(report.lines()))


def export(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk import World
    from photowalk.export.formats import format_of

    world = World.open(options.world)
    world.export(options.files)
    walks = [file for file in map(Path, options.files) if file.suffix.lower() == ".mp4"]
    if any(format_of(file).scene for file in map(Path, options.files) if file not in walks):
        _tell_if_stale(world)
    print(", ".join(options.files))


def _tell_if_stale(world: World) -> None:
    made, frames = world.manifest.scene_frames, world.manifest.frames
    if made != frames:
        note(
            f"the scene is of {made} frames, not of the walk as it is now, which has {frames}; make it anew with: "
            f"photowalk reconstruct {world.folder}"
        )


def _splat_count(text: str) -> int | None:
    """None for all."""
    match = re.fullmatch(r"(\d+)(k|M)?|all", text)
    if match is None or (match[1] and int(match[1]) == 0):
        raise argparse.ArgumentTypeError(f"splats are counted as 500k, 2M, 300000 or all, got {text!r}")
    return int(match[1]) * {"k": 1000, "M": 1_000_000, None: 1}[match[2]] if match[1] else None


def _steps(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"steps are a whole number from 0, got {text!r}")
    return int(text)
