"""The world folder: chunks and a manifest on disk, such that a crash at any moment loses at most the chunk in work.

A chunk is written to a hidden folder, flushed to the disk and renamed; then the manifest is replaced. What the manifest
does not name does not exist and is cleared away by the next writer. It knows how a world is kept, not how it is made.
`docs/world_folder.md` describes the files.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.memory.spatial_memory import EMPTY_MEMORY, SpatialMemory
from photowalk.models.protocols import StreamState
from photowalk.scene.images import NO_ROOM, from_bytes, to_bytes, write_png
from photowalk.scene.types import Clip, View
from photowalk.scene.videos import read_lossless, write_lossless, write_mp4
from photowalk.world.state import Chunk, WorldState

VERSION = 1
FRAMES_PER_SECOND = 16.0
_MANIFEST, _LOCK, _JOB_CAMERAS, _WALK = "world.json", ".lock", "job.safetensors", "walk.mp4"
_LEFTOVERS = (".*.partial", ".*.old", ".walk-*", ".preview-*")  # what writes into place leave behind when killed
_STREAMS = ("encoder.safetensors", "decoder.safetensors")
_OPEN_CHUNKS = 2  # the newest ones keep their streams, so that the last one can be undone without coding anew
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class WorldError(ValueError):
    """A world that cannot be made, read or changed: the text says which, why, and what to do."""


class WorldBusyError(WorldError):
    """Another process is changing the world."""


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
    version: int = field(default=VERSION, kw_only=True)

    @property
    def frames(self) -> int:
        return sum(chunk.frames for chunk in self.chunks)

    @property
    def chunks_to_go(self) -> int:
        return 0 if self.job is None else self.job.first_chunk + self.job.chunks - len(self.chunks)


class WorldStore:
    """One world folder. Reading needs nothing; changing it needs `with store.locked():`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)

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
        entry = self.manifest.chunks[index]
        self._check_sizes(index)
        try:
            on = None if streams_on is None else torch.device(streams_on)
            return _read_chunk(self.folder / entry.folder, entry, self.manifest, torch.device(device), on)
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            self._damaged(index, str(error))

    def cameras(self) -> Cameras:
        """[F] of all frames, without loading them."""
        parts = []
        for index, entry in enumerate(self.manifest.chunks):
            self._check_sizes(index)
            parts.append(_read_cameras(self.folder / entry.folder / "cameras.safetensors", self.manifest))
        return Cameras.cat(parts)

    @property
    def is_open(self) -> bool:
        """Whether the streams at the end of the walk were kept."""
        return set(_STREAMS) <= self.manifest.chunks[-1].files.keys()

    def video(self) -> Iterator[Tensor]:
        """Every frame, uint8 [3, H, W], one chunk in memory at a time."""
        for index, entry in enumerate(self.manifest.chunks):
            self._check_sizes(index)
            try:
                yield from read_lossless(self.folder / entry.folder / "frames.mkv")
            except (OSError, ValueError) as error:
                self._damaged(index, str(error))

    def verify(self) -> None:
        """Read every file in full and compare its hash."""
        for index, entry in enumerate(self.manifest.chunks):
            self._check_sizes(index)
            for name, stored in entry.files.items():
                if _sha256(self.folder / entry.folder / name) != stored.sha256:
                    self._damaged(index, f"{name} holds other bytes than were written")

    def write_video(self, file: Path) -> None:
        """All frames as an .mp4."""
        write_mp4(file, self.video(), FRAMES_PER_SECOND)

    def job_cameras(self) -> Cameras:
        """[F] of the job, all its chunks."""
        try:
            return _read_cameras(self.folder / _JOB_CAMERAS, self.manifest)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WorldError(
                f"the interrupted walk of {self.folder} cannot be continued: {_JOB_CAMERAS} is missing or damaged "
                f"({error}); give a new path with: photowalk extend {self.folder} --path PATH"
            ) from error

    # ---- changing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the world alone and see its newest manifest; what a crash left behind is cleared away."""
        with _explained(self.folder, self._when_full), _lock(self.folder):
            self.manifest = _read_manifest(self.folder)
            self._clear_leftovers()
            yield

    def begin(self, job: Job, cameras: Cameras) -> None:
        """Note a walk along `cameras` [F], whole chunks, before it is made; it replaces one that was interrupted."""
        self.drop_job()
        _write_into_place(self.folder / _JOB_CAMERAS, _packed(_camera_tensors(cameras)))
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
        entry = _write_chunk(self.folder, index, chunk)
        job = None if self.manifest.chunks_to_go <= 1 else self.manifest.job
        self._replace_manifest(chunks=_closed((*self.manifest.chunks, entry)), job=job)
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
            _share(self.folder / "photo.png", folder / "photo.png")
            for entry in entries:
                (folder / entry.folder).mkdir(parents=True)
                for name in entry.files:
                    _share(self.folder / entry.folder / name, folder / entry.folder / name)
            _write_manifest(folder, replace(self.manifest, chunks=entries, undone=(), job=None, scene_frames=0))
        return WorldStore(new)

    # ---- inside

    def _when_full(self) -> str:
        to_go = self.manifest.job is not None or not (self.folder / _WALK).exists()
        then = f"continue with: photowalk extend {self.folder}" if to_go else "run the same command again"
        return f"what was finished is kept; free some space, then {then}"

    def _replace_manifest(self, **changes: object) -> None:
        manifest = replace(self.manifest, **changes)
        _write_manifest(self.folder, manifest)
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
            for name in _STREAMS:
                if name not in entry.files:
                    (self.folder / entry.folder / name).unlink(missing_ok=True)

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


