"""Seconds and memory that the geometry of one chunk takes on a CPU, at the published size and at nano's.

    python benchmarks/conditioning_cpu.py [FRAMES]

A camera walks through a room; FRAMES (300) frames with noisy depth are remembered. Measured are recall, then all warps,
correspondence and rays of one chunk of 80 frames, and last nano's composite. Compiling kernels is not counted. Limits
are for seconds of two free cores; processor seconds are printed beside them, for machines that others use too. Exits
with 1 if a limit is missed.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.splatting import reliable_depth
from photowalk.memory.correspondence import correspondence_features
from photowalk.memory.policies import GreedyCoverage
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.scene.types import View
from photowalk.scene.warping import composite, ray_features, warp

HEIGHT, WIDTH = 480, 832
NANO_HEIGHT, NANO_WIDTH = 256, 448
CHUNK, SLOTS, SIDE, TEMPORAL_FACTOR = 80, 5, 8, 4
HISTORY_LATENTS = 25
MEMORY_STRIDE = 8
RECALL_LIMIT_S, WARP_LIMIT_S, NANO_LIMIT_S, MEMORY_LIMIT_GB = 0.2, 8.0, 4.0, 3.0
# what the public implementation of the published system needs on two such cores, from its measured runs
REFERENCE_RECALL_S, REFERENCE_WARPS_S = (0.8, 2.8), (97.0, 130.0)


def walk(frames: int, height: int, width: int, step: float = 1.0) -> Cameras:
    """A wandering path in a room, `step` frames at a time."""
    s = torch.arange(frames) * step
    yaw, pitch = 1.2 * torch.sin(s / 400), 0.1 * torch.sin(s / 97)
    pose = torch.zeros(frames, 4, 4)
    pose[:, 0, 0], pose[:, 0, 2] = yaw.cos(), -yaw.sin()
    pose[:, 1, 0], pose[:, 1, 1], pose[:, 1, 2] = yaw.sin() * pitch.sin(), pitch.cos(), yaw.cos() * pitch.sin()
    pose[:, 2, 0], pose[:, 2, 1], pose[:, 2, 2] = yaw.sin() * pitch.cos(), -pitch.sin(), yaw.cos() * pitch.cos()
    centre = torch.stack([torch.sin(s / 173), 0.3 * torch.sin(s / 61), torch.sin(s / 127)], dim=-1)
    pose[:, :3, 3] = -(pose[:, :3, :3] @ centre[..., None])[..., 0]
    pose[:, 3, 3] = 1
    return Cameras.from_fov(pose, 70.0, height, width)


def room_depth(camera: Cameras, noise: Tensor) -> Tensor:
    """[H, W] z-depth of a box room: of the three walls ahead of a ray the first, times 1 + noise."""
    focal, principal = camera.intrinsics[[0, 1], [0, 1]], camera.intrinsics[:2, 2]
    x = (torch.arange(camera.width) + 0.5 - principal[0]) / focal[0]
    y = (torch.arange(camera.height) + 0.5 - principal[1]) / focal[1]
    depth = torch.full((camera.height, camera.width), torch.inf)
    for axis, (low, high) in enumerate([(-3.0, 3.0), (-1.5, 1.5), (-3.0, 5.0)]):
        towards = camera.world_from_camera[axis]
        slope = x * towards[0] + (y * towards[1] + towards[2])[:, None]  # of the ray along this axis
        depth = torch.minimum(depth, torch.where(slope > 0, high - towards[3], low - towards[3]) / slope)
    return depth * (1 + noise)


def remembered(frames: int, height: int, width: int) -> list[View]:
    cameras = walk(frames, height, width, step=MEMORY_STRIDE)
    blank = torch.zeros(1).expand(3, height, width)
    noise = 0.005 * torch.randn(height, width, generator=torch.Generator().manual_seed(0))
    depths = (room_depth(cameras[i], noise.roll((31 * i, 57 * i), (0, 1))) for i in range(frames))
    return [View(blank, depth, cameras[i], MEMORY_STRIDE * i) for i, depth in enumerate(depths)]


def published_chunk(latest: View, recalled: tuple[View, ...], targets: Cameras) -> dict[str, Seconds]:
    """Seconds of the latest frame's warp, the correspondence of the recalled ones, and the rays."""
    depth = torch.where(reliable_depth(latest.depth, ratio=0.05), latest.depth, 0.0)
    published: dict[str, Any] = {"pixel_centre": 0.0, "invalid_at_origin": True}
    picture = torch.rand(1, 3, HEIGHT, WIDTH)
    history = Cameras.cat([targets[:1]] * HISTORY_LATENTS)
    cameras = Cameras.cat([history, targets[TEMPORAL_FACTOR - 1 :: TEMPORAL_FACTOR]])
    return {
        "warp of the latest frame": seconds(
            lambda: warp(picture, depth[None], latest.camera[None], targets, background=-1.0, **published)
        ),
        f"correspondence of {len(recalled)} frames": seconds(
            lambda: correspondence_features(
                recalled,
                targets,
                slots=SLOTS,
                latent_size=(HEIGHT // SIDE, WIDTH // SIDE),
                side=SIDE,
                every=TEMPORAL_FACTOR,
                inverse_depth=False,
                **published,
            )
        ),
        f"rays of {len(cameras)} latents": seconds(lambda: ray_features(cameras.relative_to(latest.camera), SIDE)),
    }


def nano_composite() -> Seconds:
    views = remembered(SLOTS + 1, NANO_HEIGHT, NANO_WIDTH)
    targets = walk(CHUNK + 1, NANO_HEIGHT, NANO_WIDTH, step=0.5)[1:]
    return seconds(lambda: composite(views, targets))


@dataclass(frozen=True, order=True)
class Seconds:
    wall: float
    processor: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.processor + other.processor)


