"""Commands that know the past of a walk: undo, redo, branch, info."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from photowalk.cli.options import command


def add_commands(commands) -> None:
    parser = command(commands, "undo", undo, "drop the last chunks of the walk")
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument("count", metavar="COUNT", type=int, nargs="?", default=1)

    parser = command(commands, "redo", redo, "take back chunks that were undone, until a new one is made")
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument("count", metavar="COUNT", type=int, nargs="?", default=1)

    parser = command(commands, "branch", branch, "start a new world from a chunk of this one")
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--at", type=int, metavar="CHUNK", help="the last chunk to take along (default: all)")

    parser = command(commands, "info", info, "say what is in a world")
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verify", action="store_true", help="compare every file with its hash")


def undo(options: argparse.Namespace) -> None:
    from photowalk import World

    world = World.open(options.world).undo(options.count)
    print(f"{world.folder}: {world.manifest.frames} frames")


def redo(options: argparse.Namespace) -> None:
    from photowalk import World

    world = World.open(options.world).redo(options.count)
    print(f"{world.folder}: {world.manifest.frames} frames")


def branch(options: argparse.Namespace) -> None:
    from photowalk import World

    world = World.open(options.world).branch(options.new, options.at)
    print(f"{world.folder}: {world.manifest.frames} frames")


def info(options: argparse.Namespace) -> None:
    from photowalk import World

    world = World.open(options.world)
    if options.verify:
        world.verify()
    facts = world.info()
    print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else "\n".join(_described(facts)))


def _described(facts: dict) -> Iterator[str]:
    cameras, scale, (height, width) = facts["cameras"], facts["scale"], facts["size"]
    yield f"{facts['folder']}: {facts['frames']} frames ({facts['seconds']:.1f} s), {width}x{height}"
    yield f"  made from {facts['source']['photo']} with {facts['preset']}, seed {facts['seed']}"
    yield "  chunks:"
    for index, chunk in enumerate(facts["chunks"]):
        words = [f"{chunk['frames']} frames", f"seed {chunk['seed']}", chunk["path"] or "the photo"]
        prompt = f', "{chunk["prompt"]}"' if chunk["prompt"] else ""
        yield f"    {index}: {', '.join(words)}{prompt}"
        yield from (f"       {note}" for note in chunk["notes"])
    yield (
        f"  cameras: {cameras['fov_deg']:.0f} degrees wide, walked {cameras['walked']:.2f} m, "
        f"at most {cameras['farthest']:.2f} m and now {cameras['from_start']:.2f} m from the start"
    )
    yield f"  memory: {facts['memory']['frames']} frames with depth"
    if facts["depth_network"]:
        yield f"  depth: by {facts['depth_network']}"
    yield f"  scale: metres, the photo's median depth is {scale['reference_depth']:.2f}"
    yield f"  scene: {_scene(facts)}"
    if facts["interrupted"]:
        yield (
            f"  interrupted: {facts['interrupted']['to_go']} chunk(s) to go; continue with: photowalk extend "
            + (facts["folder"])
        )
    yield from (f"  licence of the {what}: {licence}" for what, licence in facts["licences"].items())


def _scene(facts: dict) -> str:
    made = facts["scene_frames"]
    if not made:
        return f"none; make it with: photowalk reconstruct {facts['folder']}"
    return f"made from {made} frames" + ("" if made == facts["frames"] else "; the walk has changed since")
