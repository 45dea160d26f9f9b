"""Networks that see depth, and some of them splats: which there are, and the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from photowalk.checkpoints.catalogue import CATALOGUE
from photowalk.checkpoints.load import load as load_stored
from photowalk.checkpoints.store import find, is_stored
from photowalk.models.depth_anything3.backbone import BackboneConfig
from photowalk.models.depth_anything3.dense_heads import HeadConfig
from photowalk.models.depth_anything3.network import DepthAnything3, DepthAnything3Config
from photowalk.models.depth_anything3.pose_tokens import CameraEncoderConfig
from photowalk.perception.depth import DepthEstimator, NanoDepth
from photowalk.perception.depth_anything3 import DepthAnything3Depth
from photowalk.perception.transformers_depth import TransformersDepth
from photowalk.presets.nano import nano_depth_network
from photowalk.presets.stored import lodge
from photowalk.world.placement import Placement


def lyra2_reconstruction() -> DepthAnything3Config:
    """The published reconstruction network: Depth Anything 3, nested giant and large, with a splat head."""
    channels = (256, 512, 1024, 1024)
    return DepthAnything3Config(
        backbone=BackboneConfig(1536, 40, 24, outputs=(19, 27, 33, 39), alternate_from=13, gated=True),
        head=HeadConfig(3072, 256, channels),
        cameras=CameraEncoderConfig(1536),
        splats=HeadConfig(3072, 256, channels),
        metric_backbone=BackboneConfig(1024, 24, 16, outputs=(4, 11, 17, 23)),
        metric_head=HeadConfig(1024, 256, channels),
    )


def da3_base() -> DepthAnything3Config:
    """Depth Anything 3 as it is published in its base size: it knows neither splats nor metres nor sky."""
    return DepthAnything3Config(
        backbone=BackboneConfig(768, 12, 12, outputs=(5, 7, 9, 11), alternate_from=4),
        head=HeadConfig(1536, 128, (96, 192, 384, 768)),
        cameras=CameraEncoderConfig(768),
    )


def nano_reconstruction() -> DepthAnything3Config:
    """The reconstruction network at nano's size, 3.5 million parameters. It takes frames whose sides are multiples of
    16, such as nano's 256x448, 16 at once, with their known cameras, and gives their depth and, with `down_ratio` 1 or
    2, the raw splats of every pixel or of every second row and column. It has no branch for metres and sky, which a
    walk knows."""
    channels = (32, 48, 64, 96)
    return DepthAnything3Config(
        backbone=BackboneConfig(128, 8, 4, outputs=(3, 5, 6, 7), alternate_from=4, patch=16, trained_grid=24),
        head=HeadConfig(256, 48, channels),
        cameras=CameraEncoderConfig(128, heads=4, depth=2),
        splats=HeadConfig(256, 48, channels),
        rays=False,
    )


# Published networks that see depth from any number of views, the most capable first.
DEPTH_ANYTHING: Mapping[str, Callable[[], DepthAnything3Config]] = MappingProxyType(
    {"lyra2-reconstruction": lyra2_reconstruction, "da3-nested": lyra2_reconstruction, "da3-base": da3_base}
)


def stored_depth_anything() -> str | None:
    """The name of the most capable one in the store."""
    return next((name for name in DEPTH_ANYTHING if is_stored(name)), None)


def depth_estimator(name: str, placement: Placement) -> DepthEstimator:
    """By a name in the store, "da3" for the most capable one there, "nano", or the name or folder of a depth model of
    transformers. Raises ValueError that says how to get what is missing."""
    nano_depth = NanoDepth(nano_depth_network(placement))
    if name == nano_depth.name:
        return nano_depth
    if name == "da3":
        name = _first_stored(tuple(DEPTH_ANYTHING))
    if name in DEPTH_ANYTHING:
        return DepthAnything3Depth(depth_anything_network(name, placement), name, nano_depth)
    return TransformersDepth.of(name, nano_depth, placement.device)


def splat_network(name: str, placement: Placement) -> DepthAnything3:
    """A network of the store that gives splats, by name, "da3" for the most capable one there. Raises ValueError."""
    giving = [known for known in DEPTH_ANYTHING if gives_splats(known)]
    if name == "da3":
        name = _first_stored(tuple(giving))
    if name not in giving:
        raise ValueError(f"{name!r} gives no splats; networks that do are da3, {', '.join(giving)}")
    return depth_anything_network(name, placement)


def gives_splats(name: str) -> bool:
    """Whether the depth network of that name gives splats too."""
    return name in DEPTH_ANYTHING and DEPTH_ANYTHING[name]().splats is not None


def depth_licence(name: str) -> str | None:
    """Of the weights of a depth network of the store; None for others."""
    return CATALOGUE[name].licence.name if name in DEPTH_ANYTHING else None


def depth_anything_network(name: str, placement: Placement) -> DepthAnything3:
    """From the store, in the format that it was published in: its heads want all digits. Raises ValueError."""
    folder = find(name)
    with torch.device("meta"):
        network = DepthAnything3(DEPTH_ANYTHING[name]())
    load_stored(network, folder)
    network.eval().requires_grad_(False)
    lodge(network, placement)
    return network


def _first_stored(names: tuple[str, ...]) -> str:
    found = next((name for name in names if is_stored(name)), None)
    if found is None:
        known = ", ".join(f"{name} ({CATALOGUE[name].licence.short})" for name in names)
        raise ValueError(f"none of {known} is in the store; bring one there with: photowalk weights get {names[-1]}")
    return found
