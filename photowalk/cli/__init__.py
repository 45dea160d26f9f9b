"""The command line: parse, build, call. What it promises is a contract that scripts rely on; see docs/world_folder.md.

Exit codes: 0 done, 1 a fault of the program, 2 a wrong input (one clear message), 130 cancelled.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from photowalk.cli import finishing, history, recordings, studio, training, walking, weights
from photowalk.cli.options import placement


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        _run(options)
    except KeyboardInterrupt:
        print("\ncancelled; what was finished is kept, what was in work is not", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if options.debug:
            raise
        print(f"photowalk: {_in_words(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        if options.debug:
            raise
        print(
            f"photowalk: a fault of the program: {type(error).__name__}: {error}\n"
            f"run the same command with --debug to see where, and please report it",
            file=sys.stderr,
        )
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="photowalk", description="Turn one photograph into a 3D world to walk through.")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for topic in (walking, history, finishing, recordings, studio, weights, training):
        topic.add_commands(commands)
    return made


def _in_words(error: ValueError | OSError) -> str:
    from photowalk.scene.images import NO_ROOM

    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = f" for {error.filename}" if error.filename else ""
        return f"no space is left{where} ({error.strerror}); make room, then run the same command again"
    return str(error)


def _run(options: argparse.Namespace) -> None:
    """Of the processes that torchrun starts for a walk the first does what was asked, the others help it denoise."""
    if "team" not in options or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return options.run(options)
    from photowalk.parallel.team import joined

    with joined() as options.team:
        if options.team.leads:
            options.run(options)
        else:
            _help(options)


def _help(options: argparse.Namespace) -> None:
    from photowalk import World, load_preset

    if "preset" in options:
        name, size = options.preset, options.size
    else:
        manifest = World.open(options.world).manifest
        name, size = manifest.preset, (manifest.height, manifest.width)
    here = placement(options)
    denoiser = load_preset(name).build(here, size=size).denoiser
    with here.autocast():
        options.team.help(denoiser, here.device)
