"""The command line: parse, build, call. What it promises is a contract that scripts rely on; see docs/world_folder.md.

Exit codes: 0 done, 1 a fault of the program, 2 a wrong input (one clear message), 130 cancelled.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from photowalk.checkpoints.catalogue import Licence
    from photowalk.world.placement import Placement
    from photowalk.world.progress import OnStep, Progress

DEFAULT_PATH = "walk"  # an oval that comes back to where it began, 161 frames at nano's chunk


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except KeyboardInterrupt:
        print("\ncancelled; what was finished is kept, what was in work is not", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if options.debug:
            raise
        print(f"photowalk: {error}", file=sys.stderr)
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
    placement = _placement(options)
    denoiser = load_preset(name).build(placement, size=size).denoiser
    with placement.autocast():
        options.team.help(denoiser, placement.device)


def generate(options: argparse.Namespace) -> None:
    from photowalk import World

    with _progress() as on_step:
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
            placement=_placement(options),
            on_step=on_step,
            on_note=_note,
        )
    print(f"{world.folder}: {world.manifest.frames} frames, {world.folder / 'walk.mp4'}")


def zoom(options: argparse.Namespace) -> None:
    from photowalk.world.zoom import zoom as make

    chosen = {
        "prompt": options.prompt,
        **_wording(options),
        "placement": _placement(options),
        "preset": options.preset,
        "seed": options.seed,
        "size": options.size,
        "depth": options.depth,
        "on_note": _note,
    }
    with _progress() as on_step:
        video = make(options.photo, options.output, ground=options.ground, on_step=on_step, **chosen)
    print(video)


def extend(options: argparse.Namespace) -> None:
    from photowalk import World

    with _progress() as on_step:
        world = World.open(options.world, placement=_placement(options)).extend(
            options.path, options.prompt, options.seed, **_wording(options), on_step=on_step, on_note=_note
        )
    print(f"{world.folder}: {world.manifest.frames} frames, {world.folder / 'walk.mp4'}")


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


def reconstruct(options: argparse.Namespace) -> None:
    from photowalk import World

    with _progress() as on_step:
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
    from photowalk.simulate import simulate_world

    report = simulate_world(options.world, seconds=options.seconds)
    print("\n".join(report.lines()))


def export(options: argparse.Namespace) -> None:
    from photowalk import World

    World.open(options.world).export(options.files)
    print(", ".join(options.files))


def studio(options: argparse.Namespace) -> None:
    from functools import partial
    from pathlib import Path

    from photowalk.studio.serve import Address, serve

    serve(
        Path(options.folder).expanduser(),
        preset=options.preset,
        place=partial(_placement, options),
        captioner=options.captioner,
        address=Address(options.host, options.port),
        users=options.user,
        opened=options.open,
        open_browser=not options.no_browser,
    )


def list_weights(options: argparse.Namespace) -> None:
    from photowalk.checkpoints.listing import listed

    print("\n".join(listed()))


def show_weights(options: argparse.Namespace) -> None:
    from photowalk.checkpoints.listing import shown

    print("\n".join(shown(options.name, verify=options.verify)))


def get_weights(options: argparse.Namespace) -> None:
    from photowalk.checkpoints.download import get

    with _bytes_bar() as on_step:
        get(options.name, _accepts(options), on_step=on_step, on_note=_note)


def import_weights(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.checkpoints.importing import import_weights

    files = [Path(file).expanduser() for file in options.files]
    with _bytes_bar() as on_step:
        import_weights(files, _accepts(options), options.name, on_step=on_step, on_note=_note)


def _accepts(options: argparse.Namespace) -> Callable[[Licence], bool]:
    """Says a licence and asks for a yes, unless the command line said it."""

    def accepts(licence: Licence) -> bool:
        _note(f"{licence.name}: {licence.terms}\n  {licence.address}")
        if options.accept_licence or not sys.stdin.isatty():
            return options.accept_licence
        return input("Do you accept it? Type yes: ").strip().lower() == "yes"

    return accepts


_TRAINING = (  # options of `train` that are fields of TrainingConfig
    "max_steps",
    "micro_batches",
    "shard",
    "context",
    "checkpoint_activations",
    "on_fault",
    "picture_every",
    "tensorboard",
    "seed",
)


def train(options: argparse.Namespace) -> None:
    from dataclasses import replace
    from pathlib import Path

    from photowalk.train.parallel import joined
    from photowalk.train.recipes import Order, train_part

    if options.dry_run:
        return plan_training(options)
    work = Path(options.work or Path("runs") / options.part)
    skies, features = (Path(given) if given else None for given in (options.skies, options.features))
    data, output = tuple(Path(folder) for folder in options.data), Path(options.output or work / "weights")
    start = Path(options.start) if options.start else None
    minutes = math.inf if options.minutes is None and options.max_steps else options.minutes or 60.0
    training = {name: getattr(options, name) for name in _TRAINING if getattr(options, name) is not None}
    generated = tuple(Path(folder) for folder in options.generated)
    order = Order(data, minutes, work, output, skies, features, start, options.batch_factor)
    order = replace(order, workers=options.workers, training=training, generated=generated, rank=options.rank)
    order = replace(order, teacher=Path(options.teacher) if options.teacher else None)
    order = replace(order, retakes=options.retakes, own_past=options.own_past)
    order = replace(order, preset=options.preset, synthetic=options.seed is not None)
    with joined() as here:
        weights = train_part(options.part, order)
        if here.first:
            print(", ".join(map(str, weights)))


def plan_training(options: argparse.Namespace) -> None:
    from photowalk.train.full_size import plan

    if options.part != "denoiser":
        raise ValueError(f"--dry-run works out what training the denoiser takes, not {options.part}")
    recompute = bool(options.checkpoint_activations) or options.preset != "nano"
    budget = plan(options.preset, options.gpus, options.shard, batch=options.batch_factor, recompute=recompute)
    print(f"{options.preset} on {options.gpus} GPUs: {budget.table()}")


def prepare_data(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.data.prepare import Cut, Finding, prepare
    from photowalk.presets import depth_estimator, nano
    from photowalk.world.placement import choose_placement

    cut = Cut(options.size or (nano().height, nano().width), options.frames, options.clip_frames)
    finding = Finding(lambda: depth_estimator("nano", choose_placement("cpu")), options.fov)
    source, folder = Path(options.recording), Path(options.output)
    for clip in prepare(source, folder, cut, finding, prompt=options.prompt, licence=options.licence):
        print(clip)


def shard_data(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.data.clips import find_clips
    from photowalk.data.shards import write_shards

    for shard in write_shards(find_clips(Path(options.folder)), Path(options.output), options.megabytes * 1e6):
        print(shard)


def validate_data(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.data.clips import check_folder

    print(f"{check_folder(Path(options.folder))} clips, no fault")


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


@contextmanager
def _bytes_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each file that is written; nothing where no one watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:24}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        yield show


def _wording(options: argparse.Namespace) -> dict:
    from photowalk.perception.captions import load_captioner
    from photowalk.world.placement import choose_placement
    from photowalk.world.wording import read_captions

    captions = read_captions(options.captions) if options.captions else {}
    captioner = load_captioner(options.captioner, choose_placement().device) if options.captioner else None
    return {"captions": captions, "negative_prompt": options.negative_prompt, "captioner": captioner}


def _placement(options: argparse.Namespace) -> Placement:
    from dataclasses import replace

    from photowalk.models.savings import Savings
    from photowalk.world.placement import choose_placement

    placement = choose_placement(vram_gb=options.vram, weights=options.weights)
    return replace(
        placement,
        savings=Savings.without(options.without_saving),
        branches_together=options.branches_together,
        compiled=options.compile,
        team=options.team,
    )


def _note(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def _progress() -> Iterator[OnStep]:
    """A bar for each chunk that names the stage it is in; nothing where no one watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[int, TaskID] = {}

        def show(step: Progress) -> None:
            if step.chunk not in tasks:
                for finished in tasks.values():
                    bars.stop_task(finished)
                tasks[step.chunk] = bars.add_task("")
            name = f"chunk {step.chunk}/{step.chunks} {step.stage}" if step.chunks > 1 else step.stage
            bars.update(tasks[step.chunk], description=name, completed=step.done, total=step.total)

        yield show


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"a size is HEIGHTxWIDTH in pixels, such as 256x448, got '{text}'")
    return int(height), int(width)


