"""A video to splats as the published programs do it: at once from some of its frames, or in windows that are joined.

What the network makes of chosen frames comes in as a function; this module knows the order of things around it. The
network's cameras are believed here, brought to the given ones by their centres: `feed_forward.py` does better on walks,
whose cameras are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import Similarity
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.models.depth_anything3.preprocess import preprocess
from photowalk.models.depth_anything3.splats import place_splats
from photowalk.perception.pose_alignment import align_centres
from photowalk.reconstruct.feed_forward import Precision
from photowalk.reconstruct.frame_choice import WindowPlan, even_windows, spread
from photowalk.reconstruct.joining import closeness, join, moved
from photowalk.reconstruct.ownership import opaque, owned, within_rim
from photowalk.scene.types import Clip, Scene, Splats

FRAMES_AT_ONCE = 128
WINDOWS, OVERLAP = 3, 10  # of long walks
LONG = 500  # frames from which a walk is long
POINTS_PER_FRAME = 4096  # that two windows are compared by
OWNED_BEYOND = 1.0  # metres by which another window may be nearer
OPACITY_MARGIN = 1e-6  # of what several windows make


@dataclass(frozen=True)
class Seen:
    """What a network makes of S frames."""

    splats: Splats  # of all views, in the order view, row, column, in the world of the given cameras
    grid: tuple[int, int]  # rows and columns of splats of a view
    camera_from_world: Tensor  # [S, 4, 4] its own guess, in its own world


See = Callable[[Tensor], Seen]  # of frame numbers [S] int64


@dataclass(frozen=True)
class Reconstruction:
    splats: Splats
    cameras: Cameras  # [T] of every frame of the video, corrected
    frames: Tensor  # [U] int64 that the network saw
    similarities: tuple[Similarity, ...] = ()  # of each window, to the world of the first
    owned: tuple[Tensor, ...] = ()  # for each window, which of the splats that the rim or opacity left it kept


def reconstruct_as_published(
    network: DepthAnything3,
    walk: Callable[[], Iterable[Clip]],
    cameras: Cameras,
    *,
    ratio: int = 2,
    precision: Precision = nullcontext,
) -> Scene:
    """Splats of a walk, whose clips `walk()` gives from the front each time it is called, along `cameras` [T]. Frames
    that the network is not shown are not held."""
    see = _seen_by(network, walk, cameras, ratio, precision)
    if len(cameras) > LONG:
        plan = even_windows(len(cameras), WINDOWS, FRAMES_AT_ONCE, OVERLAP)
        splats = reconstruct_in_windows(see, cameras, plan).splats
    else:
        splats = reconstruct_at_once(see, cameras).splats
    sound = splats.means.isfinite().all(-1) & splats.rotations.isfinite().all(-1) & (splats.scales > 0).all(-1)
    return Scene(splats[sound])


def _seen_by(
    network: DepthAnything3, walk: Callable[[], Iterable[Clip]], cameras: Cameras, ratio: int, precision: Precision
) -> See:
    @torch.inference_mode()
    def see(frames: Tensor) -> Seen:
        device = next(network.parameters()).device
        images = preprocess(_pictures(walk(), frames).to(device), network.config.backbone.patch)
        known = cameras[frames].to(device).resized(images.shape[-2], images.shape[-1])
        with precision():
            predicted = network(images, known.camera_from_world, known.intrinsics, down_ratio=ratio)
        if predicted.splats is None:
            raise ValueError("these weights give depth and cameras but no splats: use reconstruction weights")
        there = motions.inverse(predicted.camera_from_world)
        alignment = align_centres(there, known.world_from_camera)
        placed = place_splats(
            predicted.splats, predicted.depth, alignment.to_known(there), known.intrinsics, unit=alignment.scale
        )
        splats = Splats(placed.means, placed.scales, placed.rotations, placed.opacities, placed.harmonics[:, :1])
        rows, columns = predicted.splats.shape[1:3]
        return Seen(splats.to("cpu"), (rows, columns), predicted.camera_from_world.cpu())

    return see


def _pictures(walk: Iterable[Clip], frames: Tensor) -> Tensor:
    """[S, 3, H, W] of increasing frame numbers [S]."""
    parts, start = [], 0
    for clip in walk:
        here = frames[(frames >= start) & (frames < start + len(clip))] - start
        parts.append(clip.video[here])
        start += len(clip)
    return torch.cat(parts)


def reconstruct_at_once(
    see: See, cameras: Cameras, *, most: int = FRAMES_AT_ONCE, faint_share: float = 0.0
) -> Reconstruction:
    """From at most `most` of the frames of `cameras` [T]. Without splats at the rim of pictures, or without that share
    of the faintest instead."""
    frames = spread(len(cameras), most)
    seen = see(frames)
    kept = _kept(seen, 0, faint_share)
    poses = _in_known_world(seen.camera_from_world, cameras[frames])
    path = followed(replace(cameras[frames], camera_from_world=poses), frames, len(cameras))
    return Reconstruction(seen.splats[kept], replace(path, intrinsics=cameras.intrinsics), frames)


def reconstruct_in_windows(
    see: See,
    cameras: Cameras,
    plan: WindowPlan,
    *,
    faint_share: float = 0.0,
    tolerance: float = OWNED_BEYOND,
    points_per_frame: int = POINTS_PER_FRAME,
) -> Reconstruction:
    """From windows of frames of `cameras` [T], each brought to the world of the first by what it shares with the one
    before; of what several describe each keeps what it was nearest to, by at most `tolerance` metres less."""
    similarities, splats, poses = [], [], []
    before: tuple[Splats, Tensor] | None = None
    for number, places in enumerate(plan.places):
        frames = plan.frames[places]
        seen = see(frames)
        local = motions.inverse(_in_known_world(seen.camera_from_world, cameras[frames]))
        if before is None:
            similarity = Similarity.identity()
        else:
            similarity = _joined(
                seen.splats, local, *before, cameras[frames[: plan.overlap]], plan.overlap, points_per_frame
            )
        whole, placed = moved(seen.splats, similarity), _moved_poses(local, similarity)
        before = whole, placed
        start = plan.kept(number).start
        per_view = seen.grid[0] * seen.grid[1]
        splats.append(whole[start * per_view :][_kept(seen, start, faint_share)])
        poses.append(placed[start:])
        similarities.append(similarity)
    windows = _split(cameras[plan.frames], torch.cat(poses), [len(part) for part in poses])
    masks = tuple(owned(part.means, windows, number, tolerance) for number, part in enumerate(splats))
    joined = Splats.cat([part[mask] for part, mask in zip(splats, masks, strict=True)])
    joined = Splats(
        joined.means,
        joined.scales,
        joined.rotations,
        joined.opacities.clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN),
        joined.colours,
    )
    keys = replace(cameras[plan.frames], camera_from_world=motions.inverse(torch.cat(poses)))
    path = followed(keys, plan.frames, len(cameras))
    return Reconstruction(joined, path, plan.frames, tuple(similarities), masks)


def _joined(
    splats: Splats, local: Tensor, before: Splats, global_poses: Tensor, shared: Cameras, overlap: int, most: int
) -> Similarity:
    """From a window's splats and poses and those of the window before, which is in the common world."""
    target = global_poses[-overlap:]
    views = len(local)
    here = splats.means.unflatten(0, (views, -1))[:overlap]
    there = before.means.unflatten(0, (views, -1))[-overlap:]
    chosen = spread(here.shape[1], most)
    here, there = here[:, chosen], there[:, chosen]
    depth = Cameras(motions.inverse(target), shared.intrinsics, shared.height, shared.width).project(there)[1]
    weights = torch.cat([closeness(each) for each in depth])
    return join(local[:overlap], target, here.flatten(0, 1), there.flatten(0, 1), weights)


