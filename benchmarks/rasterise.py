"""Seconds to render 200,000 splats at 832x480, forward and backward, and how much faster than plain torch.

    python benchmarks/rasterise.py [--splats 200000] [--device cpu]

The torch comparison blends every Gaussian at every pixel in chunks, so it is timed on few splats and a small picture,
the same for both.
"""

from __future__ import annotations

import argparse
import time

import torch

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.rasterise import evaluate_harmonics
from photowalk.scene.render import footprints, render
from photowalk.scene.types import Splats


def random_splats(count: int, device: str) -> Splats:
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(count, 3, generator=generator) * torch.tensor([12.0, 7.0, 8.0]) + torch.tensor([-6.0, -3.5, 2.0])
    rotations = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    scales = 0.004 + 0.03 * torch.rand(count, 3, generator=generator)
    values = (means, scales, rotations, torch.rand(count, generator=generator), torch.randn(count, 1, 3))
    return Splats(*(value.to(device) for value in values))


def blend_everything(splats: Splats, camera: Cameras) -> torch.Tensor:
    """[H, W, 3] by definition: every Gaussian at every pixel."""
    seen = footprints(splats, camera)
    order = torch.argsort(seen.depths)
    y, x = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    dx = x.to(seen.depths)[..., None] - seen.centres[order, 0]
    dy = y.to(seen.depths)[..., None] - seen.centres[order, 1]
    a, b, c = seen.conics[order].unbind(-1)
    alpha = splats.opacities[order] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    light = torch.cumprod(1 - alpha, -1) / (1 - alpha)
    return (alpha * light) @ evaluate_harmonics(splats.colours, splats.means)[order]


def seconds(call, repeats: int = 3) -> float:
    call()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splats", type=int, default=200_000)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    splats = random_splats(options.splats, options.device)
    camera = Cameras.from_fov(torch.eye(4, device=options.device), 70.0, 480, 832)
    pairs = len(footprints(splats, camera).tiles.splats)
    forward = seconds(lambda: render(splats, camera))
    leaves = [value.requires_grad_() for value in (splats.means, splats.scales, splats.opacities, splats.colours)]

    def step() -> None:
        torch.autograd.grad(render(splats, camera).image.square().sum(), leaves)

    both = seconds(step)
    print(f"{options.splats:,} splats at 832x480, {pairs:,} (tile, splat) pairs, {torch.get_num_threads()} threads")
    print(f"  forward            {forward:8.3f} s")
    print(f"  forward + backward {both:8.3f} s")

    few, small = random_splats(2000, options.device), camera.resized(96, 160)
    ours, torchs = seconds(lambda: render(few, small)), seconds(lambda: blend_everything(few, small))
    print(f"2,000 splats at 160x96: ours {ours:.4f} s, torch {torchs:.4f} s, {torchs / ours:.0f} times faster")


if __name__ == "__main__":
    main()