def _frames(text: str) -> slice:
    try:
        return slice(*(int(part) if part else None for part in text.split(":")))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"frames are FIRST:END or FIRST:END:STEP, got {text!r}") from None


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="photowalk", description="Turn one photograph into a 3D world to walk through."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    path_help = "a preset, a file, or a sentence such as 'forward 2, left 60deg, back to start'"

    command = _command(commands, "generate", generate, "make a world of a photo and walk in it")
    command.add_argument("photo", metavar="PHOTO")
    command.add_argument("-o", "--output", metavar="WORLD", required=True, help="the folder to make")
    command.add_argument("--path", default=DEFAULT_PATH, help=f"{path_help} (default: {DEFAULT_PATH})")
    command.add_argument("--prompt", default="", metavar="TEXT", help="what the place is")
    _add_placement(command)
    _add_wording(command)
    command.add_argument("--preset", default="nano", metavar="NAME", help="the networks to use (default: nano)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--size", type=_size, metavar="HxW", help="of the frames (default: the preset's)")
    command.add_argument("--depth", metavar="FILE", help="the photo's depth in metres: .npy, .npz, 16-bit .png")
    command.add_argument(
        "--depth-model", metavar="NAME", help="nano, da3, or a depth model of transformers by name or folder"
    )
    command.add_argument("--fov", type=float, metavar="DEG", help="the photo's horizontal field of view in degrees")
    command.add_argument("--views", metavar="FILE", help="a transforms.json of more pictures of the place")
    command.add_argument("--legacy", action="store_true", help="paths and photo as the published programs take them")

    command = _command(commands, "zoom", zoom, "walk into a photo and back out of it, as one video")
    command.add_argument("photo", metavar="PHOTO")
    command.add_argument("-o", "--output", metavar="FOLDER", required=True, help="the folder to make, with both worlds")
    command.add_argument("--prompt", default="", metavar="TEXT", help="what the place is")
    _add_placement(command)
    _add_wording(command)
    command.add_argument("--preset", default="nano", metavar="NAME", help="the networks to use (default: nano)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--size", type=_size, metavar="HxW", help="of the frames (default: the preset's)")
    command.add_argument("--depth", metavar="FILE", help="the photo's depth in metres: .npy, .npz, 16-bit .png")
    command.add_argument("--ground", action="store_true", help="along the ground that the photo shows")

    command = _command(commands, "extend", extend, "walk on, or finish a walk that was interrupted")
    command.add_argument("world", metavar="WORLD")
    command.add_argument("--path", help=f"{path_help}; without it an interrupted walk is continued")
    command.add_argument("--prompt", metavar="TEXT", help="what is there (default: the last prompt)")
    _add_placement(command)
    _add_wording(command)
    command.add_argument("--seed", type=int, help="(default: the world's)")

    command = _command(commands, "undo", undo, "drop the last chunks of the walk")
    command.add_argument("world", metavar="WORLD")
    command.add_argument("count", metavar="COUNT", type=int, nargs="?", default=1)

    command = _command(commands, "redo", redo, "take back chunks that were undone, until a new one is made")
    command.add_argument("world", metavar="WORLD")
    command.add_argument("count", metavar="COUNT", type=int, nargs="?", default=1)

    command = _command(commands, "branch", branch, "start a new world from a chunk of this one")
    command.add_argument("world", metavar="WORLD")
    command.add_argument("new", metavar="NEW")
    command.add_argument("--at", type=int, metavar="CHUNK", help="the last chunk to take along (default: all)")

    command = _command(commands, "info", info, "say what is in a world")
    command.add_argument("world", metavar="WORLD")
    command.add_argument("--json", action="store_true")
    command.add_argument("--verify", action="store_true", help="compare every file with its hash")

    command = _command(commands, "reconstruct", reconstruct, "make splats and meshes of the walk, in WORLD/scene")
    command.add_argument("world", metavar="WORLD")
    command.add_argument(
        "--scale-to",
        metavar="TEXT",
        help="'camera height 1.6m', 'floor to ceiling 2.5m', 'door 2m from X,Y to X,Y' (pixels)",
    )

    command.add_argument(
        "--splats", type=_splat_count, metavar="N", default=500_000, help="at most: 500k, 2M, all (default: 500k)"
    )
    command.add_argument("--refine", type=_steps, metavar="STEPS", default=0, help="fit the splats to so many frames")
    command.add_argument("--no-mesh", action="store_true", help="splats alone; meshes hold all frames with depth")
    command.add_argument(
        "--down-ratio", type=int, choices=(1, 2), help="2: a splat for 2x2 pixels (default: 1; with --network: 2)"
    )
    command.add_argument(
        "--network", metavar="NAME", nargs="?", const="da3", help="splats from a network of the store (default: da3)"
    )
    command.add_argument("--legacy", action="store_true", help="use that network as the published programs do")
    command.add_argument("--pixel-aligned", action="store_true", help="splats without the preset's network for them")

    command = _command(commands, "simulate", simulate, "let a robot drive along the walk in MuJoCo; video and report")
    command.add_argument("world", metavar="WORLD")
    command.add_argument("--seconds", type=float, default=60, help="that it may take at most (default: 60)")

    command = _command(
        commands, "export", export, "write files for viewers, engines and simulators; see docs/export.md"
    )
    command.add_argument("world", metavar="WORLD")
    command.add_argument("files", metavar="FILE", nargs="+")

    data = commands.add_parser("data", help="make clip folders of recordings; check them").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    command = _command(data, "prepare", prepare_data, "make clip folders of a recording, posed or not")
    command.add_argument(
        "recording", metavar="FILE_OR_FOLDER", help="a video, pictures, COLMAP, transforms.json, ViPE or RGB-D folder"
    )
    command.add_argument(
        "--fov", type=float, default=65.0, metavar="DEG", help="a guess of the width of footage's view (default: 65)"
    )
    command.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where the clip folders go")
    command.add_argument("--size", type=_size, metavar="HxW", help="(default: nano's)")
    command.add_argument(
        "--frames", type=_frames, metavar="FIRST:END[:STEP]", default=slice(None), help="(default: all)"
    )
    command.add_argument("--clip-frames", type=int, metavar="COUNT", help="frames of a clip (default: all in one)")
    command.add_argument("--prompt", default="", metavar="TEXT", help="what the place is")
    command.add_argument("--licence", default="not stated", metavar="TEXT", help="of the recording")

    command = _command(data, "shard", shard_data, "pack clip folders into few files, as WebDataset reads them")
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where the shards go")
    command.add_argument("--megabytes", type=float, default=1000, metavar="N", help="of a shard (default: 1000)")

    command = _command(data, "validate", validate_data, "name every fault of the clip folders under a folder")
    command.add_argument("folder", metavar="FOLDER")

    command = _command(commands, "studio", studio, "walk, plan, generate and export in the browser")
    command.add_argument("open", metavar="PHOTO|WORLD", nargs="?", help="what to show first")
    command.add_argument("--folder", default="~/photowalk", help="where worlds are kept (default: ~/photowalk)")
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    command.add_argument("--port", type=int, default=8008, help="(default: 8008; 0: a free one)")
    command.add_argument("--user", action="append", default=[], metavar="NAME", help="who may use it, each by a token")
    command.add_argument("--preset", default="nano", metavar="NAME", help="for new worlds (default: nano)")
    _add_placement(command)
    command.add_argument(
        "--captioner", default="template", metavar="NAME", help="expands prompts: 'template', or a Qwen3-VL model"
    )
    command.add_argument("--no-browser", action="store_true", help="only print the link")

    weights = commands.add_parser("weights", help="published weights: list, get, import, show")
    of_weights = weights.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(of_weights, "list", list_weights, "say which weights are published and which are here")
    command = _command(of_weights, "get", get_weights, "download weights, or all that a preset wants, and convert them")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--accept-licence", action="store_true", help="without being asked")
    command = _command(of_weights, "import", import_weights, "convert downloaded checkpoints")
    command.add_argument("files", metavar="FILE_OR_FOLDER", nargs="+")
    command.add_argument("--as", dest="name", metavar="NAME", help="what they are, where that is not plain")
    command.add_argument("--accept-licence", action="store_true", help="without being asked")
    command = _command(
        of_weights, "show", show_weights, "say what weights are, their licence, what they were made from"
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--verify", action="store_true", help="compare every file with its hash")

    command = _command(commands, "train", train, "train a part of nano: codec, depth, detail, denoiser, distil, splats")
    command.add_argument("part", metavar="PART")
    command.add_argument("--data", metavar="FOLDER", nargs="+", default=[], help="clip folders; codec: pictures")
    command.add_argument(
        "--minutes", type=float, help="of work; pauses do not count (default: 60, or what --steps take)"
    )
    command.add_argument("--steps", type=int, dest="max_steps", metavar="N", help="stop after so many")
    command.add_argument("--work", metavar="FOLDER", help="samples, checkpoints, log (default: runs/PART)")
    command.add_argument("--features", metavar="FILE", help="SqueezeNet features that the depth networks start from")
    command.add_argument(
        "--generated", metavar="FOLDER", nargs="+", default=[], help="worlds whose walks splats are trained on as well"
    )
    command.add_argument(  # torchrun takes --start for an option of its own
        "--start", "--start-from", metavar="FOLDER", help="weights of an earlier training to start from"
    )
    command.add_argument("--teacher", metavar="FOLDER", help="weights to distil; --start says where the student begins")
    command.add_argument(
        "--retakes", type=int, default=0, metavar="N", help="denoiser, distil: N other recordings of every clip"
    )
    command.add_argument(
        "--own-past",
        type=float,
        metavar="SHARE",
        help="denoiser: of samples behind a past that it drew itself (default: half, with --start)",
    )
    command.add_argument("--rank", type=int, metavar="N", help="distil into a change of low rank, a LoRA")
    command.add_argument(
        "--batch-factor", type=int, default=1, metavar="N", help="take N of the recipe's batches a step"
    )
    command.add_argument("--workers", type=int, default=0, metavar="N", help="processes that draw batches ahead")
    command.add_argument("--skies", metavar="FOLDER", help="pictures of nothing but sky, for the depth networks")
    command.add_argument("-o", "--output", metavar="FOLDER", help="where the weights go (default: WORK/weights)")
    command.add_argument("--preset", default="nano", metavar="NAME", help="of the denoiser: nano or lyra2-14b")
    command.add_argument(
        "--synthetic",
        type=int,
        dest="seed",
        metavar="SEED",
        help="depth, denoiser: worlds without end instead of --data",
    )
    command.add_argument("--dry-run", action="store_true", help="only print what each GPU needs, of wan2.1-1.3b too")
    command.add_argument("--gpus", type=int, default=1, metavar="N", help="for --dry-run (default: 1)")
    _add_scale(command)
    return parser


def _add_scale(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--micro-batches", type=int, metavar="N", help="whose gradients make a step (default: one for each process)"
    )
    command.add_argument("--shard", type=int, metavar="N", help="split the weights among N processes (default: 1)")
    command.add_argument(
        "--context", type=int, metavar="N", help="denoiser: share the tokens of a batch among N processes (default: 1)"
    )
    command.add_argument(
        "--checkpoint-activations", action="store_const", const=True, help="compute blocks twice, for less memory"
    )
    command.add_argument(
        "--on-fault", choices=("stop", "skip"), help="at a clip or sample that cannot be read (default: stop)"
    )
    command.add_argument("--picture-every", type=int, metavar="N", help="steps (default: 500)")
    command.add_argument("--tensorboard", action="store_const", const=True, help="also log for TensorBoard")


def _add_placement(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--vram",
        type=float,
        metavar="GB",
        help="GPU memory that large presets may use, such as 24 (default: what is free)",
    )
    command.add_argument(
        "--weights",
        choices=("bfloat16", "int8", "float8"),
        help="how large presets keep most weights (default: exact, unless too little memory is there)",
    )
    command.add_argument("--compile", action="store_true", help="the denoiser, by torch.compile: for long walks")
    command.add_argument(
        "--branches-together", action="store_true", help="with and without the prompt as one batch, if memory allows"
    )
    command.add_argument(
        "--without-saving",
        action="append",
        default=[],
        metavar="NAME",
        help="the same numbers with more work, to compare; see docs/speed.md",
    )
    command.set_defaults(team=None)


def _add_wording(command: argparse.ArgumentParser) -> None:
    command.add_argument("--captions", metavar="FILE", help="prompts by frame of the walk: .json of {frame: text}")
    command.add_argument(
        "--negative-prompt", metavar="TEXT", help="what to be guided away from (default: the preset's)"
    )
    command.add_argument(
        "--captioner", metavar="NAME", help="writes the prompt out: 'template', or a Qwen3-VL model by name or folder"
    )


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("--debug", action="store_true", help="show where an error comes from")
    command.set_defaults(run=run)
    return command
