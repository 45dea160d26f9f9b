"""From the frames, cameras and depths of a world folder to splats, meshes and a preview of them in its scene/."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from threading import Event

import torch

from photowalk.export.ply import write_ply
from photowalk.geometry.cameras import Cameras
from photowalk.kernels import morton, planes, project_gaussians, rasterise_lanes, rasterise_tiles, tile_lists, tsdf
from photowalk.kernels.launch import load_kernels
from photowalk.models.splat_head import RATIOS
from photowalk.presets.depth_anything import gives_splats, splat_network
from photowalk.presets.preset import Preset
from photowalk.reconstruct import closed_from_nearer, fit_colours, looked_at, reconstruct, refine, write_preview
from photowalk.reconstruct.feed_forward import NetworkLift
from photowalk.reconstruct.learnt_lift import LearntLift
from photowalk.reconstruct.lift import Lifter, PixelAligned
from photowalk.reconstruct.meshing import Meshes
from photowalk.reconstruct.meshing.files import mesh_clips, write_meshes
from photowalk.reconstruct.published import reconstruct_as_published
from photowalk.reconstruct.windows import stream_views
from photowalk.scene.close_up import CloseUp
from photowalk.scene.types import Clip, Scene, View
from photowalk.world.disk import WorldError
from photowalk.world.placement import choose_placement
from photowalk.world.progress import Cancelled, OnStep, Progress
from photowalk.world.report import scale_from
from photowalk.world.store import WorldStore

_PREVIEWED = 4  # every so many frames: rendering costs most of the time on a CPU


@dataclass(frozen=True)
class Wishes:
    """What is asked of a reconstruction, as `World.reconstruct` has it."""

    scale_to: str | None
    splats: int | None
    refine_steps: int
    mesh: bool
    down_ratio: int | None
    pixel_aligned: bool
    network: str | None
    legacy: bool


def lift_walk(store: WorldStore, preset: Preset | None, wishes: Wishes, on_step: OnStep) -> None:
    """Make the folder's scene/ and preview.png. `preset` may have a network for splats. Raises WorldError."""
    if wishes.scale_to is not None and not wishes.mesh:
        raise WorldError("the length of a metre is found with the meshes; give --scale-to without --no-mesh")
    with store.locked():
        lifter = _lifter(store.manifest.depth_network, preset, wishes)
        photo = store.chunk(0)
        twice = None if photo.close_up is None else CloseUp(photo.clip.view(0), photo.close_up).twice()
        with store.new_scene() as folder, _meshes_beside(store, twice, wishes, on_step) as (coming, on_step):
            scene = _splats(store, twice, lifter, wishes, on_step)
            write_ply(folder / "splats.ply", scene.everything)
            write_preview(
                scene,
                store.cameras(),
                video=folder / "preview.mp4",
                picture=folder / "preview.png",
                every=_PREVIEWED,
                on_step=lambda done, total: on_step(Progress("preview", done, total)),
            )
            if coming is not None:
                on_step(Progress("mesh", 0, 1))
                meshes = coming.result()
                write_meshes(folder, meshes, store.cameras()[0])
                if wishes.scale_to is not None:
                    store.correct(metres_per_unit=meshes.ground.metres_per_unit)
            os.replace(folder / "preview.png", store.folder / "preview.png")


