"""Depth maps on disk, as depth cameras and other estimators write them. It knows files and sizes, not photos."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from photowalk.scene.images import Fit

MILLIMETRES = 1000.0  # a metre in the unit of 16-bit depth pictures


class DepthError(ValueError):
    """A depth map that cannot be used: the text says which file, why, and what to do."""


def read_depth(path: str | Path, height: int, width: int, *, photo_size: tuple[int, int], fit: Fit = "crop") -> Tensor:
    """[height, width] metres along +Z, 0 = unknown, inf = sky, fitted as `read_photo` fits a photo of the upright
    (height, width) `photo_size`.

    `.npy` and `.npz` (its array `depth`, or its only one) hold metres, so do floating-point pictures; 16-bit ones hold
    millimetres. NaN and negative values are unknown. Nearest pixels are taken, since depth must not be blended over
    edges. Raises DepthError.
    """
    path = Path(path)
    depth = torch.from_numpy(_read(path).astype(np.float32))
    if depth.ndim != 2 or 0 in depth.shape:
        raise DepthError(f"{path} wants one depth per pixel, [height, width], got {tuple(depth.shape)}")
    rows, columns = depth.shape
    if abs(columns / rows * photo_size[0] / photo_size[1] - 1) > 0.02:
        raise DepthError(
            f"{path} is {rows} rows of {columns}, the photo {photo_size[0]} of {photo_size[1]}; "
            f"give depth of the whole photo, in the same proportions"
        )
    depth = torch.where(depth > 0, depth, 0.0)  # NaN compares false
    if not bool(((depth > 0) & depth.isfinite()).any()):
        raise DepthError(f"{path} holds no depth: every value is zero, negative, NaN or infinite")
    return fit_depth(depth, height, width, fit=fit)


def fit_depth(depth: Tensor, height: int, width: int, *, fit: Fit = "crop") -> Tensor:
    """depth [rows, columns] cropped or squashed to [height, width] as `read_photo` does it, by nearest pixels."""
    rows, columns = depth.shape
    kept_rows, kept_columns = float(rows), float(columns)
    if fit == "crop":
        kept_rows, kept_columns = min(rows, columns * height / width), min(columns, rows * width / height)
    at_rows = (rows - kept_rows) / 2 + (torch.arange(height) + 0.5) * kept_rows / height
    at_columns = (columns - kept_columns) / 2 + (torch.arange(width) + 0.5) * kept_columns / width
    return depth[at_rows.long()[:, None], at_columns.long()]


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise DepthError(f"there is no file {path}; check the name")
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            return _numpy_array(path)
        with Image.open(path) as picture:
            values, mode = np.asarray(picture), picture.mode
    except DepthError:
        raise
    except UnidentifiedImageError as error:
        raise DepthError(f"{path} is no depth map that can be read; give .npy, .npz, 16-bit PNG or TIFF") from error
    except (OSError, ValueError, SyntaxError, EOFError, zipfile.BadZipFile) as error:
        raise DepthError(f"{path} is damaged or cut short ({error}); copy it again") from error
    if mode == "F":
        return values
    if mode.startswith("I"):
        return values / MILLIMETRES
    raise DepthError(f"{path} is an 8-bit picture ({mode}), which is too coarse for depth; give 16 bit or .npy")


def _numpy_array(path: Path) -> np.ndarray:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        name = "depth" if "depth" in content.files or len(content.files) != 1 else content.files[0]
        if name not in content.files:
            raise DepthError(f"{path} holds the arrays {sorted(content.files)}; name the one to use 'depth'")
        return content[name]
