"""Reads one channel of OpenEXR pictures: half or single precision, whole lines, bare or deflated.

That is what depth estimators write. Tiles, several parts and other compressions are refused.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_MAGIC = b"v/1\x01"
_NOT_PLAIN = 0x200 | 0x800 | 0x1000  # tiled, deep, several parts
_LINES = {0: 1, 2: 1, 3: 16}  # lines of a block by compression: none, ZIPS, ZIP
_KINDS = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
_LARGEST = 1 << 28  # pixels


class ExrError(ValueError):
    """A picture that cannot be read; the text says why."""


def read_exr(content: bytes, channel: str) -> np.ndarray:
    """[height, width] of a channel, in its own precision. Raises ExrError."""
    try:
        return _read(content, channel)
    except (struct.error, IndexError, KeyError, zlib.error, UnicodeDecodeError) as error:
        raise ExrError(f"is damaged or cut short ({error!r})") from error


def _read(content: bytes, channel: str) -> np.ndarray:
    if content[:4] != _MAGIC:
        raise ExrError("is no OpenEXR picture")
    if struct.unpack_from("<I", content, 4)[0] & _NOT_PLAIN:
        raise ExrError("is tiled, deep or of several parts; store whole lines in one part")
    header, at = _header(content)
    channels = _channels(header["channels"])
    if channel not in channels:
        raise ExrError(f"has no channel {channel}, only {', '.join(channels)}")
    compression = header["compression"][0]
    if compression not in _LINES:
        raise ExrError(f"has compression {compression}; store without, or with ZIPS or ZIP")
    left, top, right, bottom = struct.unpack("<4i", header["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    if width < 1 or height < 1 or width * height > _LARGEST:
        raise ExrError(f"claims to be {width}x{height} pixels")
    before, line = 0, sum(kind.itemsize for kind in channels.values()) * width  # bytes
    for name, kind in channels.items():
        if name == channel:
            break
        before += kind.itemsize * width
    kind = channels[channel]
    picture = np.zeros((height, width), kind)
    for offset in struct.unpack_from(f"<{-(-height // _LINES[compression])}Q", content, at):
        first, size = struct.unpack_from("<ii", content, offset)
        first -= top
        lines = min(_LINES[compression], height - first)
        whole = lines * line
        if not 0 <= first < height or not 0 <= size <= whole:
            raise ExrError("is damaged or cut short: a block lies outside of it")
        data = content[offset + 8 : offset + 8 + size]
        data = data if size == whole else _undone(zlib.decompressobj().decompress(data, whole))
        if len(data) != whole:
            raise ExrError("is damaged or cut short: a block has too few bytes")
        own = np.frombuffer(data, np.uint8).reshape(lines, line)[:, before : before + width * kind.itemsize]
        picture[first : first + lines] = np.ascontiguousarray(own).view(kind)
    return picture


def _header(content: bytes) -> tuple[dict[str, bytes], int]:
    """The attributes, and where the table of blocks begins."""
    attributes, at = {}, 8
    while content[at] != 0:
        name, at = _text(content, at)
        _, at = _text(content, at)
        (size,) = struct.unpack_from("<i", content, at)
        if size < 0:
            raise ExrError("is damaged or cut short: an attribute has no size")
        attributes[name] = content[at + 4 : at + 4 + size]
        at += 4 + size
    return attributes, at + 1


def _channels(listed: bytes) -> dict[str, np.dtype]:
    """Names, in the order in which each line holds them, and kinds of numbers."""
    channels, at = {}, 0
    while listed[at] != 0:
        name, at = _text(listed, at)
        kind, _, across, down = struct.unpack_from("<4i", listed, at)
        if (across, down) != (1, 1):
            raise ExrError(f"has a channel {name} of lower resolution")
        channels[name] = _KINDS[kind]
        at += 16
    return channels


def _text(content: bytes, at: int) -> tuple[str, int]:
    end = content.index(b"\0", at) if b"\0" in content[at : at + 256] else -1
    if end < 0:
        raise ExrError("is damaged or cut short: a name does not end")
    return content[at:end].decode("latin-1"), end + 1


def _undone(data: bytes) -> bytes:
    """Deflated blocks hold differences of neighbours, with the even bytes in the first half."""
    values = np.frombuffer(data, np.uint8).astype(np.int64)
    values[1:] -= 128
    values = np.cumsum(values).astype(np.uint8)
    mixed = np.empty_like(values)
    half = (len(values) + 1) // 2
    mixed[0::2], mixed[1::2] = values[:half], values[half:]
    return mixed.tobytes()
