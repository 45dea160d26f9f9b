"""What a new world is asked to be: whether the preset can make it, and the files that it is made from."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.scene.close_up import read_close_up
from photowalk.scene.depth_files import read_depth
from photowalk.scene.images import Fit, Photo, read_photo
from photowalk.scene.posed_pictures import PosedPicture, read_posed_pictures
from photowalk.world.disk import WorldError
from photowalk.world.generator import Generator
from photowalk.world.state import WorldState


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


@dataclass(frozen=True)
class Source:
    """The files and choices that the photo's chunk comes from, as `World.create` has them."""

    photo: str | Path
    depth: str | Path | None = None
    fov_deg: float | None = None
    depth_model: str | None = None
    legacy: bool = False
    views: str | Path | None = None

    @property
    def fit(self) -> Fit:
        return "squash" if self.legacy else "crop"

    def described(self) -> dict[str, str]:
        """As the manifest keeps it; worlds with the same have the same photo chunk."""
        name = os.fsencode(Path(self.photo).name).decode("utf-8", "replace")  # names need not be text
        source = {"photo": name, "photo_sha256": _sha256(self.photo)}
        if self.depth is not None:
            source["depth_sha256"] = _sha256(self.depth)
        if self.fov_deg is not None:
            source["fov_deg"] = str(self.fov_deg)
        if self.depth_model is not None:
            source["depth_model"] = self.depth_model
        if self.views is not None:
            source["views_sha256"] = _sha256(self.views)
        if self.legacy:
            source["legacy"] = "as the published programs"
        return source

    def read(self, height: int, width: int) -> Given:
        """All of it in frames of height x width. Raises PhotoError, DepthError, PathError, WorldError."""
        photo = read_photo(self.photo, height, width, fit=self.fit)
        depth, original = None, (photo.original_height, photo.original_width)
        if self.depth is not None:
            depth = read_depth(self.depth, height, width, photo_size=original, fit=self.fit)
        views = [] if self.views is None else read_posed_pictures(self.views, height, width, photo=self.photo)
        focal_px = photo.focal_px if self.fov_deg is None else focal_length(self.fov_deg, width)
        return Given(self, photo, depth, focal_px, views)


@dataclass(frozen=True)
class Given:
    """What was read of a source."""

    source: Source
    photo: Photo
    depth: Tensor | None  # [H, W] along +Z; None: to be estimated, as is the focal length
    focal_px: float | None
    views: Sequence[PosedPicture]

    def start(self, generator: Generator, *, camera: Cameras | None, prompt: str, seed: int) -> WorldState:
        """The world of the photo alone, seen by `camera` [], or from the world's origin."""
        device = generator.placement.device
        most = 1 if self.source.legacy else generator.config.close_up
        close_up = read_close_up(self.source.photo, self.photo, most, fit=self.source.fit)
        return generator.start(
            self.photo.image.to(device),
            focal_px=self.focal_px,
            depth=None if self.depth is None else self.depth.to(device),
            camera=camera,
            close_up=None if close_up is None else close_up.to(device),
            pictures=self.views,
            prompt=prompt,
            seed=seed,
        )


def focal_length(fov_deg: float, width: int) -> float:
    if not 5 <= fov_deg <= 150:
        raise WorldError(f"a field of view wants 5 to 150 degrees, got {fov_deg}")
    return width / 2 / math.tan(math.radians(fov_deg) / 2)


def _sha256(path: str | Path) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise WorldError(f"{path} cannot be read ({error.strerror}); check the name") from error
