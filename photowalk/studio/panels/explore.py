"""Look at the world: points or splats, which chunks, where to stand, what memory sees."""

from __future__ import annotations

import numpy as np
import viser

from photowalk.studio import planning
from photowalk.studio.memory_picture import seen_from
from photowalk.studio.panels.choice import Choice
from photowalk.studio.panels.correct import CorrectPanel
from photowalk.studio.snippets import facts
from photowalk.studio.visit import QUIET, Visit

POINTS, SPLATS = "Points", "Splats"
_PICTURE, _DISTANCE = "As in the pictures", "By distance"
_ORBIT, _FIRST_PERSON = "Orbit", "First person"


class ExplorePanel:
    def __init__(self, visit: Visit) -> None:
        self._visit, gui = visit, visit.gui
        self._about = gui.add_markdown("")
        self.shown = gui.add_dropdown("Show", (POINTS, SPLATS), hint="Splats are there once you have made them")
        self._colour = gui.add_dropdown("Colour", (_PICTURE, _DISTANCE), hint="Of points: yellow is near, violet far")
        self._point_size = gui.add_slider("Point size", 0.5, 4.0, 0.1, 1.0)
        self._chunks = gui.add_multi_slider("Chunks", 0, 1, 1, (0, 1), visible=False)
        self._cameras = gui.add_checkbox("Cameras of the walk", True)
        self.shown.on_update(visit.does(self.draw))
        self._colour.on_update(visit.does(self.draw))
        self._point_size.on_update(lambda _: visit.stage.size_points(self._point_size.value))
        self._chunks.on_update(visit.does(self.draw))
        self._cameras.on_update(visit.does(self._draw_cameras))
        with gui.add_folder("Move"):
            self._mode = Choice(visit, "Drag to", (_ORBIT, _FIRST_PERSON), self._turn)
            self.frame = gui.add_number("Frame", 0, min=0, step=1, hint="Stand where this frame was taken")
            gui.add_button("Stand there", color=QUIET, icon=viser.Icon.CAMERA).on_click(
                visit.does(lambda: self.look_at_frame(int(self.frame.value)))
            )
            self._eye = gui.add_slider(
                "Degrees high", 15.0, 110.0, 0.5, 60.0, hint="What you see; frames keep their lens"
            )
            self._eye.on_update(visit.heeds(lambda: visit.stage.see(self._eye.value)))
            gui.add_markdown("**W A S D** walk, **Q E** down and up, arrows turn, wheel zooms.")
        with gui.add_folder("What does memory see from here?", expand_by_default=True):
            gui.add_button("Ask memory", color=QUIET, icon=viser.Icon.EYE).on_click(visit.does(self._ask_memory))
            self._recall = gui.add_html("")
            self._picture = gui.add_image(np.zeros((4, 4, 3), np.uint8), visible=False)
        self._correct = CorrectPanel(visit)
        self._drawn: tuple = ()

    def look_at_frame(self, frame: int) -> None:
        scenery = self._visit.needed()
        if 0 <= frame < len(scenery.cameras):
            self._visit.stage.look_from(scenery.cameras[frame])
            self.frame.value = frame

    def follow_eye(self) -> None:
        """Say what the eye sees now."""
        self._eye.value = min(max(round(2 * self._visit.stage.fov_deg) / 2, self._eye.min), self._eye.max)

    def describe(self) -> None:
        """Tell of the world as it is now."""
        summary = self._visit.summary
        assert summary is not None
        lens = f"lens **{summary.fov_deg:.0f}** degrees wide"
        self._about.content = (
            f"**{summary.frames}** frames, **{summary.walked:.1f} m** walked, {lens}"
            if len(summary.chunks) > 1
            else f"The photo and its depth, {lens}. Plan a walk to see more."
        )
        self.frame.max = summary.frames - 1
        self._correct.describe()

    def show_all_chunks(self) -> None:
        last = len(self._visit.needed().chunks) - 1
        self._chunks.visible = last > 0
        self._chunks.max = max(last, 1)
        self._chunks.value = (0, max(last, 1))

    def draw(self) -> None:
        """Show what the panel says, unless it is shown already: widgets call this when they are set, too."""
        visit = self._visit
        if visit.scenery is None:
            return
        splats = visit.studio.library.files(visit.user, visit.world).get("splats.ply")
        if self.shown.value == SPLATS and splats is None:
            self.shown.value = POINTS
            visit.say("No splats yet", "Make them in the Export tab; until then you see points.")
        made = splats.stat().st_mtime_ns if self.shown.value == SPLATS and splats is not None else 0
        wanted = (made, self._colour.value, self._chunks.value, visit.stage.budget, visit.scenery.manifest.chunks)
        if wanted == self._drawn:
            return
        self._drawn = wanted
        if self.shown.value == SPLATS and splats is not None:
            shown, there = visit.stage.show_splats(splats)
            visit.stage.hide_points()
            if shown < there:
                visit.say("Fewer splats", f"{shown:,} of {there:,} splats are drawn, so that this machine keeps up.")
        else:
            first, last = self._chunks.value
            by_depth = self._colour.value == _DISTANCE
            visit.stage.show_points(visit.scenery, (int(first), int(last)), self._point_size.value, by_depth=by_depth)
            visit.stage.hide_splats()
        self._draw_cameras()

    def _draw_cameras(self) -> None:
        if self._visit.scenery is not None:
            self._visit.stage.show_cameras(self._visit.scenery, self._cameras.value)

    def _turn(self) -> None:
        if self._mode.value == _FIRST_PERSON:
            self._visit.stage.turn_on_the_spot()
        else:
            self._visit.stage.circle()

    def _ask_memory(self) -> None:
        visit, scenery = self._visit, self._visit.needed()
        pose = visit.stage.pose
        recall = visit.studio.recall(visit.user, visit.world, pose)
        visit.stage.mark_recalled(scenery, recall.frames)
        names = ", ".join(str(frame) for frame in reversed(recall.frames)) or "none"
        self._recall.content = facts(
            ("Known from memory", f"{recall.coverage:.0%}"),
            ("by the recalled frames", f"{recall.recalled_coverage:.0%}"),
            ("Never seen, will be invented", f"{recall.never_seen:.0%}"),
            ("Recalled frames", names),
        )
        self._picture.image = seen_from(scenery, planning.camera_at(pose, scenery.cameras[-1]))
        self._picture.visible = True
