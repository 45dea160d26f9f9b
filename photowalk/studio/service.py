"""What the studio does for a user, whoever asks: the HTTP API and the page call the same functions.

It joins the library, the queue and what is shown of worlds. It knows nothing of HTTP or of widgets.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from photowalk.export.camera_files import write_colmap_model
from photowalk.export.formats import FORMATS
from photowalk.geometry import path_files, paths
from photowalk.geometry.cameras import Cameras
from photowalk.perception.captions import CaptionScene, TemplateCaptioner
from photowalk.perception.gravity import find_ground
from photowalk.presets import load_preset
from photowalk.presets.nano import NANO_LAYOUT
from photowalk.reconstruct.scale import scale_to
from photowalk.studio import planning, schemas, uploads
from photowalk.studio.access import MAX_UPLOAD_BYTES
from photowalk.studio.errors import ConflictError, NotFoundError, StudioError
from photowalk.studio.horizon import Up, up_of
from photowalk.studio.job_queue import JobQueue
from photowalk.studio.library import About, Library, key_of
from photowalk.studio.scenery import Scenery, SceneryCache
from photowalk.studio.worker import LoadPreset, Place
from photowalk.world.manifest import Manifest
from photowalk.world.placement import choose_placement
from photowalk.world.session import World
from photowalk.world.store import WorldStore

MAX_WORLDS = 200  # of one user
EXPORTS = {
    ".mp4": "the walk",
    **{known.ending: known.what for known in FORMATS if known.ending != ".colmap"},
    ".colmap.zip": "cameras for COLMAP",  # which reads a folder
}
# what a planned path is saved as, and what for
PATH_FILES = {
    ".json": "transforms.json, as nerfstudio and Blender have it",
    ".npz": "arrays, as Lyra 2.0 has them",
    ".colmap.zip": "a model of COLMAP",
}
_SHOW_THE_SCENE = {known.ending for known in FORMATS if known.scene}
_MAX_KEYFRAMES = 60  # that a path file becomes in the plan


@dataclass
class Studio:
    root: Path
    load_preset: LoadPreset = load_preset
    preset: str = "nano"
    place: Place = choose_placement  # called by the process that generates: where its networks lie
    threads: int | None = None  # of that process; None: all cores
    captioner: str = "template"  # writes prompts out: this, or a vision language model by name or folder
    library: Library = field(init=False)
    queue: JobQueue = field(init=False)
    sceneries: SceneryCache = field(init=False)

    def __post_init__(self) -> None:
        self.library = Library(self.root)
        self.queue = JobQueue(self.library, self.load_preset, self.preset, place=self.place, threads=self.threads)
        self.sceneries = SceneryCache()
        self._preset = self.load_preset(self.preset)  # raises for a name that is none, before anything is served

    def me(self, user: str) -> schemas.Me:
        return schemas.Me(
            user=user,
            preset=self.preset,
            licence=self._preset.licence,
            path_presets=list(paths.PRESETS),
            exports=EXPORTS,
            max_upload_bytes=MAX_UPLOAD_BYTES,
            max_chunks=planning.MAX_CHUNKS,
        )

    # ---- worlds

    def create(
        self, user: str, photo: BinaryIO, *, title: str, prompt: str = "", seed: int = 0, fov_deg: float | None = None
    ) -> tuple[schemas.World, schemas.Job]:
        """A world of a photo; it is ready when the job is done."""
        if len(self.library.identifiers(user)) >= MAX_WORLDS:
            raise ConflictError(f"you have {MAX_WORLDS} worlds; delete one first")
        name = uploads.keep_photo(photo, self.library.root / "uploads")
        world = self.library.add(user, About(title, time.time(), photo=name))
        try:
            order = schemas.Create(photo=name, prompt=prompt, seed=seed, fov_deg=fov_deg)
            job = self.queue.submit(user, world, order)
        except BaseException:
            self.delete(user, world)
            raise
        return self.library.world(user, world), job

    def delete(self, user: str, world: str) -> None:
        self._idle(user, world)
        photo = self.library.about(user, world).photo
        self.queue.forget(world)
        self.library.delete(user, world)
        shared = any(self.library.about(user, other).photo == photo for other in self.library.identifiers(user))
        if photo and not shared:
            self.library.upload(photo).unlink(missing_ok=True)

    def correct(self, user: str, world: str, wish: schemas.CorrectRequest) -> schemas.Job | None:
        """Correct the metre and the horizon at once; another lens needs a job."""
        summary = self.ready(user, world)
        self._idle(user, world)
        if wish.fov_deg is not None and len(summary.chunks) > 1:
            raise ConflictError(
                "this world has been walked already, through the lens that it has; branch at the photo, and correct "
                "the lens there"
            )
        if wish.fov_deg is not None and self.library.about(user, world).elsewhere:
            raise ConflictError("this world lies outside the studio and keeps its lens; make one of its photo here")
        turned = wish.roll_deg is not None or wish.pitch_deg is not None
        roll = summary.roll_deg if wish.roll_deg is None else wish.roll_deg
        pitch = summary.pitch_deg if wish.pitch_deg is None else wish.pitch_deg
        metres = None if wish.scale is None else wish.scale * summary.metres_per_unit
        if wish.scale_to is not None:
            metres = self._measured(user, world, wish.scale_to, up_of(roll, pitch) if turned else None)
        if turned or metres is not None:
            with self.library.errors_told(user, world):
                corrected = World.open(self._folder(user, world))
                corrected.correct(metres_per_unit=metres, up=up_of(roll, pitch) if turned else None)
        return None if wish.fov_deg is None else self.queue.submit(user, world, schemas.Correct(fov_deg=wish.fov_deg))

    def _measured(self, user: str, world: str, text: str, up: Up | None) -> float:
        """The metres of a world unit by which what `text` names has the length that it says. Raises ValueError."""
        scenery = self.scenery(user, world)
        up = scenery.manifest.up if up is None else up
        views = scenery.views()
        ground = find_ground(views, up=None if up is None else torch.tensor(up))
        return scale_to(text, ground, views).metres_per_unit

    def undo(self, user: str, world: str, count: int) -> schemas.World:
        self._idle(user, world)
        with self.library.errors_told(user, world):
            World.open(self._folder(user, world)).undo(count)
        self.queue.outdate(world)
        return self.library.world(user, world)

    def redo(self, user: str, world: str, count: int) -> schemas.World:
        self._idle(user, world)
        with self.library.errors_told(user, world):
            World.open(self._folder(user, world)).redo(count)
        self.queue.outdate(world)
        return self.library.world(user, world)

    def branch(self, user: str, world: str, at: int | None, title: str | None) -> schemas.World:
        self._folder(user, world)
        with self.library.errors_told(user, world):
            return self.library.world(user, self.library.branch(user, world, at, title))

    # ---- walking

    def plan(self, user: str, world: str, request: schemas.PathRequest) -> schemas.Plan:
        scenery = self.scenery(user, world)
        return planning.plan_walk(scenery, request).answer(scenery.manifest.chunk_frames)

    def extend(self, user: str, world: str, request: schemas.ExtendRequest) -> schemas.Job:
        scenery = self.scenery(user, world)
        planned = planning.plan_walk(scenery, request)
        wish: dict[str, Any] = {"prompt": request.prompt, "seed": request.seed, "steps": request.steps}
        if request.keyframes or not request.avoid:
            return self._follow(user, world, planned.cameras[1:], scenery.manifest, **wish)
        return self.queue.submit(user, world, schemas.Extend(path=request.path, **wish))

    def reroll(self, user: str, world: str, seed: int | None) -> schemas.Job:
        """Make the last chunk again, along the same cameras. Redo takes the old one back until the new one is there."""
        self._idle(user, world)
        store = WorldStore(self._folder(user, world))
        chunks = store.manifest.chunks
        if len(chunks) < 2:
            raise ConflictError("this world holds the photo alone; there is no chunk that could be made again")
        with self.library.errors_told(user, world):
            cameras, prompt = store.cameras()[-chunks[-1].frames :], chunks[-1].prompt
        self.undo(user, world, 1)
        try:
            return self._follow(user, world, cameras, WorldStore(store.folder).manifest, prompt=prompt, seed=seed)
        except BaseException:
            self.redo(user, world, 1)
            raise

    def _follow(self, user: str, world: str, cameras: Cameras, manifest: Manifest, **wish: Any) -> schemas.Job:
        """Walk on along cameras that go on from where the manifest ends."""
        after = key_of(manifest.chunks[-1])
        return self._submit_along(user, world, cameras, lambda file: schemas.Extend(cameras=file, after=after, **wish))

    def _submit_along(
        self, user: str, world: str, cameras: Cameras, order: Callable[[str], schemas.Order]
    ) -> schemas.Job:
        """Submit the `order` made of the name under which the cameras are kept; they go where it is refused."""
        file = uploads.keep_cameras(cameras, self.library.root / "uploads")
        try:
            return self.queue.submit(user, world, order(file))
        except BaseException:
            self.library.upload(file).unlink(missing_ok=True)
            raise

    def expand(self, user: str, world: str, request: schemas.ExpandRequest) -> schemas.Expansion:
        """What could be said of the way that is planned: at once by the template, by a job where pictures are looked
        at."""
        scenery = self.scenery(user, world)
        cameras = planning.plan_walk(scenery, request).cameras[1:]
        if self.captioner == "template":
            blank = torch.zeros(3, 1, 1)
            depth = scenery.manifest.reference_depth
            scene = CaptionScene(request.prompt, blank, blank, blank[None], cameras, depth)
            return schemas.Expansion(prompt=TemplateCaptioner().caption(scene))
        order = partial(schemas.Expand, captioner=self.captioner, prompt=request.prompt)
        return schemas.Expansion(job=self._submit_along(user, world, cameras, lambda file: order(cameras=file)))

    def go_on(self, user: str, world: str) -> schemas.Job:
        """Finish a walk that was stopped."""
        if not self.ready(user, world).to_go:
            raise ConflictError("this world has no walk that was stopped; plan one")
        return self.queue.submit(user, world, schemas.Extend())

    def read_path(self, user: str, world: str, stream: BinaryIO, name: str) -> list[schemas.Pose]:
        """Keyframes of a path file, begun where the walk stands."""
        start = self.scenery(user, world).cameras[-1]
        folder = self.library.root / "uploads"
        file = folder / uploads.keep_path(stream, name, folder)
        try:
            path = path_files.read(file, lens=start)
        except ValueError as error:
            raise StudioError(str(error).replace(str(file), "the file")) from error
        finally:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        placed = paths.reanchor(path.resized(start.height, start.width), start)
        every = max(1, -(-len(placed) // _MAX_KEYFRAMES))
        kept = sorted({*range(every, len(placed), every), len(placed) - 1})
        return planning.poses_of(placed[kept])

    def path_file(self, cameras: Cameras, ending: str) -> bytes:
        """A planned path in one of PATH_FILES, which `read_path` and other programs read."""
        with tempfile.TemporaryDirectory(dir=self.library.root / "uploads") as folder:
            file = Path(folder) / f"plan{ending}"
            if ending == ".colmap.zip":
                model = Path(folder) / "model"
                write_colmap_model(model, cameras)
                shutil.make_archive(str(file.with_suffix("")), "zip", model)
            else:
                path_files.write(file, cameras)
            return file.read_bytes()

    # ---- looking

    def scenery(self, user: str, world: str) -> Scenery:
        with self.library.errors_told(user, world):
            return self.sceneries.get(self._folder(user, world))

    def picture(self, user: str, world: str, frame: int) -> bytes:
        """JPEG of one frame."""
        with self.library.errors_told(user, world):
            return self.sceneries.picture(self._folder(user, world), frame)

    def warm(self, user: str, world: str) -> None:
        """Read a world that is about to be looked at, in the background."""

        def read() -> None:
            with suppress(ValueError, OSError):  # whoever opens it is told
                self.scenery(user, world)

        threading.Thread(target=read).start()  # no daemon: a process that ends amid torch's work aborts

    def recall(self, user: str, world: str, pose: schemas.Pose) -> schemas.Recall:
        scenery = self.scenery(user, world)
        return scenery.recall(planning.camera_at(pose, scenery.cameras[-1]), NANO_LAYOUT.space_frames)

    def reconstruct(self, user: str, world: str) -> schemas.Job:
        self._folder(user, world)
        return self.queue.submit(user, world, schemas.Reconstruct())

    def export(self, user: str, world: str, ending: str) -> schemas.Job:
        summary = self.ready(user, world)
        if ending in _SHOW_THE_SCENE and not summary.scene_frames:
            raise ConflictError(f"{ending} shows what was reconstructed; make splats first")
        if ending not in EXPORTS:
            raise StudioError(f"'{ending}' is no known format; known endings: {', '.join(EXPORTS)}")
        return self.queue.submit(user, world, schemas.Export(ending=ending))

    def file(self, user: str, world: str, name: str) -> Path:
        """A file to download; `name` is looked up in a list, not on the disk."""
        files = self.library.files(user, world)
        if name not in files:
            raise NotFoundError(
                f"this world has no file {name[:60]!r}; it has {', '.join(sorted(files)) or 'none yet'}"
            )
        return files[name]

    def ready(self, user: str, world: str) -> schemas.World:
        summary = self.library.world(user, world)
        if not summary.ready:
            raise ConflictError(summary.problem or "this world is still being made; wait until its job is done")
        return summary

    def _folder(self, user: str, world: str) -> Path:
        self.ready(user, world)
        return self.library.folder(user, world)

    def _idle(self, user: str, world: str) -> None:
        self.library.place(user, world)
        if self.queue.busy(world):
            raise ConflictError("a job of this world waits or runs; cancel it first")
