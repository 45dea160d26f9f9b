"""A world that is being walked: plans paths, makes their chunks and keeps each one as soon as it is made.

`World` is what the command line and other programs hold. It knows the order of things; how frames are made is the
generator's business, how they are kept the store's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from photowalk.export.contents import Contents
from photowalk.export.formats import format_of
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.path_files import is_path_file
from photowalk.geometry.path_language import plan
from photowalk.geometry.paths import PathError
from photowalk.geometry.published_paths import follows_ground, plan_published
from photowalk.models.splat_head import RATIOS
from photowalk.perception.captions import Captioner
from photowalk.perception.ground import ground_normal
from photowalk.presets import PRESETS, Preset, depth_estimator, depth_licence, gives_splats, load_preset, splat_network
from photowalk.scene.collision import shorten
from photowalk.scene.depth_files import read_depth
from photowalk.scene.ground import EYE_HEIGHT, level, read_ground
from photowalk.scene.images import Fit, read_photo
from photowalk.scene.mesh_files import read_mesh
from photowalk.scene.posed_pictures import read_posed_pictures
from photowalk.scene.types import Clip, Scene
from photowalk.world.generator import Generator
from photowalk.world.placement import Placement, choose_placement
from photowalk.world.progress import OnStep, Progress
from photowalk.world.state import WorldState, depth_quantile
from photowalk.world.store import FRAMES_PER_SECOND, Job, Manifest, WorldError, WorldStore, create, new_world
from photowalk.world.wording import Wording

if TYPE_CHECKING:
    from photowalk.reconstruct.lift import Lifter
    from photowalk.reconstruct.meshing import Meshes

Note = Callable[[str], None]
NO_CAPTIONS: Mapping[int, str] = MappingProxyType({})
_FILES = ("world.json", "photo.png", "preview.png", "walk.mp4")  # of a world's folder, besides its folders


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
        the same call is continued if it was interrupted, and left alone if it was not.
        Raises PhotoError, DepthError, PathError, WorldError.
        """
        preset = load_preset(preset) if isinstance(preset, str) else preset
        height, width = size or (preset.height, preset.width)
        if (Path(folder) / "world.json").exists():
            wanted = (
                preset.name,
                height,
                width,
                seed,
                prompt,
                _source(photo, depth, fov_deg, depth_model, legacy, views),
                path,
            )
            return cls(WorldStore(folder), preset=preset, placement=placement)._finish(wanted, on_step, on_note)
        fit: Fit = "squash" if legacy else "crop"
        picture = read_photo(photo, height, width, fit=fit)
        original = (picture.original_height, picture.original_width)
        known_depth = None if depth is None else read_depth(depth, height, width, photo_size=original, fit=fit)
        pictures = [] if views is None else read_posed_pictures(views, height, width, photo=photo)
        focal_px = picture.focal_px if fov_deg is None else _focal_px(fov_deg, width)
        camera = None
        if isinstance(path, str):  # a wrong path should not wait for the networks
            stand_in = Cameras.from_fov(torch.eye(4), 60.0, height, width)
            if legacy:
                up = torch.tensor([0.0, -1.0, 0.0])
                planned = plan_published(path, stand_in, centre_depth=1.0, chunk=preset.chunk_frames, ground_normal=up)
                camera = planned[0] if is_path_file(path) else None  # the world is the file's
            else:
                plan(path, stand_in, start_of_walk=stand_in, reference_depth=1.0, chunk=preset.chunk_frames)
        with new_world(folder) as partial:
            generator = _with_depth(preset.build(placement, size=(height, width), on_note=on_note), depth_model)
            if generator.depth.name != "nano":
                on_note(f"depth by {generator.depth.name}")
            _check_size(height, width, generator)
            _check_guidance(negative_prompt, generator)
            device = generator.placement.device
            known_depth = None if known_depth is None else known_depth.to(device)
            on_step(Progress("photo", 0, 1))
            state = generator.start(
                picture.image.to(device),
                focal_px=focal_px,
                depth=known_depth,
                camera=camera,
                pictures=pictures,
                prompt=prompt,
                seed=seed,
            )
            manifest = Manifest(
                preset=preset.name,
                height=height,
                width=width,
                chunk_frames=preset.chunk_frames,
                seed=seed,
                source=_source(photo, depth, fov_deg, depth_model, legacy, views),
                licences=_licences(preset, generator),
                depth_network=generator.depth.name,
                reference_depth=depth_quantile(state.first.depth, generator.config.reference_quantile),
            )
            wording = Wording(prompt, captions, negative_prompt, captioner)
            job, cameras = (None, None) if path is None else _plan(path, state, manifest, wording, seed, on_note)
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
                _check_guidance(negative_prompt, self._built(on_note))
                self._store.begin(*_plan(path, self.state, manifest, wording, seed, on_note))
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
        return World(store, self._generator, self._preset)

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
        manifest, cameras = self._store.manifest, self._store.cameras()
        metres = manifest.metres_per_unit or 1.0
        centres = metres * cameras.centres.double()
        focal = float(cameras.intrinsics[0, 0, 0])
        return {
            "folder": str(self.folder),
            "version": manifest.version,
            "preset": manifest.preset,
            "size": [manifest.height, manifest.width],
            "frames": manifest.frames,
            "seconds": manifest.frames / FRAMES_PER_SECOND,
            "seed": manifest.seed,
            "source": manifest.source,
            "chunks": [
                {name: value for name, value in asdict(entry).items() if name != "files"} for entry in manifest.chunks
            ],
            "cameras": {
                "focal_px": focal,
                "fov_deg": math.degrees(2 * math.atan(manifest.width / 2 / focal)),
                "walked": float(centres.diff(dim=0).norm(dim=-1).sum()),
                "farthest": float((centres - centres[0]).norm(dim=-1).max()),
                "from_start": float((centres[-1] - centres[0]).norm()),
            },
            "undone": len(manifest.undone),
            "memory": {"frames": sum(entry.depth_frames for entry in manifest.chunks)},
            "depth_network": manifest.depth_network or None,
            "scale": {
                "unit": "metre",
                "from": self._scale_from(),
                "metres_per_unit": metres,
                "reference_depth": metres * manifest.reference_depth,
            },
            "up": manifest.up,
            "licences": manifest.licences,
            "interrupted": None if manifest.job is None else {**asdict(manifest.job), "to_go": manifest.chunks_to_go},
            "scene_frames": manifest.scene_frames,
        }

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
        they are then fitted to, one after the other. `down_ratio` 2 makes a splat of 2x2 pixels; `pixel_aligned` leaves
        the preset's network for splats out. `network` names one of the store that makes them, "da3" the best that is
        there; a world whose depth is of such a network gets its splats from it too (by 2x2 pixels, as it was trained).
        `legacy` has that network do as the published programs do, which believe its cameras and merge nothing, however
        many splats come out.
        `scale_to` corrects the metre for good: "door height 2.0m from 210,80 to 214,300"
        (photowalk.reconstruct.scale).
        """
        if scale_to is not None and not mesh:
            raise WorldError("the length of a metre is found with the meshes; give --scale-to without --no-mesh")
        from photowalk.export.ply import write_ply
        from photowalk.reconstruct import reconstruct, refine, write_preview
        from photowalk.reconstruct.feed_forward import NetworkLift
        from photowalk.reconstruct.meshing.files import write_meshes

        with self._store.locked():
            entries = self._store.manifest.chunks

            def walk() -> Iterator[Clip]:
                """One chunk in memory at a time."""
                return (self._store.chunk(index).clip for index in range(len(entries)))

            meshes = self._meshes(walk(), scale_to, on_step) if mesh else None
            known = sum(entry.depth_frames for entry in entries)
            lifter = self._lifter(down_ratio, pixel_aligned, network)
            if legacy:
                scene = self._as_published(lifter, walk)
            else:
                scene = reconstruct(
                    lifter.views(walk()) if isinstance(lifter, NetworkLift) else walk(),
                    budget=splats,
                    lifter=lifter,
                    on_view=lambda done: on_step(Progress("splats", done, known)),
                )
            if refine_steps:
                scene = refine(
                    scene,
                    walk,
                    frames=self._store.manifest.frames,
                    steps=refine_steps,
                    on_step=lambda done, total: on_step(Progress("refine", done, total)),
                )
            with self._store.new_scene() as folder:
                write_ply(folder / "splats.ply", scene.everything)
                if meshes is not None:
                    write_meshes(folder, meshes, self._store.cameras()[0])
                    if scale_to is not None:
                        self._store.correct(metres_per_unit=meshes.ground.metres_per_unit)
                write_preview(
                    scene,
                    self._store.cameras(),
                    video=folder / "preview.mp4",
                    picture=self.folder / "preview.png",
                    every=4,  # rendering costs most of the time on a CPU
                    on_step=lambda done, total: on_step(Progress("preview", done, total)),
                )
        return self

    def export(self, files: list[str | Path]) -> None:
        """Write each file in the format of its ending (photowalk.export.formats), or the walk as .mp4.

        A file that is there is replaced when its successor is whole. Raises WorldError, ExportError.
        """
        targets = [Path(file) for file in files]
        formats = {file: None if file.suffix.lower() == ".mp4" else format_of(file) for file in targets}
        for file in targets:
            if not file.absolute().parent.is_dir():
                raise WorldError(f"{file}: there is no folder {file.absolute().parent}; make it first")
            if self._is_part_of_world(file):
                raise WorldError(f"{file} is a part of the world; choose another name")
        shown = any(known is not None and known.scene for known in formats.values())
        contents = self._contents(with_scene=shown)
        for file, known in formats.items():
            if known is None:
                self._store.write_video(file)
            else:
                known.write(file, contents)

    # ---- inside

    def _lifter(self, down_ratio: int | None, pixel_aligned: bool, network: str | None) -> Lifter:
        """What makes splats of pixels: the network that is named, or that of the depth or of the preset, if any."""
        from photowalk.reconstruct.feed_forward import NetworkLift
        from photowalk.reconstruct.learnt_lift import LearntLift
        from photowalk.reconstruct.lift import PixelAligned

        if down_ratio not in (None, *RATIOS):
            raise WorldError(f"splats are made with a down-ratio of {' or '.join(map(str, RATIOS))}, got {down_ratio}")
        if pixel_aligned and network is not None:
            raise WorldError("splats come from a network or are pixel-aligned without one; choose one of the two")
        manifest = self._store.manifest
        if network is None and not pixel_aligned and gives_splats(manifest.depth_network):
            network = manifest.depth_network
        if network is not None:
            placement = choose_placement()
            return NetworkLift(splat_network(network, placement), down_ratio or 2, precision=placement.autocast)
        preset = self._preset or (load_preset(manifest.preset) if manifest.preset in PRESETS else None)
        if pixel_aligned or preset is None or preset.splat_head is None:
            return PixelAligned(down_ratio or 1)
        return LearntLift(preset.splat_head(), down_ratio or 1)

    def _as_published(self, lifter: Lifter, walk: Callable[[], Iterable[Clip]]) -> Scene:
        from photowalk.reconstruct.feed_forward import NetworkLift
        from photowalk.reconstruct.published import reconstruct_as_published

        if not isinstance(lifter, NetworkLift):
            raise WorldError("the published programs make splats with a network; name one of the store, such as da3")
        cameras, lift = self._store.cameras(), lifter
        return reconstruct_as_published(lift.network, walk, cameras, ratio=lift.ratio, precision=lift.precision)

    def _finish(self, wanted: tuple, on_step: OnStep, on_note: Note) -> World:
        """This world, finished, if `create` made it from what is `wanted` now."""
        manifest = self._store.manifest
        walks = [manifest.job.path] if manifest.job and manifest.job.first_chunk == 1 else []
        walks += [entry.path for entry in manifest.chunks[1:2]]
        made = (manifest.preset, manifest.height, manifest.width, manifest.seed, manifest.chunks[0].prompt)
        if (*made, manifest.source, walks[0] if walks else None) != wanted:
            raise WorldError(
                f"{self.folder} exists already and was made from another photo or with other options; choose another "
                f"folder, delete it, or walk on in it with: photowalk extend {self.folder} --path PATH"
            )
        if manifest.job is None and (self.folder / "walk.mp4").exists():
            on_note(f"{self.folder} is finished already; walk on with: photowalk extend {self.folder} --path PATH")
            return self
        on_note(f"{self.folder} was interrupted and is continued")
        return self.extend(on_step=on_step, on_note=on_note)

    def _meshes(self, walk: Iterable[Clip], scale_to: str | None, on_step: OnStep) -> Meshes:
        from photowalk.reconstruct.meshing.files import mesh_clips

        manifest = self._store.manifest
        return mesh_clips(
            walk,
            scale_from=self._scale_from(),
            scale_to=scale_to,
            metres_per_unit=manifest.metres_per_unit or 1.0,
            up=None if manifest.up is None else torch.tensor(manifest.up, dtype=torch.float64),
            on_step=lambda done, total: on_step(Progress("mesh", done, total)),
        )

    def _scale_from(self) -> str:
        """Where the length of a metre is known from, in words."""
        manifest = self._store.manifest
        if manifest.metres_per_unit is not None:
            return "metres as they were corrected by hand"
        if "depth_sha256" in manifest.source:
            return "metres of the depth map that was given with the photo"
        return f"metres as the depth network {manifest.depth_network or f'of {manifest.preset}'} guesses them"

    def _is_part_of_world(self, file: Path) -> bool:
        """Whether an export of that name would destroy what the program needs."""
        file, folder = file.absolute().resolve(), self.folder.absolute().resolve()
        return folder in file.parents and (file.parent != folder or file.name in _FILES)

    def _contents(self, *, with_scene: bool) -> Contents:
        """What there is to export."""
        from photowalk.export.ply import read_splats

        cameras, file = self._store.cameras(), self.folder / "scene" / "splats.ply"
        if with_scene and not file.is_file():
            raise WorldError(f"{self.folder} has no splats yet; make them with: photowalk reconstruct {self.folder}")
        splats, name = read_splats(file) if with_scene else None, self.folder.absolute().name
        manifest = self._store.manifest
        up = None if manifest.up is None else torch.tensor(manifest.up, dtype=torch.float64)
        if not (with_scene and (file.parent / "scene.json").is_file()):  # made before there were meshes
            metres = manifest.metres_per_unit or 1.0
            return Contents(name, cameras, level(cameras[0], up, EYE_HEIGHT / metres, metres), splats)
        ground = read_ground(file.parent / "scene.json")
        eye_height = float(ground.height(cameras[0].centres.double()))
        metres = manifest.metres_per_unit or ground.metres_per_unit
        return Contents(
            name,
            cameras,
            level(cameras[0], ground.up if up is None else up, eye_height, metres),
            splats,
            read_mesh(file.parent / "mesh.glb"),
            read_mesh(file.parent / "collision.ply"),
        )

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


def _plan(
    path: str | Cameras, state: WorldState, manifest: Manifest, wording: Wording, seed: int, on_note: Note
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
        text = path
    else:
        planned = plan(
            path,
            start,
            start_of_walk=state.cameras[0],
            reference_depth=manifest.reference_depth,
            chunk=size,
            unit=1 / (manifest.metres_per_unit or 1.0),
            up=None if manifest.up is None else torch.tensor(manifest.up),
        )
        shortened, word = shorten(planned.cameras, state.views)
        text, notes, cameras = path, [*planned.notes, *([word] if word else [])], shortened[1:]
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


def _with_depth(generator: Generator, name: str | None) -> Generator:
    if name in (None, generator.depth.name):
        return generator
    return replace(generator, depth=depth_estimator(name, generator.placement))


def _licences(preset: Preset, generator: Generator) -> dict[str, str]:
    """Of all that the world is made with."""
    licences = {"weights": preset.licence, "code": "Apache-2.0"}
    licence = depth_licence(generator.depth.name)
    return licences if licence is None else licences | {"depth network": licence}


def _check_guidance(negative_prompt: str | None, generator: Generator) -> None:
    if negative_prompt is not None and generator.config.guidance == 1:
        raise WorldError(
            "this preset is sampled without guidance and cannot be led away from anything; leave the negative prompt "
            "out, or choose a preset with guidance, such as lyra2-14b"
        )


def _check_size(height: int, width: int, generator: Generator) -> None:
    """Frames must be cut evenly into latents, and those into tokens."""
    steps = [generator.codec.spatial_factor * side for side in generator.denoiser.config.patch[1:]]
    if height < 2 * steps[0] or width < 2 * steps[1] or height % steps[0] or width % steps[1]:
        raise WorldError(
            f"frames of {height}x{width} do not suit this preset; their height wants to be a multiple of {steps[0]} "
            f"and their width of {steps[1]}, each at least twice that"
        )


def _focal_px(fov_deg: float, width: int) -> float:
    if not 5 <= fov_deg <= 150:
        raise WorldError(f"a field of view wants 5 to 150 degrees, got {fov_deg}")
    return width / 2 / math.tan(math.radians(fov_deg) / 2)


def _source(
    photo: str | Path,
    depth: str | Path | None,
    fov_deg: float | None,
    depth_model: str | None,
    legacy: bool,
    views: str | Path | None,
) -> dict[str, str]:
    """What a world was made from; a world made from the same has the same photo chunk."""
    source = {"photo": Path(photo).name, "photo_sha256": hashlib.sha256(Path(photo).read_bytes()).hexdigest()}
    if depth is not None:
        source["depth_sha256"] = hashlib.sha256(Path(depth).read_bytes()).hexdigest()
    if fov_deg is not None:
        source["fov_deg"] = str(fov_deg)
    if depth_model is not None:
        source["depth_model"] = depth_model
    if views is not None:
        source["views_sha256"] = hashlib.sha256(Path(views).read_bytes()).hexdigest()
    if legacy:
        source["legacy"] = "as the published programs"
    return source
