"""The published zoom program: from one photo a walk ahead and one backwards, shown as a single video.

Both begin from the same photo, whose depth and codec streams are worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from photowalk.scene.videos import write_mp4
from photowalk.world.chunk_files import FRAMES_PER_SECOND
from photowalk.world.disk import WorldError
from photowalk.world.progress import OnStep
from photowalk.world.session import World
from photowalk.world.store import WorldStore

_AHEAD, _BACK, _VIDEO = "zoom_in", "zoom_out", "zoom.mp4"


def zoom(
    photo: str | Path, folder: str | Path, *, ground: bool = False, on_step: OnStep = lambda step: None, **options: Any
) -> Path:
    """The worlds `zoom_in` and `zoom_out` in `folder`, and `zoom.mp4`: out backwards, then in. With `ground` steps are
    laid into the ground that the photo shows. `options` are those of `World.create`. The photo is shown once where the
    published video shows it twice. What the same call began and did not finish is continued.
    Raises as `World.create`, PathError where there is no ground to follow, WorldError for a folder of other things."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and all(map(_is_ours, folder.iterdir()))):
        raise WorldError(f"{folder} exists already and holds something else; choose another folder, or delete it first")
    along = " ground" if ground else ""
    ahead = World.create(photo, folder / _AHEAD, path=_AHEAD + along, legacy=True, on_step=on_step, **options)
    _walk_back(ahead, folder / _BACK, _BACK + along, on_step, **options)
    write_mp4(folder / _VIDEO, _frames(folder), FRAMES_PER_SECOND)
    return folder / _VIDEO


def _is_ours(entry: Path) -> bool:
    """Hidden files are what a world that was killed leaves behind, which is cleared away, or a file manager's."""
    return entry.name in (_AHEAD, _BACK, _VIDEO) or entry.name.startswith(".")


def _walk_back(ahead: World, folder: Path, path: str, on_step: OnStep, **options: Any) -> None:
    """Make the world `folder` of the photo of `ahead`, or finish it; what it is told are the words of `options`."""
    if not folder.exists():
        ahead.branch(folder, at=0)
    back = WorldStore(folder)
    if back.manifest.job is None and len(back.manifest.chunks) == 1:
        told = {name: options[name] for name in ("captions", "negative_prompt", "captioner") if name in options}
        World(back, ahead.generator).extend(path, **told, on_step=on_step)
    elif back.manifest.job is not None or not (folder / "walk.mp4").exists():
        World(back, ahead.generator).extend(on_step=on_step)


def _frames(folder: Path) -> Iterator[Tensor]:
    """uint8 [3, H, W]"""
    yield from reversed(list(WorldStore(folder / _BACK).video()))
    ahead = WorldStore(folder / _AHEAD).video()
    next(ahead)
    yield from ahead
