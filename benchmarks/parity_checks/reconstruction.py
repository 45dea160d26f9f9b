"""The reconstruction network and the rules around it against the published system."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from photowalk.checkpoints import namings
from photowalk.checkpoints.load import stored_shapes
from photowalk.checkpoints.match import match
from photowalk.geometry.cameras import Cameras
from photowalk.models.depth_anything3 import metric
from photowalk.models.depth_anything3.backbone import Backbone, BackboneConfig, reference_scores
from photowalk.models.depth_anything3.dense_heads import HeadConfig
from photowalk.models.depth_anything3.network import DepthAnything3, DepthAnything3Config, Prediction
from photowalk.models.depth_anything3.network import normalise as normalise_images
from photowalk.models.depth_anything3.pose_tokens import (
    CameraEncoderConfig,
    cameras_from_numbers,
    normalise_poses,
    numbers_from_cameras,
    rigid_inverse,
)
from photowalk.models.depth_anything3.quaternions import matrix_from_xyzw, xyzw_from_matrix
from photowalk.models.depth_anything3.splats import PlacedSplats, harmonics_rotation, place_splats
from photowalk.perception.pose_alignment import align_centres
from photowalk.presets import depth_anything
from photowalk.reconstruct.frame_choice import spread
from photowalk.reconstruct.published import followed

Comparison = tuple[str, float, float]
Golden = dict[str, Tensor]


def check_weights(folder: Path) -> Iterable[Comparison]:
    yield (
        "names and shapes",
        float(_differences(_network(folder), load_file(folder / "da3_tiny_weights.safetensors"))),
        0,
    )


def check_names(folder: Path) -> Iterable[Comparison]:
    with torch.device("meta"):
        network = DepthAnything3(depth_anything.lyra2_reconstruction())
    listed = {}
    for line in (folder / "keys_da3_lyra.txt").read_text().splitlines():
        name, shape, _ = line.split("\t")
        listed[name] = torch.empty([int(side) for side in shape.strip("(),").split(",")], device="meta")
    yield f"{len(listed)} names and shapes", float(_differences(network, listed)), 0.0
    file = Listed((Path("model.pt"),), {f"model.{name}": (tuple(t.shape), t.dtype) for name, t in listed.items()})
    found = match(file, stored_shapes(network), namings.DEPTH_ANYTHING_NESTED, "model.")  # raises for any difference
    yield "tensors that an import takes", float(len(found.links) != len(stored_shapes(network))), 0.0


@dataclass
class Listed:
    """A checkpoint of which only names, shapes and formats are known."""

    files: tuple[Path, ...]
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]

    def read(self, name: str) -> Tensor:
        raise KeyError(name)


def check_network(name: str) -> Callable[[Path], Iterator[Comparison]]:
    def check(folder: Path) -> Iterator[Comparison]:
        golden = load_file(folder / f"{name}.safetensors")
        tolerances = {key: value["atol"] for key, value in _stated(folder, name)["tol"].items()}
        with torch.inference_mode():
            ours = dict(_everything(_network(folder), golden, _stated(folder, name)["options"]))
        for key, value in ours.items():
            if key in golden:
                quaternions = key.endswith("rotations")
                error = _quaternion_error(value, golden[key]) if quaternions else _error(value, golden[key])
                yield key, error, _tolerance(key, tolerances)

    return check


def _tolerance(name: str, stated: dict[str, float]) -> float:
    """Variants have the tolerance of what they vary, colours that of the numbers that they are; masks have none."""
    plain = name.removeprefix(name.split(".")[0] + ".") if name[:3] in ("r1_", "r2_") else name
    plain = plain.removeprefix("5.")  # of "r2_mult2.5."
    return stated.get(plain, stated["gs.raw"] if plain == "gaussians.sh_dc" else 0.0)


def _everything(network: DepthAnything3, golden: Golden, options: dict) -> Iterator[tuple[str, Tensor]]:
    images, pose, lens = golden["in.x"], golden.get("in.w2c"), golden.get("in.K")
    size = (images.shape[2], images.shape[3])
    ratio = options.get("r") if options["infer_gs"] else None
    known = None
    if pose is not None and lens is not None:
        yield "w2c_normalised", normalise_poses(pose)
        numbers = numbers_from_cameras(normalise_poses(pose), lens, size)
        known = network.da3.cam_enc(numbers[None])
        yield "cam_enc.pose9", numbers
        yield "cam_enc.tokens", known[0]
    yield from _tokens(network, images, known)
    features = network.da3.backbone["pretrained"](images[None], known)
    for level, patches in enumerate(features.patches):
        yield f"bb.feat{level}", patches[0]
    yield "bb.camtok3", features.camera[0]
    yield "cam_dec.pose9", network.da3.cam_dec(features.camera[0])
    tokens = [each[0] for each in features.patches]
    rays, sure = network.da3.head.rays(tokens, size, (size[0] // 14, size[1] // 14))
    yield "head.ray", rays
    yield "head.ray_conf", sure
    predicted = network(images, pose, lens, down_ratio=ratio, merge_first=options.get("ds", True))
    yield "head.depth", predicted.depth
    yield "head.depth_conf", predicted.confidence
    yield "da3.extrinsics", predicted.camera_from_world[:, :3]
    yield "da3.intrinsics", predicted.intrinsics
    raw, sky = network.metric(images)
    yield from _metric(predicted, raw, sky)
    if predicted.splats is not None:
        yield "gs.raw", predicted.splats[..., :37]
        yield "gs.conf", predicted.splats[..., 37].sigmoid()
        yield from _splats(predicted, pose, lens, "", 1.0)
    if "r2_dson.gs.raw" in golden:
        yield from _variants(network, images, pose, lens, predicted)


def _tokens(network: DepthAnything3, images: Tensor, known: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """Tokens after every layer, caught by hooks."""
    backbone = network.da3.backbone["pretrained"]
    assert isinstance(backbone, Backbone)
    caught: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, given, made: caught.extend([given[0], made])) for block in backbone.blocks
    ]
    backbone(images[None], known)
    for hook in hooks:
        hook.remove()
    views = len(images)
    caught = [each.reshape(views, -1, each.shape[-1]) for each in caught]
    yield "bb.tokens_in", caught[0]
    for layer in range(len(backbone.blocks)):
        yield f"bb.block{layer}", caught[2 * layer + 1]
    start = backbone.config.alternate_from
    assert start is not None
    yield "bb.camera_token_inserted", caught[2 * start][:, 0]
    if known is None and views >= 3:
        scores = reference_scores(caught[2 * (start - 2) + 1][None, :, 0])
        yield "ref.scores", scores[0]
        yield "ref.index", scores.argmin(1)


def _metric(predicted: Prediction, raw: Tensor, sky: Tensor) -> Iterator[tuple[str, Tensor]]:
    after = metric.own_sky(raw, sky)
    surface = sky < metric.SKY
    found = metric.in_metres(predicted.depth, predicted.confidence, after, sky, predicted.intrinsics)
    yield "metric_head.depth", raw
    yield "metric.depth_after_own_sky", after
    yield "metric.depth_f300", metric.focal_metres(after, predicted.intrinsics)
    yield "metric.non_sky", surface
    yield "metric.median_conf", metric.quantile(predicted.confidence[surface], 0.5)
    yield "out.sky", sky
    yield "out.sky_mask_05", sky >= metric.SURE_SKY
    yield "out.scale_factor", found.scale
    yield "out.depth", found.depth
    yield "out.depth_conf", found.confidence
    yield "out.intrinsics", predicted.intrinsics
    yield "out.extrinsics", _scaled(predicted.camera_from_world, found.scale)[:, :3]


def _splats(
    predicted: Prediction, pose: Tensor | None, lens: Tensor | None, prefix: str, multiplier: float, moved: bool = True
) -> Iterator[tuple[str, Tensor]]:
    assert predicted.splats is not None
    there = rigid_inverse(predicted.camera_from_world)
    unit = 1.0
    ratio = predicted.depth.shape[1] // predicted.splats.shape[1]
    if pose is not None and lens is not None:
        alignment = align_centres(there, rigid_inverse(pose))
        yield "umeyama.r", alignment.rotation
        yield "umeyama.t", alignment.translation
        yield "umeyama.s", torch.tensor([alignment.scale])
        there, unit = alignment.to_known(there) if moved else rigid_inverse(pose), alignment.scale
    chosen = predicted.intrinsics if lens is None else lens
    placed = place_splats(predicted.splats, predicted.depth, there, chosen, unit=unit, scale_multiplier=multiplier)
    yield f"{prefix}adapter_in.extrinsics", rigid_inverse(there)
    height, width = predicted.splats.shape[1:3]
    sides = chosen.new_tensor([width / predicted.depth.shape[2], height / predicted.depth.shape[1], 1])
    yield f"{prefix}adapter_in.intrinsics", chosen * sides[:, None]
    yield f"{prefix}adapter_in.depths", predicted.depth[:, ::ratio, ::ratio] / unit
    yield f"{prefix}adapter_in.depth_offset", predicted.splats[..., 36] / unit
    yield from _named(placed, prefix, predicted)


def _named(placed: PlacedSplats, prefix: str, predicted: Prediction) -> Iterator[tuple[str, Tensor]]:
    assert predicted.splats is not None
    yield f"{prefix}gaussians.means", placed.means
    yield f"{prefix}gaussians.scales", placed.scales
    yield f"{prefix}gaussians.rotations", placed.rotations
    yield f"{prefix}gaussians.opacities", placed.opacities
    yield f"{prefix}gaussians.sh_dc", placed.harmonics[:, 0]
    yield f"{prefix}gaussians.harmonics_v01", placed.harmonics[: 2 * predicted.splats[0, ..., 0].numel()].mT


def _variants(
    network: DepthAnything3, images: Tensor, pose: Tensor | None, lens: Tensor | None, fine: Prediction
) -> Iterator[tuple[str, Tensor]]:
    for name, merge_first in (("r2_dson", True), ("r2_dsoff", False)):
        coarse = network(images, pose, lens, down_ratio=2, merge_first=merge_first)
        assert coarse.splats is not None
        yield f"{name}.gs.raw", coarse.splats[..., :37]
        yield f"{name}.gs.conf", coarse.splats[..., 37].sigmoid()
        if merge_first:
            yield from _only("r2_mult2.5.", _splats(coarse, pose, lens, "r2_mult2.5.", 2.5))
    yield from _only("r1_notaligned.", _splats(fine, pose, lens, "r1_notaligned.", 1.0, moved=False))


def _only(prefix: str, found: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in found if name.startswith(prefix))


def check_inference(folder: Path) -> Iterable[Comparison]:
    golden, noise = load_file(folder / "da3_api.safetensors"), _stated(folder, "da3_api")["noise_max"]
    swaps = _stated(folder, "da3_api")["metric_scale_swap_bound_rel"]
    images = normalise_images(golden["in.images_u8"].permute(0, 3, 1, 2).float() / 255)
    pose, lens = golden["in.w2c"], golden["in.K"]
    with torch.inference_mode():
        network = _network(folder)
        raw, sky = network.metric(images)
        known, free = network(images, pose, lens, down_ratio=2), network(images)

    def tolerance(name: str, value: Tensor) -> float:
        run = name.split(".")[0].split("_")[0]
        size = float(value.abs().max())
        return (
            10 * noise.get(name, noise.get(f"stage2.{name.split('.', 1)[-1]}", 1e-6))
            + (swaps.get(run, 0.0) + 2e-6) * size
        )

    ours: dict[str, Tensor] = {}
    for run, predicted in (("stage2", known), ("nopose", free)):
        found = metric.in_metres(
            predicted.depth, predicted.confidence, metric.own_sky(raw, sky), sky, predicted.intrinsics
        )
        ours |= {
            f"{run}.depth": found.depth,
            f"{run}.conf": found.confidence,
            f"{run}.intrinsics": predicted.intrinsics,
        }
        ours |= {
            f"{run}.extrinsics": _scaled(predicted.camera_from_world, found.scale)[:, :3],
            f"{run}.sky": sky >= 0.5,
        }
        if run == "stage2":
            there = rigid_inverse(_scaled(predicted.camera_from_world, found.scale))
            robust = align_centres(there, rigid_inverse(pose), ransac=True)
            ours |= {"aligned.depth": found.depth / robust.scale, "aligned.conf": found.confidence}
            ours |= {"aligned_noscale.depth": found.depth, "aligned.sky": sky >= 0.5}
            ours |= {"aligned_noscale.extrinsics": rigid_inverse(robust.to_predicted(rigid_inverse(pose)))}
            for name, alignment in (("ransac", robust), ("plain", align_centres(there, rigid_inverse(pose)))):
                ours |= {f"{name}.r": alignment.rotation, f"{name}.t": alignment.translation}
                ours |= {f"{name}.s": torch.tensor(alignment.scale)}
    ours |= {f"stage2.{name}": value for name, value in _splats(known, pose, lens, "", 1.0)}
    for name, value in ours.items():
        if name in golden:
            error = _quaternion_error if name.endswith("rotations") else _error
            yield name, error(value, golden[name]), 0.0 if name.endswith("sky") else tolerance(name, golden[name])


def check_pose_alignment(folder: Path) -> Iterable[Comparison]:
    golden = load_file(folder / "pose_align.safetensors")
    for case in sorted({name.rsplit(".", 1)[0] for name in golden if name.endswith(".in_w2c")}):
        known, predicted = golden[f"{case}.in_w2c"], _square(golden[f"{case}.pred_w2c"])
        found = align_centres(rigid_inverse(predicted), rigid_inverse(known), ransac=case.startswith("ransac"))
        loose = 1e-4 if case.startswith("coincident") else 1e-5
        yield f"{case}.s", _error(torch.tensor([found.scale]), golden[f"{case}.s"]), loose
        moved = found.to_predicted(rigid_inverse(known))
        stated = golden[f"{case}.in_aligned_w2c"]
        if case.startswith("straight"):  # the roll about the line is chance
            yield f"{case} centres", _error(moved[:, :3, 3], rigid_inverse(stated)[:, :3, 3]), 2e-4
        else:
            yield f"{case}.r", _error(found.rotation, golden[f"{case}.r"]), loose
            yield f"{case}.t", _error(found.translation, golden[f"{case}.t"]), max(2e-5, loose)
            yield f"{case}.in_aligned_w2c", _error(rigid_inverse(moved), stated), max(2e-5, loose)
        if f"{case}.compute_aligned_pred_w2c" in golden:
            back = rigid_inverse(found.to_known(rigid_inverse(predicted)))
            yield f"{case} back", _error(back, golden[f"{case}.compute_aligned_pred_w2c"]), 2e-5
    keys = Cameras(golden["interp.key_w2c"], golden["interp.key_K"], 1, 1)
    path = followed(keys, golden["interp.key_index"], len(golden["interp.w2c24"]))
    yield "interp.w2c24", _error(path.camera_from_world, golden["interp.w2c24"]), 1e-5
    yield "interp.K24", _error(path.intrinsics, golden["interp.K24"]), 1e-5
    for name in (name for name in golden if name.startswith("idx.")):
        total, count = (int(part) for part in name.removeprefix("idx.").split("_"))
        yield name, _error(spread(total, count), golden[name]), 0.0
    for name in golden:
        if name.startswith("norm") and name.endswith(".in"):
            yield name, _error(normalise_poses(golden[name]), golden[name[:-2] + "out"]), 1e-5
    yield "quat.to_mat", _error(matrix_from_xyzw(golden["quat.in_xyzw"]), golden["quat.to_mat"]), 1e-5
    back = xyzw_from_matrix(golden["quat.to_mat"])
    yield "quat.mat_to_quat", _quaternion_error(back, golden["quat.mat_to_quat"]), 1e-5
    pose, lens = cameras_from_numbers(golden["enc.in"], (70, 98))
    yield "enc.c2w", _error(rigid_inverse(pose)[:, :3], golden["enc.c2w"]), 1e-5
    yield "enc.K", float(((lens - golden["enc.K"]).abs() / golden["enc.K"].abs().clamp_min(1)).max()), 1e-5
    count = len(golden["enc.roundtrip"])
    round_trip = numbers_from_cameras(pose[:count], lens[:count], (70, 98))
    yield "enc.roundtrip", _error(round_trip, golden["enc.roundtrip"]), 1e-5


def check_metric(folder: Path) -> Iterable[Comparison]:
    golden = load_file(folder / "metric_align.safetensors")
    for case in sorted({name.split(".")[0] for name in golden}):
        given = {name.split(".in.")[1]: value for name, value in golden.items() if name.startswith(f"{case}.in.")}
        after = metric.own_sky(given["metric_raw"], given["sky"])
        metres = metric.focal_metres(after, given["K"])
        surface = given["sky"] < metric.SKY
        used = metric.scale_pixels(given["depth"], given["conf"], metres, surface)
        found = metric.in_metres(given["depth"], given["conf"], after, given["sky"], given["K"])
        for name, value, tolerance in [
            ("metric_after_own_sky", after, 5e-6),
            ("metric_f300", metres, 5e-6),
            ("align_mask", used, 0.0),
            ("median_conf", metric.quantile(given["conf"][surface], 0.5), 1e-6),
            ("scale", found.scale, 2e-6),
            ("out.depth", found.depth, 5e-6),
            ("out.conf", found.confidence, 0.0),
            ("out.w2c", _scaled(_square(given["w2c"]), found.scale)[:, :3], 5e-6),
        ]:
            wanted = golden[f"{case}.{name}"].double()
            yield (
                f"{case}.{name}",
                float(((value.double() - wanted).abs() / wanted.abs().clamp_min(1)).max()),
                tolerance,
            )


def check_adapter(folder: Path) -> Iterable[Comparison]:
    golden = load_file(folder / "gs_adapter.safetensors")
    logits = golden["in.opacity"].double().logit().float()
    raw = torch.cat([golden["in.raw"], logits[..., None]], dim=-1)
    for multiplier in (1.0, 2.5):
        placed = place_splats(
            raw, golden["in.depth"], rigid_inverse(golden["in.w2c"]), golden["in.K"], scale_multiplier=multiplier
        )
        wanted = golden[f"m{multiplier:g}.scales"]
        error = (placed.scales - wanted).abs() / wanted.abs().clamp_min(1e-6)
        yield f"m{multiplier:g}.scales", float(error.max()), 1e-5
    yield "means", _error(placed.means, golden["means"]), 2e-5
    unclear = golden["rotations"].isnan().any(-1)
    yield "NaN", float((placed.rotations.isnan().any(-1) != unclear).sum()), 0.0
    yield "rotations", _quaternion_error(placed.rotations[~unclear], golden["rotations"][~unclear]), 1e-5
    yield "harmonics", _error(placed.harmonics.mT, golden["harmonics"]), 1e-5
    yield "opacities", _error(placed.opacities, golden["opacities"]), 1e-7
    rotation, given = golden["sh.rot"], golden["sh.in"][..., None]
    # In float32 the published rule is off by more than the tolerance from itself in float64, which ours is equal to.
    yield "sh.out, published rule", _error((by_exponentials(rotation)[:, None] @ given)[..., 0], golden["sh.out"]), 1e-5
    exact = by_exponentials(rotation.double()).float()
    yield "harmonics_rotation", _error(harmonics_rotation(rotation), exact), 5e-6


def by_exponentials(rotation: Tensor) -> Tensor:
    """[V, 3, 3] -> [V, 9, 9] as the published program turns harmonics, in the precision of `rotation`: Euler angles,
    and exponentials of the generators of rotations, which are always made in single precision."""
    axes = rotation.new_tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    turn = axes.mT @ rotation @ axes
    up = normalize(turn[..., 1], dim=-1).clamp(-1, 1)
    first, second = torch.atan2(up[:, 0], up[:, 2]), torch.acos(up[:, 1])
    rest = (_about(first, 1) @ _about(second, 0)).mT @ turn
    angles = [first, -second, torch.atan2(rest[:, 0, 2], rest[:, 0, 0])]
    turned = torch.zeros(len(rotation), 9, 9, dtype=rotation.dtype)
    turned[:, 0, 0] = 1
    for degree in (1, 2):
        generators = _generators(degree).to(rotation)
        parts = [
            torch.matrix_exp(angle[:, None, None] % (2 * math.pi) * generators[axis])
            for angle, axis in zip(angles, (1, 0, 1), strict=True)
        ]
        block = slice(degree**2, (degree + 1) ** 2)
        turned[:, block, block] = parts[0] @ parts[1] @ parts[2]
    return turned


def _about(angle: Tensor, axis: int) -> Tensor:
    generator = torch.linalg.cross(torch.eye(3).to(angle)[axis].expand(3, 3), torch.eye(3).to(angle)).mT
    return torch.matrix_exp(angle[:, None, None] * generator)


def _generators(degree: int) -> Tensor:
    """[3, 2l+1, 2l+1] of rotations of real harmonics, from the ladder operators of angular momentum."""
    order = torch.arange(-degree, degree + 1, dtype=torch.float32)
    total = degree * (degree + 1)
    raising = torch.diag(-torch.sqrt(total - order[:-1] * (order[:-1] + 1)), diagonal=-1)
    lowering = torch.diag(torch.sqrt(total - order[1:] * (order[1:] - 1)), diagonal=1)
    complex_ones = torch.stack(
        [0.5 * (raising + lowering) + 0j, torch.diag(1j * order), -0.5j * (raising - lowering)]
    ).to(torch.complex64)
    real_from_complex = torch.zeros(2 * degree + 1, 2 * degree + 1, dtype=torch.complex64)
    real_from_complex[degree, degree] = 1
    for m in range(1, degree + 1):
        sign = (-1) ** m
        real_from_complex[degree - m, degree + m], real_from_complex[degree - m, degree - m] = 0.5**0.5, -1j * 0.5**0.5
        real_from_complex[degree + m, degree + m] = sign * 0.5**0.5
        real_from_complex[degree + m, degree - m] = 1j * sign * 0.5**0.5
    real_from_complex = (-1j) ** degree * real_from_complex
    return (real_from_complex.conj().T @ complex_ones @ real_from_complex).real


def _network(folder: Path) -> DepthAnything3:
    stated = _stated(folder, "da3_tiny_weights")["config"]
    network = DepthAnything3(
        DepthAnything3Config(
            backbone=_backbone(stated["anyview"]),
            head=_head(stated["head"]),
            cameras=CameraEncoderConfig(
                stated["cam_enc"]["dim_out"], stated["cam_enc"]["num_heads"], stated["cam_enc"]["trunk_depth"]
            ),
            splats=_head(stated["gs_head"]),
            metric_backbone=_backbone(stated["metric"]),
            metric_head=_head(stated["metric_head"]),
        )
    )
    network.load_state_dict(load_file(folder / "da3_tiny_weights.safetensors"))
    return network.eval()


def _backbone(stated: dict) -> BackboneConfig:
    return BackboneConfig(
        width=stated["embed_dim"],
        depth=stated["depth"],
        heads=stated["num_heads"],
        outputs=tuple(stated["out_layers"]),
        alternate_from=stated["alt_start"] if stated["alt_start"] >= 0 else None,
        gated=stated["ffn_layer"].startswith("swiglu"),
        patch=stated["patch_size"],
        trained_grid=stated["img_size"] // stated["patch_size"],
    )


def _head(stated: dict) -> HeadConfig:
    first, second, third, fourth = stated["out_channels"]
    return HeadConfig(stated["dim_in"], stated["features"], (first, second, third, fourth))


def _stated(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def _differences(network: torch.nn.Module, wanted: Golden) -> int:
    ours = {name: value.shape for name, value in network.state_dict().items()}
    return len(ours.items() ^ {name: value.shape for name, value in wanted.items()}.items())


def _square(poses: Tensor) -> Tensor:
    square = torch.eye(4, dtype=poses.dtype).repeat(len(poses), 1, 1)
    square[:, :3] = poses[:, :3]
    return square


def _scaled(poses: Tensor, scale: Tensor) -> Tensor:
    scaled = poses.clone()
    scaled[:, :3, 3] *= scale.to(poses.dtype)
    return scaled


def _error(value: Tensor, wanted: Tensor) -> float:
    return float((value.double() - wanted.double()).abs().max()) if value.shape == wanted.shape else float("inf")


def _quaternion_error(value: Tensor, wanted: Tensor) -> float:
    return float(torch.minimum((value - wanted).abs().amax(-1), (value + wanted).abs().amax(-1)).max())


CHECKS = {
    "da3_tiny_weights": check_weights,
    "keys_da3_lyra": check_names,
    "da3_api": check_inference,
    "pose_align": check_pose_alignment,
    "metric_align": check_metric,
    "gs_adapter": check_adapter,
} | {
    name: check_network(name)
    for name in ("da3_pose_r2", "da3_nopose_r2", "da3_pose_r1_small", "da3_nopose_s1", "da3_nopose_s2")
}