@contextmanager
def _meshes_beside(
    store: WorldStore, close_up: View | None, wishes: Wishes, on_step: OnStep
) -> Iterator[tuple[Future[Meshes] | None, OnStep]]:
    """The meshes, if wanted, while another thread makes them: they and the splats get half of the cores each, which
    wastes less than to have both on all. The `on_step` to call within takes all cores once the meshes are made. An
    error within the context stops them."""
    if not wishes.mesh:
        yield None, on_step
        return
    stop = Event()

    def stop_if_wished(_: Progress) -> None:
        if stop.is_set():
            raise Cancelled

    load_kernels(morton, planes, project_gaussians, rasterise_lanes, rasterise_tiles, tile_lists, tsdf)
    cores = torch.get_num_threads()
    torch.set_num_threads(max(cores // 2, 1))
    with ThreadPoolExecutor(1) as other:
        try:
            coming = other.submit(_meshes, store, close_up, wishes.scale_to, stop_if_wished)

            def step(progress: Progress) -> None:
                if coming.done() and torch.get_num_threads() < cores:
                    torch.set_num_threads(cores)
                on_step(progress)

            yield coming, step
        except BaseException:
            stop.set()
            raise
        finally:
            torch.set_num_threads(cores)


def _splats(store: WorldStore, close_up: View | None, lifter: Lifter, wishes: Wishes, on_step: OnStep) -> Scene:
    if close_up is not None and not _holds(wishes.splats, close_up, lifter):
        close_up = None
    known = sum(entry.depth_frames for entry in store.manifest.chunks)

    def make(walk: Iterable[Clip] | Iterable[View]) -> Scene:
        if wishes.legacy:
            return _as_published(store, lifter)
        views = lifter.views(walk) if isinstance(lifter, NetworkLift) else stream_views(walk)
        first = next(views, None)  # of which the camera may be corrected
        return reconstruct(
            views if first is None else chain([first], views),
            budget=wishes.splats,
            lifter=lifter,
            close_up=None if close_up is None or first is None else _seen_by(first.camera, close_up),
            on_view=lambda done: on_step(Progress("splats", done, known)),
        )

    frames = store.manifest.frames
    if not wishes.refine_steps:
        scene = make(store.views())
        if wishes.legacy:
            return scene
        chosen = looked_at(frames)
        return fit_colours(
            closed_from_nearer(scene, ratio=lifter.ratio),
            store.clips(chosen),
            frames=len(chosen),
            every=1,
            on_step=lambda done, total: on_step(Progress("colours", done, total)),
        )
    return refine(
        make,
        store.clips,
        frames=frames,
        steps=wishes.refine_steps,
        lifter=PixelAligned(lifter.ratio) if isinstance(lifter, NetworkLift) else lifter,
        on_step=lambda done, total: on_step(Progress("refine", done, total)),
    ).scene


def _holds(budget: int | None, close_up: View, lifter: Lifter) -> bool:
    """Whether there are splats for a close-up's pixels: none smaller than pixels of frames are made by networks that
    see windows of frames, nor where larger ones are asked for."""
    if lifter.ratio > 1 or isinstance(lifter, NetworkLift):
        return False
    return budget is None or budget >= close_up.depth.numel()


def _seen_by(camera: Cameras, view: View) -> View:
    """The view with the pose of a `camera` []."""
    return replace(view, camera=camera.resized(*view.depth.shape))


def _lifter(depth_network: str, preset: Preset | None, wishes: Wishes) -> Lifter:
    """What makes splats of pixels: the network that is named, or that of the depth or of the preset, if any."""
    ratio, network = wishes.down_ratio, wishes.network
    if ratio not in (None, *RATIOS):
        raise WorldError(f"splats are made with a down-ratio of {' or '.join(map(str, RATIOS))}, got {ratio}")
    if wishes.pixel_aligned and network is not None:
        raise WorldError("splats come from a network or are pixel-aligned without one; choose one of the two")
    if network is None and not wishes.pixel_aligned and gives_splats(depth_network):
        network = depth_network
    if network is not None:
        placement = choose_placement()
        return NetworkLift(splat_network(network, placement), ratio or 2, precision=placement.autocast)
    if wishes.pixel_aligned or preset is None or preset.splat_head is None:
        return PixelAligned(ratio or 1)
    return LearntLift(preset.splat_head(), ratio or 1)


def _as_published(store: WorldStore, lifter: Lifter) -> Scene:
    if not isinstance(lifter, NetworkLift):
        raise WorldError("the published programs make splats with a network; name one of the store, such as da3")
    return reconstruct_as_published(
        lifter.network, store.clips, store.cameras(), ratio=lifter.ratio, precision=lifter.precision
    )


def _meshes(store: WorldStore, close_up: View | None, scale_to: str | None, on_step: OnStep) -> Meshes:
    manifest = store.manifest
    return mesh_clips(
        store.views(),
        scale_from=scale_from(manifest),
        scale_to=scale_to,
        metres_per_unit=manifest.metres_per_unit or 1.0,
        up=None if manifest.up is None else torch.tensor(manifest.up, dtype=torch.float64),
        close_up=close_up,
        on_step=lambda done, total: on_step(Progress("mesh", done, total)),
    )
