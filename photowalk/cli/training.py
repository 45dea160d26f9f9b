"""The command that trains."""

from __future__ import annotations

import argparse
import math

from photowalk.cli.options import command

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


def add_commands(commands) -> None:
    parser = command(commands, "train", train, "train a part of nano: codec, depth, detail, denoiser, distil, splats")
    parser.add_argument("part", metavar="PART")
    parser.add_argument("--data", metavar="FOLDER", nargs="+", default=[], help="clip folders; codec: pictures")
    parser.add_argument(
        "--minutes", type=float, help="of work; pauses do not count (default: 60, or what --steps take)"
    )
    parser.add_argument("--steps", type=int, dest="max_steps", metavar="N", help="stop after so many")
    parser.add_argument("--work", metavar="FOLDER", help="samples, checkpoints, log (default: runs/PART)")
    parser.add_argument("--features", metavar="FILE", help="SqueezeNet features that the depth networks start from")
    parser.add_argument(
        "--generated", metavar="FOLDER", nargs="+", default=[], help="worlds whose walks splats are trained on as well"
    )
    parser.add_argument(  # torchrun takes --start for an option of its own
        "--start", "--start-from", metavar="FOLDER", help="weights of an earlier training to start from"
    )
    parser.add_argument("--teacher", metavar="FOLDER", help="weights to distil; --start says where the student begins")
    parser.add_argument(
        "--retakes", type=int, default=0, metavar="N", help="denoiser, distil: N other recordings of every clip"
    )
    parser.add_argument(
        "--own-past",
        type=float,
        metavar="SHARE",
        help="denoiser: of samples behind a past that it drew itself (default: half, with --start)",
    )
    parser.add_argument("--rank", type=int, metavar="N", help="distil into a change of low rank, a LoRA")
    parser.add_argument(
        "--batch-factor", type=int, default=1, metavar="N", help="take N of the recipe's batches a step"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that draw batches ahead")
    parser.add_argument("--skies", metavar="FOLDER", help="pictures of nothing but sky, for the depth networks")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="where the weights go (default: WORK/weights)")
    parser.add_argument("--preset", default="nano", metavar="NAME", help="of the denoiser: nano or lyra2-14b")
    parser.add_argument(
        "--synthetic",
        type=int,
        dest="seed",
        metavar="SEED",
        help="depth, denoiser: worlds without end instead of --data",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what each GPU needs, of wan2.1-1.3b too")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="for --dry-run (default: 1)")
    _add_scale(parser)


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--micro-batches", type=int, metavar="N", help="whose gradients make a step (default: one for each process)"
    )
    parser.add_argument("--shard", type=int, metavar="N", help="split the weights among N processes (default: 1)")
    parser.add_argument(
        "--context", type=int, metavar="N", help="denoiser: share the tokens of a batch among N processes (default: 1)"
    )
    parser.add_argument(
        "--checkpoint-activations", action="store_const", const=True, help="compute blocks twice, for less memory"
    )
    parser.add_argument(
        "--on-fault", choices=("stop", "skip"), help="at a clip or sample that cannot be read (default: stop)"
    )
    parser.add_argument("--picture-every", type=int, metavar="N", help="steps (default: 500)")
    parser.add_argument("--tensorboard", action="store_const", const=True, help="also log for TensorBoard")


def train(options: argparse.Namespace) -> None:
    from pathlib import Path

    from photowalk.train.parallel import joined
    from photowalk.train.recipes import Order, train_part

    if options.dry_run:
        return plan_training(options)
    work = Path(options.work or Path("runs") / options.part)
    skies, features, start, teacher = (
        Path(given) if given else None for given in (options.skies, options.features, options.start, options.teacher)
    )
    order = Order(
        data=tuple(map(Path, options.data)),
        minutes=math.inf if options.minutes is None and options.max_steps else options.minutes or 60.0,
        work=work,
        out=Path(options.output or work / "weights"),
        skies=skies,
        features=features,
        start=start,
        batch_factor=options.batch_factor,
        workers=options.workers,
        training={name: getattr(options, name) for name in _TRAINING if getattr(options, name) is not None},
        generated=tuple(map(Path, options.generated)),
        rank=options.rank,
        teacher=teacher,
        retakes=options.retakes,
        own_past=options.own_past,
        preset=options.preset,
        synthetic=options.seed is not None,
    )
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
