"""Cameras of pictures that have none, by COLMAP's structure from motion (the optional package pycolmap).

It takes pictures without distortion that one lens took; zooming footage is beyond it, and so are places without texture
and cameras that only turn.
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image

from photowalk.data.recordings import RecordingError

EXHAUSTIVE = 40  # pictures; more are compared with those near them in time
NEIGHBOURS = 12
LEAST_SHARE = 0.5  # of the pictures that must find their place
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


def solve_cameras(pictures: Path, names: list[str], work: Path, *, fov_x_deg: float) -> Path:
    """A COLMAP model, in a folder in `work`, of pictures in a folder; `fov_x_deg` is a first guess of the lens.

    Raises RecordingError without pycolmap, and where too few pictures find their place.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise RecordingError(
            "cameras of footage are found by pycolmap, which is not installed: pip install 'photowalk[footage]'"
        ) from error
    if len(names) < 3:
        raise RecordingError(f"{pictures} holds {len(names)} pictures; finding cameras wants at least 3")
    with Image.open(pictures / names[0]) as first:
        width, height = first.size
    focal = width / 2 / math.tan(math.radians(fov_x_deg) / 2)
    database, models = work / "database.db", work / "models"
    models.mkdir()
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    pycolmap.set_random_seed(0)
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model, reader.camera_params = "SIMPLE_PINHOLE", f"{focal},{width / 2},{height / 2}"
    pycolmap.extract_features(database, pictures, names, pycolmap.CameraMode.SINGLE, reader)
    if len(names) <= EXHAUSTIVE:
        pycolmap.match_exhaustive(database)
    else:
        pairing = pycolmap.SequentialPairingOptions()
        pairing.overlap = NEIGHBOURS
        pycolmap.match_sequential(database, pairing_options=pairing)
    found = pycolmap.incremental_mapping(database, pictures, models)
    placed = {number: model.num_reg_images() for number, model in found.items()}
    best = max(placed, key=lambda number: placed[number], default=None)
    if best is None or placed[best] < max(3, LEAST_SHARE * len(names)):
        raise RecordingError(
            f"only {placed.get(best, 0)} of {len(names)} pictures found their place. Structure from motion wants "
            "texture, overlap and a camera that moves; give more frames of a slower part, or the lens with --fov"
        )
    return models / str(best)
