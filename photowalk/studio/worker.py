"""The process that holds the networks: makes one order at a time and tells how far it is.

A process of its own, so that the studio answers while a chunk is made, and so that a step that does not end can be
ended. Nothing it was killed in is lost but the chunk in work: world folders are written that way. It dies with the
studio. It knows nothing of users, queues or HTTP.
"""

from __future__ import annotations

import io
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.perception.captions import Captioner, load_captioner
from photowalk.presets.preset import Preset
from photowalk.scene.images import to_bytes
from photowalk.studio import schemas
from photowalk.world.chunk_files import CLOSE_UP
from photowalk.world.generator import Generator
from photowalk.world.manifest import Manifest
from photowalk.world.placement import Placement
from photowalk.world.progress import Cancelled, Progress
from photowalk.world.session import World
from photowalk.world.store import WorldStore
from photowalk.world.wording import caption_scene

LoadPreset = Callable[[str], Preset]
Place = Callable[[], Placement]
PREVIEW_SECONDS = 0.5  # at most two pictures a second


@dataclass(frozen=True)
class Task:
    """An order and where its things lie."""

    job: str
    order: schemas.Order
    folder: Path  # the world's
    uploads: Path
    exports: Path
    preset: str  # for new worlds
    base: int  # how many chunks the world had when this walk began


@dataclass(frozen=True)
class Step:
    """Sent while a task runs; `preview` is a JPEG."""

    job: str
    progress: Progress
    preview: bytes | None = None


@dataclass(frozen=True)
class End:
    """Sent when a task ends: done, yielded (there is more to do), cancelled, failed."""

    job: str
    outcome: str
    message: str = ""


class _Yielded(Exception):
    """Raised between two chunks to let somebody else have a turn."""


def work(connection: Connection, load_preset: LoadPreset, place: Place, threads: int | None) -> None:
    """Take tasks from the connection until it closes. `place` is called here, where the networks will be."""
    os.nice(5)  # answers to people come first
    if threads is not None:
        torch.set_num_threads(threads)
    worker = _Worker(connection, load_preset, place)
    threading.Thread(target=worker.listen, daemon=True).start()
    worker.run()


