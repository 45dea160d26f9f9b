"""One pass of a middling denoiser at the published geometry, with savings and without, and the arithmetic of each.

    python benchmarks/denoiser_cpu.py [--width 512] [--depth 6] [--grid 56 96]

448x768 pixels, so latents of 56x96, in the published layout: 25 latent frames of history and 20 new ones. Weights and
inputs are random, in the format that generation takes on this processor. Counted are the products of matrices,
additions and multiplications apart, by torch's own counter. A pass without savings works out anew all that it is told;
with them that is prepared once in a chunk, here shared out among the 4 passes of the few-step preset, and in the count
also among the 70 of 35 steps with guidance.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from photowalk.models.conditioning import Conditioning
from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.models.world_transformer import WorldTransformer
from photowalk.presets import lyra2_14b_denoiser
from photowalk.world.placement import choose_placement

ROWS, COLUMNS = 448 // 8, 768 // 8
UNSAVED = Savings.without(["correspondence_once", "texts_once", "new_tokens_only"])
FEW_STEPS, MANY_STEPS = 4, 70
Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and count a pass of the denoiser with and without savings.")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--grid", type=int, nargs=2, default=(ROWS, COLUMNS), help="of latents (default: 56 96)")
    options = parser.parse_args()
    torch.manual_seed(0)
    config = replace(
        lyra2_14b_denoiser(),
        width=options.width,
        heads=options.width // 128,
        depth=options.depth,
        ffn=4 * options.width,
    )
    network = WorldTransformer(config).eval()
    torch.nn.init.normal_(network.head.head.weight, std=0.02)  # it begins at zero
    compare(network.to(choose_placement("cpu").dtype), conditioning(config, *options.grid))


@torch.inference_mode()
def compare(network: WorldTransformer, known: Conditioning) -> None:
    noisy, timestep = torch.randn_like(known.warp), torch.tensor([700.0])

    def passed(savings: Savings) -> tuple[Work, Work, Tensor]:
        preparing, prepared = worked(lambda: network.prepare(known, savings=savings))
        passing, velocity = worked(lambda: network(noisy, timestep, prepared))
        return preparing, passing, velocity

    once, saved, velocity = passed(ALL_SAVINGS)
    opening, unsaved, same = passed(UNSAVED)
    print(f"tokens              {network.config.layout.tokens(*(side // 2 for side in noisy.shape[-2:]))}")
    error, largest = (velocity - same).abs().max(), same.abs().max()
    print(f"largest difference  {float(error):.1e} of velocities up to {float(largest):.1f}")
    for name, work in {
        "prepared once": once,
        "a pass with savings": saved,
        "packed once, without savings": opening,
        "a pass without savings": unsaved,
    }.items():
        print(f"{name:30s} {work[0]:7.1f} s {work[1] / 1e12:8.3f} TFLOP")
    for passes in (MANY_STEPS, FEW_STEPS):
        spent, less = (unsaved[1] + opening[1] / passes), (saved[1] + once[1] / passes)
        print(f"arithmetic, {passes} passes a chunk  {spent / less:.2f} times less: the ratio to expect")
    spent, less = unsaved[0] + opening[0] / FEW_STEPS, saved[0] + once[0] / FEW_STEPS
    print(f"time, {FEW_STEPS} passes a chunk        {spent / less:.2f} times less")


Work = tuple[float, int]  # seconds, operations


def worked(run: Callable[[], Result]) -> tuple[Work, Result]:
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_work}  # torch counts the GPU's
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        began = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - began
    return (seconds, counter.get_total_flops()), result


def attention_work(queries: torch.Size, keys: torch.Size, *_: Any, **__: Any) -> int:
    """Of two products with [B, heads, L_queries, L_keys]."""
    return 4 * math.prod(queries) * keys[-2]


def conditioning(config: WorldTransformer.Config, rows: int, columns: int) -> Conditioning:
    layout, block, grid = config.layout, config.condition_side**2, (rows, columns)
    return Conditioning(
        history=torch.randn(1, config.channels, layout.history_frames, *grid),
        warp=torch.randn(1, config.channels, layout.new_frames, *grid),
        known=torch.ones(1, 4, layout.new_frames, *grid),
        rays=torch.randn(1, 6 * block, layout.frames, *grid),
        correspondence=torch.rand(1, layout.space_frames * 4 * block, layout.new_frames, *grid) * 2 - 1,
        text=torch.randn(1, config.text_length, config.text_dim),
        image=torch.randn(1, 257, config.image_dim),
    )


if __name__ == "__main__":
    main()