def _closed(entries: tuple[ChunkEntry, ...]) -> tuple[ChunkEntry, ...]:
    """Without the streams of all but the newest chunks: at the published size they are 3 GB a chunk. A chunk that was
    stored without what it was decoded from, by an earlier program, leaves the streams as they are."""
    if any("sampled.safetensors" not in entry.files for entry in entries[1:]):
        return entries
    older, newest = entries[:-_OPEN_CHUNKS], entries[-_OPEN_CHUNKS:]
    kept = [{name: file for name, file in entry.files.items() if name not in _STREAMS} for entry in older]
    return (*(replace(entry, files=files) for entry, files in zip(older, kept)), *newest)


@contextmanager
def new_world(folder: str | Path) -> Iterator[Path]:
    """A hidden sibling to fill, which then takes the name `folder`; on any error nothing is left."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        what = "a world" if (folder / _MANIFEST).exists() else "something else"
        raise WorldError(f"{folder} exists already and holds {what}; choose another folder, or delete it first")
    partial = folder.absolute().with_name(f".{folder.absolute().name}.partial")
    with _explained(folder, lambda: "nothing was kept; free some space, then run the same command again"):
        partial.mkdir(parents=True, exist_ok=True)
        with _lock(partial):
            try:
                for leftover in partial.iterdir():
                    if leftover.name != _LOCK:
                        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
                (partial / "chunks").mkdir()
                yield partial
                os.rename(partial, folder)
                _sync_folder(folder.absolute().parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def create(
    folder: Path, manifest: Manifest, photo: Tensor, first: Chunk, job: Job | None, cameras: Cameras | None
) -> None:
    """Fill the folder of `new_world` with the photo [3, H, W], its chunk and, if there is one, the walk to begin."""
    write_png(folder / "photo.png", photo)
    entry = _write_chunk(folder, 0, first)
    if cameras is not None:
        _write_tensors(folder / _JOB_CAMERAS, _camera_tensors(cameras))
    _write_manifest(folder, replace(manifest, chunks=(entry,), job=job))


def _read_manifest(folder: Path) -> Manifest:
    file = folder / _MANIFEST
    if not folder.is_dir():
        raise WorldError(f"there is no folder {folder}; make a world with: photowalk generate PHOTO -o {folder}")
    if not file.is_file():
        raise WorldError(f"{folder} is not a world: it has no {_MANIFEST}; make one with: photowalk generate PHOTO -o")
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
        up = content.pop("up", None)
        if job is not None:
            job = Job(notes=tuple(job.pop("notes")), prompts=tuple(job.pop("prompts", ())), **job)
        return Manifest(**content, chunks=chunks, undone=undone, job=job, up=None if up is None else tuple(up))
    except (KeyError, TypeError, AttributeError) as error:
        raise WorldError(f"{file} is damaged ({error}); copy the world again from where it came from") from error


def _chunk_entry(content: dict) -> ChunkEntry:
    files = {name: StoredFile(**stored) for name, stored in content.pop("files").items()}
    return ChunkEntry(notes=tuple(content.pop("notes")), files=files, **content)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps({"format": "photowalk world", **asdict(manifest)}, indent=1, ensure_ascii=False)
    _write_into_place(folder / _MANIFEST, text.encode())


def _write_chunk(world: Path, index: int, chunk: Chunk) -> ChunkEntry:
    name = f"{index:04d}"
    partial, final = world / "chunks" / f".{name}.partial", world / "chunks" / name
    description = {
        "frames": len(chunk.clip),
        "depth_frames": len(chunk.depth_frames),
        "prompt": chunk.prompt,
        "seed": chunk.seed,
        "path": chunk.path,
        "notes": chunk.notes,
    }
    partial.mkdir()
    try:
        _write_frames(partial / "frames.mkv", chunk.clip.video)
        _write_tensors(partial / "depth.safetensors", _depth_tensors(chunk))
        _write_tensors(partial / "cameras.safetensors", _camera_tensors(chunk.clip.cameras))
        _write_tensors(partial / "latents.safetensors", {"latents": chunk.latents})
        _write_tensors(partial / _STREAMS[0], chunk.encoder)
        _write_tensors(partial / _STREAMS[1], chunk.decoder)
        if chunk.sampled is not None:
            _write_tensors(partial / "sampled.safetensors", {"sampled": chunk.sampled})
        if chunk.views:
            _write_tensors(partial / "views.safetensors", _view_tensors(chunk.views))
        _write_bytes(partial / "chunk.json", json.dumps(description, indent=1, ensure_ascii=False).encode())
        files = {file.name: StoredFile(file.stat().st_size, _sha256(file)) for file in sorted(partial.iterdir())}
        _sync_folder(partial)
        os.rename(partial, final)
        _sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return ChunkEntry(folder=f"chunks/{name}", files=files, **description)


def _read_chunk(
    folder: Path, entry: ChunkEntry, manifest: Manifest, device: torch.device, streams_on: torch.device | None
) -> Chunk:
    video = from_bytes(read_lossless(folder / "frames.mkv"))
    size = (entry.frames, 3, manifest.height, manifest.width)
    if tuple(video.shape) != size:
        raise ValueError(f"frames.mkv holds {tuple(video.shape)}, {size} were written")
    stored = _read_tensors(folder / "depth.safetensors")
    depth = torch.zeros(entry.frames, manifest.height, manifest.width)
    depth[stored["frames"]] = stored["depth"].float()
    cameras = _read_cameras(folder / "cameras.safetensors", manifest)
    kept = {Path(file).stem: file for file in _STREAMS if file in entry.files}
    return Chunk(
        Clip(video.to(device), cameras.to(device), depth.to(device), entry.prompt),
        _read_tensors(folder / "latents.safetensors")["latents"].to(device),
        entry.prompt,
        entry.seed,
        entry.path,
        entry.notes,
        **{name: _read_stream(folder / file, streams_on) for name, file in kept.items() if streams_on is not None},
        sampled=_read_tensors(folder / "sampled.safetensors")["sampled"].to(device)
        if "sampled.safetensors" in entry.files
        else None,
        views=_read_views(folder / "views.safetensors", manifest, device) if "views.safetensors" in entry.files else (),
    )


def _view_tensors(views: Sequence[View]) -> dict[str, Tensor]:
    return {
        "images": to_bytes(torch.stack([view.image for view in views])),
        "depth": torch.stack([view.depth for view in views]).half(),
        "camera_from_world": torch.stack([view.camera.camera_from_world for view in views]),
        "intrinsics": torch.stack([view.camera.intrinsics for view in views]),
    }


def _read_views(file: Path, manifest: Manifest, device: torch.device) -> tuple[View, ...]:
    stored, cameras = _read_stream(file, device), _read_cameras(file, manifest).to(device)
    pictures = zip(from_bytes(stored["images"]), stored["depth"].float(), cameras, strict=True)
    return tuple(View(*picture, frame=-1 - index) for index, picture in enumerate(pictures))


def _read_stream(file: Path, device: torch.device) -> StreamState:
    return {name: tensor.to(device) for name, tensor in _read_tensors(file).items()}


def _write_frames(file: Path, video: Tensor) -> None:
    frames = to_bytes(video).cpu()
    if not torch.equal(from_bytes(frames), video.cpu()):
        raise ValueError("the frames of a chunk want values n / 255, so that they are stored without loss")
    write_lossless(file, frames, FRAMES_PER_SECOND)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    if not torch.equal(read_lossless(file), frames):  # encoders do not report every failed write
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


def _depth_tensors(chunk: Chunk) -> dict[str, Tensor]:
    frames = chunk.depth_frames
    if chunk.clip.depth is None:
        return {"frames": frames, "depth": torch.zeros(0, *chunk.clip.video.shape[-2:], dtype=torch.float16)}
    depth = chunk.clip.depth[frames]
    if not torch.equal(depth.half().float(), depth):
        raise ValueError("the depth of a chunk wants float16 values (none of them NaN), to be stored without loss")
    return {"frames": frames, "depth": depth.half()}


def _camera_tensors(cameras: Cameras) -> dict[str, Tensor]:
    return {"camera_from_world": cameras.camera_from_world, "intrinsics": cameras.intrinsics}


def _read_cameras(file: Path, manifest: Manifest) -> Cameras:
    stored = _read_tensors(file)
    return Cameras(stored["camera_from_world"], stored["intrinsics"], manifest.height, manifest.width)


def _write_tensors(file: Path, tensors: StreamState) -> None:
    _write_bytes(file, _packed(tensors))


def _packed(tensors: StreamState) -> bytes:
    """safetensors by way of memory, so that a failed write is an OSError with its reason."""
    return safetensors.torch.save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})


def _read_tensors(file: Path) -> StreamState:
    """Copies in memory of their own: aligned as fresh tensors are, on which a matrix library's rounding may depend."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load(file.read_bytes()).items()}


def _write_bytes(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _write_into_place(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.partial")
    try:
        _write_bytes(partial, content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _share(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise WorldBusyError(
                f"{folder} is being changed by another process (pid {holder}); wait until it is done, then try again"
            ) from None
        with suppress(OSError):  # who holds it is good to know, not needed
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def _explained(folder: Path, when_full: Callable[[], str]) -> Iterator[None]:
    """Turn the system's errors about the world's disk into words."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise WorldError(f"no space is left for {folder} ({error.strerror}); {when_full()}") from error
        if error.errno in _READ_ONLY:
            raise WorldError(
                f"{folder} cannot be written ({error.strerror}: {error.filename}); make it writable or use another one"
            ) from error
        raise