def _in_known_world(predicted: Tensor, known: Cameras) -> Tensor:
    """Predicted camera_from_world [S, 4, 4], brought to the known cameras [S] by centres."""
    there = motions.inverse(predicted)
    return motions.inverse(align_centres(there, known.world_from_camera).to_known(there))


def _moved_poses(world_from_camera: Tensor, similarity: Similarity) -> Tensor:
    poses = world_from_camera.double()
    turned = motions.motion(similarity.rotation @ poses[:, :3, :3], similarity(poses[:, :3, 3]))
    return turned.to(world_from_camera)


def _kept(seen: Seen, start: int, faint_share: float) -> Tensor:
    """Which splats of the views from `start` on are neither at the rim nor, if a share is given, too faint."""
    height, width = seen.grid
    if faint_share > 0:
        return opaque(seen.splats.opacities[start * height * width :], faint_share)
    return within_rim(len(seen.camera_from_world) - start, height, width)


def _split(cameras: Cameras, world_from_camera: Tensor, counts: list[int]) -> list[Cameras]:
    poses, lenses = motions.inverse(world_from_camera).split(counts), cameras.intrinsics.split(counts)
    return [Cameras(pose, lens, cameras.height, cameras.width) for pose, lens in zip(poses, lenses, strict=True)]


def followed(keys: Cameras, frames: Tensor, count: int) -> Cameras:
    """Cameras of all `count` frames of a video, from those of some `frames` [U], increasing: between them in a straight
    line, before and after them as the nearest."""
    every = torch.arange(count, device=frames.device)
    upper = torch.searchsorted(frames, every).clamp(1, max(len(frames) - 1, 1)).clamp(max=len(frames) - 1)
    lower = (upper - 1).clamp_min(0)
    span = (frames[upper] - frames[lower]).clamp_min(1)
    share = ((every - frames[lower]).double() / span).clamp(0, 1)
    pose, lens = keys.camera_from_world.double(), keys.intrinsics.double()
    return replace(
        keys,
        camera_from_world=motions.interpolate(pose[lower], pose[upper], share).to(keys.camera_from_world),
        intrinsics=torch.lerp(lens[lower], lens[upper], share[:, None, None]).to(keys.intrinsics),
    )
