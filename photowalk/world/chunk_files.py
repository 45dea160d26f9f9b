"""The files of one chunk in a world folder; `docs/world_folder.md` describes them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.models.protocols import StreamState
from photowalk.scene.images import from_bytes, quantise, read_png, to_bytes, write_png
from photowalk.scene.types import Clip, View
from photowalk.scene.videos import read_lossless, write_lossless
from photowalk.world.disk import sha256, sync_folder, write_bytes
from photowalk.world.manifest import ChunkEntry, Manifest, StoredFile
from photowalk.world.state import Chunk

FRAMES_PER_SECOND = 16.0
STREAMS = ("encoder.safetensors", "decoder.safetensors")
CLOSE_UP = "close_up.png"


def write_chunk(world: Path, index: int, chunk: Chunk) -> ChunkEntry:
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
        write_frames(partial / "frames.mkv", chunk.clip.video)
        write_tensors(partial / "depth.safetensors", _depth_tensors(chunk))
        write_tensors(partial / "cameras.safetensors", camera_tensors(chunk.clip.cameras))
        write_tensors(partial / "latents.safetensors", {"latents": chunk.latents})
        write_tensors(partial / STREAMS[0], chunk.encoder)
        write_tensors(partial / STREAMS[1], chunk.decoder)
        if chunk.sampled is not None:
            write_tensors(partial / "sampled.safetensors", {"sampled": chunk.sampled})
        if chunk.views:
            write_tensors(partial / "views.safetensors", _view_tensors(chunk.views))
        if chunk.close_up is not None:
            _write_close_up(partial / CLOSE_UP, chunk.close_up)
        write_bytes(partial / "chunk.json", json.dumps(description, indent=1, ensure_ascii=False).encode())
        files = {file.name: StoredFile(file.stat().st_size, sha256(file)) for file in sorted(partial.iterdir())}
        sync_folder(partial)
        os.rename(partial, final)
        sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return ChunkEntry(folder=f"chunks/{name}", files=files, **description)


def read_chunk(
    folder: Path, entry: ChunkEntry, manifest: Manifest, device: torch.device, streams_on: torch.device | None
) -> Chunk:
    kept = {Path(file).stem: file for file in STREAMS if file in entry.files}
    return Chunk(
        read_clip(folder, entry, manifest, range(entry.frames), device),
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
        close_up=read_png(folder / CLOSE_UP).to(device) if CLOSE_UP in entry.files else None,
    )


def read_clip(
    folder: Path,
    entry: ChunkEntry,
    manifest: Manifest,
    frames: Sequence[int],
    device: torch.device | str = "cpu",
) -> Clip:
    """Frames of a chunk, ascending numbers from its first, each once, and nothing else of it."""
    video = from_bytes(read_lossless(folder / "frames.mkv", None if len(frames) == entry.frames else frames))
    size = (len(frames), 3, manifest.height, manifest.width)
    if tuple(video.shape) != size:
        raise ValueError(f"frames.mkv holds {tuple(video.shape)}, {size} were written")
    stored = _read_tensors(folder / "depth.safetensors")
    place = {int(frame): place for place, frame in enumerate(stored["frames"])}
    depth = torch.zeros(len(frames), manifest.height, manifest.width)
    for number, frame in enumerate(frames):
        if frame in place:
            depth[number] = stored["depth"][place[frame]].float()
    cameras = read_cameras(folder / "cameras.safetensors", manifest)
    if cameras.shape != (entry.frames,):
        raise ValueError(f"cameras.safetensors holds {tuple(cameras.shape)} cameras, {entry.frames} were written")
    return Clip(video.to(device), cameras[list(frames)].to(device), depth.to(device), entry.prompt)


def frames_with_depth(folder: Path) -> list[int]:
    """The numbers of a chunk's frames whose depth is known, from its first."""
    with safetensors.safe_open(folder / "depth.safetensors", framework="pt") as stored:
        return stored.get_tensor("frames").tolist()


def write_frames(file: Path, video: Tensor) -> None:
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


def camera_tensors(cameras: Cameras) -> dict[str, Tensor]:
    return {"camera_from_world": cameras.camera_from_world, "intrinsics": cameras.intrinsics}


def read_cameras(file: Path, manifest: Manifest) -> Cameras:
    stored = _read_tensors(file)
    return Cameras(stored["camera_from_world"], stored["intrinsics"], manifest.height, manifest.width)


def _view_tensors(views: Sequence[View]) -> dict[str, Tensor]:
    return {
        "images": to_bytes(torch.stack([view.image for view in views])),
        "depth": torch.stack([view.depth for view in views]).half(),
        "camera_from_world": torch.stack([view.camera.camera_from_world for view in views]),
        "intrinsics": torch.stack([view.camera.intrinsics for view in views]),
    }


def _read_views(file: Path, manifest: Manifest, device: torch.device) -> tuple[View, ...]:
    stored, cameras = _read_stream(file, device), read_cameras(file, manifest).to(device)
    pictures = zip(from_bytes(stored["images"]), stored["depth"].float(), cameras, strict=True)
    return tuple(View(*picture, frame=-1 - index) for index, picture in enumerate(pictures))


def _write_close_up(file: Path, picture: Tensor) -> None:
    if not torch.equal(quantise(picture), picture):
        raise ValueError("the close-up of a photo wants values n / 255, so that it is stored without loss")
    write_png(file, picture)


def _read_stream(file: Path, device: torch.device) -> StreamState:
    return {name: tensor.to(device) for name, tensor in _read_tensors(file).items()}


def write_tensors(file: Path, tensors: StreamState) -> None:
    write_bytes(file, packed(tensors))


def packed(tensors: StreamState) -> bytes:
    """safetensors by way of memory, so that a failed write is an OSError with its reason."""
    return safetensors.torch.save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})


def _read_tensors(file: Path) -> StreamState:
    """Copies in memory of their own: aligned as fresh tensors are, on which a matrix library's rounding may depend."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load(file.read_bytes()).items()}
