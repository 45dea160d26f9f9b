"""The command that opens the studio."""

from __future__ import annotations

import argparse

from photowalk.cli.options import add_placement, command, placement


def add_commands(commands) -> None:
    parser = command(commands, "studio", studio, "walk, plan, generate and export in the browser")
    parser.add_argument("open", metavar="PHOTO|WORLD", nargs="?", help="what to show first")
    parser.add_argument("--folder", default="~/photowalk", help="where worlds are kept (default: ~/photowalk)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8008, help="(default: 8008; 0: a free one)")
    parser.add_argument("--user", action="append", default=[], metavar="NAME", help="who may use it, each by a token")
    parser.add_argument("--preset", default="nano", metavar="NAME", help="for new worlds (default: nano)")
    add_placement(parser)
    parser.add_argument(
        "--captioner", default="template", metavar="NAME", help="expands prompts: 'template', or a Qwen3-VL model"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the link")


def studio(options: argparse.Namespace) -> None:
    from functools import partial
    from pathlib import Path

    from photowalk.studio.serve import Address, serve

    serve(
        Path(options.folder).expanduser(),
        preset=options.preset,
        place=partial(placement, options),
        captioner=options.captioner,
        address=Address(options.host, options.port),
        users=options.user,
        opened=options.open,
        open_browser=not options.no_browser,
    )
