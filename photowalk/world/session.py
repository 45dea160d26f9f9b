"""A world that is being walked: plans paths, makes their chunks and keeps each one as soon as it is made.

`World` is what the command line and other programs hold. It knows the order of things; how frames are made is the
generator's business, how they are kept the store's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from photowalk.geometry.cameras import Cameras
from photowalk.perception.captions import Captioner
from photowalk.presets import PRESETS, load_preset
from photowalk.presets.depth_anything import depth_estimator, depth_licence
from photowalk.presets.preset import Preset
from photowalk.world.disk import WorldError
from photowalk.world.generator import Generator
from photowalk.world.manifest import FirstWalk, Manifest
from photowalk.world.placement import Placement
from photowalk.world.planning import check_path, plan_walk
from photowalk.world.progress import OnStep, Progress
from photowalk.world.report import describe
from photowalk.world.request import Source, check_guidance, check_size
from photowalk.world.state import WorldState, depth_quantile
from photowalk.world.store import WorldStore, create, new_world
from photowalk.world.wording import Wording

Note = Callable[[str], None]
NO_CAPTIONS: Mapping[int, str] = MappingProxyType({})


def _ignore(_: object) -> None:
    return None


class World:
    """One world folder and the networks that extend it. Networks and frames are loaded when they are first needed."""

    def __init__(
        self,
        store: WorldStore,
        generator: Generator | None = None,
        preset: Preset | None = None,
        placement: Placement | None = None,
    ) -> None:
        self._store = store
        self._generator = generator
        self._preset = preset  # what builds the generator; None: the manifest's preset
        self._placement = placement  # where it is built; None: the best that there is
        self._state: tuple[tuple, WorldState] | None = None  # the manifest's chunks and what they hold

    @classmethod
    def open(cls, folder: str | Path, generator: Generator | None = None, placement: Placement | None = None) -> World:
        """A world that exists. `generator` replaces the one that its preset would build on `placement`, the best that
        there is if it is not given. Raises WorldError."""
        return cls(WorldStore(folder), generator, placement=placement)

    @classmethod
    def create(
        cls,
        photo: str | Path,
        folder: str | Path,
        *,
        path: str | Cameras | None = None,
        prompt: str = "",
        captions: Mapping[int, str] = NO_CAPTIONS,
        negative_prompt: str | None = None,
        captioner: Captioner | None = None,
        preset: str | Preset = "nano",
        seed: int = 0,
        size: tuple[int, int] | None = None,
        depth: str | Path | None = None,
        depth_model: str | None = None,
        fov_deg: float | None = None,
        legacy: bool = False,
        views: str | Path | None = None,
        placement: Placement | None = None,
        on_step: OnStep = _ignore,
        on_note: Note = _ignore,
    ) -> World:
        """Make a world of a photo and walk along `path`, as `extend` does; without a path it holds the photo alone.

        `size` is (height, width), by default the preset's; `depth` a file of metres along +Z and `fov_deg` the
        horizontal field of view, both estimated when not given. `captions`, by frame, `negative_prompt` and `captioner`
        are those of the walk, see `Wording`. `depth_model` estimates depth instead of the preset's network: "nano",
        "da3", or a model of transformers by name or folder; `views` a transforms.json of further pictures of the place.
        `legacy` does as the published programs do where we do otherwise: the photo is squashed to the size, paths are
        theirs (`geometry/published_paths.py`), and so they are when the world is extended. The networks run on
        `placement`, by default on the best device there is. On a bad input nothing is written. A world that was made by
        the same call is continued if it was interrupted, and left alone if it was not; one that was made by another
        call is refused.
        Raises PhotoError, DepthError, PathError, WorldError.
        """
        preset = load_preset(preset) if isinstance(preset, str) else preset
        height, width = size or (preset.height, preset.width)
        source = Source(photo, depth, fov_deg, depth_model, legacy, views)
        wording = Wording(prompt, captions, negative_prompt, captioner)
        if (Path(folder) / "world.json").exists():
            wanted = _options(preset.name, (height, width), seed, prompt, source.described())
            if path is not None:
                wanted |= {"path": path} | wording.described()
            world = cls(WorldStore(folder), preset=preset, placement=placement)
            return world._finish(wanted, on_step, on_note)
        given = source.read(height, width)
        camera = None
        if isinstance(path, str):  # a wrong path should not wait for the networks
            camera = check_path(path, height, width, preset.chunk_frames, legacy=legacy)
        with new_world(folder) as partial:
            generator = _with_depth(preset.build(placement, size=(height, width), on_note=on_note), depth_model)
            if generator.depth.name != "nano":
                on_note(f"depth by {generator.depth.name}")
            check_size(height, width, generator)
            check_guidance(negative_prompt, generator)
            on_step(Progress("photo", 0, 1))
            state = given.start(generator, camera=camera, prompt=prompt, seed=seed)
            manifest = Manifest(
                preset=preset.name,
                height=height,
                width=width,
                chunk_frames=preset.chunk_frames,
                seed=seed,
                source=source.described(),
                licences=_licences(preset, generator),
                depth_network=generator.depth.name,
                reference_depth=depth_quantile(state.first.depth, generator.config.reference_quantile),
            )
            job, cameras = (None, None) if path is None else plan_walk(path, state, manifest, wording, seed, on_note)
            if job is not None:
                manifest = replace(manifest, first_walk=FirstWalk(job.path, job.chunks, wording.described()))
            create(partial, manifest, state.first.image.cpu(), state.chunks[0], job, cameras)
        world = cls.open(folder, generator)
        return world if path is None else world.extend(on_step=on_step)

    # ---- walking

    def extend(
        self,
        path: str | Cameras | None = None,
        prompt: str | None = None,
        seed: int | None = None,
        *,
        captions: Mapping[int, str] = NO_CAPTIONS,
        negative_prompt: str | None = None,
        captioner: Captioner | None = None,
        on_step: OnStep = _ignore,
        on_note: Note = _ignore,
    ) -> World:
        """Continue the walk along `path`: a sentence, preset or file, or cameras [k * chunk_frames]. Without one,
        finish a walk that was interrupted. The prompt stays the last one unless given.

        Every chunk is kept when it is made. If `on_step` raises, or the process dies, the chunk in work is lost and the
        rest of the walk waits to be continued or replaced. Raises PathError, WorldError.
        """
        with self._store.locked():
            manifest = self._store.manifest
            if path is not None:
                if prompt is None:  # a captioner starts from the user's words again, not from its own
                    prompt = manifest.chunks[0 if captioner else -1].prompt
                seed = manifest.seed if seed is None else seed
                wording = Wording(prompt, captions, negative_prompt, captioner)
                check_guidance(negative_prompt, self._built(on_note))
                self._store.begin(*plan_walk(path, self.state, manifest, wording, seed, on_note))
            elif manifest.job is not None and any((prompt, seed is not None, captions, negative_prompt, captioner)):
                raise WorldError(
                    "a walk that was interrupted is finished with the words and the seed that it was begun with; give "
                    "a path too, which replaces what is left of it"
                )
            elif manifest.job is None and (self.folder / "walk.mp4").exists():
                raise WorldError(f"{self.folder} has no interrupted walk to continue; give a path to walk along")
            if self._store.manifest.job is not None:
                self._built(on_note)
                self._make_chunks(on_step)
            self._store.write_walk()
        return self

    def undo(self, count: int = 1) -> World:
        """Drop the last `count` chunks, and a walk that was interrupted. `redo` takes chunks back until a new one is
        made."""
        with self._store.locked():
            chunks = len(self._store.manifest.chunks)
            if not 1 <= count < chunks:
                raise WorldError(
                    f"{self.folder} has {chunks - 1} chunk(s) after the photo, {count} cannot be undone; "
                    f"give a number from 1 to {chunks - 1}"
                    if chunks > 1
                    else f"{self.folder} holds the photo alone; there is nothing to undo"
                )
            self._store.truncate(chunks - count)
            self._store.write_walk()
        return self

    def redo(self, count: int = 1) -> World:
        """Take back the last `count` chunks that were undone; a walk that was interrupted is dropped."""
        with self._store.locked():
            undone = len(self._store.manifest.undone)
            if not 1 <= count <= undone:
                raise WorldError(
                    f"{self.folder} has {undone} undone chunk(s), {count} cannot be taken back; "
                    f"give a number from 1 to {undone}"
                    if undone
                    else f"{self.folder} has nothing that was undone since its last new chunk; there is nothing to redo"
                )
            self._store.restore(count)
            self._store.write_walk()
        return self

    def correct(self, *, metres_per_unit: float | None = None, up: tuple[float, float, float] | None = None) -> World:
        """Say how long a metre is, in world units, or which way is up, in world axes; what is not given stays. Frames
        and cameras stay as they are; walks, splats, meshes and files that are made from now on follow it."""
        if metres_per_unit is not None and not 0 < metres_per_unit < math.inf:
            raise WorldError(f"the metres of a world unit want a positive number, got {metres_per_unit}")
        if up is not None:
            length = math.hypot(*up)
            if not 1e-6 < length < math.inf:
                raise WorldError(f"an up direction wants three numbers that are not all 0, got {up}")
            up = (up[0] / length, up[1] / length, up[2] / length)
        with self._store.locked():
            self._store.correct(metres_per_unit=metres_per_unit, up=up)
        return self

    def abandon(self) -> World:
        """Drop what is left of a walk that was interrupted; its finished chunks stay."""
        with self._store.locked():
            if self._store.manifest.job is not None:
                self._store.drop_job()
                self._store.write_walk()
        return self

    def branch(self, folder: str | Path, at: int | None = None) -> World:
        """A new world that shares this one's chunks up to number `at` (0 is the photo; by default all)."""
        last = len(self._store.manifest.chunks) - 1
        at = last if at is None else at
        if not 0 <= at <= last:
            raise WorldError(f"{self.folder} has chunks 0 to {last}, there is no chunk {at} to branch at")
        store = self._store.branch(folder, at + 1)
        with store.locked():
            store.write_walk()
        return World(store, self._generator, self._preset, self._placement)

    # ---- looking

    @property
    def folder(self) -> Path:
        return self._store.folder

    @property
    def manifest(self) -> Manifest:
        return self._store.manifest

    @property
    def state(self) -> WorldState:
        """All frames, cameras, depths and the memory of them."""
        chunks = self._store.manifest.chunks
        if self._state is None or self._state[0] != chunks:
            placement, memory = self.generator.placement, self.generator.config.memory
            self._state = (chunks, self._store.load(placement.device, memory, streams_on=placement.waiting))
        return self._state[1]

    @property
    def generator(self) -> Generator:
        return self._built(_ignore)

    def _built(self, on_note: Note) -> Generator:
        if self._generator is None:
            manifest, preset = self._store.manifest, self._preset or load_preset(self._store.manifest.preset)
            built = preset.build(self._placement, size=(manifest.height, manifest.width), on_note=on_note)
            self._generator = _with_depth(built, manifest.depth_network or manifest.source.get("depth_model"))
        return self._generator

    def verify(self) -> None:
        """Compare every file with the hash it was written with. Raises WorldError that names the first bad chunk."""
        self._store.verify()

    def info(self) -> dict:
        """What the world is, as plain values; lengths are in metres where the depth is."""
        return describe(self._store)

    # ---- lifting and exporting

    def reconstruct(
        self,
        on_step: OnStep = _ignore,
        *,
        scale_to: str | None = None,
        splats: int | None = 500_000,
        refine_steps: int = 0,
        mesh: bool = True,
        down_ratio: int | None = None,
        pixel_aligned: bool = False,
        network: str | None = None,
        legacy: bool = False,
    ) -> World:
        """Splats, a preview of them and, with `mesh`, meshes into the folder's scene/, and preview.png.

        `splats` bounds their number (None: as many as there are to see), `refine_steps` is how many frames of the walk
        they are then fitted to, one after the other; their colours always are. `down_ratio` 2 makes a splat of 2x2
        pixels; `pixel_aligned` leaves the preset's network for splats out. `network` names one of the store that makes
        them, "da3" the best that is there; a world whose depth is of such a network gets its splats from it too (by 2x2
        pixels, as it was trained).
        `legacy` has that network do as the published programs do, which believe its cameras, merge nothing, however
        many splats come out, and leave colours as they are.
        `scale_to` corrects the metre for good: "door height 2.0m from 210,80 to 214,300"
        (photowalk.reconstruct.scale).
        """
        from photowalk.world.lifting import Wishes, lift_walk

        wishes = Wishes(scale_to, splats, refine_steps, mesh, down_ratio, pixel_aligned, network, legacy)
        manifest = self._store.manifest
        preset = self._preset or (load_preset(manifest.preset) if manifest.preset in PRESETS else None)
        lift_walk(self._store, preset, wishes, on_step)
        return self

    def export(self, files: list[str | Path]) -> None:
        """Write each file in the format of its ending (photowalk.export.formats), or the walk as .mp4.

        A file that is there is replaced when its successor is whole. Raises WorldError, ExportError.
        """
        from photowalk.world.exporting import export_files

        export_files(self._store, files)

    # ---- inside

    def _finish(self, wanted: dict[str, object], on_step: OnStep, on_note: Note) -> World:
        """This world, finished, if `create` made it from what is `wanted` now."""
        manifest, walk = self._store.manifest, self._store.manifest.first_walk
        size, prompt = (manifest.height, manifest.width), manifest.chunks[0].prompt
        made = _options(manifest.preset, size, manifest.seed, prompt, manifest.source)
        if walk is not None:
            made |= {"path": walk.path} | walk.wording
            if isinstance(path := wanted.get("path"), Cameras) and self._begins_along(path, walk.chunks):
                wanted |= {"path": walk.path}
        differing = [name for name in {**made, **wanted} if made.get(name) != wanted.get(name)]
        walk_on = f"walk on in it with: photowalk extend {self.folder} --path PATH"
        if differing:
            raise WorldError(
                f"{self.folder} exists already and was made with other options ({', '.join(differing)}); choose "
                f"another folder, delete it, or {walk_on}"
            )
        if walk is not None and not _is_first(walk, manifest):
            raise WorldError(
                f"{self.folder} exists already and its first walk was undone, dropped or replaced since; choose "
                f"another folder, delete it, or {walk_on}"
            )
        if manifest.job is None and (self.folder / "walk.mp4").exists():
            on_note(f"{self.folder} is finished already; walk on with: photowalk extend {self.folder} --path PATH")
            return self
        on_note(f"{self.folder} was interrupted and is continued")
        return self.extend(on_step=on_step, on_note=on_note)

    def _begins_along(self, path: Cameras, chunks: int) -> bool:
        """Whether the first `chunks` chunks after the photo are walked, or about to be walked, along just this path."""
        job, size = self._store.manifest.job, chunks * self._store.manifest.chunk_frames
        begun = job is not None and job.first_chunk == 1
        walked = self._store.job_cameras() if begun else self._store.cameras()[1 : 1 + size]
        return path.to(walked.camera_from_world).equals(walked)

    def _make_chunks(self, on_step: OnStep) -> None:
        """Make what is left of the job; the store drops the job with its last chunk."""
        cameras, state = self._store.job_cameras(), self.state
        if not self._store.is_open:
            state = self.generator.opened(state)
        while (job := self._store.manifest.job) is not None:
            size, number = self._store.manifest.chunk_frames, len(state.chunks)
            done = number - job.first_chunk
            state = self.generator.extend(
                state,
                cameras[done * size : (done + 1) * size].to(self.generator.placement.device),
                job.prompts[done] if job.prompts else job.prompt,
                seed=job.seed + number,
                negative_prompt=job.negative_prompt,
                on_step=lambda step, done=done, job=job: on_step(replace(step, chunk=done + 1, chunks=job.chunks)),
            ).annotated(job.path, job.notes if done == 0 else ())
            self._store.append(state.chunks[-1])
            self._state = (self._store.manifest.chunks, state)


def _options(preset: str, size: tuple[int, int], seed: int, prompt: str, source: dict[str, str]) -> dict[str, object]:
    """What the photo's chunk was or would be made with, by the names that people know it by."""
    files = {name.removesuffix("_sha256"): value for name, value in source.items() if name != "photo"}
    return {"preset": preset, "size": size, "seed": seed, "prompt": prompt} | files


def _is_first(walk: FirstWalk, manifest: Manifest) -> bool:
    """Whether the world begins with the whole of its first walk, or is still being walked along it."""
    walked = [entry.path for entry in manifest.chunks[1 : 1 + walk.chunks]]
    if manifest.job is not None and manifest.job.first_chunk == 1:
        walked += [manifest.job.path] * manifest.chunks_to_go
    return walked == [walk.path] * walk.chunks


def _with_depth(generator: Generator, name: str | None) -> Generator:
    if name in (None, generator.depth.name):
        return generator
    return replace(generator, depth=depth_estimator(name, generator.placement))


def _licences(preset: Preset, generator: Generator) -> dict[str, str]:
    """Of all that the world is made with."""
    licences = {"weights": preset.licence, "code": "Apache-2.0"}
    licence = depth_licence(generator.depth.name)
    return licences if licence is None else licences | {"depth network": licence}
