"""What a world is asked to be: whether the preset can make it, and what is written down of what it was made from."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from photowalk.world.disk import WorldError
from photowalk.world.generator import Generator


def check_guidance(negative_prompt: str | None, generator: Generator) -> None:
    if negative_prompt is not None and generator.config.guidance == 1:
        raise WorldError(
            "this preset is sampled without guidance and cannot be led away from anything; leave the negative prompt "
            "out, or choose a preset with guidance, such as lyra2-14b"
        )


def check_size(height: int, width: int, generator: Generator) -> None:
    """Frames must be cut evenly into latents, and those into tokens."""
    steps = [generator.codec.spatial_factor * side for side in generator.denoiser.config.patch[1:]]
    if height < 2 * steps[0] or width < 2 * steps[1] or height % steps[0] or width % steps[1]:
        raise WorldError(
            f"frames of {height}x{width} do not suit this preset; their height wants to be a multiple of {steps[0]} "
            f"and their width of {steps[1]}, each at least twice that"
        )


def focal_length(fov_deg: float, width: int) -> float:
    if not 5 <= fov_deg <= 150:
        raise WorldError(f"a field of view wants 5 to 150 degrees, got {fov_deg}")
    return width / 2 / math.tan(math.radians(fov_deg) / 2)


def made_from(
    photo: str | Path,
    depth: str | Path | None,
    fov_deg: float | None,
    depth_model: str | None,
    legacy: bool,
    views: str | Path | None,
) -> dict[str, str]:
    """What a world was made from; a world made from the same has the same photo chunk."""
    source = {"photo": Path(photo).name, "photo_sha256": hashlib.sha256(Path(photo).read_bytes()).hexdigest()}
    if depth is not None:
        source["depth_sha256"] = hashlib.sha256(Path(depth).read_bytes()).hexdigest()
    if fov_deg is not None:
        source["fov_deg"] = str(fov_deg)
    if depth_model is not None:
        source["depth_model"] = depth_model
    if views is not None:
        source["views_sha256"] = hashlib.sha256(Path(views).read_bytes()).hexdigest()
    if legacy:
        source["legacy"] = "as the published programs"
    return source
