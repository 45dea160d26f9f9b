"""One pass of a middling denoiser at the published geometry, with savings and without, and the arithmetic of each.

    python benchmarks/denoiser_cpu.py [--width 512] [--depth 6] [--grid 56 96] [--repeats 2]

448x768 pixels, so latents of 56x96, in the published layout: 25 latent frames of history and 20 new ones. Weights and
inputs are random, in the format that generation takes on this processor. A pass without savings works out anew all that
it is told; with them that is prepared once in a chunk, here shared out among the 4 passes of the few-step preset.

First comes the arithmetic: additions and multiplications apart, in products of matrices only, counted by torch on
tensors without values. It is given for the published 14B at 480x832 too. Then, after a pass that does not count, passes
are timed in turn with and without savings: by the clock, and by the processor's own time (of all threads), which other
programs disturb less. The quickest of each kind counts. How much less it is with savings is printed last, beside what
the arithmetic lets expect.
"""

from __future__ import annotations

import photowalk  # noqa: F401 - before torch: it says how torch takes memory and how threads wait

# isort: split
import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from photowalk.models.conditioning import Conditioning
from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.models.world_transformer import WorldTransformer
from photowalk.presets.published import lyra2_14b_denoiser
from photowalk.world.placement import choose_placement

ROWS, COLUMNS = 448 // 8, 768 // 8
PUBLISHED_GRID = (480 // 8, 832 // 8)
UNSAVED = Savings.without(["correspondence_once", "texts_once", "new_tokens_only"])
FEW_STEPS, MANY_STEPS = 4, 70  # passes in a chunk: the few-step preset's, and 35 steps with guidance


@dataclass(frozen=True)
class Cost:
    """Operations or seconds."""

    once: float  # of preparing a chunk
    each: float  # of a pass

    def a_pass(self, passes: int) -> float:
        """With its share of the preparation, of so many passes."""
        return self.each + self.once / passes


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and count a pass of the denoiser with and without savings.")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--grid", type=int, nargs=2, default=(ROWS, COLUMNS), help="of latents (default: 56 96)")
    parser.add_argument("--repeats", type=int, default=2, help="passes timed of each kind; the quickest counts")
    options = parser.parse_args()
    config = replace(
        lyra2_14b_denoiser(),
        width=options.width,
        heads=options.width // 128,
        depth=options.depth,
        ffn=4 * options.width,
    )
    grid = (options.grid[0], options.grid[1])
    tell("arithmetic of the 14B at 480x832", *both(counted, lyra2_14b_denoiser(), PUBLISHED_GRID), unit=1e12)
    saved, unsaved = both(counted, config, grid)
    tell("arithmetic", saved, unsaved, unit=1e12)
    quicker = {}
    for clock, (quick, slow) in timed(config, grid, options.repeats).items():
        tell(clock, quick, slow, unit=1)
        quicker[clock] = f"{slow.a_pass(FEW_STEPS) / quick.a_pass(FEW_STEPS):.2f} times less {clock}"
    print(
        f"a pass, of {FEW_STEPS} in a chunk: {', '.join(quicker.values())} by the savings; by the arithmetic "
        f"{unsaved.a_pass(FEW_STEPS) / saved.a_pass(FEW_STEPS):.2f}"
    )


def both(
    measure: Callable[[WorldTransformer.Config, tuple[int, int], Savings], Cost],
    config: WorldTransformer.Config,
    grid: tuple[int, int],
) -> tuple[Cost, Cost]:
    return measure(config, grid, ALL_SAVINGS), measure(config, grid, UNSAVED)


def tell(what: str, saved: Cost, unsaved: Cost, unit: float) -> None:
    name = "s" if unit == 1 else "TFLOP"
    print(what)
    for kind, cost in (("with savings", saved), ("without", unsaved)):
        print(f"  {kind:14s} {cost.each / unit:10.3f} {name} a pass, {cost.once / unit:8.3f} {name} once in a chunk")
    for passes in (FEW_STEPS, MANY_STEPS):
        print(f"  {passes:3d} passes: {unsaved.a_pass(passes) / saved.a_pass(passes):.3f} times less", flush=True)


def counted(config: WorldTransformer.Config, grid: tuple[int, int], savings: Savings) -> Cost:
    with torch.device("meta"), torch.inference_mode():
        network, known = WorldTransformer(config), conditioning(config, *grid)
        noisy, timestep = torch.randn_like(known.warp), torch.tensor([700.0])
        with FlopCounterMode(display=False) as once:
            prepared = network.prepare(known, savings=savings)
        with FlopCounterMode(display=False) as each:
            network(noisy, timestep, prepared)
    return Cost(once.get_total_flops(), each.get_total_flops())


@torch.inference_mode()
def timed(config: WorldTransformer.Config, grid: tuple[int, int], repeats: int) -> dict[str, tuple[Cost, Cost]]:
    """By each of the clocks, with savings and without."""
    torch.manual_seed(0)
    network = WorldTransformer(config).eval()
    torch.nn.init.normal_(network.head.head.weight, std=0.02)  # it begins at zero
    network, known = network.to(choose_placement("cpu").dtype), conditioning(config, *grid)
    noisy, timestep = torch.randn_like(known.warp), torch.tensor([700.0])
    took: dict[tuple[str, Savings], list[Cost]] = {}
    velocities: dict[Savings, Tensor] = {}
    network(noisy, timestep, network.prepare(known))
    for savings in (ALL_SAVINGS, UNSAVED) * repeats:
        start = _now()
        prepared = network.prepare(known, savings=savings)
        between = _now()
        velocities[savings] = network(noisy, timestep, prepared)
        end = _now()
        for clock in start:
            cost = Cost(between[clock] - start[clock], end[clock] - between[clock])
            took.setdefault((clock, savings), []).append(cost)
            kind = "with savings" if savings == ALL_SAVINGS else "without savings"
            print(f"  {kind}: prepared in {cost.once:.1f} s of {clock}, a pass of {cost.each:.1f} s", flush=True)
    ours, same = velocities.values()
    print(f"  largest difference {float((ours - same).abs().max()):.1e} of velocities to {float(same.abs().max()):.1f}")
    return {clock: (_least(took[clock, ALL_SAVINGS]), _least(took[clock, UNSAVED])) for clock in _now()}


def _now() -> dict[str, float]:
    return {"time": time.perf_counter(), "processor time": time.process_time()}


def _least(costs: Sequence[Cost]) -> Cost:
    return Cost(min(cost.once for cost in costs), min(cost.each for cost in costs))


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
