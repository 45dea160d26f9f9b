"""`world.json`: what a world folder holds, and the walk that is being made in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from photowalk.world.disk import WorldError, write_into_place

VERSION = 1
MANIFEST = "world.json"


@dataclass(frozen=True)
class StoredFile:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ChunkEntry:
    """One chunk in the manifest."""

    folder: str  # below the world's folder
    frames: int
    depth_frames: int  # how many of them have depth
    prompt: str
    seed: int
    path: str
    notes: tuple[str, ...]
    files: dict[str, StoredFile]


@dataclass(frozen=True)
class Job:
    """A walk that was begun: what is left of it can be continued after a crash. Its cameras are in a file beside."""

    path: str
    prompt: str
    seed: int  # of the walk; a chunk's own is this plus its index
    notes: tuple[str, ...]
    first_chunk: int
    chunks: int
    prompts: tuple[str, ...] = ()  # one for each chunk, where they are not all the same
    negative_prompt: str | None = None  # None: the preset's


@dataclass(frozen=True)
class FirstWalk:
    """The walk that a world was created with, as it was asked for."""

    path: str
    chunks: int
    wording: dict[str, Any]  # see `Wording.described`


@dataclass(frozen=True)
class Manifest:
    """`world.json`."""

    preset: str
    height: int
    width: int
    chunk_frames: int
    seed: int
    source: dict[str, str]  # the photo's name and the hashes of what the world was made from
    licences: dict[str, str]
    reference_depth: float
    chunks: tuple[ChunkEntry, ...] = ()
    job: Job | None = None
    scene_frames: int = 0  # how many frames the scene was made from; 0: there is none
    undone: tuple[ChunkEntry, ...] = ()  # chunks that were dropped and can be taken back, the next one first
    depth_network: str = ""  # that estimates depth; empty: not noted, the preset's
    metres_per_unit: float | None = None  # as a person corrected it; None: 1, as the depths were estimated
    up: tuple[float, float, float] | None = None  # in world axes, as a person corrected it; None: the photo's own up
    first_walk: FirstWalk | None = None  # None: the world was created without one, or is a branch
    version: int = field(default=VERSION, kw_only=True)

    @property
    def frames(self) -> int:
        return sum(chunk.frames for chunk in self.chunks)

    @property
    def chunks_to_go(self) -> int:
        return 0 if self.job is None else self.job.first_chunk + self.job.chunks - len(self.chunks)


def read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not folder.is_dir():
        raise WorldError(f"there is no folder {folder}; make a world with: photowalk generate PHOTO -o {folder}")
    if not file.is_file():
        raise WorldError(f"{folder} is not a world: it has no {MANIFEST}; make one with: photowalk generate PHOTO -o")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise WorldError(f"{file} is damaged ({error}); copy the world again from where it came from") from error
    if version != VERSION:
        raise WorldError(
            f"{folder} is a world of version {version}, this photowalk reads version {VERSION}; "
            f"use the photowalk that made it, or generate it again"
        )
    try:
        del content["format"]
        chunks, job = tuple(map(_chunk_entry, content.pop("chunks"))), content.pop("job")
        undone = tuple(map(_chunk_entry, content.pop("undone", ())))
        up, walk = content.pop("up", None), content.pop("first_walk", None)
        if job is not None:
            job = Job(notes=tuple(job.pop("notes")), prompts=tuple(job.pop("prompts", ())), **job)
        return Manifest(
            **content,
            chunks=chunks,
            undone=undone,
            job=job,
            up=None if up is None else tuple(up),
            first_walk=None if walk is None else FirstWalk(**walk),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise WorldError(f"{file} is damaged ({error}); copy the world again from where it came from") from error


def _chunk_entry(content: dict) -> ChunkEntry:
    files = {name: StoredFile(**stored) for name, stored in content.pop("files").items()}
    return ChunkEntry(notes=tuple(content.pop("notes")), files=files, **content)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps({"format": "photowalk world", **asdict(manifest)}, indent=1, ensure_ascii=False)
    write_into_place(folder / MANIFEST, text.encode())
