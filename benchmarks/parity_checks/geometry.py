"""Warps, rays, recall and the geometric part of the conditioning against the published system."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import Tensor

from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.published_paths import (
    PUBLISHED_PATHS,
    published_file_path,
    published_path,
    published_zoom,
)
from photowalk.kernels.splatting import pixel_maps, reliable_depth
from photowalk.memory.correspondence import correspondence_features
from photowalk.memory.policies import GreedyCoverage, MostOwned, RandomOwnership
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.models.conditioning import memory_correspondence
from photowalk.models.history_layout import HistoryLayout
from photowalk.scene.types import View
from photowalk.scene.warping import ray_features, warp
from photowalk.world.state import depth_quantile

Comparison = tuple[str, float, float]

PATH_TOLERANCE = 1e-6
TOLERANCE = 1e-5  # float32 and another order of additions
PUBLISHED_LAYOUT = "f1k1f4s2f1s1f16k4f2k2f1k1_g20"
TEMPORAL_FACTOR = 4
SIDE = 8  # pixels per latent pixel
RELIABLE_RATIO = 0.05
VISIBLE_BEHIND = 0.1


def check_geometry(folder: Path) -> Iterable[Comparison]:
    golden = load_file(folder / "geometry.safetensors")
    noise = json.loads((folder / "geometry.json").read_text()).get("noise", {})  # of the reference against float64
    height, width = golden["depth"].shape[-2:]
    depth, rgb = golden["depth"][:, 0], golden["rgb"]
    sources = Cameras(golden["w2c"], golden["K"].expand(len(golden["w2c"]), 3, 3), height, width)
    targets = Cameras(golden["tgt_w2c"], golden["K"].expand(len(golden["tgt_w2c"]), 3, 3), height, width)
    for ratio in (0.05, 0.15):
        mask = reliable_depth(depth, ratio=ratio).float()
        yield f"reliable {ratio}", _error(mask, golden[f"reliable_{round(100 * ratio):03d}"][:, 0]), 0.0
    points = torch.where((depth > 0)[..., None], sources.unproject(depth, pixel_centre=0.0), 0.0)
    yield "unprojection", _error(points, golden["unproj"]), TOLERANCE
    clean = torch.where(reliable_depth(depth, ratio=RELIABLE_RATIO), depth, 0.0)
    for name, picked, known in [("v0_clean", [0], clean), ("v1_raw", [1], depth), ("v012_clean", [0, 1, 2], clean)]:
        warped = _warp(rgb[picked], known[picked], sources[picked], targets, group=len(targets))
        tolerance = max(TOLERANCE, 2 * noise.get(f"{name}_img", 0), 2 * noise.get(f"{name}_depth", 0))
        yield f"{name} image", _error(warped.values, golden[f"{name}_img"]), tolerance
        yield f"{name} mask", _error(warped.known.float(), golden[f"{name}_mask"][:, 0]), 0.0
        yield f"{name} depth", _error(warped.depth, golden[f"{name}_depth"]), tolerance
        yield f"{name} flow", _flow_error(known[picked], sources[picked], targets, golden[f"{name}_flow"]), TOLERANCE
    single = _warp(rgb[:1], clean[:1], sources[:1], targets, group=1)
    tolerance = max(TOLERANCE, 2 * noise.get("v0_clean_img_chunk1", 0))
    yield "v0_clean one by one", _error(single.values, golden["v0_clean_img_chunk1"]), tolerance
    relative = targets.relative_to(sources[1])
    yield "relative poses", _error(relative.world_from_camera, golden["rays_c2w_rel"][0]), TOLERANCE
    rays = ray_features(relative, 1)  # [6, T, H, W]
    yield "rays", _error(rays.permute(1, 2, 3, 0), golden["rays"][0]), TOLERANCE


def check_retrieval(folder: Path) -> Iterable[Comparison]:
    golden = load_file(folder / "retrieval.safetensors")
    expected = json.loads((folder / "retrieval.json").read_text())
    frames = golden["frame_ids"].tolist()
    cameras = Cameras(golden["w2c"], golden["K"].expand(len(frames), 3, 3), *golden["depth"].shape[-2:])
    memory = _remember(frames, golden["depth"][:, 0], cameras)
    points = torch.stack([entry.points for entry in memory.entries])
    yield "world points", _error(points, golden["world_points"].flatten(1, 2)), TOLERANCE
    targets = Cameras(
        golden["targets"], golden["K"].expand(len(golden["targets"]), 3, 3), cameras.height, cameras.width
    )
    greedy = GreedyCoverage(tolerance=expected["thresholds"]["cover"], relative_tolerance=0.0)
    for i in range(len(targets)):
        target = targets[i : i + 1]
        for name, policy, count in [
            ("cover", greedy, 5),
            ("cover_k3", greedy, 3),
            ("count", MostOwned(), 5),
            ("random_seed0", RandomOwnership(seed=0, drop=0.0), 5),
        ]:
            found = memory.recall(target, count, policy)
            yield f"{name}_{i}", _differences(found, expected[f"{name}_{i}"]), 0.0
    for name, target, candidates in [
        ("cover_multiview_01", targets[:2], None),
        ("cover_skip2_0", targets[:1], frames[:-2]),
        ("cover_only_frame0", targets[:1], [0]),
    ]:
        yield name, _differences(memory.recall(target, 5, greedy, candidates=candidates), expected[name]), 0.0


def check_prepare_inputs(folder: Path) -> Iterable[Comparison]:
    """Recalls, warps, rays and correspondence of a whole chunk, each by itself."""
    golden = load_file(folder / "prepare_inputs.safetensors")
    stated = json.loads((folder / "prepare_inputs.json").read_text())
    height, width = stated["resolution"]
    cameras = Cameras(golden["w2c"][0], golden["K"][0], height, width)
    memory = _remember(stated["cache_frame_ids"], golden["depth_cache"], cameras[stated["cache_frame_ids"]])
    first, last = stated["target_frames"]
    targets = cameras[first : last + 1]
    yield from _recalls(memory, cameras, stated)
    latest = first - 1
    yield from _latest_warp(golden, cameras[latest : latest + 1], targets, stated)
    recalled = [memory[frame] for frame in stated["recalled"]]
    yield from _best_warp(golden, recalled, targets, stated)
    yield from _correspondence(golden, recalled, targets, stated)
    yield from _cameras(golden, cameras, stated)


def _recalls(memory: SpatialMemory, cameras: Cameras, stated: dict) -> Iterator[Comparison]:
    greedy = GreedyCoverage(tolerance=stated["retrieval_depth_threshold"], relative_tolerance=0.0)
    frames = stated["target_frames"][1] - stated["target_frames"][0] + 1
    for chunk, call in enumerate(stated["recall_calls_of_the_three_chunks"]):
        end = frames * (chunk + 1)
        found = memory.recall(cameras[[end]], stated["slots"], greedy, candidates=call["candidates"])
        yield f"recall of chunk {chunk}", _differences(found, call["chosen"]), 0.0
    first = stated["target_frames"][0]
    for views, call in stated["recalled_with_several_target_views"].items():
        looks = torch.linspace(0, frames - 1, int(views) + 1)[1:].long() + first
        found = memory.recall(cameras[looks], stated["slots"], greedy, candidates=call["candidates"])
        yield f"recall for {views} views", _differences(found, call["chosen"]), 0.0


def _latest_warp(golden: dict, source: Cameras, targets: Cameras, stated: dict) -> Iterator[Comparison]:
    rgb, depth = golden["rgb_every_40th"][:, :, -1], _clean(golden["buffer_depth"][0])
    warped = _warp(rgb, depth, source, targets, group=stated["warp_chunk_size"])
    yield "warped picture", _error(warped.values[7::8], golden["warp_rgb_every_8th"]), TOLERANCE
    yield "warped mask", _error(warped.known[7::8].float(), golden["warp_mask_every_8th"][:, 0]), 0.0


def _best_warp(golden: dict, recalled: Sequence[View], targets: Cameras, stated: dict) -> Iterator[Comparison]:
    """The best recalled view's canonical map and depth, before they are normalised."""
    best, size = recalled[-1], (targets.height, targets.width)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    canonical = torch.stack([x, y, torch.ones(size)])
    warped = _warp(
        canonical[None], _clean(best.depth[None]), best.camera[None], targets, group=stated["warp_chunk_size"]
    )
    yield "best view's map", _error(warped.values[7::8], golden["warp_coord_best_every_8th"]), TOLERANCE
    yield "best view's depth", _error(warped.depth[7::8], golden["warp_depth_best_every_8th"]), TOLERANCE


