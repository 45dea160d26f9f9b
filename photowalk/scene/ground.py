"""Where up is, where the floor is, and how long a metre is, each with where it is known from. Kept in scene.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import motion
from photowalk.scene.images import write_atomically

VERSION = 1
EYE_HEIGHT = 1.6  # metres above the floor at which the photo is taken to be where nothing says more


@dataclass(frozen=True)
class Ground:
    """Points x on the floor's plane fulfil up . x = floor, in the world's own axes and unit."""

    up: Tensor  # [3] unit, away from the ground
    floor: float
    up_from: str  # in words
    metres_per_unit: float = 1.0
    scale_from: str = "unknown"  # in words
    floor_seen: bool = True  # False: the floor is a guess

    def height(self, points: Tensor) -> Tensor:
        """Height [*] of points [*, 3] over the floor's plane, in world units."""
        return points @ self.up.to(points) - self.floor

    def corrected(self, first: Cameras, up: Tensor | None, metres_per_unit: float | None) -> Ground:
        """With what a person says of up [3] and the metre; the `first` camera [] stays as high above the floor."""
        ground = self
        if metres_per_unit is not None:
            ground = replace(ground, metres_per_unit=metres_per_unit, scale_from="corrected by hand")
        if up is not None:
            up = up.to(self.up)
            floor = float(first.centres.to(self.up) @ up - self.height(first.centres.to(self.up)))
            ground = replace(ground, up=up, floor=floor, up_from="corrected by hand")
        return ground

    def scaled(self, metres_per_unit: float, scale_from: str) -> Ground:
        return replace(self, metres_per_unit=metres_per_unit, scale_from=scale_from)


def level(first: Cameras, up: Tensor | None = None, eye_height: float = EYE_HEIGHT, metres: float = 1.0) -> Tensor:
    """The similarity [4, 4] from the world to metres, z up, y the first gaze, the floor below the camera at 0.

    first: the camera above the spawn point; up [3]: away from the ground in world axes (default: the image's up, -y);
    eye_height: of that camera above the floor in world units; metres: in one world unit.
    """
    world = first.to("cpu", torch.float64)
    upward = torch.tensor([0.0, -1, 0], dtype=torch.float64) if up is None else up.detach().cpu().double()
    upward = upward / upward.norm()
    gaze = world.camera_from_world[2, :3]  # the camera's z axis in the world
    ahead = gaze - (gaze @ upward) * upward
    if float(ahead.norm()) < 1e-6:  # it looks straight up or down: what its picture has on top is ahead
        ahead = -world.camera_from_world[1, :3] - (-world.camera_from_world[1, :3] @ upward) * upward
    ahead = ahead / ahead.norm()
    rotation = torch.stack([torch.linalg.cross(ahead, upward), ahead, upward])
    spawn = world.centres - eye_height * upward
    return motion(metres * rotation, -metres * (rotation @ spawn))


def write_ground(file: Path, ground: Ground, facts: dict) -> None:
    """scene.json: the ground, and `facts` about the files beside it."""
    content = {"version": VERSION, "ground": {**asdict(ground), "up": ground.up.tolist()}, **facts}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_ground(file: Path) -> Ground:
    """Raises ValueError if there is no such file or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))["ground"]
        up = torch.tensor(content.pop("up"), dtype=torch.float64)
        ground = Ground(up=up, **content)
        if ground.up.shape != (3,) or abs(float(ground.up.norm()) - 1) > 1e-3 or not ground.metres_per_unit > 0:
            raise ValueError("its ground is none")
    except FileNotFoundError as error:
        raise ValueError(f"there is no {file}; make it with: photowalk reconstruct WORLD") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}); make it again with: photowalk reconstruct WORLD") from error
    return ground
