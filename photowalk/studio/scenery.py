"""What the studio shows of a world: pictures, points and depth of its frames, read once and kept while they are used.

Chunk files never change, so what was read of one is known by its hash; branches share it.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from PIL import Image
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.memory.policies import Candidates, GreedyCoverage
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.perception.gravity import photo_up
from photowalk.scene.collision import Surfaces, known_surfaces
from photowalk.scene.images import to_bytes
from photowalk.scene.types import View
from photowalk.studio import schemas
from photowalk.studio.errors import NotFoundError
from photowalk.world.manifest import ChunkEntry, Manifest
from photowalk.world.state import Chunk
from photowalk.world.store import WorldStore

MAX_WORLDS_KEPT = 32
MAX_CHUNKS_KEPT = 64  # of all worlds, about 8 MB each at nano's size; of one that has more, all


@dataclass(frozen=True)
class ChunkScenery:
    """One chunk, ready to be shown."""

    pictures: tuple[bytes, ...]  # a JPEG of every frame
    cameras: Cameras  # [F]
    depth_frames: tuple[int, ...]  # in the chunk
    depth: Tensor  # [D, H, W] float16
    points: Tensor  # [D, N, 3] on memory's grid, NaN = none
    cloud: tuple[Tensor, Tensor]  # what is drawn: points [M, 3] and their colours, uint8 [M, 3]
    photo_up: Tensor | None = None  # [3] as the floor of a photo, which is a chunk alone, tells it


@dataclass(frozen=True)
class Scenery:
    """A whole world, ready to be shown."""

    manifest: Manifest
    chunks: tuple[ChunkScenery, ...]
    surfaces: Surfaces | None  # what a walk could run into

    @property
    def cameras(self) -> Cameras:
        """[F] of all frames."""
        return Cameras.cat([chunk.cameras for chunk in self.chunks])

    @property
    def vertical(self) -> Tensor | None:
        """Up [3], along which walks stay level."""
        return self.chunks[0].photo_up if self.manifest.up is None else torch.tensor(self.manifest.up)

    @property
    def grain(self) -> float:
        """How far apart drawn points lie on what faces the photo at its reference depth."""
        views = sum(len(chunk.depth_frames) for chunk in self.chunks)
        focal_px = float(self.chunks[0].cameras.intrinsics[0, 0, 0])
        closer = 1.0 if views == 1 else 0.75  # views overlap
        return closer * _stride(views) * self.manifest.reference_depth / focal_px

    def picture(self, frame: int) -> bytes:
        """JPEG. Raises NotFoundError."""
        index, within = _place_of(frame, [len(chunk.pictures) for chunk in self.chunks])
        return self.chunks[index].pictures[within]

    def cloud(self, first_chunk: int = 0, last_chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Points [N, 3] and their colours, uint8 [N, 3], of some chunks."""
        chosen = self.chunks[first_chunk : None if last_chunk is None else last_chunk + 1]
        return torch.cat([chunk.cloud[0] for chunk in chosen]), torch.cat([chunk.cloud[1] for chunk in chosen])

    def views(self) -> list[View]:
        """Every frame that has depth, without its picture."""
        return _views(self.chunks)

    def recall(self, camera: Cameras, count: int) -> schemas.Recall:
        """What memory knows of the view of a camera []."""
        clouds, frames, start = [], [], 0
        for chunk in self.chunks:
            clouds += list(chunk.points)
            frames += [start + index for index in chunk.depth_frames]
            start += len(chunk.pictures)
        if not frames:
            return schemas.Recall(frames=[], coverage=0.0, recalled_coverage=0.0, never_seen=1.0)
        policy = GreedyCoverage()
        candidates = Candidates(clouds, frames, SpatialMemory().point_stride)
        target = camera[None]
        seen = candidates.coverage(target, relative_tolerance=policy.relative_tolerance)
        chosen = policy.choose(candidates, target, count)
        newest = max(range(len(frames)), key=lambda index: frames[index])  # always part of what the generator is shown
        known, recalled = seen.any(0).float().mean(), seen[[*chosen, newest]].any(0).float().mean()
        return schemas.Recall(
            frames=[frames[index] for index in chosen],
            coverage=float(known),
            recalled_coverage=float(recalled),
            never_seen=1 - float(known),
        )


