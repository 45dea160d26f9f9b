"""What several commands have: how they are added, sizes, and where the networks are computed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from photowalk.world.placement import Placement


def command(commands, name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    parser.set_defaults(run=run)
    return parser


def size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"a size is HEIGHTxWIDTH in pixels, such as 256x448, got '{text}'")
    return int(height), int(width)


def add_placement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vram",
        type=float,
        metavar="GB",
        help="GPU memory that large presets may use, such as 24 (default: what is free)",
    )
    parser.add_argument(
        "--weights",
        choices=("bfloat16", "int8", "float8", "float8-matmul"),
        help="how large presets keep most weights; with the last, multiply too (default: exact, if memory allows)",
    )
    parser.add_argument("--compile", action="store_true", help="the denoiser, by torch.compile: for long walks")
    parser.add_argument(
        "--branches-together", action="store_true", help="with and without the prompt as one batch, if memory allows"
    )
    parser.add_argument(
        "--without-saving",
        action="append",
        default=[],
        metavar="NAME",
        help="the same numbers with more work, to compare; see docs/speed.md",
    )
    parser.set_defaults(team=None)


def placement(options: argparse.Namespace) -> Placement:
    from dataclasses import replace

    from photowalk.models.savings import Savings
    from photowalk.world.placement import choose_placement

    chosen = choose_placement(vram_gb=options.vram, weights=options.weights)
    return replace(
        chosen,
        savings=Savings.without(options.without_saving),
        branches_together=options.branches_together,
        compiled=options.compile,
        team=options.team,
    )
