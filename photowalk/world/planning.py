"""From a path as a person gives it to a job: cameras of whole chunks that run into nothing, each with its prompt.

Knows the state that a walk goes on from, but no networks and no files of the world.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.path_files import is_path_file
from photowalk.geometry.path_language import plan
from photowalk.geometry.paths import PathError
from photowalk.geometry.published_paths import follows_ground, plan_published, reading_note
from photowalk.memory.foresight import lost_note
from photowalk.perception.gravity import photo_up
from photowalk.perception.ground import ground_normal
from photowalk.scene.collision import shorten
from photowalk.world.disk import WorldError
from photowalk.world.manifest import Job, Manifest
from photowalk.world.state import WorldState
from photowalk.world.wording import Wording


def check_path(path: str, height: int, width: int, chunk: int, *, legacy: bool) -> Cameras | None:
    """Raise PathError for a path that no photo of this size could be walked along; where the photo's camera stands if
    the path says it, as the published programs' files do."""
    stand_in = Cameras.from_fov(torch.eye(4), 60.0, height, width)
    if not legacy:
        plan(path, stand_in, start_of_walk=stand_in, reference_depth=1.0, chunk=chunk)
        return None
    up = torch.tensor([0.0, -1.0, 0.0])
    planned = plan_published(path, stand_in, centre_depth=1.0, chunk=chunk, ground_normal=up)
    return planned[0] if is_path_file(path) else None  # the world is the file's


def plan_walk(
    path: str | Cameras,
    state: WorldState,
    manifest: Manifest,
    wording: Wording,
    seed: int,
    on_note: Callable[[str], None],
) -> tuple[Job, Cameras]:
    """The walk along `path` as whole chunks, kept clear of what is known to be in the way."""
    start, size, notes = state.cameras[-1], manifest.chunk_frames, []
    if isinstance(path, Cameras):
        if len(path) == 0 or len(path) % size or (path.height, path.width) != (manifest.height, manifest.width):
            raise WorldError(
                f"a walk wants cameras of whole chunks of {size} frames of {manifest.height}x{manifest.width}, "
                f"got {len(path)} of {path.height}x{path.width}"
            )
        text, cameras = "cameras", path.check().to(start.camera_from_world)
    elif "legacy" in manifest.source:
        if is_path_file(path) and len(state.chunks) > 1:
            raise PathError(f"{path}: a published path file is walked from the photo on; generate a world with it")
        normal = ground_normal(state.views[-1]) if follows_ground(path) else None
        cameras = plan_published(path, start, centre_depth=manifest.reference_depth, chunk=size, ground_normal=normal)[
            1:
        ]
        text, note = path, reading_note(path, size)
        notes += [] if note is None else [note]
    else:
        unit = 1 / (manifest.metres_per_unit or 1.0)  # a metre in world units
        planned = plan(
            path,
            start,
            start_of_walk=state.cameras[0],
            reference_depth=manifest.reference_depth,
            chunk=size,
            unit=unit,
            up=photo_up(state.first) if manifest.up is None else torch.tensor(manifest.up),
        )
        shortened, word = shorten(planned.cameras, state.views, unit=unit)
        lost = lost_note(shortened, state.memory.candidates)
        text, notes, cameras = path, [*planned.notes, *(note for note in (word, lost) if note)], shortened[1:]
    for note in notes:
        on_note(note)
    prompts = wording.prompts(state, cameras, size, manifest.reference_depth)
    if wording.negative_prompt is not None:
        notes.append(f"guided away from: {wording.negative_prompt}")
    job = Job(
        text,
        prompts[0],
        seed,
        tuple(notes),
        first_chunk=len(state.chunks),
        chunks=len(cameras) // size,
        prompts=prompts if len(set(prompts)) > 1 else (),
        negative_prompt=wording.negative_prompt,
    )
    return job, cameras
