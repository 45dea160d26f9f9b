"""How a video becomes splats, around the network, against the published programs: pictures, windows, files."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from photowalk.export.conventions import OPACITY_MARGIN
from photowalk.export.ply import read_splats, write_ply
from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import Similarity
from photowalk.models.depth_anything3.preprocess import bounded_size, patched_size, preprocess
from photowalk.reconstruct.frame_choice import WindowPlan, even_windows, split_windows, spread
from photowalk.reconstruct.joining import closeness, moved, robust_similarity
from photowalk.reconstruct.ownership import in_picture, opaque, owned, within_rim
from photowalk.reconstruct.published import Seen, followed, reconstruct_at_once, reconstruct_in_windows
from photowalk.scene.types import Splats

Comparison = tuple[str, float, float]
Golden = dict[str, Tensor]
Table = dict[str, np.ndarray]
FLIPPED = 2.0  # entries of a mask that may differ


def check_preprocessing(folder: Path) -> Iterable[Comparison]:
    golden, stated = load_file(folder / "preprocess.safetensors"), _stated(folder, "preprocess")
    image = golden["in.image_u8"].permute(2, 0, 1).float() / 255
    for name, run in stated["runs"].items():
        side = "longest" if run["method"].startswith("upper") else "shortest"
        made, wanted = preprocess(image, **{side: run["process_res"]}), golden[f"{name}.tensor"]
        yield f"{name} largest", _error(made, wanted), 0.036
        yield f"{name} mean", float((made - wanted).abs().mean()), 0.003
        between = bounded_size((image.shape[1], image.shape[2]), **{side: run["process_res"]})
        camera = Cameras(torch.eye(4), golden["in.K"], *image.shape[1:]).resized(*between).resized(*made.shape[1:])
        yield f"{name} K", _error(camera.intrinsics, golden[f"{name}.K"]), 1e-5
    for name, size in stated["native_sizes"].items():
        width, height = (int(side) for side in name.split("x"))
        made = patched_size(bounded_size((height, width), longest=max(height, width)), 14)
        yield f"size of {name}", float(list(made) != size), 0.0


def check_units(folder: Path) -> Iterator[Comparison]:
    golden = load_file(folder / "chunk_units.safetensors")
    for name in sorted({name.split(".")[0] for name in golden if re.match(r"u\d", name)}):
        frames, windows, size, overlap = (int(part) for part in name[1:].split("_"))
        yield from _plan_differences(name, even_windows(frames, windows, size, overlap), golden)
    said = _stated(folder, "chunk_units")["what"]
    frames, first, second, size, overlap = _numbers(
        r"split \(T=(\d+), splits \[(\d+),(\d+)\], size (\d+), overlap (\d+)\)", said
    )
    yield from _plan_differences("split", split_windows(frames, (first, second), size, overlap), golden)
    for name in (name for name in golden if name.startswith("point_idx.")):
        count, most = (int(part) for part in name.split(".")[1].split("_"))
        yield name, _error(spread(count, most), golden[name]), 0.0
    bad = torch.zeros_like(golden["w.allbad"])
    for name, made in [
        ("w.p1", closeness(golden["w.z"])),
        ("w.p2", closeness(golden["w.z"], power=2, clipped=0.9)),
        ("w.allbad", closeness(bad)),
    ]:
        wanted = golden[name]
        yield name, float(((made - wanted).abs() / wanted.abs().clamp_min(1e-12)).max()), 1e-5
    points, wanted, weights = golden["um.src"], golden["um.dst"], golden["um.w"]
    plain = Similarity.fit(points.double(), wanted.double(), weights.double())
    yield from _similarity_errors("um", plain, golden, 2e-6)
    centres, theirs = (motions.inverse(golden[f"joint.{side}_w2c"])[:, :3, 3] for side in ("src", "dst"))
    for name, share in (("joint", 0.8), ("joint_notrim", 1.0), ("joint_stop", 0.6)):
        found = robust_similarity(centres, theirs, points, wanted, weights, kept_share=share)
        yield from _similarity_errors(name, found, golden, 2e-6)
    yield from _applied(golden)
    yield from _masks(golden, said)


def _numbers(pattern: str, said: dict[str, str] | str) -> list[int]:
    """From the words in which a golden states its settings."""
    found = re.search(pattern, str(said))
    if found is None:
        raise ValueError(f"the golden does not state {pattern}")
    return [int(number) for number in found.groups()]


def _plan_differences(name: str, plan: WindowPlan, golden: Golden) -> Iterator[Comparison]:
    yield f"{name}.sampled", _error(plan.frames, golden[f"{name}.sampled"]), 0.0
    yield f"{name}.chunks", _error(plan.frames[plan.places], golden[f"{name}.chunks"]), 0.0
    yield f"{name}.sampled_idx", _error(plan.places, golden[f"{name}.sampled_idx"]), 0.0


def _similarity_errors(name: str, found: Similarity, golden: Golden, tolerance: float) -> Iterator[Comparison]:
    yield f"{name}.r", _error(found.rotation, golden[f"{name}.r"]), tolerance
    yield f"{name}.t", _error(found.translation, golden[f"{name}.t"]), tolerance
    yield f"{name}.s", _error(found.scale.reshape(1), golden[f"{name}.s"]), tolerance


def _applied(golden: Golden) -> Iterator[Comparison]:
    similarity = _similarity(golden["apply.r"], golden["apply.t"], golden["apply.s"])
    made = moved(_splats(golden, "apply.in."), similarity)
    yield from _splat_errors("apply.out.", made, golden, 1e-5)
    intrinsics = torch.eye(3).repeat(len(golden["apply.w2c_in"]), 1, 1)
    pose = similarity.cameras(Cameras(golden["apply.w2c_in"].double(), intrinsics.double(), 1, 1)).camera_from_world
    yield "apply.w2c_out", _error(pose, golden["apply.w2c_out"]), 1e-5


def _masks(golden: Golden, said: dict[str, str]) -> Iterator[Comparison]:
    views, height, width = _numbers(r"V=(\d+), \d+x\d+ depth with (\d+)x(\d+) GS grid", said)
    inside, opacities = within_rim(views, height, width), golden["grid.opacities"]
    yield "grid.border", _flips(inside, golden["grid.border"]), 0.0
    yield "grid.opacity30", _flips(opaque(opacities, 0.3), golden["grid.opacity30"]), 0.0
    both = inside.clone()
    both[inside] = opaque(opacities[inside], 0.1)
    yield "grid.both10", _flips(both, golden["grid.both10"]), 0.0
    for name in (name for name in golden if name.startswith("grid.small_")):
        rows, columns = _numbers(r"small_(\d+)x(\d+)_", name)
        yield name, _flips(within_rim(len(golden[name]) // (rows * columns), rows, columns), golden[name]), 0.0
    across, down, tenths = _numbers(r"image (\d+)x(\d+), max_diff 0\.(\d)", said)
    windows = [Cameras(pose, golden["own.K"], down, across) for pose in golden["own.w2c"]]
    for number in range(len(windows)):
        mask = owned(golden["own.pos"], windows, number, tenths / 10)
        yield f"own.mask{number}", _flips(mask, golden[f"own.mask{number}"]), FLIPPED
    seen = torch.stack([in_picture(golden["own.pos"], camera) for camera in windows[0]], dim=-1)
    yield "own.in_frustum_chunk0", _flips(seen, golden["own.in_frustum_chunk0"]), FLIPPED


def check_windows(folder: Path) -> Iterator[Comparison]:
    golden, stated = load_file(folder / "chunked_recon.safetensors"), _stated(folder, "chunked_recon")
    height, width = (int(side) for side in golden["in.image_hw"])
    given = golden["in.vipe_intrinsics"], motions.inverse(golden["in.vipe_c2w"])
    frames = int(golden["in.n_source_frames"])
    for run, facts in stated["runs"].items():
        options = {name.lstrip("-"): value for name, value in _pairs(facts["args"])}
        plan = even_windows(
            frames, int(options["num_chunks"]), int(options["chunk_size"]), int(options["chunk_overlap"])
        )
        cameras = _stretched(_cameras(*given, height, width), plan.frames, frames)
        calls = iter(range(len(plan.places)))

        def see(_: Tensor, calls: Iterator[int] = calls) -> Seen:
            return _seen(golden, f"in.chunk{next(calls)}.")

        made = reconstruct_in_windows(
            see,
            cameras,
            plan,
            faint_share=float(options.get("gs_ply_prune_opacity_percentile", 0)),
            tolerance=float(options["gs_frustum_ownership_max_diff_m"]),
            points_per_frame=int(options["chunk_point_align_max_points_per_frame"]),
        )
        for letter, values in [
            ("r", [each.rotation for each in made.similarities]),
            ("t", [each.translation for each in made.similarities]),
            ("s", [each.scale for each in made.similarities]),
        ]:
            yield f"{run}.sim3_{letter}", _error(torch.stack(values), golden[f"{run}.chunk_sim3_{letter}"]), 5e-6
        for number, mask in enumerate(made.owned):
            yield f"{run}.ownership_mask{number}", _flips(mask, golden[f"{run}.ownership_mask{number}"]), FLIPPED
        if f"{run}.w2c_render" in golden:
            yield f"{run}.frames", _error(made.frames, golden[f"{run}.indices_sampled"]), 0.0
            yield f"{run}.w2c_render", _error(made.cameras.camera_from_world, golden[f"{run}.w2c_render"]), 2e-5
            yield f"{run}.K", _error(made.cameras.intrinsics, golden[f"{run}.intrinsics_render"]), 2e-5
            sampled = made.cameras.camera_from_world[made.frames]
            yield f"{run}.w2c_sampled", _error(sampled, golden[f"{run}.w2c_recon_sampled"]), 2e-5
        if run == "main":
            wanted, ours = _table(folder / "chunked_scene.ply"), _written(made.splats)
            yield from _columns_differ(run, ours, wanted, position=2e-5, rotation=1e-5, logarithm=1e-5)


def check_single(folder: Path) -> Iterator[Comparison]:
    golden, stated = load_file(folder / "single_recon.safetensors"), _stated(folder, "single_recon")
    height, width = stated["runs"]["main"]["render"]["hw"]
    cameras = _cameras(golden["in.vipe_intrinsics"], motions.inverse(golden["in.vipe_c2w"]), height, width)
    yield "intrinsics", _error(cameras.intrinsics, golden["main.intrinsics_vipe"]), 1e-5
    for run, facts in stated["runs"].items():
        options = dict(_pairs(facts["args"]))
        share = float(options.get("--gs_ply_prune_opacity_percentile", 0))
        if run == "vipepose":  # the given cameras as they are
            continue
        if run == "novipe":  # the network's own cameras, followed from frame to frame
            chosen, poses = golden["novipe.indices_da3"], golden["novipe.w2c_da3_pred"]
            path = followed(replace(cameras[chosen], camera_from_world=poses), chosen, len(cameras))
            yield "novipe.w2c_render", _error(path.camera_from_world, golden["novipe.w2c_render"]), 2e-5
            continue
        most = len(golden["in.pred_w2c"])
        made = reconstruct_at_once(lambda _: _seen(golden, "in."), cameras, most=most, faint_share=share)
        yield f"{run}.frames", _error(made.frames, golden["main.indices_da3"]), 0.0
        yield f"{run}.w2c_render", _error(made.cameras.camera_from_world, golden[f"{run}.render_w2c"]), 2e-5
        yield f"{run}.K", _error(made.cameras.intrinsics, golden[f"{run}.render_K"]), 2e-5
        yield f"{run} rows", float(len(made.splats) != (facts["ply_bytes"] - 411 - 1) // 68), 0.0
        if run == "main":
            wanted = _table(folder / "single_scene.ply")
            yield from _columns_differ(run, _written(made.splats), wanted, position=0, rotation=0, logarithm=1e-6)


def check_ply(folder: Path) -> Iterator[Comparison]:
    golden = load_file(folder / "ply.safetensors")
    splats = Splats(
        golden["in.means"],
        golden["in.scales"],
        golden["in.rotations"],
        golden["in.opacities"],
        golden["in.harmonics"].mT[:, :1],
    )
    views, height, width = (int(side) for side in golden["in.grid_vhw"])
    first, rows = (int(number) for number in golden["chunked64.first_row"])
    (percentile,) = _numbers(r"percentile 0\.(\d)", _stated(folder, "ply")["what"])
    for name, kept in [
        ("single_border", within_rim(views, height, width)),
        ("single_opacity", opaque(splats.opacities, percentile / 10)),
        ("chunked64", torch.arange(len(splats)).sub(first).ge(0) & torch.arange(len(splats)).lt(first + rows)),
    ]:
        file = folder / f"ply_{name}.ply"
        ours = _written(splats[kept])
        yield from _columns_differ(name, ours, _table(file), position=0, rotation=0, logarithm=1e-6)
    back = read_splats(folder / "ply_single_border.ply")
    for name, value in (("scales", back.scales), ("opacities", back.opacities)):
        wanted = golden[f"reload.{name}_head"]
        yield f"reload.{name}", _error(value[: len(wanted)], wanted), 1e-6


def _columns_differ(
    name: str, ours: tuple[str, Table], wanted: tuple[str, Table], *, position: float, rotation: float, logarithm: float
) -> Iterator[Comparison]:
    (header, mine), (their_header, theirs) = ours, wanted
    yield f"{name} header", float(header != their_header), 0.0
    if header != their_header:
        return
    turned = np.stack([theirs[f"rot_{k}"] * mine[f"rot_{k}"] for k in range(4)]).sum(0)
    for column, values in mine.items():
        value, target, tolerance = values.astype(float), theirs[column].astype(float), position
        if column.startswith("rot"):
            tolerance, value = rotation, value * np.sign(turned)
        elif column.startswith("scale"):
            tolerance = logarithm + 2 * np.spacing(np.abs(theirs[column]).max())
        elif column == "opacity":  # ours are written finite; beyond the margin only that counts
            edge = float(np.log((1 - OPACITY_MARGIN) / OPACITY_MARGIN)) - 0.1
            value, target = value.clip(-edge, edge), target.clip(-edge, edge)
            tolerance = logarithm + 2 * np.spacing(np.float32(edge))
        yield f"{name}.{column}", float(np.abs(value - target).max()), float(tolerance)


def _written(splats: Splats) -> tuple[str, Table]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "splats.ply"
        write_ply(file, splats)
        return _table(file)


def _table(file: Path) -> tuple[str, Table]:
    """Header and columns of a .ply of floats, read without the project."""
    header, rows = file.read_bytes().split(b"end_header\n", 1)
    names = re.findall(r"property float (\w+)", header.decode())
    table = np.frombuffer(rows, "<f4").reshape(-1, len(names))
    return header.decode(), {name: table[:, k] for k, name in enumerate(names)}


def _seen(golden: Golden, prefix: str) -> Seen:
    views = len(golden[f"{prefix}pred_w2c"])
    _, height, width = (int(side) for side in golden["in.depth_shape"])
    pose = torch.eye(4).repeat(views, 1, 1)
    pose[:, :3] = golden[f"{prefix}pred_w2c"]
    splats = _splats(golden, prefix)
    ratio = round((height * width * views / len(splats)) ** 0.5)
    return Seen(splats, (height // ratio, width // ratio), pose)


def _splats(golden: Golden, prefix: str) -> Splats:
    names = ("means", "scales", "rotations", "opacities")
    return Splats(*(golden[prefix + name] for name in names), golden[f"{prefix}sh_dc"][:, None])


def _splat_errors(prefix: str, splats: Splats, golden: Golden, tolerance: float) -> Iterator[Comparison]:
    wanted = _splats(golden, prefix)
    for name in ("means", "scales", "opacities", "colours"):
        yield prefix + name, _error(getattr(splats, name), getattr(wanted, name)), tolerance
    sign = (splats.rotations * wanted.rotations).sum(-1, keepdim=True).sign()
    yield f"{prefix}rotations", _error(splats.rotations * sign, wanted.rotations), tolerance


def _cameras(lens: Tensor, camera_from_world: Tensor, height: int, width: int) -> Cameras:
    """lens [S, 4]: focal lengths and principal point."""
    intrinsics = torch.zeros(len(lens), 3, 3)
    intrinsics[:, [0, 1], [0, 1]], intrinsics[:, :2, 2], intrinsics[:, 2, 2] = lens[:, :2], lens[:, 2:], 1
    return Cameras(camera_from_world, intrinsics, height, width)


def _stretched(cameras: Cameras, frames: Tensor, count: int) -> Cameras:
    """Cameras known at some frames only, at every frame; those between are asked of nobody."""
    place = torch.searchsorted(frames, torch.arange(count)).clamp(max=len(frames) - 1)
    return cameras[place]


def _similarity(rotation: Tensor, translation: Tensor, scale: Tensor) -> Similarity:
    return Similarity(scale.double().reshape(()), rotation.double(), translation.double())


def _pairs(arguments: list[str]) -> Iterator[tuple[str, str]]:
    for name, value in pairwise([*arguments, ""]):
        if name.startswith("--"):
            yield name, value


def _stated(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def _flips(mask: Tensor, wanted: Tensor) -> float:
    return float((mask != wanted.bool()).sum()) if mask.shape == wanted.shape else float("inf")


def _error(value: Tensor, wanted: Tensor) -> float:
    return float((value.double() - wanted.double()).abs().max()) if value.shape == wanted.shape else float("inf")


CHECKS = {
    "preprocess": check_preprocessing,
    "chunk_units": check_units,
    "chunked_recon": check_windows,
    "single_recon": check_single,
    "ply": check_ply,
}
