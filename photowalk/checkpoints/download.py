"""Published weights from the Hugging Face hub into the store: what it is and how large is said before anything is
fetched, a download that was broken off goes on where it was, and every file is compared with the hub's own hash.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from photowalk.checkpoints.catalogue import Published, human_size, named
from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.importing import Accept, OnStep, accept_licences, import_weights
from photowalk.checkpoints.networks import NETWORKS, Network
from photowalk.checkpoints.store import NO_ROOM, is_stored, sha256, weights_folder

_DOWNLOADS = ".downloads"


@dataclass(frozen=True)
class Offered:
    """A file as the hub offers it."""

    path: str  # within the repository
    size: int
    sha256: str | None  # of large files
    blob: str | None  # of the others: the hash that git gives to their content

    def is_content_of(self, file: Path) -> bool:
        if self.sha256 is not None:
            return sha256(file) == self.sha256
        content = file.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.blob


@dataclass(frozen=True)
class Offer:
    published: Published
    revision: str
    files: tuple[Offered, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def get(
    name: str,
    accept: Accept,
    *,
    networks: Sequence[Network] = NETWORKS,
    on_step: OnStep | None = None,
    on_note: Callable[[str], None] = print,
) -> list[str]:
    """Download and import the weights of that name, or all that a preset wants; what is in the store already is not
    fetched again. The names of what came.

    Raises ValueError for an unknown name, a licence that is not accepted, a hub that does not answer or refuses,
    CheckpointError for a file that came damaged, and OSError where the disk is full. What was fetched is kept
    for the next attempt.
    """
    wanted = [published for published in named(name) if not is_stored(published.name)]
    for published in named(name):
        if published not in wanted:
            on_note(f"{published.name} is here already")
    offers = [_offer(published) for published in wanted]
    for offer in offers:
        on_note(_described(offer))
    _check_room(offers)
    accept_licences([published.name for published in wanted], accept)
    for offer in offers:
        folder = weights_folder() / _DOWNLOADS / offer.published.name
        for file in offer.files:
            _fetch(offer, file, folder / file.path)
        import_weights(
            [folder],
            lambda licence: True,  # it was accepted above
            offer.published.name,
            networks=networks,
            on_step=on_step,
            on_note=on_note,
            origin={"repository": offer.published.repository, "revision": offer.revision},
        )
        shutil.rmtree(folder)
    return [offer.published.name for offer in offers]


def _offer(published: Published) -> Offer:
    """What the hub has of it now."""
    hub = _hub()
    try:
        found = hub.HfApi().model_info(published.repository, files_metadata=True)
    except Exception as error:  # of any of the network libraries that the hub's client may use
        raise ValueError(_no_answer(published, error)) from error
    files = tuple(
        Offered(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in found.siblings or ()
        if any(fnmatch(file.rfilename, pattern) for pattern in published.files)
    )
    if not files or found.sha is None:
        raise ValueError(f"{published.repository} on the hub has no {', '.join(published.files)} any more")
    for file in files:
        if PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts or "\\" in file.path:
            raise CheckpointError(f"the hub names a file {file.path!r} outside of its folder; nothing was fetched")
    return Offer(published, found.sha, files)


def _described(offer: Offer) -> str:
    licence = offer.published.licence
    return (
        f"{offer.published.name}: {offer.published.what}\n"
        f"  {human_size(offer.size)} in {len(offer.files)} file(s) of {offer.published.repository}, {licence.name}"
    )


def _check_room(offers: Sequence[Offer]) -> None:
    """Every download is removed once it is converted: the largest is there twice for a while."""
    if not offers:
        return
    store = weights_folder()
    store.mkdir(parents=True, exist_ok=True)
    wanted = sum(offer.size for offer in offers) + max(offer.size for offer in offers)
    fetched = sum(file.stat().st_size for file in (store / _DOWNLOADS).rglob("*") if file.is_file())
    free = shutil.disk_usage(store).free + fetched
    if free < wanted:
        raise ValueError(
            f"this wants {human_size(wanted)} in {store} and the disk has {human_size(free)}; make room, or name "
            f"another folder in PHOTOWALK_WEIGHTS"
        )


def _fetch(offer: Offer, file: Offered, target: Path) -> None:
    if target.is_file():  # compared when it was fetched
        return
    from huggingface_hub.file_download import http_get

    hub = _hub()
    address = hub.hf_hub_url(
        offer.published.repository, file.path, revision=offer.revision, endpoint=hub.HfApi().endpoint
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{(file.sha256 or file.blob or '')[:16]}.part")
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    # The library's own download begins from the start each time; the function below it can go on.
    try:
        with part.open("ab") as begun:
            http_get(
                address,
                begun,
                resume_size=begun.tell(),
                headers=hub.utils.build_hf_headers(),
                expected_size=file.size,
                displayed_filename=target.name,
            )
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise  # the hub is not to blame
        raise ValueError(_no_answer(offer.published, error)) from error
    if not file.is_content_of(part):
        part.unlink()
        raise CheckpointError(
            f"{file.path} came damaged: its hash is not the hub's. It was deleted; run the command again to fetch it"
        )
    part.replace(target)


def _no_answer(published: Published, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError | RepositoryNotFoundError):
        return (
            f"the hub does not let you have {published.repository}: accept its terms at "
            f"https://huggingface.co/{published.repository}, log in with: hf auth login; then run the command again"
        )
    reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}"
    return (
        f"{published.name} could not be fetched from the hub ({reason}). Run the command again to go on where it "
        f"stopped, or fetch {published.repository} by other means and call: photowalk weights import FILE_OR_FOLDER..."
    )


def _hub():
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError("downloads want huggingface_hub; install it with: pip install photowalk[gpu]") from error
    return huggingface_hub
