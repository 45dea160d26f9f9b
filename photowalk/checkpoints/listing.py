"""What is published and what is in the store, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from photowalk.checkpoints.catalogue import BUNDLES, CATALOGUE, Published, human_size, named
from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.store import find, is_stored, manifest_of, sha256, stored, weights_folder


def listed() -> Iterator[str]:
    """All weights that are published or in the store, and the presets that want several of them."""
    yield f"weights in {weights_folder()} (another folder: PHOTOWALK_WEIGHTS)"
    for name in dict.fromkeys([*CATALOGUE, *stored()]):
        state = "here" if is_stored(name) else ""
        published = CATALOGUE.get(name)
        size = human_size(published.size if published else manifest_of(name)["bytes"])
        what = f"{published.what} ({published.licence.short})" if published else manifest_of(name)["what"]
        yield f"  {name:22} {size:>12}  {state:4}  {what}"
    yield "for presets:"
    for preset, parts in BUNDLES.items():
        missing = [CATALOGUE[part].size for part in parts if not is_stored(part)]
        size = human_size(sum(size or 0 for size in missing))
        about = "more than" if None in missing else "about"
        how = f"{about} {size} to fetch with: photowalk weights get {preset}" if missing else "all here"
        yield f"  {preset:22} {how}"


def shown(name: str, *, verify: bool = False) -> Iterator[str]:
    """One set of weights, or all that a preset wants. With `verify` its files are compared with their hashes.

    Raises ValueError for an unknown name and CheckpointError for a file that has changed.
    """
    names = (name,) if is_stored(name) else tuple(published.name for published in named(name))
    for part in names:
        yield from _stored_lines(part) if is_stored(part) else _published_lines(CATALOGUE[part])
        if verify and is_stored(part):
            _verify(part)
            yield "  every file is as it was written"


def _published_lines(published: Published) -> Iterator[str]:
    licence = published.licence
    yield f"{published.name}: {published.what}, not in the store"
    yield f"  about {human_size(published.size)}: {', '.join(published.files)} of {published.repository}"
    yield f"  {licence.name} ({licence.address}): {licence.terms}"
    yield f"  fetch it with: photowalk weights get {published.name}"


def _stored_lines(name: str) -> Iterator[str]:
    manifest = manifest_of(name)
    yield f"{name}: {manifest['what']}"
    yield f"  {human_size(manifest['bytes'])}, {manifest['tensors']} tensors, in {find(name)}"
    if licence := manifest["licence"]:
        accepted = f", accepted {licence['accepted']}" if licence["accepted"] else ""
        yield f"  {licence['name']}{accepted} ({licence['address']}): {licence['terms']}"
    else:
        yield "  its licence is not known here: ask where you have it from"
    if "repository" in manifest:
        yield f"  from {manifest['repository']} at {manifest['revision']}"
    for source in manifest["made from"]:
        yield f"  made from {source['file']}, {human_size(source['bytes'])}, sha256 {source['sha256']}"
    for what in ("left out", *(fact for fact in manifest if fact.startswith("begun "))):
        if names := manifest.get(what):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"  {what}: {', '.join(names[:3])}{more}"


def _verify(name: str) -> None:
    for file, wanted in manifest_of(name)["files"].items():
        path = find(name) / file
        if not path.is_file() or sha256(path) != wanted:
            raise CheckpointError(f"{path} has changed or is missing since it was imported; get or import {name} again")