class SceneryCache:
    def __init__(self) -> None:
        self._chunks: OrderedDict[str, ChunkScenery] = OrderedDict()
        self._known: OrderedDict[tuple[str, ...], Surfaces | None] = OrderedDict()  # by the chunks of a world
        self._lock, self._reading = Lock(), Lock()

    def get(self, folder: str | Path) -> Scenery:
        """The world as it is now. Raises WorldError."""
        store = WorldStore(folder)
        chunks = tuple(self._chunk(store, index) for index in range(len(store.manifest.chunks)))
        return Scenery(store.manifest, chunks, self._surfaces(store.manifest, chunks))

    def picture(self, folder: str | Path, frame: int) -> bytes:
        """JPEG of a frame, of whose world nothing but its chunk is read. Raises NotFoundError, WorldError."""
        store = WorldStore(folder)
        index, within = _place_of(frame, [entry.frames for entry in store.manifest.chunks])
        return self._chunk(store, index).pictures[within]

    def _surfaces(self, manifest: Manifest, chunks: tuple[ChunkScenery, ...]) -> Surfaces | None:
        key = tuple(entry.files["depth.safetensors"].sha256 for entry in manifest.chunks)
        with self._reading:
            if key not in self._known:
                self._known[key] = known_surfaces(_views(chunks))
                while len(self._known) > MAX_WORLDS_KEPT:
                    self._known.popitem(last=False)
            return self._known[key]

    def _chunk(self, store: WorldStore, index: int) -> ChunkScenery:
        key = _key(store.manifest.chunks[index])
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        with self._reading:  # one at a time: reading is heavy, and whoever waits may want the same
            with self._lock:
                if key in self._chunks:
                    return self._chunks[key]
            scenery = _prepared(store.chunk(index))
            with self._lock:
                self._chunks[key] = scenery
                self._make_room({_key(entry) for entry in store.manifest.chunks})
        return scenery

    def _make_room(self, wanted: set[str]) -> None:
        """Drop what was not looked at for longest. Nothing `wanted`: of a world that is longer than all that is kept,
        every look would otherwise read everything again."""
        others = [key for key in self._chunks if key not in wanted]
        for key in others[: max(len(self._chunks) - MAX_CHUNKS_KEPT, 0)]:
            del self._chunks[key]


def _place_of(frame: int, lengths: list[int]) -> tuple[int, int]:
    """The chunk that holds a frame, and its number there. Raises NotFoundError."""
    start = 0
    for index, length in enumerate(lengths):
        if start <= frame < start + length:
            return index, frame - start
        start += length
    raise NotFoundError(f"this world has frames 0 to {start - 1}, there is no frame {frame}")


def _key(entry: ChunkEntry) -> str:
    names = ("frames.mkv", "depth.safetensors", "cameras.safetensors")
    return "".join(entry.files[name].sha256 for name in names)


def _views(chunks: tuple[ChunkScenery, ...]) -> list[View]:
    """Every frame that has depth, without its picture."""
    found, start = [], 0
    for chunk in chunks:
        for row, index in enumerate(chunk.depth_frames):
            depth = chunk.depth[row].float()
            blank = torch.zeros(1).expand(3, *depth.shape)
            found.append(View(blank, depth, chunk.cameras[index], start + index))
        start += len(chunk.pictures)
    return found


def jpeg(image: Tensor, quality: int = 88) -> bytes:
    """[3, H, W] in [0, 1] or uint8."""
    pixels = image if image.dtype == torch.uint8 else to_bytes(image)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _prepared(chunk: Chunk) -> ChunkScenery:
    clip, frames = chunk.clip, chunk.depth_frames.tolist()
    depth = clip.video.new_zeros(0, *clip.video.shape[-2:]) if clip.depth is None else clip.depth[frames]
    views = [View(clip.video[frame], depth[row], clip.cameras[frame], frame) for row, frame in enumerate(frames)]
    remembered = [entry.points for entry in SpatialMemory().remember(views).entries]
    return ChunkScenery(
        tuple(jpeg(frame) for frame in clip.video),
        clip.cameras,
        tuple(frames),
        depth.half(),
        torch.stack(remembered) if remembered else torch.zeros(0, 1, 3),
        _cloud(views),
        photo_up(views[0]) if len(clip) == 1 and views else None,
    )


def _stride(views: int) -> int:
    return SpatialMemory().point_stride if views > 1 else 2


def _cloud(views: list[View]) -> tuple[Tensor, Tensor]:
    """Points to draw: a photo alone is drawn densely, the views of a walk, which overlap, less so."""
    stride = _stride(len(views))
    entries = SpatialMemory(point_stride=stride).remember(views).entries
    points = torch.cat([entry.points for entry in entries]) if entries else torch.zeros(0, 3)
    colours = [to_bytes(view.image[:, ::stride, ::stride]).flatten(1).T for view in views]
    known = points.isfinite().all(-1)
    return points[known], (torch.cat(colours) if colours else torch.zeros(0, 3, dtype=torch.uint8))[known]
