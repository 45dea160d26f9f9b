"""Commands about clip folders, which training reads: data prepare, shard, validate."""

from __future__ import annotations

import argparse

from photowalk.cli.options import command, size


def add_commands(commands) -> None:
    data = commands.add_parser("data", help="make clip folders of recordings; check them").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    parser = command(data, "prepare", prepare_data, "make clip folders of a recording, posed or not")
    parser.add_argument(
        "recording", metavar="FILE_OR_FOLDER", help="a video, pictures, COLMAP, transforms.json, ViPE or RGB-D folder"
    )
    parser.add_argument(
        "--fov", type=float, default=65.0, metavar="DEG", help="a guess of the width of footage's view (default: 65)"
    )
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where the clip folders go")
    parser.add_argument("--size", type=size, metavar="HxW", help="(default: nano's)")
    parser.add_argument(
        "--frames", type=_frames, metavar="FIRST:END[:STEP]", default=slice(None), help="(default: all)"
    )
    parser.add_argument("--clip-frames", type=int, metavar="COUNT", help="frames of a clip (default: all in one)")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the place is")
    parser.add_argument("--licence", default="not stated", metavar="TEXT", help="of the recording")

    parser = command(data, "shard", shard_data, "pack clip folders into few files, as WebDataset reads them")
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where the shards go")
    parser.add_argument("--megabytes", type=float, default=1000, metavar="N", help="of a shard (default: 1000)")

    parser = command(data, "validate", validate_data, "name every fault of the clip folders under a folder")
    parser.add_argument("folder", metavar="FOLDER")


def prepare_data(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.data.prepare import Cut, Finding, prepare
    from photowalk.presets.depth_anything import depth_estimator
    from photowalk.presets.nano import nano
    from photowalk.world.placement import choose_placement

    cut = Cut(options.size or (nano().height, nano().width), options.frames, options.clip_frames)
    finding = Finding(lambda: depth_estimator("nano", choose_placement("cpu")), options.fov)
    source, folder = Path(options.recording), Path(options.output)
    for clip in prepare(source, folder, cut, finding, prompt=options.prompt, licence=options.licence):
        print(clip)


def shard_data(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.data.clips import ClipError, find_clips
    from photowalk.data.shards import write_shards

    clips = find_clips(Path(options.folder))
    if not clips:
        raise ClipError(f"there are no clips under {options.folder}")
    for shard in write_shards(clips, Path(options.output), options.megabytes * 1e6):
        print(shard)


def validate_data(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.data.clips import check_folder

    print(f"{check_folder(Path(options.folder))} clips, no fault")


def _frames(text: str) -> slice:
    try:
        return slice(*(int(part) if part else None for part in text.split(":")))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"frames are FIRST:END or FIRST:END:STEP, got {text!r}") from None
