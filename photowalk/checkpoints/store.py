"""The store: a folder on this computer with one folder for every set of weights that was imported.

    STORE/NAME/manifest.json             what it is, what it was made from, its licence
    STORE/NAME/weights-00001.safetensors ...  (or, of a tokenizer, the files as they were published)

A folder with a manifest is complete: it appears by one rename when everything in it is written. The store knows names
and files; it knows nothing of networks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from photowalk.checkpoints.catalogue import BUNDLES, CATALOGUE, human_size

MANIFEST = "manifest.json"


def weights_folder() -> Path:
    """$PHOTOWALK_WEIGHTS, or photowalk/weights where this platform keeps a user's data."""
    if given := os.environ.get("PHOTOWALK_WEIGHTS"):
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "photowalk" / "weights"


def find(name: str) -> Path:
    """The folder of weights in the store. Raises ValueError that says which command brings them."""
    folder = weights_folder() / name
    if (folder / MANIFEST).exists():
        return folder
    raise ValueError(_how_to_get(name, folder))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder of the store, in order."""
    return sorted(folder.glob("*.safetensors"))


def _how_to_get(name: str, folder: Path) -> str:
    published = CATALOGUE.get(name)
    if published is None:
        return f"there are no weights {name!r} in {folder.parent}; photowalk weights list names those that there are"
    bundle = next((bundle for bundle, parts in BUNDLES.items() if name in parts), name)
    return (
        f"the weights {name} ({published.what}; about {human_size(published.size)}, {published.licence.name}) are not "
        f"in {folder.parent}. Download them with: photowalk weights get {bundle}; "
        f"or, if you have the published files, convert them with: photowalk weights import FILE_OR_FOLDER..."
    )
