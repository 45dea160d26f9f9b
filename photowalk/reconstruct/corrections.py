"""What the frames of a walk say against their own cameras and exposures, as small corrections of both.

A scene made of all frames lies between what they say each; a frame that does not lie on it was taken from a slightly
different place. Corrections of frames that were not asked are those of their neighbours in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import inverse, motion, rotation_from_vector, vector_from_rotation
from photowalk.reconstruct.camera_step import PYRAMID, as_splats, lay_on, pixels_between
from photowalk.reconstruct.lift import Lifter
from photowalk.reconstruct.windows import stream_views
from photowalk.scene.types import Clip, Scene, View

PROBES = 8  # frames that are asked first, whether cameras are off at all
EXACT = 0.3  # pixels; what lies on the scene by less tells nothing against its camera
MANY = 0.3  # of the probes, from which all cameras are corrected
_GOLDEN = 0.6180339887498949  # shifts each pass's frames to the middle of the widest gaps left


@dataclass(frozen=True)
class Track:
    """A value of some frames of a walk; linear between them, held before and after."""

    frames: Tensor  # [K] int64, ascending
    values: Tensor  # [K, C]

    @staticmethod
    def of(values: Mapping[int, Tensor], otherwise: Tensor) -> Track:
        """`otherwise` [C] is the value of all frames where none is known."""
        frames = sorted(values) or [0]
        return Track(torch.tensor(frames), torch.stack([values.get(frame, otherwise) for frame in frames]))

    def at(self, frame: float) -> Tensor:
        """[C]"""
        after = min(int((self.frames < frame).sum()), len(self.frames) - 1)
        before = max(after - 1, 0)
        start, end = float(self.frames[before]), float(self.frames[after])
        share = min(max((frame - start) / max(end - start, 1), 0), 1)
        return torch.lerp(self.values[before], self.values[after], share)


@dataclass(frozen=True)
class Corrections:
    """Of the frames of a walk."""

    moves: Track  # [6] shift and rotation vector in the camera's axes: corrected_from_camera
    gains: Track  # [3] of the scene's colours, such that they are as bright as in the frame

    @staticmethod
    def of(moves: Mapping[int, Tensor], gains: Mapping[int, Tensor]) -> Corrections:
        return Corrections(Track.of(moves, torch.zeros(6)), Track.of(gains, torch.ones(3)))

    @property
    def move_cameras(self) -> bool:
        return bool(self.moves.values.any())

    def camera(self, camera: Cameras, frame: float) -> Cameras:
        """One camera [] of the walk, corrected."""
        if not self.move_cameras:
            return camera
        shift, turn = self.moves.at(frame).double().split(3)
        corrected = motion(rotation_from_vector(turn), shift) @ camera.camera_from_world.double()
        return replace(camera, camera_from_world=corrected.to(camera.camera_from_world))

    def clips(self, walk: Iterable[Clip]) -> Iterator[Clip]:
        """The clips of the walk with corrected cameras."""
        start = 0
        for clip in walk:
            cameras = [self.camera(clip.cameras[number], start + number) for number in range(len(clip))]
            poses = torch.stack([camera.camera_from_world for camera in cameras])
            yield replace(clip, cameras=replace(clip.cameras, camera_from_world=poses))
            start += len(clip)


def move_between(camera: Cameras, corrected: Cameras) -> Tensor:
    """[6] shift and rotation vector, as `Corrections` has them."""
    moved = corrected.camera_from_world.double() @ inverse(camera.camera_from_world.double())
    return torch.cat([moved[:3, 3], vector_from_rotation(moved[:3, :3])]).float()


def lay_walk_on(
    scene: Scene,
    walk: Callable[[], Iterable[Clip]],
    *,
    count: int,
    lifter: Lifter,
    known: Corrections | None = None,
    on_view: Callable[[], None] = lambda: None,
) -> Corrections:
    """Corrections that lay at most `count` frames with depth, spread evenly over the walk, on the scene, beginning at
    those that are `known`. None where few of some frames are off by more than EXACT: then cameras are what they say.

    `walk()` gives the clips from the front, one of which is held at a time; `lifter` makes splats of a view as the
    scene's were made. `on_view()` is called before every frame.
    """

    def laid(view: View) -> Cameras:
        on_view()
        image, shown = as_splats(view, lifter)
        if known is None:
            return lay_on(splats, view.camera, image, shown=shown)
        return lay_on(splats, known.camera(view.camera, view.frame), image, shown=shown, pyramid=PYRAMID[1:])

    splats = scene.everything
    if known is None:
        off = [pixels_between(view.camera, laid(view), splats) > EXACT for view in _some_views(walk, PROBES)]
        if sum(off) <= MANY * len(off):
            return Corrections.of({}, {})
    return Corrections.of({view.frame: move_between(view.camera, laid(view)) for view in _some_views(walk, count)}, {})


def _some_views(walk: Callable[[], Iterable[Clip]], count: int) -> Iterator[View]:
    """At most `count` of the frames with depth, evenly spread."""
    frames = sum(1 for _ in stream_views(walk()))
    chosen = set(evenly_spread(min(count, frames), frames))
    return (view for number, view in enumerate(stream_views(walk())) if number in chosen)


def frames_of(clips: Iterable[Clip], chosen: Iterable[int]) -> Iterator[tuple[int, Tensor, Cameras]]:
    """The chosen frames of a walk: numbers, pictures and cameras; those of one clip in an order that does not follow
    the path, as often as they are chosen."""
    chosen, start = list(chosen), 0
    for clip in clips:
        here = [frame - start for frame in chosen if start <= frame < start + len(clip)]
        for frame in here[::2] + here[1::2][::-1]:
            yield start + frame, clip.video[frame], clip.cameras[frame]
        start += len(clip)


def visits(steps: int, frames: int, passes: int) -> Iterator[list[int]]:
    """Frame numbers of `steps` visits to a walk of `frames` frames, in passes from its front, each spread evenly over
    the whole walk and between the frames of those before."""
    for number in range(passes):
        count = steps * (number + 1) // passes - steps * number // passes
        yield evenly_spread(count, frames, offset=(0.5 + number * _GOLDEN) % 1)


def evenly_spread(count: int, frames: int, offset: float = 0.5) -> list[int]:
    """`count` frame numbers of 0 .. `frames` - 1, ascending; a frame comes more than once only if there are too few."""
    return [min(int((index + offset) * frames / count), frames - 1) for index in range(count)]
