"""Photos and pictures on disk. It knows files, colour modes and sizes; it knows nothing of cameras or depth."""

from __future__ import annotations

import errno
import io
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

Fit = Literal["crop", "squash"]

MINIMUM_SIDE = 16  # pixels; below this a photo holds no scene to walk into
MAXIMUM_PIXELS = 120_000_000  # decoded at full size; larger ones must be JPEGs, which decode at 1/2, 1/4 or 1/8
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # numbers of the OSErrors of a full disk
_FULL_FRAME_WIDTH_MM = 36.0
_EXIF_IFD, _FOCAL_35MM = 0x8769, 0xA405
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


class PhotoError(ValueError):
    """A photo that cannot be read: the text says which file, why, and what to do."""


@dataclass(frozen=True)
class Photo:
    image: Tensor  # [3, H, W] in [0, 1]
    focal_px: float | None  # horizontal focal length in pixels of `image`, from EXIF; None where the camera did not say
    original_height: int  # of the upright photo, before fitting
    original_width: int


def read_photo(path: str | Path, height: int, width: int, *, fit: Fit = "crop") -> Photo:
    """Read a photo upright (EXIF rotation honoured) and fit it to height x width.

    `crop` keeps proportions and cuts the middle out; `squash` stretches, as the published system does. Transparent
    pictures are laid over white; 16-bit ones are divided by 65535 and
    floating-point ones by their largest value.
    Raises PhotoError.
    """
    path = Path(path)
    with _opened(path) as file:
        upright_size = _upright_size(file)
        _check_size(path, file, upright_size)
        transposed = upright_size != file.size
        file.draft("RGB", (height, width) if transposed else (width, height))  # JPEG only: decodes at 1/2, 1/4, 1/8
        try:
            picture = _to_rgb(ImageOps.exif_transpose(file))
        except (OSError, SyntaxError, ValueError, MemoryError) as error:
            raise PhotoError(f"{path} is damaged or cut short ({error}); copy or download it again") from error
        focal_35mm = _focal_35mm(file)
    upright_width, upright_height = upright_size
    box = (
        _centre_box(picture.size, width / height)
        if fit == "crop"
        else (0.0, 0.0, float(picture.width), float(picture.height))
    )
    fitted = picture.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=None)
    kept = (box[2] - box[0]) / picture.size[0]  # share of the photo's width that is still there
    focal_px = None if focal_35mm is None else _focal_in_pixels(focal_35mm, upright_size, kept, width)
    return Photo(
        from_bytes(torch.from_numpy(np.array(fitted)).permute(2, 0, 1)), focal_px, upright_height, upright_width
    )


def to_bytes(image: Tensor) -> Tensor:
    """[0, 1] -> uint8, rounded to the nearest of 256 levels; values outside are clamped."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def from_bytes(image: Tensor) -> Tensor:
    """uint8 -> n / 255 in [0, 1]; to_bytes(from_bytes(x)) is x exactly."""
    return image.to(torch.float32) / 255


def quantise(image: Tensor) -> Tensor:
    """Round [0, 1] to the nearest n / 255, as a file will: then a reloaded world equals the one that was saved."""
    return from_bytes(to_bytes(image))


def write_png(path: str | Path, image: Tensor) -> None:
    """Write [3, H, W] in [0, 1] (or uint8) as an 8-bit PNG."""
    pixels = image if image.dtype == torch.uint8 else to_bytes(image)
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def read_png(path: str | Path) -> Tensor:
    """[3, H, W] in [0, 1] of a picture written by write_png, at its own size."""
    with _opened(Path(path)) as file:
        return from_bytes(torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1))


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling of the same ending and move it into place; on any error nothing is left.

    An OSError of the system names `path`.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file to write")
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp is private; written files follow the user's umask
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, name):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _opened(path: Path) -> Image.Image:
    if path.is_dir():
        raise PhotoError(f"{path} is a folder; name one picture in it")
    if not path.exists():
        raise PhotoError(f"there is no file {path}; check the name")
    if path.stat().st_size == 0:
        raise PhotoError(f"{path} is empty (0 bytes); copy or download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_size has stricter words
            return Image.open(path)
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{path} is too large to be read safely ({error}); make it smaller first") from error
    except UnidentifiedImageError as error:
        raise PhotoError(f"{path} is not a picture that can be read; give a JPEG, PNG, WebP, TIFF or AVIF") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise PhotoError(f"{path} cannot be read ({error})") from error


def _upright_size(file: Image.Image) -> tuple[int, int]:
    sideways = file.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (file.size[1], file.size[0]) if sideways else file.size


def _check_size(path: Path, file: Image.Image, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < MINIMUM_SIDE:
        raise PhotoError(
            f"{path} is {width}x{height} pixels; a photo wants at least {MINIMUM_SIDE} on its shorter side"
        )
    if width * height > MAXIMUM_PIXELS and file.format != "JPEG":
        raise PhotoError(
            f"{path} is {width}x{height} pixels ({width * height / 1e6:.0f} million), more than "
            f"{MAXIMUM_PIXELS / 1e6:.0f} million; scale it down or save it as a JPEG first"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in _SIXTEEN_BIT:
        values = np.asarray(picture, dtype=np.float32)
        top = max(float(np.nanmax(values)), 1e-12) if picture.mode == "F" else 65535.0
        scaled = np.nan_to_num(values / top).clip(0, 1)
        picture = Image.fromarray((scaled * 255).round().astype(np.uint8))
    picture = _in_srgb(picture)
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return picture.convert("RGB")


def _in_srgb(picture: Image.Image) -> Image.Image:
    """A picture whose profile is of another space (phones: Display P3, cameras: Adobe RGB, presses) in the colours of
    sRGB. As it is where it has none, or one that cannot be read."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return picture
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(space).lower():
            return picture  # untouched to the bit
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        turned = ImageCms.profileToProfile(picture, space, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    assert turned is not None  # it is not done in place
    return turned


def _centre_box(size: tuple[int, int], aspect: float) -> tuple[float, float, float, float]:
    """The largest centred box (left, top, right, bottom) of the given width / height."""
    width, height = size
    kept_width, kept_height = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    return left, top, left + kept_width, top + kept_height


def _focal_35mm(file: Image.Image) -> float | None:
    try:
        value = float(file.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_35MM, 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and 4 <= value <= 2000 else None


def _focal_in_pixels(focal_35mm: float, size: tuple[int, int], kept: float, width: int) -> float:
    """Pixels of the fitted width. The 35 mm equivalent compares diagonals with a 36 x 24 mm frame (CIPA DCG-001)."""
    diagonal = math.hypot(_FULL_FRAME_WIDTH_MM, _FULL_FRAME_WIDTH_MM * 2 / 3)
    focal_in_photo = focal_35mm / diagonal * math.hypot(*size)
    return focal_in_photo * width / (size[0] * kept)
