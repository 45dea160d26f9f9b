"""How long a world of two million splats takes to export, how much memory that wants, and how large the files are.

    python benchmarks/export_sizes.py [SPLATS] [--degree 0] [--formats .ply .spz]

Splats lie on the walls of a long street, coloured by a texture, so that they pack as a world's do and not as noise.
Every format is written by a process of its own, whose memory and seconds (imports included) are its alone. Fails when
one takes more than a minute or 4 GB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from photowalk.export.contents import Contents
from photowalk.export.formats import FORMATS, Format
from photowalk.geometry.cameras import Cameras
from photowalk.scene.ground import level
from photowalk.scene.types import Mesh, Splats

SECONDS, GIGABYTES = 60.0, 4.0
LENGTH, WIDTH, HEIGHT = 60.0, 8.0, 6.0  # metres of the street


def street(count: int, degree: int) -> Splats:
    """Flat splats on both walls and the floor."""
    random = torch.Generator().manual_seed(0)
    along, across = LENGTH * torch.rand(count, generator=random), torch.rand(count, generator=random)
    side = torch.randint(3, (count,), generator=random)
    x = torch.where(side == 2, WIDTH * (across - 0.5), (side - 0.5) * WIDTH)
    y = torch.where(side == 2, torch.full_like(across, 1.6), 1.6 - HEIGHT * across)
    means = torch.stack([x, y, along], dim=1) + 0.003 * torch.randn(count, 3, generator=random)
    bricks = ((4 * along).floor() + (8 * across).floor()) % 2
    rgb = torch.stack([0.4 + 0.3 * bricks, 0.4 + 0.1 * bricks, 0.35 + 0 * bricks], dim=1)
    rgb = rgb + 0.03 * torch.randn(count, 3, generator=random)
    colours = 0.02 * torch.randn(count, (degree + 1) ** 2, 3, generator=random)
    colours[:, 0] = (rgb - 0.5) / 0.28209479177387814
    half = 0.5**0.5
    facing = torch.tensor([[half, 0, half, 0], [half, 0, -half, 0], [half, half, 0, 0]])[side]
    size = 0.5 * (LENGTH * (2 * HEIGHT + WIDTH) / count) ** 0.5
    scales = size * torch.tensor([1.0, 1.0, 0.1]) * (1 + 0.2 * torch.rand(count, 3, generator=random))
    rotations = torch.nn.functional.normalize(facing + 0.05 * torch.randn(count, 4, generator=random), dim=1)
    return Splats(means, scales, rotations, torch.full((count,), 0.98), colours)


def corridor(cells: int = 400) -> Mesh:
    """The street's floor as a grid of 2 cells^2 triangles."""
    x, z = torch.meshgrid(
        torch.linspace(-WIDTH / 2, WIDTH / 2, cells + 1), torch.linspace(0, LENGTH, cells + 1), indexing="ij"
    )
    vertices = torch.stack([x, torch.full_like(x, 1.6), z], dim=-1).view(-1, 3)
    corner = (torch.arange(cells)[:, None] * (cells + 1) + torch.arange(cells)).view(-1)
    a, b, c, d = corner, corner + 1, corner + cells + 1, corner + cells + 2
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([b, d, c], 1)])
    return Mesh(vertices, faces, torch.full_like(vertices, 0.5), torch.zeros(len(faces), dtype=torch.bool))


def world(count: int, degree: int) -> Contents:
    poses = torch.eye(4).repeat(480, 1, 1)
    poses[:, 2, 3] = -torch.linspace(0, LENGTH - 5, 480)
    cameras = Cameras.from_fov(poses, 70.0, 256, 384)
    return Contents("street", cameras, level(cameras[0]), street(count, degree), corridor(), corridor(100))


def measure(known: Format, file: Path, count: int, degree: int, answer) -> None:
    """Send seconds, gigabytes at most, and bytes."""
    torch.set_num_threads(2)
    contents = world(count, degree)
    start = time.perf_counter()
    known.write(file, contents)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    size = sum(part.stat().st_size for part in ([file] if file.is_file() else file.iterdir()))
    answer.send((seconds, peak, size))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("splats", nargs="?", type=int, default=2_000_000)
    parser.add_argument("--degree", type=int, default=0, help="of the harmonics")
    endings = [known.ending for known in FORMATS]
    parser.add_argument("--formats", nargs="+", choices=endings, default=endings, metavar="ENDING", help="only these")
    options = parser.parse_args()
    spawn, sizes, within = multiprocessing.get_context("spawn"), {}, True
    print(f"{options.splats} splats with harmonics of degree {options.degree}")
    print(f"{'format':12} {'seconds':>8} {'GB':>6} {'MB of file':>11} {'bytes a splat':>14}")
    with tempfile.TemporaryDirectory() as folder:
        for known in (known for known in FORMATS if known.ending in options.formats):
            ours, theirs = spawn.Pipe(duplex=False)
            file = Path(folder) / f"street{known.ending}"
            process = spawn.Process(target=measure, args=(known, file, options.splats, options.degree, theirs))
            process.start()
            theirs.close()
            seconds, peak, size = ours.recv()
            process.join()
            sizes[known.ending] = size
            within &= seconds <= SECONDS and peak <= GIGABYTES
            each = size / options.splats
            print(f"{known.ending:12} {seconds:8.1f} {peak:6.2f} {size / 1e6:11.1f} {each:14.2f}", flush=True)
    if {".spz", ".ply"} <= sizes.keys():
        print(f".spz is {sizes['.spz'] / sizes['.ply']:.3f} of .ply")
    print(f"all within {SECONDS:.0f} s and {GIGABYTES:.0f} GB: {within}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
