"""From posed pictures with depth to meshes: one to be seen, one to be stood on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from photowalk.perception.gravity import find_ground
from photowalk.reconstruct.meshing.cleaning import decimated, without_small_parts
from photowalk.reconstruct.meshing.floor import close_floor
from photowalk.reconstruct.meshing.fusion import fuse, looks_of, sizing_for
from photowalk.reconstruct.meshing.surface import extract
from photowalk.reconstruct.meshing.texture import bake
from photowalk.scene.ground import Ground
from photowalk.scene.types import Mesh, View

CELLS = 1_000_000
VISUAL_FACES, COLLISION_FACES = 40_000, 20_000
TEXTURE = 2048  # texels along a side of the picture, at most


@dataclass(frozen=True)
class Meshes:
    visual: Mesh  # textured
    collision: Mesh
    ground: Ground
    finest: float  # side of the finest cell
    cells: int


def mesh_walk(
    views: Sequence[View],
    *,
    ground: Ground | None = None,
    finest: float | None = None,
    cells: int = CELLS,
    faces: int = VISUAL_FACES,
    collision_faces: int = COLLISION_FACES,
    texture: int = TEXTURE,
    close_up: View | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Meshes:
    """The meshes of a walk's views (depth 0 = unknown, inf = sky, NaN = unknown).

    `finest` is the side of the finest cells in world units; without it they are as fine as about `cells` cells allow.
    `close_up` is one of the views in more pixels, for the texture.
    The picture has no more than `texture` texels along a side, and fewer where the views have fewer pixels.
    Raises ValueError if no view has depth, or if there is only sky.
    """
    views = sound_views(views)
    if not views:
        raise ValueError("no frame of this walk shows a surface at a known depth, and a mesh needs one")
    ground = find_ground(views) if ground is None else ground
    looks = looks_of(views)
    sizing, noise = sizing_for(looks, finest=finest, cells=cells)
    field = close_floor(fuse(looks, sizing, noise, on_step), looks, ground, sizing, noise)
    whole = without_small_parts(extract(field))
    if len(whole) == 0:
        raise ValueError("the views of this walk agree on no surface; give finer cells, or generate it anew")
    collision = decimated(whole, collision_faces)
    shown = views if close_up is None else [*views, close_up]
    visual = bake(decimated(whole, faces), shown, min(texture, _texels(shown)))
    return Meshes(visual, collision, ground, sizing.finest, len(field.grid))


def _texels(views: Sequence[View]) -> int:
    """Along a side of a picture that holds every pixel of the views, half of it unused, as a power of two."""
    return 1 << math.ceil(math.log2(2 * sum(view.depth.numel() for view in views)) / 2)


def sound_views(views: Sequence[View]) -> list[View]:
    """The views that see a surface somewhere; depths that are not a number or negative are unknown."""
    cleaned = [replace(view, depth=view.depth.where(view.depth > 0, 0.0)) for view in views]  # NaN compares false
    return [view for view in cleaned if bool(((view.depth > 0) & view.depth.isfinite()).any())]