def _correspondence(golden: dict, recalled: Sequence[View], targets: Cameras, stated: dict) -> Iterator[Comparison]:
    latent_size = (targets.height // SIDE, targets.width // SIDE)
    slots = stated["slots"]
    new = correspondence_features(
        recalled,
        targets,
        slots=slots,
        latent_size=latent_size,
        side=SIDE,
        every=TEMPORAL_FACTOR,
        inverse_depth=False,
        pixel_centre=0.0,
        group=stated["warp_chunk_size"],
        invalid_at_origin=True,
    )
    own = memory_correspondence(slots, SIDE, *latent_size, device=torch.device("cpu"))[0]
    first_new = HistoryLayout.parse(PUBLISHED_LAYOUT).history_frames
    strided = golden["buffer_every_16th_channel"][0]
    yield "correspondence", _error(new[::16], strided[:, first_new:]), TOLERANCE
    yield "memory slots", _error(own[::16], strided[:, 1 : 1 + slots]), TOLERANCE
    whole = golden["buffer_frames_1_5_25_44"][0]
    yield "correspondence, all channels", _error(new[:, [0, -1]], whole[:, 2:]), TOLERANCE
    yield "memory slots, all channels", _error(own[:, [0, -1]], whole[:, :2]), TOLERANCE


def _cameras(golden: dict, cameras: Cameras, stated: dict) -> Iterator[Comparison]:
    layout = HistoryLayout.parse(PUBLISHED_LAYOUT)
    timeline = golden["history_latents"].shape[2]
    latest = stated["camera_reference_frame"]
    of_latent = [max(0, latest - TEMPORAL_FACTOR * (timeline - 1 - j)) for j in range(timeline)]
    time = [of_latent[j] for j in layout.time_indices(timeline)]
    new = range(latest + TEMPORAL_FACTOR, stated["target_frames"][1] + 1, TEMPORAL_FACTOR)
    frames = [time[0], *stated["recalled"], *time[1:], *new]
    rays = ray_features(cameras[frames].relative_to(cameras[latest]), SIDE)
    yield "rays", _error(rays[::16], golden["camera_every_16th_channel"][0]), TOLERANCE
    picked = [0, 3, 24, 30]
    yield "rays, all channels", _error(rays[:, picked], golden["camera_frames_0_3_24_30"][0]), TOLERANCE


def _remember(frames: Sequence[int], depth: Tensor, cameras: Cameras) -> SpatialMemory:
    blank = depth.new_zeros(1).expand(3, *depth.shape[1:])
    memory = SpatialMemory(point_stride=4, pixel_centre=0.0, invalid_at_origin=True)
    return memory.remember([View(blank, d, camera, f) for d, camera, f in zip(depth, cameras, frames)])


def _clean(depth: Tensor) -> Tensor:
    return torch.where(reliable_depth(depth, ratio=RELIABLE_RATIO), depth, 0.0)


def _warp(values: Tensor, depth: Tensor, sources: Cameras, targets: Cameras, group: int):
    return warp(values, depth, sources, targets, pixel_centre=0.0, group=group, background=-1.0, invalid_at_origin=True)


def _flow_error(depth: Tensor, sources: Cameras, targets: Cameras, expected: Tensor) -> float:
    """Flow of every source pixel, [(target, source), 2, H, W]; pixels without depth stand at the world's origin."""
    linear, offset = pixel_maps(
        sources.camera_from_world, sources.intrinsics, targets.camera_from_world, targets.intrinsics
    )
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in depth.shape[1:]), indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)])
    seen = torch.einsum("tvij,jhw->tvihw", linear, pixels) * depth[:, None] + offset[..., None, None]
    origin = (targets.intrinsics.double() @ targets.camera_from_world[:, :3, 3:].double())[:, None, :, :, None]
    seen = torch.where((depth > 0)[:, None], seen, origin)
    flow = seen[:, :, :2] / (seen[:, :, 2:] + 1e-7) - pixels[:2]
    flow, expected = flow.flatten(0, 1), expected.double()
    return float(((flow - expected).abs() / expected.abs().clamp_min(1)).max())


