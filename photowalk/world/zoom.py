"""The published zoom program: from one photo a walk ahead and one backwards, shown as a single video.

Both begin from the same photo, whose depth and codec streams are worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from photowalk.scene.images import to_bytes
from photowalk.scene.videos import write_mp4
from photowalk.world.chunk_files import FRAMES_PER_SECOND
from photowalk.world.disk import WorldError
from photowalk.world.progress import OnStep
from photowalk.world.session import World


def zoom(
    photo: str | Path, folder: str | Path, *, ground: bool = False, on_step: OnStep = lambda step: None, **options: Any
) -> Path:
    """The worlds `zoom_in` and `zoom_out` in a new folder, and `zoom.mp4`: out backwards, then in. With `ground` steps
    are laid into the ground that the photo shows. `options` are those of `World.create`. The photo is shown once where
    the published video shows it twice. Raises as `World.create`, and PathError where there is no ground to follow."""
    folder = Path(folder)
    if folder.exists():
        raise WorldError(f"{folder} exists already; choose another folder, or delete it first")
    told = {name: options.pop(name) for name in ("captions", "negative_prompt", "captioner") if name in options}
    folder.mkdir()
    try:
        ahead = World.create(photo, folder / "zoom_in", legacy=True, on_step=on_step, **options)
    except BaseException:
        folder.rmdir()
        raise
    back = ahead.branch(folder / "zoom_out")
    along = " ground" if ground else ""
    ahead.extend("zoom_in" + along, **told, on_step=on_step)
    back.extend("zoom_out" + along, **told, on_step=on_step)
    write_mp4(folder / "zoom.mp4", _frames(back, ahead), FRAMES_PER_SECOND)
    return folder / "zoom.mp4"


def _frames(back: World, ahead: World) -> Iterator[Tensor]:
    """uint8 [3, H, W]"""
    yield from to_bytes(back.state.video.flip(0)).cpu()
    yield from to_bytes(ahead.state.video[1:]).cpu()
