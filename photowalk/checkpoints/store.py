"""The store: a folder on this computer with one folder for every set of weights that was imported.

    STORE/NAME/manifest.json             what it is, what it was made from, its licence
    STORE/NAME/weights-00001.safetensors ...  (or, of a tokenizer, the files as they were published)

A folder with a manifest is complete: it appears by one rename when everything in it is written. The store knows names
and files; it knows nothing of networks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from photowalk.checkpoints.catalogue import BUNDLES, CATALOGUE, human_size

MANIFEST = "manifest.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNFINISHED, _REPLACED = ".importing-", ".replaced-"


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
    if is_stored(name):
        return folder
    raise ValueError(_how_to_get(name, folder.parent))


def is_stored(name: str) -> bool:
    return (weights_folder() / name / MANIFEST).is_file()


def stored() -> list[str]:
    """The names of all weights in the store."""
    return sorted(path.parent.name for path in weights_folder().glob(f"*/{MANIFEST}") if path.parent.name[0] != ".")


def manifest_of(name: str) -> dict:
    """Raises ValueError where there are no such weights."""
    return json.loads((find(name) / MANIFEST).read_text())


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder of the store, in order."""
    return sorted(folder.glob("*.safetensors"))


@contextmanager
def new_entry(name: str, size: int) -> Iterator[Path]:
    """An empty folder to write weights into, about `size` bytes. It becomes STORE/NAME, replacing an older one, when
    the block ends well, and vanishes otherwise.

    Raises ValueError where another import is at work or the disk has too little room.
    """
    store = weights_folder()
    store.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store).free
    if free < size:
        raise ValueError(
            f"{name} wants {human_size(size)} in {store} and the disk has {human_size(free)} free; make room, or name "
            f"another folder in PHOTOWALK_WEIGHTS"
        )
    try:
        with FileLock(store / ".lock", timeout=0):
            for killed in (*store.glob(f"{_UNFINISHED}*"), *store.glob(f"{_REPLACED}*")):
                shutil.rmtree(killed, ignore_errors=True)
            unfinished, replaced = store / f"{_UNFINISHED}{name}", store / f"{_REPLACED}{name}"
            unfinished.mkdir()
            try:
                yield unfinished
            except BaseException as error:
                shutil.rmtree(unfinished)
                if isinstance(error, OSError) and error.errno in NO_ROOM:
                    raise ValueError(
                        f"{name} could not be written to {store} ({error.strerror}); nothing of it was kept. Make "
                        "room, or name another folder in PHOTOWALK_WEIGHTS"
                    ) from error
                raise
            if (store / name).exists():
                (store / name).rename(replaced)
            unfinished.rename(store / name)
            shutil.rmtree(replaced, ignore_errors=True)
    except Timeout:
        raise ValueError(f"another import into {store} is at work; wait until it is done") from None


def write_manifest(folder: Path, manifest: dict) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """`on_bytes` hears of every piece that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
            if on_bytes:
                on_bytes(len(piece))
    return digest.hexdigest()


def _how_to_get(name: str, store: Path) -> str:
    published = CATALOGUE.get(name)
    if published is None:
        return f"there are no weights {name!r} in {store}; photowalk weights list names those that there are"
    bundle = next((bundle for bundle, parts in BUNDLES.items() if name in parts), name)
    return (
        f"the weights {name} ({published.what}; about {human_size(published.size)}, {published.licence.name}) are not "
        f"in {store}. Download them with: photowalk weights get {bundle}; "
        f"or, if you have the published files, convert them with: photowalk weights import FILE_OR_FOLDER..."
    )