class _Worker:
    def __init__(self, connection: Connection, load_preset: LoadPreset, place: Place) -> None:
        self._connection, self._load_preset, self._place = connection, load_preset, place
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._wish: tuple[str, str] | None = None  # a job and what is wanted of it: cancel, yield
        self._generators: dict[tuple[str, tuple[int, int]], Generator] = {}  # by preset and size of the frames
        self._captioners: dict[str, Captioner] = {}
        self._world: tuple[Path, World] | None = None  # the last one, whose frames need not be read again
        self._sending = threading.Lock()

    def listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the studio is gone; a lock on a world must not outlive it
            if isinstance(message, Task):
                self._tasks.put(message)
            elif self._wish != (message[0], "cancel"):
                self._wish = message

    def run(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                message, outcome = self._perform(task), "done"
            except Cancelled:
                message, outcome = "", "cancelled"
            except _Yielded:
                message, outcome = "", "yielded"
            except (ValueError, OSError) as error:
                message, outcome = str(error), "failed"
            except Exception as error:  # a fault of the program ends one job, not the studio
                message, outcome = f"a fault of the program: {type(error).__name__}: {error}", "failed"
            if self._wish is not None and self._wish[0] == task.job:
                self._wish = None
            self._send(End(task.job, outcome, message))

    def _perform(self, task: Task) -> str:
        order, watch = task.order, _Watch(self, task.job)
        if isinstance(order, schemas.Create):
            if (task.folder / "world.json").exists():  # it was made, and perhaps walked, before this was told
                return ""
            self._make(task, watch, task.uploads / order.photo, order.prompt, order.seed, order.fov_deg)
        elif isinstance(order, schemas.Expand):
            return self._expand(task, order)
        elif isinstance(order, schemas.Correct):
            self._correct(task, order, watch)
        elif isinstance(order, schemas.Extend):
            return self._extend(task, order, watch)
        elif isinstance(order, schemas.Reconstruct):
            World.open(task.folder).reconstruct(watch)
        else:
            watch(Progress("export", 0, 1))
            task.exports.mkdir(exist_ok=True)
            _export(World.open(task.folder), task.exports / f"world{order.ending}")
        return ""

    def _extend(self, task: Task, order: schemas.Extend, watch: _Watch) -> str:
        notes: list[str] = []
        world = self._opened(task.folder, order.steps, notes.append)
        manifest = WorldStore(task.folder).manifest
        if manifest.job is not None or len(manifest.chunks) > task.base:
            if manifest.job is not None or not (task.folder / "walk.mp4").exists():
                world.extend(on_step=watch)  # it was begun before
            return ""
        path = order.path if order.cameras is None else _cameras(task.uploads / order.cameras, world)
        world.extend(path, order.prompt, order.seed, on_step=watch, on_note=notes.append)
        return "; ".join(notes)

    def _expand(self, task: Task, order: schemas.Expand) -> str:
        world = self._opened(task.folder)
        if order.captioner not in self._captioners:
            self._captioners[order.captioner] = load_captioner(order.captioner, world.generator.placement.device)
        cameras = _cameras(task.uploads / order.cameras, world)
        scene = caption_scene(world.state, cameras, order.prompt, world.manifest.reference_depth)
        return self._captioners[order.captioner].caption(scene)

    def _correct(self, task: Task, order: schemas.Correct, watch: _Watch) -> None:
        """The same photo and its depth, seen through another lens."""
        store = WorldStore(task.folder)
        manifest, photo = store.manifest, store.chunk(0)
        if len(manifest.chunks) > 1:
            raise ValueError("this world has been walked already; undo the walk, then correct the photo's lens")
        assert photo.clip.depth is not None
        depth = task.uploads / f"{task.job}.npy"
        np.save(depth, photo.clip.depth[0].numpy())
        try:
            close_up = task.folder / manifest.chunks[0].folder / CLOSE_UP  # the photo in more pixels, where it has them
            file = close_up if close_up.is_file() else task.folder / "photo.png"
            self._make(task, watch, file, photo.prompt, manifest.seed, order.fov_deg, depth, manifest)
        finally:
            depth.unlink(missing_ok=True)

    def _make(
        self,
        task: Task,
        watch: _Watch,
        photo: Path,
        prompt: str,
        seed: int,
        fov_deg: float | None,
        depth: Path | None = None,
        corrected: Manifest | None = None,
    ) -> None:
        """The world of a photo alone. One that is there already is replaced when the new one is done, which keeps what
        was `corrected` in it."""
        preset = self._loaded(task.preset)
        new, old = task.folder.with_name("world.new"), task.folder.with_name("world.old")
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        made = World.create(
            photo, new, prompt=prompt, preset=preset, seed=seed, depth=depth, fov_deg=fov_deg, on_step=watch
        )
        if corrected is not None:
            made.correct(metres_per_unit=corrected.metres_per_unit, up=corrected.up)
        self._world = None
        if task.folder.exists():
            task.folder.rename(old)
        new.rename(task.folder)
        shutil.rmtree(old, ignore_errors=True)

    def _opened(self, folder: Path, steps: int | None = None, on_note: Callable[[str], None] = lambda _: None) -> World:
        if self._world is None or self._world[0] != folder:
            store = WorldStore(folder)
            size = (store.manifest.height, store.manifest.width)
            self._world = (folder, World(store, preset=self._loaded(store.manifest.preset, size, on_note)))
        world = self._world[1]
        if steps is None:
            return world
        sampler = replace(world.generator.sampler, steps=steps)  # ty: ignore[invalid-argument-type]
        return World.open(folder, replace(world.generator, sampler=sampler))

    def _loaded(
        self, name: str, size: tuple[int, int] | None = None, on_note: Callable[[str], None] = lambda _: None
    ) -> Preset:
        """A preset for frames of `size`, its own if none is given, whose networks are loaded only once."""
        preset = self._load_preset(name)
        size = size or (preset.height, preset.width)
        if (name, size) not in self._generators:
            self._generators.clear()  # one at a time: networks are large
            self._world = None
            self._generators[name, size] = preset.build(self._place(), size=size, on_note=on_note)
        generator = self._generators[name, size]
        return replace(preset, assemble=lambda _: generator, footprint=None)

    def step(self, job: str, progress: Progress, preview: bytes | None) -> None:
        """Tell, and do what was wished for meanwhile."""
        self._send(Step(job, replace(progress, preview=None), preview))
        self.obey(job, may_yield=False)

    def obey(self, job: str, *, may_yield: bool) -> None:
        if self._wish == (job, "cancel"):
            raise Cancelled
        if may_yield and self._wish == (job, "yield"):
            raise _Yielded

    def _send(self, message: Step | End) -> None:
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)  # as in listen


class _Watch:
    """`on_step` of one task."""

    def __init__(self, worker: _Worker, job: str) -> None:
        self._worker, self._job, self._chunk, self._shown = worker, job, 0, 0.0

    def __call__(self, progress: Progress) -> None:
        self._worker.obey(self._job, may_yield=0 < self._chunk < progress.chunk)
        self._chunk = progress.chunk
        self._worker.step(self._job, progress, self._preview(progress))

    def _preview(self, progress: Progress) -> bytes | None:
        if progress.preview is None or time.monotonic() - self._shown < PREVIEW_SECONDS:
            return None
        self._shown = time.monotonic()
        picture = Image.fromarray(to_bytes(progress.preview.float()).permute(1, 2, 0).cpu().numpy())
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def _export(world: World, file: Path) -> None:
    if file.suffix != ".zip":
        world.export([file])
        return
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as folder:
        made = Path(folder) / file.stem
        world.export([made])
        Path(shutil.make_archive(f"{folder}/packed", "zip", made)).replace(file)


def _cameras(file: Path, world: World) -> Cameras:
    return path_files.read(file, lens=world.state.cameras[-1])