def _error(ours: Tensor, expected: Tensor) -> float:
    if ours.shape != expected.shape:
        raise ValueError(f"shapes differ: {tuple(ours.shape)} and {tuple(expected.shape)}")
    return float((ours.double() - expected.double()).abs().max())


def _differences(found: Sequence[View], expected: Sequence[int]) -> float:
    frames = [view.frame for view in found]
    return float(sum(a != b for a, b in zip(frames, expected)) + abs(len(frames) - len(expected)))


def check_trajectories(folder: Path) -> Iterable[Comparison]:
    """The published presets, zoom program and loader of paths."""
    golden, stated = (
        load_file(folder / "trajectories.safetensors"),
        json.loads((folder / "trajectories.json").read_text()),
    )
    height, width = golden["program.depth"].shape
    for name in golden:
        preset, _, direction = name.removeprefix("from_pose.").rpartition(".")
        if preset in PUBLISHED_PATHS:
            pose = golden["start"] if name.startswith("from_pose.") else torch.eye(4)
            path = _preset(stated, preset, direction, Cameras(pose, golden["K"], height, width))
            yield name, _relative_error(path.camera_from_world, golden[name]), PATH_TOLERANCE
            if f"{name}.K" in golden:
                yield f"{name}.K", _relative_error(path.intrinsics, golden[f"{name}.K"]), PATH_TOLERANCE
    start = Cameras(torch.eye(4), golden["K"], height, width)
    for name, same in stated["equal_to"].items():
        preset, _, direction = name.removeprefix("from_pose.").rpartition(".")
        lens = replace(start, camera_from_world=golden["start"]) if name.startswith("from_pose.") else start
        path = _preset(stated, preset, direction, lens)
        yield f"{name} as {same}", _relative_error(path.camera_from_world, golden[same]), PATH_TOLERANCE
    yield from _program(golden, stated["program"], start)
    yield from _custom(golden, stated["custom"])


