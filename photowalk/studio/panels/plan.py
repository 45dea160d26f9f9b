"""Plan a walk, in words or by keyframes, and see it before it is made."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import viser

from photowalk.geometry.paths import PRESETS
from photowalk.studio import planning, schemas
from photowalk.studio.memory_picture import seen_from
from photowalk.studio.panels.choice import Choice
from photowalk.studio.panels.keyframes import KeyframeList
from photowalk.studio.service import PATH_FILES
from photowalk.studio.snippets import facts, hint, notes
from photowalk.studio.visit import BRAND, QUIET, Visit

_BY_WORDS, _BY_KEYFRAMES = "In words", "By keyframes"
_NOTHING = "Nothing planned. Say where to go, or set keyframes, then preview."
_LOOKS_A_SECOND = 8  # of flying along
_EXAMPLES = {
    "Choose an example ...": "",
    "Step forward": "forward 1",
    "Turn left, go on": "left 40deg, forward 1",
    "Rise and look down": "up 0.5, down 15deg",
    "Around the middle": "orbit left 30deg",
    "Back to the photo": "back to start",
    **{f"Preset: {name.replace('_', ' ')}": name for name in PRESETS},
}
_KEYFRAME_EVERY = 20  # frames of a plan that becomes keyframes


class PlanPanel:
    """`offer` is told, as HTML, what was planned."""

    def __init__(self, visit: Visit, frame: viser.GuiNumberHandle) -> None:
        self._visit, self._plan, self._flying = visit, None, False
        self.offer: Callable[[str], None] = lambda _: None
        gui = visit.gui
        self._kind = Choice(visit, "Plan", (_BY_WORDS, _BY_KEYFRAMES), self._switch)
        self._words_folder = gui.add_folder("Where to?")
        with self._words_folder:
            self._words = gui.add_text("Walk", "forward 1, left 30deg")
            self._examples = gui.add_dropdown("Examples", tuple(_EXAMPLES))
            self._examples.on_update(visit.does(self._take_example))
        self._keys_folder = gui.add_folder("Keyframes", visible=False)
        with self._keys_folder:
            self.keys = KeyframeList(visit, frame, self._keys_changed)
        self._avoid = gui.add_checkbox("Keep clear of things", True)
        gui.add_button("Preview", icon=viser.Icon.ROUTE, color=BRAND).on_click(visit.does(self.preview))
        self._text = gui.add_html(hint(_NOTHING))
        self._along = gui.add_slider("Along the way", 0.0, 1.0, 0.01, 0.0, visible=False)
        self._along.on_update(visit.heeds(self._look_ahead))
        self._here = gui.add_button("Add a keyframe here", color=QUIET, icon=viser.Icon.PLUS, visible=False)
        self._here.on_click(visit.does(self._split))
        self._seen = gui.add_image(np.zeros((4, 4, 3), np.uint8), visible=False)
        self._fly_speed = gui.add_slider(
            "Flying speed", -4.0, 4.0, 0.5, 2.0, visible=False, hint="Below 0: backwards; 0: stand still"
        )
        self._fly_button = gui.add_button("Fly along", color=QUIET, icon=viser.Icon.PLAYER_PLAY)
        self._fly_button.on_click(lambda _: self._fly())
        self._turn_into_keys = gui.add_button("Edit as keyframes", color=QUIET, visible=False)
        self._turn_into_keys.on_click(visit.does(self._edit_as_keyframes))
        with gui.add_folder("Paths in files", expand_by_default=False):
            load = gui.add_upload_button("Load keyframes", color=QUIET, icon=viser.Icon.UPLOAD)
            load.on_upload(visit.does(lambda: self._load(load.value)))
            self._format = gui.add_dropdown(
                "Format", tuple(PATH_FILES), hint="; ".join(map(": ".join, PATH_FILES.items()))
            )
            gui.add_button("Save the plan", color=QUIET, icon=viser.Icon.DOWNLOAD).on_click(visit.does(self._save))

    @property
    def by_keyframes(self) -> bool:
        return self._kind.value == _BY_KEYFRAMES

    def request(self) -> schemas.PathRequest:
        """What the panel says. Raises ValueError where it says nothing."""
        if self.by_keyframes:
            return self.keys.request(avoid=self._avoid.value)
        return schemas.PathRequest(path=self._words.value.strip() or "wait 1", avoid=self._avoid.value)

    def preview(self) -> None:
        visit, scenery = self._visit, self._visit.needed()
        plan = self._plan = visit.studio.plan(visit.user, visit.world, self.request())
        visit.stage.show_path(plan, scenery.cameras[-1])
        hits = sum(plan.blocked[1:])
        table = facts(
            ("New frames", f"{plan.frames} in {plan.chunks} chunk{'s' * (plan.chunks != 1)}"),
            ("Length", f"{plan.length:.2f} m in {plan.seconds:.1f} s"),
            ("Collisions", "none" if not hits else f"{hits} frames" + (", avoided" if plan.shortened else "")),
        )
        self._text.content = table + notes(plan.notes)
        self.offer(table)
        self._show_along(True)
        if self.by_keyframes and self.keys.poses:
            self._picture(self.keys.poses[self.keys.chosen])
        else:
            self._along.value = 1.0
            self._look_ahead()

    def forget(self) -> None:
        self._plan = None
        self._visit.stage.hide_path()
        self._text.content = hint(_NOTHING)
        self.offer(hint("Generate makes what the Plan tab says; preview it there first."))
        self._show_along(False)
        self.keys.draw()

    def _switch(self) -> None:
        self._words_folder.visible, self._keys_folder.visible = not self.by_keyframes, self.by_keyframes

    def _take_example(self) -> None:
        if _EXAMPLES[self._examples.value]:
            self._words.value = _EXAMPLES[self._examples.value]
            self.preview()

    def _keys_changed(self) -> None:
        self._kind.choose(_BY_KEYFRAMES)
        self._switch()
        if self.keys.poses:
            self.preview()
        else:
            self.forget()

    def _show_along(self, visible: bool) -> None:
        for widget in (self._along, self._seen, self._fly_speed):
            widget.visible = visible
        self._here.visible = visible and self.by_keyframes
        self._turn_into_keys.visible = visible and not self.by_keyframes

    def _split(self) -> None:
        if self._plan is not None:
            self.keys.split(self._plan.poses, self._ahead)

    def _edit_as_keyframes(self) -> None:
        if self._plan is not None:
            last = len(self._plan.poses) - 1
            kept = sorted({*range(_KEYFRAME_EVERY, last, _KEYFRAME_EVERY), last})
            self.keys.replace([self._plan.poses[index] for index in kept])

    def _look_ahead(self) -> None:
        """What is known of the place, seen from a point of the way."""
        if self._plan is not None:
            self._picture(self._plan.poses[self._ahead])

    @property
    def _ahead(self) -> int:
        """The frame of the plan that is looked at."""
        assert self._plan is not None
        return round(self._along.value * (len(self._plan.poses) - 1))

    def _picture(self, pose: schemas.Pose) -> None:
        scenery = self._visit.needed()
        self._seen.image = seen_from(scenery, planning.camera_at(pose, scenery.cameras[-1]))

    def _fly(self) -> None:
        """Move the eye along the plan; it does not hold the other panels up."""
        if self._plan is None:
            self._visit.guarded(self.preview)()
        if self._plan is None or self._flying:
            self._flying = False  # a second press stops it
            return
        cameras = planning.cameras_at(self._plan.poses, self._visit.needed().cameras[-1])
        self._flying, at = True, 0.0 if self._fly_speed.value >= 0 else len(cameras) - 1.0
        self._fly_button.label = "Stop"
        self._visit.stage.fly(True)
        while self._flying and 0 <= at < len(cameras):
            self._visit.stage.look_from(cameras[int(at)])
            time.sleep(1 / _LOOKS_A_SECOND)
            at += self._fly_speed.value * planning.FRAMES_PER_SECOND / _LOOKS_A_SECOND
        self._flying = False
        self._visit.stage.fly(False)
        self._fly_button.label = "Fly along"

    def stop(self) -> None:
        """Nobody looks any more."""
        self._flying = False

    def take(self, poses: list[schemas.Pose]) -> None:
        """Plan by these keyframes."""
        self.keys.replace(poses)

    def _load(self, upload: viser.UploadedFile) -> None:
        visit = self._visit
        self.take(visit.studio.read_path(visit.user, visit.world, io.BytesIO(upload.content), upload.name))

    def _save(self) -> None:
        scenery, ending = self._visit.needed(), self._format.value
        if self._plan is None:
            raise ValueError("there is no plan yet; preview one first")
        content = self._visit.studio.path_file(planning.cameras_at(self._plan.poses, scenery.cameras[-1]), ending)
        self._visit.client.send_file_download(f"plan{ending}", content, save_immediately=True)
