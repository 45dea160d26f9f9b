"""Whose worlds lie where: one folder for each user, one in it for each world, and what is said about a world.

    ROOT/users/ann/0123456789abcdef/about.json      title, origin
                                    world/          the world folder
                                    exports/        files made for download
    ROOT/uploads/                                   photos and camera paths, under names of the studio's own
    ROOT/jobs/                                      one file for each job

Names of folders are made here and never come from a client. It knows nothing of networks or of HTTP.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from threading import Lock
from typing import Any

from photowalk.scene.images import write_atomically
from photowalk.studio import schemas
from photowalk.studio.errors import NotFoundError, StudioError
from photowalk.studio.horizon import horizon_of
from photowalk.world.disk import WorldError
from photowalk.world.manifest import ChunkEntry
from photowalk.world.session import World
from photowalk.world.store import WorldStore

_IDENTIFIER = re.compile(r"[0-9a-f]{16}")
USER = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class About:
    title: str
    created: float
    photo: str = ""  # in uploads
    parent: str | None = None
    branched_at: int | None = None
    elsewhere: str = ""  # the world's folder, if whoever started the studio named one


_SAID = {field.name for field in fields(About)}


def key_of(entry: ChunkEntry) -> str:
    """What a chunk is known by: with other frames it is another key."""
    return entry.files["frames.mkv"].sha256[:16]


def new_identifier() -> str:
    return secrets.token_hex(8)


class Library:
    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self.root.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
        for name in ("users", "uploads", "jobs"):
            (self.root / name).mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
        self._summaries: dict[Path, tuple[tuple[int, int], dict]] = {}
        self._lock = Lock()

    # ---- where things lie

    def place(self, user: str, world: str) -> Path:
        """The folder of a world that this user has. Raises NotFoundError."""
        if not USER.fullmatch(user):
            raise StudioError(f"'{user}' is no user name; give 1 to 32 of a-z, 0-9, - and _")
        place = self.root / "users" / user / world
        if not _IDENTIFIER.fullmatch(world) or not (place / "about.json").is_file():
            raise NotFoundError(f"there is no world {world[:40]!r} of yours; list them at /api/worlds")
        return place

    def folder(self, user: str, world: str) -> Path:
        """The world folder itself; it need not exist yet."""
        place = self.place(user, world)
        elsewhere = self.about(user, world).elsewhere
        return Path(elsewhere) if elsewhere else place / "world"

    def upload(self, name: str) -> Path:
        return self.root / "uploads" / name

    def files(self, user: str, world: str) -> dict[str, Path]:
        """What can be downloaded, by name."""
        folder, exports = self.folder(user, world), self.place(user, world) / "exports"
        known = {name: folder / name for name in ("photo.png", "walk.mp4", "preview.png")}
        known |= {name: folder / "scene" / name for name in ("splats.ply", "preview.mp4")}
        known |= {path.name: path for path in exports.glob("[!.]*")} if exports.is_dir() else {}
        return {name: path for name, path in known.items() if path.is_file()}

    # ---- what is said of a world

    def told(self, user: str, world: str, text: str) -> str:
        """A message about a world as its user may read it: with its title instead of where it lies on this machine."""
        text = text.replace(str(self.folder(user, world)), self.about(user, world).title)
        return text.replace(f"{self.place(user, world)}/", "").replace(f"{self.root}/", "")

    @contextmanager
    def errors_told(self, user: str, world: str) -> Iterator[None]:
        """Have errors about a world say what its user may read."""
        try:
            yield
        except ValueError as error:
            error.args = (self.told(user, world, str(error)),)
            raise

    # ---- what is there

    def identifiers(self, user: str) -> list[str]:
        """Newest first."""
        places = (self.root / "users" / user).glob("*/about.json")
        names = [path.parent.name for path in places if _IDENTIFIER.fullmatch(path.parent.name)]
        return sorted(names, key=lambda name: (-self.about(user, name).created, name))

    def about(self, user: str, world: str) -> About:
        """What is said about a world; what another version said besides is left out."""
        said = json.loads((self.place(user, world) / "about.json").read_text(encoding="utf-8"))
        return About(**{name: said[name] for name in _SAID if name in said})

    def worlds(self, user: str) -> Iterator[schemas.World]:
        return (self.world(user, name) for name in self.identifiers(user))

    def world(self, user: str, world: str) -> schemas.World:
        about, folder = self.about(user, world), self.folder(user, world)
        known: dict[str, Any] = {
            "id": world,
            "title": about.title,
            "created": about.created,
            "parent": about.parent,
            "branched_at": about.branched_at,
        }
        if not (folder / "world.json").is_file():
            gone = f"there is no world in {folder} any more; put it back, or delete its entry here"
            return schemas.World(**known, ready=False, problem=gone if about.elsewhere else "")
        try:
            summary = self._summary(folder)
        except (WorldError, OSError) as error:
            return schemas.World(**known, ready=False, problem=self.told(user, world, str(error)))
        return schemas.World(**known, **summary, ready=True, files=sorted(self.files(user, world)))

    def _summary(self, folder: Path) -> dict:
        status = (folder / "world.json").stat()
        stamp = (status.st_mtime_ns, status.st_ino)  # a new file each time; clocks tick too slowly for the time alone
        with self._lock:
            known = self._summaries.get(folder)
            if known is not None and known[0] == stamp:
                return known[1]
        world = World.open(folder)
        facts, entries = world.info(), world.manifest.chunks
        starts = [0]
        for chunk in facts["chunks"]:
            starts.append(starts[-1] + chunk["frames"])
        names = ("frames", "prompt", "seed", "path")
        chunks = [
            schemas.Chunk(
                index=index,
                first_frame=starts[index],
                notes=list(chunk["notes"]),
                key=key_of(entries[index]),
                **{name: chunk[name] for name in names},
            )
            for index, chunk in enumerate(facts["chunks"])
        ]
        roll_deg, pitch_deg = horizon_of(facts["up"])
        summary: dict[str, Any] = {
            "frames": facts["frames"],
            "height": facts["size"][0],
            "width": facts["size"][1],
            "chunk_frames": world.manifest.chunk_frames,
            "fov_deg": facts["cameras"]["fov_deg"],
            "metres_per_unit": facts["scale"]["metres_per_unit"],
            "reference_depth": facts["scale"]["reference_depth"],
            "roll_deg": roll_deg,
            "pitch_deg": pitch_deg,
            "seed": facts["seed"],
            "walked": facts["cameras"]["walked"],
            "undone": facts["undone"],
            "to_go": facts["interrupted"]["to_go"] if facts["interrupted"] else 0,
            "scene_frames": facts["scene_frames"],
            "chunks": chunks,
        }
        if not all(math.isfinite(summary[name]) for name in ("fov_deg", "reference_depth", "walked")):
            raise WorldError(f"{folder} holds numbers that are not finite; generate it again")
        with self._lock:
            self._summaries[folder] = (stamp, summary)
        return summary

    # ---- changing it

    def add(self, user: str, about: About) -> str:
        """A place for a new world."""
        if not USER.fullmatch(user):
            raise StudioError(f"'{user}' is no user name; give 1 to 32 of a-z, 0-9, - and _")
        world = new_identifier()
        place = self.root / "users" / user / world
        place.mkdir(parents=True, mode=stat.S_IRWXU)
        self._write(place, about)
        return world

    def adopt(self, user: str, folder: str | Path) -> str:
        """A world that lies elsewhere, named by whoever starts the studio; it is known once, however often opened."""
        folder = Path(folder).absolute()
        WorldStore(folder)  # raises a clear WorldError where there is none
        for world in self.identifiers(user):
            if self.about(user, world).elsewhere == str(folder):
                return world
        return self.add(user, About(folder.name[:120], time.time(), elsewhere=str(folder)))

    def change(self, user: str, world: str, **changes: Any) -> None:
        self._write(self.place(user, world), replace(self.about(user, world), **changes))

    def branch(self, user: str, world: str, at: int | None, title: str | None) -> str:
        origin = World.open(self.folder(user, world))
        last = len(origin.manifest.chunks) - 1
        at = last if at is None else at
        if at > last:
            raise StudioError(f"this world has chunks 0 to {last}, there is no chunk {at} to branch at")
        about = self.about(user, world)
        branch = replace(
            about, title=title or f"{about.title[:110]} (branch)", created=time.time(), parent=world, branched_at=at
        )
        new = self.add(user, replace(branch, elsewhere=""))
        try:
            origin.branch(self.folder(user, new), at)
        except BaseException:
            self.delete(user, new)
            raise
        return new

    def delete(self, user: str, world: str) -> None:
        """Forget a world and delete its files; a world that lies elsewhere is only forgotten."""
        place = self.place(user, world)
        grave = place.with_name(f".{world}.deleted")
        place.rename(grave)  # one step, so that half a world is never listed
        shutil.rmtree(grave, ignore_errors=True)

    def _write(self, place: Path, about: About) -> None:
        text = json.dumps(asdict(about), indent=1, ensure_ascii=False)
        write_atomically(place / "about.json", lambda file: file.write_text(text, encoding="utf-8"))
