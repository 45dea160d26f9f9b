"""The world folder: chunks and a manifest on disk, such that a crash at any moment loses at most the chunk in work.

A chunk is written to a hidden folder, flushed to the disk and renamed; then the manifest is replaced. What the manifest
does not name does not exist and is cleared away by the next writer. It knows how a world is kept, not how it is made.
`docs/world_folder.md` describes the files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.memory.spatial_memory import EMPTY_MEMORY, SpatialMemory
from photowalk.scene.images import write_png
from photowalk.scene.types import Clip, View
from photowalk.scene.videos import read_lossless, write_mp4
from photowalk.world.chunk_files import (
    FRAMES_PER_SECOND,
    STREAMS,
    camera_tensors,
    frames_with_depth,
    packed,
    read_cameras,
    read_chunk,
    read_clip,
    write_chunk,
    write_tensors,
)
from photowalk.world.disk import LOCK, WorldError, explained, lock, sha256, share, sync_folder, write_into_place
from photowalk.world.manifest import MANIFEST, ChunkEntry, Job, Manifest, read_manifest, write_manifest
from photowalk.world.state import Chunk, WorldState

T = TypeVar("T")
_JOB_CAMERAS, _WALK = "job.safetensors", "walk.mp4"
_LEFTOVERS = (".*.partial", ".*.old", ".walk-*", ".preview-*")  # what writes into place leave behind when killed
_OPEN_CHUNKS = 2  # the newest ones keep their streams, so that the last one can be undone without coding anew


class WorldStore:
    """One world folder. Reading needs nothing; changing it needs `with store.locked():`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)

    # ---- reading

    def load(
        self,
        device: torch.device | str = "cpu",
        memory: SpatialMemory = EMPTY_MEMORY,
        *,
        streams_on: torch.device | str | None = None,
    ) -> WorldState:
        """The whole world, remembered in `memory`, an empty one; the codec's streams, which are large, on a device of
        their own where one is given. Raises WorldError that names a missing or damaged chunk and what can be done."""
        last, streams = len(self.manifest.chunks) - 1, device if streams_on is None else streams_on
        chunks = (self.chunk(index, device, streams_on=streams if index == last else None) for index in range(last + 1))
        return WorldState.from_chunks(chunks, memory)

    def chunk(
        self, index: int, device: torch.device | str = "cpu", *, streams_on: torch.device | str | None = None
    ) -> Chunk:
        """One chunk; with the states of the codec's streams after it where they were kept and a device is named."""
        entry, on = self.manifest.chunks[index], None if streams_on is None else torch.device(streams_on)
        return self._read(index, read_chunk, entry, self.manifest, torch.device(device), on)

    def clips(self, frames: Sequence[int] | None = None) -> Iterator[Clip]:
        """The walk, one chunk in memory at a time; where `frames` are given, ascending numbers, each once, of these
        alone, which costs less than all of them."""
        start = 0
        for index, entry in enumerate(self.manifest.chunks):
            chosen = range(entry.frames) if frames is None else _within(frames, start, start + entry.frames)
            start += entry.frames
            if len(chosen):
                yield self._read(index, read_clip, entry, self.manifest, chosen)

    def views(self) -> Iterator[View]:
        """The frames with depth, one chunk of them in memory at a time."""
        start = 0
        for index, entry in enumerate(self.manifest.chunks):
            known = self._read(index, frames_with_depth)
            if known:
                clip = self._read(index, read_clip, entry, self.manifest, known)
                yield from (replace(clip.view(place), frame=start + frame) for place, frame in enumerate(known))
            start += entry.frames

    def cameras(self) -> Cameras:
        """[F] of all frames, without loading them."""
        indices = range(len(self.manifest.chunks))
        return Cameras.cat([self._read(index, _chunk_cameras, self.manifest) for index in indices])

    @property
    def is_open(self) -> bool:
        """Whether the streams at the end of the walk were kept."""
        return set(STREAMS) <= self.manifest.chunks[-1].files.keys()

    def video(self) -> Iterator[Tensor]:
        """Every frame, uint8 [3, H, W], one chunk in memory at a time."""
        for index in range(len(self.manifest.chunks)):
            yield from self._read(index, _chunk_frames)

    def verify(self) -> None:
        """Read every file in full and compare its hash."""
        for index, entry in enumerate(self.manifest.chunks):
            self._check_sizes(index)
            for name, stored in entry.files.items():
                if sha256(self.folder / entry.folder / name) != stored.sha256:
                    self._damaged(index, f"{name} holds other bytes than were written")

    def write_video(self, file: Path) -> None:
        """All frames as an .mp4."""
        write_mp4(file, self.video(), FRAMES_PER_SECOND)

    def job_cameras(self) -> Cameras:
        """[F] of the job, all its chunks."""
        try:
            return read_cameras(self.folder / _JOB_CAMERAS, self.manifest)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WorldError(
                f"the interrupted walk of {self.folder} cannot be continued: {_JOB_CAMERAS} is missing or damaged "
                f"({error}); give a new path with: photowalk extend {self.folder} --path PATH"
            ) from error

    # ---- changing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the world alone and see its newest manifest; what a crash left behind is cleared away."""
        with explained(self.folder, self._when_full), lock(self.folder):
            self.manifest = read_manifest(self.folder)
            self._clear_leftovers()
            yield

    def begin(self, job: Job, cameras: Cameras) -> None:
        """Note a walk along `cameras` [F], whole chunks, before it is made; it replaces one that was interrupted."""
        self.drop_job()
        write_into_place(self.folder / _JOB_CAMERAS, packed(camera_tensors(cameras)))
        self._replace_manifest(job=job)

    def drop_job(self) -> None:
        if self.manifest.job is not None:
            self._replace_manifest(job=None)
            (self.folder / _JOB_CAMERAS).unlink(missing_ok=True)

    def append(self, chunk: Chunk) -> None:
        """Add the next chunk; the job ends with its last one."""
        index = len(self.manifest.chunks)
        (self.folder / _WALK).unlink(missing_ok=True)  # it would lack the new frames
        if self.manifest.undone:  # they went on from here in another way, and their folders have the new one's name
            self._replace_manifest(undone=())
            self._clear_leftovers()
        entry = write_chunk(self.folder, index, chunk)
        job = None if self.manifest.chunks_to_go <= 1 else self.manifest.job
        known = min(self.manifest.scene_frames, self.manifest.frames)  # the scene may show frames that were undone
        self._replace_manifest(chunks=_closed((*self.manifest.chunks, entry)), job=job, scene_frames=known)
        self._clear_streams()
        if job is None:
            (self.folder / _JOB_CAMERAS).unlink(missing_ok=True)

    def truncate(self, count: int) -> None:
        """Keep the first `count` chunks; the others can be restored until a new chunk is added. A job that was not
        finished is dropped."""
        (self.folder / _WALK).unlink(missing_ok=True)
        chunks, undone = self.manifest.chunks, self.manifest.undone
        self._replace_manifest(chunks=chunks[:count], undone=chunks[count:] + undone, job=None)
        self._clear_leftovers()

    def restore(self, count: int) -> None:
        """Take back the `count` chunks that were truncated last; a job that was not finished is dropped."""
        (self.folder / _WALK).unlink(missing_ok=True)
        chunks, undone = self.manifest.chunks, self.manifest.undone
        self._replace_manifest(chunks=chunks + undone[:count], undone=undone[count:], job=None)
        self._clear_leftovers()

    def correct(self, *, metres_per_unit: float | None = None, up: tuple[float, float, float] | None = None) -> None:
        """What a person knows better; None leaves it as it is."""
        changes = {"metres_per_unit": metres_per_unit, "up": up}
        self._replace_manifest(**{name: value for name, value in changes.items() if value is not None})

    def write_walk(self) -> None:
        """walk.mp4 from the stored frames."""
        self.write_video(self.folder / _WALK)

    @contextmanager
    def new_scene(self) -> Iterator[Path]:
        """A folder to fill that then becomes scene/."""
        partial, old = self.folder / ".scene.partial", self.folder / ".scene.old"
        partial.mkdir()
        try:
            yield partial
            if (self.folder / "scene").exists():
                os.rename(self.folder / "scene", old)
            os.rename(partial, self.folder / "scene")
            self._replace_manifest(scene_frames=self.manifest.frames)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)

    def branch(self, new: str | Path, chunks: int) -> WorldStore:
        """A world of its own from the first `chunks` chunks; the files, which never change, are shared where the disk
        can link them."""
        entries = self.manifest.chunks[:chunks]
        for index in range(chunks):
            self._check_sizes(index)
        with new_world(new) as folder:
            if (self.folder / "photo.png").exists():
                share(self.folder / "photo.png", folder / "photo.png")
            else:  # it is there for people, who may delete it
                write_png(folder / "photo.png", self.chunk(0).clip.video[0])
            for entry in entries:
                (folder / entry.folder).mkdir(parents=True)
                for name in entry.files:
                    share(self.folder / entry.folder / name, folder / entry.folder / name)
            write_manifest(
                folder, replace(self.manifest, chunks=entries, undone=(), job=None, scene_frames=0, first_walk=None)
            )
        return WorldStore(new)

    # ---- inside

    def _when_full(self) -> str:
        to_go = self.manifest.job is not None or not (self.folder / _WALK).exists()
        then = f"continue with: photowalk extend {self.folder}" if to_go else "run the same command again"
        return f"what was finished is kept; free some space, then {then}"

    def _replace_manifest(self, **changes: object) -> None:
        manifest = replace(self.manifest, **changes)
        write_manifest(self.folder, manifest)
        self.manifest = manifest

    def _clear_leftovers(self) -> None:
        named = {Path(entry.folder).name for entry in (*self.manifest.chunks, *self.manifest.undone)}
        for folder in (self.folder / "chunks").iterdir():
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)
        for leftover in (path for pattern in _LEFTOVERS for path in self.folder.glob(pattern)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        if self.manifest.job is None:
            (self.folder / _JOB_CAMERAS).unlink(missing_ok=True)
        self._clear_streams()

    def _clear_streams(self) -> None:
        for entry in (*self.manifest.chunks, *self.manifest.undone):
            for name in STREAMS:
                if name not in entry.files:
                    (self.folder / entry.folder / name).unlink(missing_ok=True)

    def _read(self, index: int, read: Callable[..., T], *arguments: object) -> T:
        """What `read(folder, *arguments)` finds in a chunk's folder. Raises WorldError where that is damaged."""
        self._check_sizes(index)
        try:
            return read(self.folder / self.manifest.chunks[index].folder, *arguments)
        except (OSError, SafetensorError, ValueError, KeyError, IndexError, RuntimeError) as error:
            self._damaged(index, str(error))

    def _check_sizes(self, index: int) -> None:
        entry = self.manifest.chunks[index]
        for name, stored in entry.files.items():
            file = self.folder / entry.folder / name
            if not file.is_file():
                self._damaged(index, f"{name} is missing")
            if file.stat().st_size != stored.bytes:
                self._damaged(index, f"{name} has {file.stat().st_size} bytes, {stored.bytes} were written")

    def _damaged(self, index: int, reason: str) -> NoReturn:
        entry, count = self.manifest.chunks[index], len(self.manifest.chunks)
        good = sum(chunk.frames for chunk in self.manifest.chunks[:index])
        remedy = (
            "it holds the photo, so the world has to be generated again"
            if index == 0
            else f"go back to the {good} frames before it with: photowalk undo {self.folder} {count - index}"
        )
        raise WorldError(f"{self.folder / entry.folder} is missing or damaged ({reason}); {remedy}")


def _chunk_cameras(folder: Path, manifest: Manifest) -> Cameras:
    return read_cameras(folder / "cameras.safetensors", manifest)


def _chunk_frames(folder: Path) -> Tensor:
    return read_lossless(folder / "frames.mkv")


def _within(frames: Sequence[int], start: int, end: int) -> list[int]:
    """Those of `frames` from `start` to before `end`, counted from `start`."""
    return [frame - start for frame in frames if start <= frame < end]


def _closed(entries: tuple[ChunkEntry, ...]) -> tuple[ChunkEntry, ...]:
    """Without the streams of all but the newest chunks: at the published size they are 3 GB a chunk. A chunk that was
    stored without what it was decoded from, by an earlier program, leaves the streams as they are."""
    if any("sampled.safetensors" not in entry.files for entry in entries[1:]):
        return entries
    older, newest = entries[:-_OPEN_CHUNKS], entries[-_OPEN_CHUNKS:]
    kept = [{name: file for name, file in entry.files.items() if name not in STREAMS} for entry in older]
    return (*(replace(entry, files=files) for entry, files in zip(older, kept)), *newest)


@contextmanager
def new_world(folder: str | Path) -> Iterator[Path]:
    """A hidden sibling to fill, which then takes the name `folder`; on any error nothing is left."""
    folder = Path(folder).resolve()  # what a link leads to, since the link itself cannot be replaced
    if folder == Path.cwd() or os.path.ismount(folder):
        raise WorldError(f"{folder} cannot be replaced by a world, as it is in use; name a new folder in it")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        what = "a world" if (folder / MANIFEST).exists() else "something else"
        raise WorldError(f"{folder} exists already and holds {what}; choose another folder, or delete it first")
    partial = folder.with_name(f".{folder.name}.partial")
    with explained(folder, lambda: "nothing was kept; free some space, then run the same command again"):
        partial.mkdir(parents=True, exist_ok=True)
        with lock(partial):
            try:
                for leftover in partial.iterdir():
                    if leftover.name != LOCK:
                        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
                (partial / "chunks").mkdir()
                yield partial
                os.rename(partial, folder)
                sync_folder(folder.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def create(
    folder: Path, manifest: Manifest, photo: Tensor, first: Chunk, job: Job | None, cameras: Cameras | None
) -> None:
    """Fill the folder of `new_world` with the photo [3, H, W], its chunk and, if there is one, the walk to begin."""
    write_png(folder / "photo.png", photo)
    entry = write_chunk(folder, 0, first)
    if cameras is not None:
        write_tensors(folder / _JOB_CAMERAS, camera_tensors(cameras))
    write_manifest(folder, replace(manifest, chunks=(entry,), job=job))