def _preset(stated: dict, preset: str, direction: str, start: Cameras) -> Cameras:
    return published_path(
        preset,
        start,
        stated["frames"],
        centre_depth=stated["center_depth"],
        strength=stated["strength"],
        direction=direction,
        random=torch.Generator().manual_seed(int(re.findall(r"manual_seed\((\d+)\)", stated["random_presets"])[0])),
    )


def _program(golden: dict, stated: dict, start: Cameras) -> Iterator[Comparison]:
    yield "centre depth", abs(depth_quantile(golden["program.depth"], 0.25) - stated["center_depth"]), PATH_TOLERANCE
    for name, case in stated["cases"].items():
        path = published_zoom(
            start,
            "in" if name.startswith("zoom_in") else "out",
            centre_depth=stated["center_depth"],
            ground_normal=golden["program.ground_normal"] if name.endswith("ground") else None,
            frames=case["N"],
        )
        yield name, _relative_error(path.camera_from_world, golden[f"program.{name}"]), PATH_TOLERANCE


def _custom(golden: dict, stated: dict) -> Iterator[Comparison]:
    """Through a file, as users have them."""
    cameras = Cameras(golden["custom.in_w2c"], golden["custom.in_intrinsics"], *stated["stored_size"])
    with TemporaryDirectory() as folder:
        path_files.write(Path(folder) / "trajectory.npz", cameras)
        found = path_files.read(Path(folder) / "trajectory.npz", lens=cameras[0])
    path = published_file_path(found, stated["num_frames"], *stated["target_size"], pose_scale=stated["pose_scale"])
    yield "custom.w2c", _relative_error(path.camera_from_world, golden["custom.w2c"]), PATH_TOLERANCE
    yield "custom.intrinsics", _relative_error(path.intrinsics, golden["custom.intrinsics"]), PATH_TOLERANCE


def _relative_error(ours: Tensor, expected: Tensor) -> float:
    return float(((ours.double() - expected.double()).abs() / expected.double().abs().clamp_min(1)).max())


CHECKS = {
    "geometry": check_geometry,
    "retrieval": check_retrieval,
    "trajectories": check_trajectories,
}
