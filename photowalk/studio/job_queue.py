"""One queue for everybody around the one process that generates: fair turns, progress, cancelling, no loss.

Turns. Of the users who wait, the one whose last turn is longest ago is next; a walk of several chunks gives up its
place after each chunk if somebody else waits. Jobs of one user keep their order.

Restart. Every job is a file that changes before what it says is done. After a restart waiting jobs wait again, and one
that was running is offered again as `interrupted`: `resume` continues it behind its finished chunks. Walks that waited
behind it in the same world begin where it ends, so they are held until it is resumed or cancelled.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from photowalk.scene.images import write_atomically
from photowalk.studio import schemas
from photowalk.studio.errors import ConflictError, NotFoundError, TooManyError
from photowalk.studio.library import Library, key_of, new_identifier
from photowalk.studio.worker import End, LoadPreset, Place, Step, Task, work
from photowalk.world.disk import WorldError
from photowalk.world.session import World
from photowalk.world.store import WorldStore

MAX_WAITING = 50  # jobs of one user
MAX_KEPT = 200  # finished jobs of one user that are remembered
HEAD_START_SECONDS = 3.0  # of the page before the process that generates starts for no job
PATIENCE_SECONDS = 10.0  # that a cancelled step may take before the process is ended
_STOPPED: tuple[schemas.JobState, ...] = ("interrupted", "failed", "cancelled")

Watcher = Callable[[str], None]  # told the user whose jobs have changed


@dataclass
class _Live:
    """What is not worth keeping over a restart."""

    progress: schemas.Progress = field(default_factory=schemas.Progress)
    preview: bytes | None = None
    cancelled_at: float | None = None
    asked_to_yield: bool = False


class JobQueue:
    def __init__(
        self, library: Library, load_preset: LoadPreset, preset: str, *, place: Place, threads: int | None = None
    ) -> None:
        self.library, self.preset = library, preset
        self._networks = (load_preset, place, threads)  # for the process that generates
        self._jobs: dict[str, schemas.Job] = {}
        self._live: dict[str, _Live] = {}
        self._last_turn: dict[str, float] = {}
        self._running: str | None = None
        self._changed = threading.Condition(threading.RLock())
        self._watchers: list[Watcher] = []
        self._closed = False
        self._opened = time.time()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._ahead = False
        self._thread = threading.Thread(target=self._serve, name="job queue", daemon=True)
        self._read()

    # ---- for those who ask

    def start(self) -> None:
        self._thread.start()

    def prepare(self) -> None:
        """Start the process that generates soon, so that the first job does not wait for it."""
        self._ahead = True

    @property
    def closed(self) -> bool:
        return self._closed

    def leave(self) -> None:
        """Take no more turns, and tell everybody who watches."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._announce("")

    def close(self) -> None:
        """End the process; what runs is offered again at the next start."""
        self.leave()
        self._end_process()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def submit(self, user: str, world: str, order: schemas.Order) -> schemas.Job:
        self.library.place(user, world)
        with self._changed:
            self._check_room(user)
            job = schemas.Job(
                id=new_identifier(), user=user, world=world, order=order, state="waiting", created=time.time()
            )
            self._put(job)
            return self.job(user, job.id)

    def jobs(self, user: str, world: str | None = None) -> list[schemas.Job]:
        """Newest first."""
        with self._changed:
            found = [job for job in self._jobs.values() if job.user == user and world in (None, job.world)]
            return [self._shown(job) for job in sorted(found, key=lambda job: -job.created)]

    def job(self, user: str, name: str) -> schemas.Job:
        with self._changed:
            job = self._jobs.get(name)
            if job is None or job.user != user:
                raise NotFoundError(f"there is no job {name[:40]!r} of yours; list them at /api/jobs")
            return self._shown(job)

    def preview(self, user: str, name: str) -> bytes:
        """The newest picture of a job, JPEG."""
        self.job(user, name)
        preview = self._live[name].preview if name in self._live else None
        if preview is None:
            raise NotFoundError("this job has no picture to show yet; ask again when its progress counts one")
        return preview

    def cancel(self, user: str, name: str) -> schemas.Job:
        """Finished chunks stay. A job that has ended already stays as it is."""
        with self._changed:
            job = self.job(user, name)
            if job.state == "running":
                live = self._live[name]
                live.cancelled_at = live.cancelled_at or time.monotonic()
                self._tell((name, "cancel"))
            elif job.state in ("waiting", "interrupted"):
                self._put(job.model_copy(update={"state": "cancelled"}))
            return self.job(user, name)

    def resume(self, user: str, name: str) -> schemas.Job:
        """Let a job that was interrupted, failed or cancelled wait for a turn again, behind its finished chunks."""
        with self._changed:
            job = self.job(user, name)
            if job.state not in _STOPPED:
                raise ConflictError(f"this job is {job.state}; only one that was stopped can be resumed")
            stopped_here = job.state != "interrupted" and job.base is not None  # else it may be done and not have told
            if job.outdated or (stopped_here and not self._is_left(job)):
                raise ConflictError("the world has changed since this walk was stopped; plan a new one")
            self._check_room(user)
            self._put(job.model_copy(update={"state": "waiting", "message": ""}))
            return self.job(user, name)

    def outdate(self, world: str) -> None:
        """Say that a world has changed: walks of it that were begun and stopped are not offered again."""
        with self._changed:
            for job in list(self._jobs.values()):
                if job.world == world and job.base is not None and job.state in _STOPPED:
                    state = "cancelled" if job.state == "interrupted" else job.state
                    self._put(job.model_copy(update={"outdated": True, "state": state}))

    def busy(self, world: str) -> bool:
        """Whether a job of this world waits or runs."""
        with self._changed:
            return any(job.world == world and job.state in ("waiting", "running") for job in self._jobs.values())

    def forget(self, world: str) -> None:
        """Drop the ended jobs of a world that is deleted."""
        with self._changed:
            for job in [job for job in self._jobs.values() if job.world == world]:
                self._drop(job)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` with the user after every change, from any thread, and with "" at the end; what it returns
        ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    # ---- turns

    def _serve(self) -> None:
        if self._ahead:
            with self._changed:  # the page that is opened meanwhile comes first
                self._changed.wait_for(lambda: self._closed or self._next() is not None, HEAD_START_SECONDS)
            if not self._closed:
                with contextlib.suppress(OSError):  # the first job will tell
                    self._connected()
        while True:
            with self._changed:
                job = self._next()
                while job is None and not self._closed:
                    self._changed.wait()
                    job = self._next()
                if job is None or self._closed:
                    return
                try:
                    task = self._begin(job)
                except (WorldError, NotFoundError, OSError) as error:
                    self._record(job.model_copy(update={"state": "failed", "message": self._told(job, str(error))}))
                    continue
                self._last_turn[job.user] = time.monotonic()
                self._running = job.id
                self._record(self._jobs[job.id].model_copy(update={"state": "running"}))
            end = self._attend(task)
            with self._changed:
                self._running = None
                if not self._closed or end.outcome == "done":  # what was stopped by closing is offered again
                    self._finish(end)

    def _next(self) -> schemas.Job | None:
        waiting = [job for job in self._jobs.values() if job.state == "waiting" and not self._held(job)]
        waiting.sort(key=lambda job: job.created)
        return min(waiting, key=lambda job: self._last_turn.get(job.user, 0.0), default=None)

    def _held(self, job: schemas.Job) -> bool:
        """Whether it is a walk from before a restart, planned to begin where one ends that the restart interrupted."""
        return (
            isinstance(job.order, schemas.Extend)
            and job.created < self._opened
            and any(
                other.world == job.world and other.state == "interrupted" and other.created < job.created
                for other in self._jobs.values()
            )
        )

    def _begin(self, job: schemas.Job) -> Task:
        """What the process is told. How long the world was before the walk is noted first, so that a restart knows
        whether the walk was begun and how much of it is there."""
        folder = self.library.folder(job.user, job.world)
        if isinstance(job.order, schemas.Extend) and job.base is None:
            world = World.open(folder)
            unfinished = world.manifest.job
            if job.order.path is None and job.order.cameras is None:
                if unfinished is None:
                    raise WorldError("this world has no interrupted walk to continue; plan a new one")
                base = unfinished.first_chunk
            else:
                base = len(world.manifest.chunks)
                if job.order.after not in (None, key_of(world.manifest.chunks[-1])):
                    raise WorldError("the world has gone on since this walk was planned; plan it anew from its end")
                store = WorldStore(folder)
                with store.locked():
                    store.drop_job()
                self.outdate(job.world)
            job = job.model_copy(update={"base": base})
            self._put(job)
        return Task(
            job.id,
            job.order,
            folder,
            uploads=self.library.root / "uploads",
            exports=self.library.place(job.user, job.world) / "exports",
            preset=self.preset,
            base=job.base or 0,
        )

    def _attend(self, task: Task) -> End:
        """Send the task and listen until it ends, however it ends."""
        try:
            connection = self._connected()
            with self._changed:
                connection.send(task)
            while True:
                if connection.poll(0.2):
                    message = connection.recv()
                    if isinstance(message, End):
                        return message
                    self._note(message)
                self._supervise(task.job)
        except (EOFError, OSError):
            cancelled = self._live.get(task.job, _Live()).cancelled_at is not None
            self._end_process()
            return End(
                task.job,
                "cancelled" if cancelled else "failed",
                ""
                if cancelled
                else "the process that generates has ended, perhaps for lack of memory; finished chunks "
                "are kept, resume to go on",
            )

    def _supervise(self, name: str) -> None:
        """End a process that does not obey; ask it to give up its turn when another user waits."""
        with self._changed:
            cancelled_at = self._live[name].cancelled_at
            if cancelled_at is not None and time.monotonic() - cancelled_at > PATIENCE_SECONDS:
                self._end_process()
            job = self._jobs[name]
            others = any(other.state == "waiting" and other.user != job.user for other in self._jobs.values())
            if others and isinstance(job.order, schemas.Extend) and not self._live[name].asked_to_yield:
                self._live[name].asked_to_yield = True
                self._tell((name, "yield"))

    def _note(self, step: Step) -> None:
        with self._changed:
            live, progress = self._live[step.job], step.progress
            if step.preview is not None:
                live.preview = step.preview
            live.progress = schemas.Progress(
                stage=progress.stage,
                done=progress.done,
                total=progress.total,
                chunk=progress.chunk,
                chunks=progress.chunks,
                previews=live.progress.previews + (step.preview is not None),
            )
            user = self._jobs[step.job].user
        self._announce(user)

    def _finish(self, end: End) -> None:
        job = self._jobs[end.job]
        state = {"yielded": "waiting"}.get(end.outcome, end.outcome)
        self._live[end.job].cancelled_at, self._live[end.job].asked_to_yield = None, False
        self._record(job.model_copy(update={"state": state, "message": self._told(job, end.message)}))
        finished = [job for job in self.jobs(job.user) if job.state in schemas.FINISHED]
        for old in finished[MAX_KEPT:]:
            self._drop(old)

    def _told(self, job: schemas.Job, message: str) -> str:
        """The message as the job's user may read it."""
        with contextlib.suppress(NotFoundError):  # the world is gone, and with it what could be told of its place
            return self.library.told(job.user, job.world, message)
        return message

    def _is_left(self, job: schemas.Job) -> bool:
        """Whether what is left of a walk that was stopped still fits the world."""
        manifest = WorldStore(self.library.folder(job.user, job.world)).manifest
        return (manifest.job is not None and manifest.job.first_chunk == job.base) or len(manifest.chunks) == job.base

    # ---- the process

    def _connected(self) -> Connection:
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, *self._networks), daemon=True)
            process.start()
            theirs.close()  # so that the end of one side is seen by the other
            with self._changed:
                self._process, self._connection = process, ours
        assert self._connection is not None
        return self._connection

    def _tell(self, wish: tuple[str, str]) -> None:
        with contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.send(wish)

    def _end_process(self) -> None:
        process = self._process
        if process is not None and process.is_alive():
            process.kill()
            process.join(timeout=5)

    # ---- the files

    def _read(self) -> None:
        for file in sorted((self.library.root / "jobs").glob("*.json")):
            try:
                job = schemas.Job.model_validate_json(file.read_bytes())
            except ValueError:
                continue  # of another version: it stays for whoever can read it
            if job.state == "running":
                job = job.model_copy(update={"state": "interrupted"})
            self._jobs[job.id], self._live[job.id] = job, _Live()

    def _put(self, job: schemas.Job) -> None:
        kept = job.model_copy(update={"place": 0, "held": False, "progress": schemas.Progress()})
        text = kept.model_dump_json(indent=1)
        write_atomically(self._file(job.id), lambda file: file.write_text(text, encoding="utf-8"))
        self._show(kept)

    def _record(self, job: schemas.Job) -> None:
        """As `_put`, but a disk without room does not end the queue: the file then says what was said before."""
        try:
            self._put(job)
        except OSError:
            self._show(job)

    def _show(self, job: schemas.Job) -> None:
        self._jobs[job.id] = job
        self._live.setdefault(job.id, _Live())
        self._changed.notify_all()
        self._announce(job.user)

    def _drop(self, job: schemas.Job) -> None:
        self._file(job.id).unlink(missing_ok=True)
        if isinstance(job.order, schemas.Extend | schemas.Expand) and job.order.cameras is not None:
            self.library.upload(job.order.cameras).unlink(missing_ok=True)
        self._jobs.pop(job.id, None)
        self._live.pop(job.id, None)

    def _file(self, name: str) -> Path:
        return self.library.root / "jobs" / f"{name}.json"

    def _check_room(self, user: str) -> None:
        waiting = sum(job.user == user and job.state == "waiting" for job in self._jobs.values())
        if waiting >= MAX_WAITING:
            raise TooManyError(
                f"{waiting} jobs of yours wait already, more than {MAX_WAITING - 1}; wait or cancel some"
            )

    def _shown(self, job: schemas.Job) -> schemas.Job:
        ahead = [other for other in self._jobs.values() if other.state == "waiting" and other.created <= job.created]
        waits = job.state == "waiting"
        shown = {"place": len(ahead) if waits else 0, "held": waits and self._held(job)}
        return job.model_copy(update={**shown, "progress": self._live[job.id].progress})

    def _announce(self, user: str) -> None:
        for watcher in tuple(self._watchers):
            watcher(user)
