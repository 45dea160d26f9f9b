"""Videos on disk: H.264 for people, lossless FFV1 for the world folder. They know frames and rates, nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from photowalk.scene.images import to_bytes, write_atomically

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from av import VideoFrame
    from av.container import InputContainer


class VideoError(ValueError):
    """A video that cannot be read or written: the text says which and why."""


class _Output(FileIO):
    """A file that never fails the encoder, since libav crashes where a disk is full. The reason waits in `failure`."""

    failure: OSError | None = None

    def write(self, content: ReadableBuffer, /) -> int:
        left = memoryview(content)
        size = len(left)
        try:
            while left and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return size


class VideoWriter:
    """Encodes frames one by one, so that a long walk is never held in memory. Use as a context manager.

    Raises OSError when it is closed, where the disk did not take all.
    """

    def __init__(
        self, path: str | Path, *, fps: float = 16, codec: str = "libx264", pixel_format: str = "yuv420p"
    ) -> None:
        import av  # training, which imports this file by the way, does without it

        # bitexact leaves out random identifiers and dates; x264 still rounds a frame differently now and then
        self._output = _Output(path, "w")
        self._container = av.open(self._output, "w", options={"fflags": "+bitexact"})
        stream = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        if not isinstance(stream, av.VideoStream):
            raise VideoError(f"{codec} is not a video codec")
        self._stream = stream
        self._stream.pix_fmt = pixel_format
        if codec == "libx264":
            self._stream.options = {"crf": "16", "preset": "veryfast"}
        if codec == "ffv1":
            self._stream.gop_size = 1  # so that each frame can be decoded alone; files grow by a fiftieth
        self._size: tuple[int, int] | None = None
        self._even_only = pixel_format == "yuv420p"

    def add(self, frame: Tensor) -> None:
        """frame [3, H, W] in [0, 1], or uint8."""
        pixels = (frame if frame.dtype == torch.uint8 else to_bytes(frame)).permute(1, 2, 0).contiguous().cpu().numpy()
        if self._even_only:  # 4:2:0 shares colour between 2x2 pixels
            pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
        if self._size is None:
            self._size = pixels.shape[:2]
            self._stream.height, self._stream.width = self._size
        elif pixels.shape[:2] != self._size:
            raise VideoError(f"frames of one video want one size: {self._size} so far, now {pixels.shape[:2]}")
        from av import VideoFrame

        picture = VideoFrame.from_ndarray(pixels, format="rgb24")
        self._container.mux(self._stream.encode(picture.reformat(format=self._stream.pix_fmt)))

    def close(self) -> None:
        with self._output:
            if self._size is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        if self._output.failure is not None:
            raise self._output.failure

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def write_mp4(path: str | Path, frames: Iterable[Tensor], fps: float = 16) -> None:
    """Write frames [3, H, W] in [0, 1] (or uint8) as H.264 4:2:0, which every player shows. Odd sides gain a pixel."""
    _write(path, frames, fps, codec="libx264", pixel_format="yuv420p")


def write_lossless(path: str | Path, frames: Iterable[Tensor], fps: float = 16) -> None:
    """Write uint8 frames [3, H, W] so that read_lossless gives the same bytes (FFV1 in .mkv)."""
    _write(path, frames, fps, codec="ffv1", pixel_format="bgr0")


def read_lossless(path: str | Path, chosen: Collection[int] | None = None) -> Tensor:
    """uint8 [F, 3, H, W]; of the `chosen` frames alone, in ascending order and each once, where they are given, without
    decoding all others. Raises VideoError for a file that is no video or lacks a frame."""
    import av

    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in _decoded(container, chosen)]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, IndexError) as error:
        raise VideoError(f"{path} is not a readable video ({error})") from error
    if chosen is not None and len(frames) < len(set(chosen)):
        raise VideoError(f"{path} holds {len(frames)} of the {len(set(chosen))} frames that were wanted of it")
    if not frames:
        raise VideoError(f"{path} holds no frames")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def _decoded(container: InputContainer, chosen: Collection[int] | None) -> Iterator[VideoFrame]:
    """The chosen frames of a codec that gives a frame for each packet, as FFV1 does; all others are decoded only where
    a chosen one builds on them."""
    if chosen is None:
        yield from container.decode(video=0)
        return
    chosen, skipped = set(chosen), []
    for number, packet in enumerate(container.demux(video=0)):
        if packet.is_keyframe:
            skipped = []
        if number not in chosen:
            skipped.append(packet)
            continue
        for before in skipped:
            before.decode()
        skipped = []
        yield from packet.decode()


def _write(path: str | Path, frames: Iterable[Tensor], fps: float, *, codec: str, pixel_format: str) -> None:
    def fill(temporary: Path) -> None:
        count = 0
        with VideoWriter(temporary, fps=fps, codec=codec, pixel_format=pixel_format) as writer:
            for frame in frames:
                writer.add(frame)
                count += 1
        if count == 0:
            raise VideoError(f"a video wants at least one frame, {path} would have none")

    write_atomically(path, fill)
