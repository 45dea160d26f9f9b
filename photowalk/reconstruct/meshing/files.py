"""A world's meshes in its scene folder: mesh.glb, collision.ply, and scene.json about up, floor and scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.perception.gravity import find_ground
from photowalk.reconstruct.fuse import views_with_depth
from photowalk.reconstruct.meshing import Meshes, mesh_walk, sound_views
from photowalk.reconstruct.scale import scale_to as scaled_to
from photowalk.scene.ground import Ground, level, write_ground
from photowalk.scene.mesh_files import write_mesh
from photowalk.scene.types import Clip, Mesh, View


def mesh_clips(
    walk: Iterable[Clip] | Iterable[View],
    *,
    scale_from: str,
    scale_to: str | None = None,
    metres_per_unit: float = 1.0,
    up: Tensor | None = None,
    close_up: View | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Meshes:
    """The meshes of a walk whose unit is `metres_per_unit` long, as `scale_from` says in words, unless `scale_to`
    corrects it. `up` [3] is where a person says that it is; `close_up` is one of the frames in more pixels."""
    views = sound_views(views_with_depth(walk))
    ground = find_ground(views, up=up).scaled(metres_per_unit, scale_from)
    ground = ground if scale_to is None else scaled_to(scale_to, ground, views)
    return mesh_walk(views, ground=ground, close_up=close_up, on_step=on_step)


def write_meshes(folder: Path, meshes: Meshes, first: Cameras) -> None:
    """Fill `folder`; `first` is the camera [] above the place where a visitor starts."""
    ground = meshes.ground
    write_mesh(folder / "mesh.glb", meshes.visual, upright_from_world(first, ground))
    write_mesh(folder / "collision.ply", meshes.collision)
    eye = first.centres.double()
    facts = {
        "spawn": (eye - float(ground.height(eye)) * ground.up).tolist(),
        "eye_height": float(ground.height(eye)),
        "finest_cell": meshes.finest,
        "cells": meshes.cells,
        "files": {"visual": "mesh.glb", "collision": "collision.ply"},
        "visual": _facts(meshes.visual),
        "collision": _facts(meshes.collision),
    }
    write_ground(folder / "scene.json", ground, facts)


def upright_from_world(first: Cameras, ground: Ground) -> Tensor:
    """The similarity [4, 4] to glTF's axes: metres, y up, the first gaze along -z, the first camera's foot at 0."""
    height = float(ground.height(first.centres.double()))
    right, ahead, up, one = level(first, ground.up, height, ground.metres_per_unit)
    return torch.stack([right, up, -ahead, one])


def _facts(mesh: Mesh) -> dict:
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    return {
        "faces": len(mesh),
        "vertices": len(mesh.vertices),
        "invented_faces": int(mesh.invented.sum()),
        "bounds": [low.tolist(), high.tolist()],
    }
