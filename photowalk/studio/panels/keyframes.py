"""The keyframes of a plan: a list with one that is chosen, handles in the scene, recording."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import viser

from photowalk.studio import planning, schemas
from photowalk.studio.keyframe_edits import place_along, pulled
from photowalk.studio.visit import QUIET, Visit

RECORD_SECONDS, RECORD_KEYFRAMES = 0.4, 60
_NEAR = 0.02  # of the photo's reference depth: keyframes closer than this are not recorded twice
_LENSES = (15.0, 120.0)
_NONE: tuple[str, ...] = ("none yet",)
_SEE, _SET, _COPY, _DELETE = "Go to", "Set", "Copy", "Delete"
_FIRST, _BACK, _NEXT, _LAST = "First", "Back", "Next", "Last"
_SPLINES: dict[str, schemas.Spline] = {"Round": "round", "Straight": "straight"}


class KeyframeList:
    """`changed` is called after every change of the keyframes or of the way through them."""

    def __init__(self, visit: Visit, frame: viser.GuiNumberHandle, changed: Callable[[], None]) -> None:
        self._visit, self._frame, self._changed = visit, frame, changed
        self.poses: list[schemas.Pose] = []
        self.chosen = -1
        self._recorded = 0.0
        gui = visit.gui
        gui.add_button("Add from my view", color=QUIET, icon=viser.Icon.PLUS).on_click(visit.does(self.add))
        gui.add_button("Add: come back to the frame", color=QUIET, icon=viser.Icon.ARROW_BACK_UP).on_click(
            visit.does(self._add_return)
        )
        self._list = gui.add_dropdown("Chosen", _NONE, disabled=True)
        self._list.on_update(visit.heeds(self._choose))
        self._step = gui.add_button_group("", (_FIRST, _BACK, _NEXT, _LAST), hint="Choose another, and look from it")
        self._step.on_click(visit.does(self._stepped))
        self._edit = gui.add_button_group("", (_SEE, _SET, _COPY, _DELETE), hint="Set: to where you look from now")
        self._edit.on_click(visit.does(self._edited))
        self._recording = gui.add_checkbox("Record while I walk", False)
        with gui.add_folder("Lens and neighbours", expand_by_default=False):
            self._fov = gui.add_slider("Degrees wide", *_LENSES, 0.5, 60.0, hint="What the chosen keyframe sees")
            self._fov.on_update(visit.heeds(self._zoom))
            gui.add_button("This lens for all", color=QUIET).on_click(visit.does(self._zoom_all))
            self._reach = gui.add_slider(
                "Pull along", 0, 5, 1, 0, hint="How many keyframes on each side follow the handles"
            )
        with gui.add_folder("The way between them", expand_by_default=False):
            self._spline = gui.add_dropdown("Shape", tuple(_SPLINES))
            self._loop = gui.add_checkbox("Back to its start", False)
            self._constant = gui.add_checkbox("Constant speed", False)
            self._speed = gui.add_slider("Speed", 0.25, 4.0, 0.25, 1.0, hint="1: as a person walks")
            self._length = gui.add_number("Frames", 0, min=0, step=1, hint="0: as many as the speed takes")
        for widget in (self._spline, self._loop, self._constant, self._speed, self._length):
            widget.on_update(visit.does(self._way_changed))
        gui.add_button("Clear all", color=QUIET).on_click(visit.does(lambda: self.replace([])))

    def request(self, *, avoid: bool) -> schemas.PathRequest:
        if not self.poses:
            raise ValueError("there are no keyframes yet; add one from your view")
        return schemas.PathRequest(
            keyframes=self.poses,
            frames=int(self._length.value) or None,
            speed=self._speed.value,
            spline=_SPLINES[self._spline.value],
            loop=self._loop.value,
            constant_speed=self._constant.value,
            avoid=avoid,
        )

    def replace(self, poses: list[schemas.Pose]) -> None:
        self.poses, self.chosen = poses, len(poses) - 1
        self._refresh()

    def split(self, path: list[schemas.Pose], index: int) -> None:
        """A keyframe at a pose of the planned path, which passes by the others in their order."""
        self.chosen = place_along(self.poses, path, index) - 1
        self._insert(path[index])

    def walked(self) -> None:
        """They are being made now; the line stays until the frames are there."""
        self.poses, self.chosen = [], -1
        self._show()
        self.draw()

    def add(self) -> None:
        """Behind the chosen one."""
        self._insert(self._visit.stage.pose)

    def record(self) -> None:
        """A keyframe now and then from where the eye goes."""
        now = time.monotonic()
        if not self._recording.value or now - self._recorded < RECORD_SECONDS or len(self.poses) >= RECORD_KEYFRAMES:
            return
        self._recorded = now
        pose, last = self._visit.stage.pose, self.poses[-1] if self.poses else None
        near = _NEAR * self._visit.needed().manifest.reference_depth
        if last is None or float(np.linalg.norm(np.subtract(pose.position, last.position))) > near:
            self.chosen = len(self.poses) - 1
            self._visit.guarded(self.add)()

    def draw(self) -> None:
        """Frustums of all, and handles at the chosen one."""
        if self._visit.scenery is not None:
            lens, dropped = self._visit.scenery.cameras[-1], self._visit.guarded(self._dropped)
            self._visit.stage.show_keyframes(self.poses, self.chosen, lens, self._moved, dropped)

    def _moved(self, index: int, pose: schemas.Pose) -> None:
        if index < len(self.poses):
            self.poses = pulled(self.poses, index, pose, int(self._reach.value))

    def _dropped(self) -> None:
        if self._reach.value:
            self.draw()
        self._changed()

    def _insert(self, pose: schemas.Pose) -> None:
        self.chosen += 1
        self.poses.insert(self.chosen, pose)
        self._refresh()

    def _add_return(self) -> None:
        cameras, frame = self._visit.needed().cameras, int(self._frame.value)
        if not 0 <= frame < len(cameras):
            raise ValueError(f"this world has frames 0 to {len(cameras) - 1}; choose one in Explore")
        self._insert(planning.poses_of(cameras[frame : frame + 1])[0])

    def _edited(self) -> None:
        if not 0 <= self.chosen < len(self.poses):
            raise ValueError("there are no keyframes yet; add one from your view")
        pose = self.poses[self.chosen]
        if self._edit.value == _SEE:
            self._look()
        elif self._edit.value == _COPY:
            self._insert(pose)
        elif self._edit.value == _SET:
            self.poses[self.chosen] = self._visit.stage.pose
            self._refresh()
        else:
            del self.poses[self.chosen]
            self.chosen = min(self.chosen, len(self.poses) - 1)
            self._refresh()

    def _stepped(self) -> None:
        if self.poses:
            last = len(self.poses) - 1
            wanted = {_FIRST: 0, _BACK: self.chosen - 1, _NEXT: self.chosen + 1, _LAST: last}[self._step.value]
            self.chosen = min(max(wanted, 0), last)
            self._show()
            self.draw()
            self._look()

    def _look(self) -> None:
        lens = self._visit.needed().cameras[-1]
        self._visit.stage.look_from(planning.camera_at(self.poses[self.chosen], lens))

    def _zoom(self) -> None:
        if self.poses:
            self.poses[self.chosen] = self.poses[self.chosen].model_copy(update={"fov_deg": self._fov.value})
            self.draw()
            self._changed()

    def _zoom_all(self) -> None:
        self.poses = [pose.model_copy(update={"fov_deg": self._fov.value}) for pose in self.poses]
        self._refresh()

    def _width(self, pose: schemas.Pose) -> float:
        cameras = self._visit.needed().cameras
        return float(planning.fov_deg(cameras[-1:])[0]) if pose.fov_deg is None else pose.fov_deg

    def _choose(self) -> None:
        name = self._list.value
        if name.startswith("Keyframe "):
            self.chosen = int(name.split()[1]) - 1
            self._show()
            self.draw()
            self._changed()

    def _way_changed(self) -> None:
        if self.poses:
            self._changed()

    def _refresh(self) -> None:
        self._show()
        self.draw()
        self._changed()

    def _show(self) -> None:
        self._list.options = tuple(f"Keyframe {i + 1}" for i in range(len(self.poses))) or _NONE
        self._list.disabled = not self.poses
        if self.poses:
            self._list.value = f"Keyframe {self.chosen + 1}"
            width = round(2 * self._width(self.poses[self.chosen])) / 2
            self._fov.value = min(max(width, _LENSES[0]), _LENSES[1])