def seconds(work: Callable[[], object]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def compile_kernels() -> None:
    small = remembered(2, 16, 24)
    targets = walk(4, 16, 24)
    composite(small, targets)
    warp(torch.zeros(1, 3, 16, 24), small[0].depth[None], small[0].camera[None], targets)
    SpatialMemory().remember(small).recall(targets[-1:], 1, GreedyCoverage())


def verdict(value: float, limit: float | None) -> str:
    return "" if limit is None else f"  limit {limit:g}  {'pass' if value <= limit else 'FAIL'}"


def report(what: str, spent: Seconds, limit: float | None = None, reference: tuple[float, float] | None = None) -> bool:
    faster = ""
    if reference:
        faster = f"  {reference[0] / spent.wall:.0f} to {reference[1] / spent.wall:.0f} times the reference's speed"
    processor = f"({spent.processor:.2f} s of processors)"
    print(f"{what:34s}{spent.wall:7.2f} s {processor:28s}{verdict(spent.wall, limit)}{faster}")
    return limit is None or spent.wall <= limit


def main() -> int:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    compile_kernels()
    print(f"{WIDTH}x{HEIGHT}, {frames} remembered frames, {torch.get_num_threads()} threads")
    views = remembered(frames, HEIGHT, WIDTH)
    memory = SpatialMemory(pixel_centre=0.0, invalid_at_origin=True).remember(views)
    last = MEMORY_STRIDE * (frames - 1)
    targets = walk(last + CHUNK + 1, HEIGHT, WIDTH)[last + 1 :]
    policy = GreedyCoverage(tolerance=0.1, relative_tolerance=0.0)
    recalled = memory.recall(targets[-1:], SLOTS, policy)
    times = sorted(seconds(lambda: memory.recall(targets[-1:], SLOTS, policy)) for _ in range(5))
    good = report(f"recall of {len(recalled)} frames", times[len(times) // 2], RECALL_LIMIT_S, REFERENCE_RECALL_S)
    known = {view.frame for view in recalled}
    recalled += tuple(view for view in views if view.frame not in known)[: SLOTS - len(recalled)]
    stages = published_chunk(views[-1], recalled, targets)
    for stage, spent in stages.items():
        report(f"  {stage}", spent)
    total = sum(stages.values(), Seconds(0, 0))
    good &= report("warps, correspondence and rays", total, WARP_LIMIT_S, REFERENCE_WARPS_S)
    good &= report(f"nano's composite {NANO_WIDTH}x{NANO_HEIGHT}", nano_composite(), NANO_LIMIT_S)
    print(f"{'peak memory':34s}{peak_gb():7.2f} GB{verdict(peak_gb(), MEMORY_LIMIT_GB)}")
    return 0 if good and peak_gb() <= MEMORY_LIMIT_GB else 1


if __name__ == "__main__":
    sys.exit(main())
