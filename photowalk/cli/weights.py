"""Commands about published weights: list, get, import, show."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from photowalk.cli.bars import byte_bars, note
from photowalk.cli.options import command

if TYPE_CHECKING:
    from photowalk.checkpoints.catalogue import Licence


def add_commands(commands) -> None:
    weights = commands.add_parser("weights", help="published weights: list, get, import, show")
    of_weights = weights.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command(of_weights, "list", list_weights, "say which weights are published and which are here")
    parser = command(of_weights, "get", get_weights, "download weights, or all that a preset wants, and convert them")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--accept-licence", action="store_true", help="without being asked")
    parser = command(of_weights, "import", import_weights, "convert downloaded checkpoints")
    parser.add_argument("files", metavar="FILE_OR_FOLDER", nargs="+")
    parser.add_argument("--as", dest="name", metavar="NAME", help="what they are, where that is not plain")
    parser.add_argument("--accept-licence", action="store_true", help="without being asked")
    parser = command(of_weights, "show", show_weights, "say what weights are, their licence, what they were made from")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--verify", action="store_true", help="compare every file with its hash")


def list_weights(options: argparse.Namespace) -> None:
    from photowalk.checkpoints.listing import listed

    print("\n".join(listed()))


def show_weights(options: argparse.Namespace) -> None:
    from photowalk.checkpoints.listing import shown

    print("\n".join(shown(options.name, verify=options.verify)))


def get_weights(options: argparse.Namespace) -> None:
    from photowalk.checkpoints.download import get

    with byte_bars() as on_step:
        get(options.name, _accepts(options), on_step=on_step, on_note=note)


def import_weights(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.checkpoints.importing import import_weights

    files = [Path(file).expanduser() for file in options.files]
    with byte_bars() as on_step:
        import_weights(files, _accepts(options), options.name, on_step=on_step, on_note=note)


def _accepts(options: argparse.Namespace) -> Callable[[Licence], bool]:
    """Says a licence and asks for a yes, unless the command line said it."""

    def accepts(licence: Licence) -> bool:
        note(f"{licence.name}: {licence.terms}\n  {licence.address}")
        if options.accept_licence or not sys.stdin.isatty():
            return options.accept_licence
        return input("Do you accept it? Type yes: ").strip().lower() == "yes"

    return accepts
