"""Commands that make walks: generate, zoom, extend."""

from __future__ import annotations

import argparse

from photowalk.cli.bars import note, progress_bars
from photowalk.cli.options import add_placement, command, placement, size

DEFAULT_PATH = "walk"  # an oval that comes back to where it began, 161 frames at nano's chunk
_PATH_HELP = "a preset, a file, or a sentence such as 'forward 2, left 60deg, back to start'"


def add_commands(commands) -> None:
    _add_generate(command(commands, "generate", generate, "make a world of a photo and walk in it"))
    _add_zoom(command(commands, "zoom", zoom, "walk into a photo and back out of it, as one video"))
    _add_extend(command(commands, "extend", extend, "walk on, or finish a walk that was interrupted"))


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("-o", "--output", metavar="WORLD", required=True, help="the folder to make")
    parser.add_argument("--path", default=DEFAULT_PATH, help=f"{_PATH_HELP} (default: {DEFAULT_PATH})")
    _add_start(parser)
    parser.add_argument(
        "--depth-model", metavar="NAME", help="nano, da3, or a depth model of transformers by name or folder"
    )
    parser.add_argument("--fov", type=float, metavar="DEG", help="the photo's horizontal field of view in degrees")
    parser.add_argument("--views", metavar="FILE", help="a transforms.json of more pictures of the place")
    parser.add_argument(
        "--legacy",
        action="store_true",
        help="paths and photo as the published programs take them: --path 'horizontal_zoom right 0.5 241', where a "
        "strength has a point and a whole number counts frames",
    )


def _add_zoom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="the folder to make, with both worlds")
    _add_start(parser)
    parser.add_argument("--ground", action="store_true", help="along the ground that the photo shows")


def _add_extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("world", metavar="WORLD")
    parser.add_argument("--path", help=f"{_PATH_HELP}; without it an interrupted walk is continued")
    parser.add_argument("--prompt", metavar="TEXT", help="what is there (default: the last prompt)")
    parser.add_argument("--seed", type=int, help="(default: the world's)")
    _add_wording(parser)
    add_placement(parser)


def _add_start(parser: argparse.ArgumentParser) -> None:
    """What a world begins with beside its photo."""
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the place is")
    parser.add_argument("--preset", default="nano", metavar="NAME", help="the networks to use (default: nano)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=size, metavar="HxW", help="of the frames (default: the preset's)")
    parser.add_argument("--depth", metavar="FILE", help="the photo's depth in metres: .npy, .npz, 16-bit .png")
    _add_wording(parser)
    add_placement(parser)


def _add_wording(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--captions", metavar="FILE", help="prompts by frame of the walk: .json of {frame: text}")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what to be guided away from (default: the preset's)")
    parser.add_argument(
        "--captioner", metavar="NAME", help="writes the prompt out: 'template', or a Qwen3-VL model by name or folder"
    )


def generate(options: argparse.Namespace) -> None:
    from photowalk import World

    with progress_bars() as on_step:
        world = World.create(
            options.photo,
            options.output,
            path=options.path,
            prompt=options.prompt,
            **_wording(options),
            preset=options.preset,
            seed=options.seed,
            size=options.size,
            depth=options.depth,
            depth_model=options.depth_model,
            fov_deg=options.fov,
            legacy=options.legacy,
            views=options.views,
            placement=placement(options),
            on_step=on_step,
            on_note=note,
        )
    print(f"{world.folder}: {world.manifest.frames} frames, {world.folder / 'walk.mp4'}")


def zoom(options: argparse.Namespace) -> None:
    from photowalk.world.zoom import zoom as make

    chosen = {
        "prompt": options.prompt,
        **_wording(options),
        "placement": placement(options),
        "preset": options.preset,
        "seed": options.seed,
        "size": options.size,
        "depth": options.depth,
        "on_note": note,
    }
    with progress_bars() as on_step:
        video = make(options.photo, options.output, ground=options.ground, on_step=on_step, **chosen)
    print(video)


def extend(options: argparse.Namespace) -> None:
    from photowalk import World

    with progress_bars() as on_step:
        world = World.open(options.world, placement=placement(options)).extend(
            options.path, options.prompt, options.seed, **_wording(options), on_step=on_step, on_note=note
        )
    print(f"{world.folder}: {world.manifest.frames} frames, {world.folder / 'walk.mp4'}")


def _wording(options: argparse.Namespace) -> dict:
    from photowalk.perception.captions import load_captioner
    from photowalk.world.placement import choose_placement
    from photowalk.world.wording import read_captions

    captions = read_captions(options.captions) if options.captions else {}
    captioner = load_captioner(options.captioner, choose_placement().device) if options.captioner else None
    return {"captions": captions, "negative_prompt": options.negative_prompt, "captioner": captioner}
