"""Files that clients send: looked at before they are kept, kept under names of our own."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from photowalk.geometry import path_files
from photowalk.geometry.cameras import Cameras
from photowalk.scene.images import MINIMUM_SIDE
from photowalk.studio.errors import StudioError, TooLargeError
from photowalk.studio.library import new_identifier

FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif"}  # none that runs programs
_MODEL = ("images.txt", "cameras.txt", "images.bin", "cameras.bin")
_NO_ARCHIVE = (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, zlib.error)
MAX_PIXELS = 100_000_000
MAX_UNPACKED_BYTES = 64 << 20


def keep_photo(stream: BinaryIO, folder: Path) -> str:
    """Store a photo in `folder`, whose pixels are not decoded here; its new name. Raises StudioError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS decides
            with Image.open(stream, formats=tuple(FORMATS)) as picture:
                width, height, ending = *picture.size, FORMATS[picture.format or ""]
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"the picture has too many pixels ({error}); make it smaller") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, KeyError) as error:
        raise StudioError("this is no picture that can be read; give a JPEG, PNG, WebP, TIFF or AVIF") from error
    if width * height > MAX_PIXELS:
        raise TooLargeError(
            f"the picture has {width}x{height} pixels, {width * height / 1e6:.0f} million; give at most "
            f"{MAX_PIXELS / 1e6:.0f} million"
        )
    if min(width, height) < MINIMUM_SIDE:
        raise StudioError(f"the picture has {width}x{height} pixels; give at least {MINIMUM_SIDE} on each side")
    return _keep(stream, folder, ending)


def keep_path(stream: BinaryIO, name: str, folder: Path) -> str:
    """Store a file of camera poses, or a folder of a zipped COLMAP model; its new name. Only the ending of the client's
    name is looked at. Raises StudioError."""
    ending = "." + name.rpartition(".")[2].lower()
    if ending not in (".npz", ".json", ".txt", ".zip"):
        raise StudioError(f"camera paths are read from .npz, .json, .txt and .zip (of COLMAP), not '{ending[:12]}'")
    if ending not in (".npz", ".zip"):
        return _keep(stream, folder, ending)
    try:
        archive = zipfile.ZipFile(stream)
    except _NO_ARCHIVE as error:
        raise StudioError(f"this is no {ending} archive that can be read ({error})") from error
    with archive:
        _check_size(archive)
        return _keep_model(archive, folder) if ending == ".zip" else _keep(stream, folder, ending)


def _keep_model(archive: zipfile.ZipFile, folder: Path) -> str:
    """Of the archive only files that are called as those of a COLMAP model, wherever in it they lie."""
    members = {member.filename.rpartition("/")[2]: member for member in archive.infolist()}
    try:
        model = {file: archive.read(members[file]) for file in _MODEL if file in members}
    except _NO_ARCHIVE as error:
        raise StudioError(f"this archive cannot be unpacked ({error})") from error
    if not model:
        raise StudioError("a .zip of camera poses holds a COLMAP model: images and cameras, .txt or .bin")
    name = new_identifier()
    (folder / name).mkdir()
    for file, content in model.items():
        (folder / name / file).write_bytes(content)
    return name


def _check_size(archive: zipfile.ZipFile) -> None:
    size = sum(member.file_size for member in archive.infolist())
    if size > MAX_UNPACKED_BYTES:
        raise TooLargeError(
            f"the archive unpacks to {size >> 20} MiB, more than {MAX_UNPACKED_BYTES >> 20}; no path is so long"
        )


def keep_cameras(cameras: Cameras, folder: Path) -> str:
    """Store planned cameras for the process that generates."""
    name = f"{new_identifier()}.npz"
    path_files.write(folder / name, cameras)
    return name


def _keep(stream: BinaryIO, folder: Path, ending: str) -> str:
    name = f"{new_identifier()}{ending}"
    partial = folder / f".{name}.partial"
    stream.seek(0)
    try:
        with partial.open("wb") as file:
            while block := stream.read(1 << 20):
                file.write(block)
        partial.rename(folder / name)
    finally:
        partial.unlink(missing_ok=True)
    return name
