"""Bring published files into the store: recognise all, ask for their licences, convert one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from photowalk.checkpoints.catalogue import CATALOGUE, Licence, human_size
from photowalk.checkpoints.convert import write_weights
from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.found import checkpoints_in
from photowalk.checkpoints.match import described
from photowalk.checkpoints.networks import NETWORKS, Network
from photowalk.checkpoints.plans import Plan, plan_for
from photowalk.checkpoints.store import new_entry, sha256, write_manifest

Accept = Callable[[Licence], bool]
OnStep = Callable[[str, int, int], None]  # what is being made, bytes done, bytes in all


def import_weights(
    paths: Sequence[Path],
    accept: Accept,
    name: str | None = None,
    *,
    networks: Sequence[Network] = NETWORKS,
    on_step: OnStep | None = None,
    on_note: Callable[[str], None] = print,
    origin: Mapping[str, str] | None = None,
) -> list[str]:
    """The names in the store of what was imported. Files that are nothing known are passed over in folders.

    `accept` is asked once for every licence that restricts; `name` says what the files are, where that is needed.
    Raises CheckpointError for files that are damaged, do not fit, or of which none is known, and ValueError where a
    licence is not accepted; what was imported before stays, of the rest nothing is left behind.
    """
    plans = _plans(paths, name, networks, on_note)
    accepted = accept_licences([plan.name for plan in plans], accept)
    for plan in plans:
        on_note(f"{plan.name}: {human_size(plan.size)} from {described(plan.files)}")
        _carry_out(plan, plan.name in accepted, origin or {}, on_step)
    return [plan.name for plan in plans]


def accept_licences(names: Sequence[str], accept: Accept) -> set[str]:
    """Those of the names whose licence restricts; every licence is asked for once. Raises ValueError for a no."""
    restricted = {name: CATALOGUE[name].licence for name in names if name in CATALOGUE}
    restricted = {name: licence for name, licence in restricted.items() if licence.restricted}
    for licence in dict.fromkeys(restricted.values()):
        if not accept(licence):
            raise ValueError(f"the {licence.name} was not accepted; nothing was done ({licence.address})")
    return set(restricted)


def _plans(
    paths: Sequence[Path], name: str | None, networks: Sequence[Network], on_note: Callable[[str], None]
) -> list[Plan]:
    plans = []
    for group in checkpoints_in(paths):
        plan = plan_for(group, networks, name)
        if plan is not None:
            plans.append(plan)
        elif any(path in paths for path in group):
            raise CheckpointError(_unknown(group, networks, name))
        else:
            on_note(f"passed over: {described(group)}")
    if not plans:
        raise CheckpointError(f"there are no weights that photowalk knows in {', '.join(map(str, paths))}")
    doubled = {plan.name for plan in plans if sum(other.name == plan.name for other in plans) > 1}
    if doubled:
        raise CheckpointError(f"several files are {', '.join(sorted(doubled))}; import one of them")
    return plans


def _unknown(group: tuple[Path, ...], networks: Sequence[Network], name: str | None) -> str:
    known = ", ".join(network.name for network in networks)
    wanted = f"not {name}" if name else f"nothing that photowalk knows: {known}, a LoRA, a negative prompt, a tokenizer"
    return f"{described(group)} is {wanted}"


def _carry_out(plan: Plan, accepted: bool, origin: Mapping[str, str], on_step: OnStep | None) -> None:
    step = None if on_step is None else lambda done, total: on_step(plan.name, done, total)
    published = CATALOGUE.get(plan.name)
    with new_entry(plan.name, plan.size) as folder:
        sources = _hashed(plan, on_step)
        hashes = write_weights(plan.portions, folder, step) if plan.portions else {}
        for path in plan.copies:
            shutil.copyfile(path, folder / path.name)
            hashes[path.name] = sha256(folder / path.name)
        licence = published and {
            "name": published.licence.name,
            "terms": published.licence.terms,
            "address": published.licence.address,
            "accepted": datetime.now(UTC).isoformat(timespec="seconds") if accepted else None,
        }
        manifest = {
            "format": 1,
            "name": plan.name,
            "what": published.what if published else "a LoRA for the published denoiser",
            "licence": licence,
            "made from": sources,
            **origin,
            **plan.facts,
            "tensors": sum(len(portion.tensors) for portion in plan.portions),
            "bytes": plan.size,
            "files": hashes,
        }
        write_manifest(folder, manifest)


def _hashed(plan: Plan, on_step: OnStep | None) -> list[dict[str, object]]:
    """The files that a plan is made from, for its manifest."""
    total, done = sum(path.stat().st_size for path in plan.files), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if on_step:
            on_step(f"hash of {plan.name}", done, total)

    return [{"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path, count)} for path in plan.files]
