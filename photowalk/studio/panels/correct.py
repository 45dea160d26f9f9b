"""Correct what was guessed from the photo: the length of a metre, the horizon, the lens."""

from __future__ import annotations

from photowalk.studio import schemas
from photowalk.studio.horizon import up_of
from photowalk.studio.snippets import hint
from photowalk.studio.visit import QUIET, Visit

_KNOWN = {
    "all lengths are times ...": "",
    "the camera was ... m up": "camera height",
    "the room is ... m high": "floor to ceiling",
}


class CorrectPanel:
    def __init__(self, visit: Visit) -> None:
        self._visit, gui = visit, visit.gui
        with gui.add_folder("Correct scale and horizon", expand_by_default=False):
            self._said = gui.add_html("")
            self._known = gui.add_dropdown("I know that", tuple(_KNOWN))
            self._metres = gui.add_number("Number", 1.0, min=0.01, max=100.0, step=0.05)
            gui.add_button("Correct the scale", color=QUIET).on_click(visit.does(self._scale))
            self._roll = gui.add_slider("Horizon roll", -30.0, 30.0, 0.5, 0.0)
            self._pitch = gui.add_slider("Horizon pitch", -45.0, 45.0, 0.5, 0.0)
            for slider in (self._roll, self._pitch):
                slider.on_update(visit.does(self._preview))
            gui.add_button("Correct the horizon", color=QUIET).on_click(visit.does(self._level))
            self._fov = gui.add_number("Lens, degrees wide", 60.0, min=5.0, max=150.0, step=0.5)
            self._lens = gui.add_button("Correct the lens", color=QUIET)
            self._lens.on_click(visit.does(self._see_wider))

    def describe(self) -> None:
        summary = self._visit.summary
        assert summary is not None
        self._said.content = hint(
            f"The middle of the photo is {summary.reference_depth:.2f} m away, the horizon is rolled by "
            f"{summary.roll_deg:.1f} and pitched by {summary.pitch_deg:.1f} degrees. Walks, meshes and files that are "
            "made from now on follow what you correct."
        )
        self._roll.value, self._pitch.value = round(summary.roll_deg, 1), round(summary.pitch_deg, 1)
        self._fov.value = round(summary.fov_deg, 1)
        walked = len(summary.chunks) > 1
        self._lens.label = "Start again with this lens" if walked else "Correct the lens"
        self._lens.hint = "In a branch from the photo: the walk was made through the other lens" if walked else None

    def _scale(self) -> None:
        what, value = _KNOWN[self._known.value], float(self._metres.value)
        wish = schemas.CorrectRequest(scale_to=f"{what} {value:.4g}m") if what else schemas.CorrectRequest(scale=value)
        self._correct(wish)
        summary = self._visit.ready()
        self._visit.say("Scale corrected", f"The middle of the photo is now {summary.reference_depth:.2f} m away.")

    def _preview(self) -> None:
        self._visit.stage.set_up(up_of(self._roll.value, self._pitch.value))

    def _level(self) -> None:
        self._correct(schemas.CorrectRequest(roll_deg=self._roll.value, pitch_deg=self._pitch.value))
        self._visit.say("Horizon corrected", "Walks from now on go level along it, and files stand upright.")

    def _see_wider(self) -> None:
        visit, summary = self._visit, self._visit.ready()
        if abs(self._fov.value - summary.fov_deg) < 0.05:
            visit.say("Nothing to correct", "Change the lens first.")
            return
        wish = schemas.CorrectRequest(fov_deg=self._fov.value)
        if len(summary.chunks) == 1:
            self._correct(wish)
            return
        branch = visit.studio.branch(visit.user, visit.world, 0, f"{summary.title[:90]} ({self._fov.value:g} degrees)")
        visit.studio.correct(visit.user, branch.id, wish)
        visit.say("A new branch", f'"{branch.title}" starts from the photo with this lens; open it under Compare.')

    def _correct(self, wish: schemas.CorrectRequest) -> None:
        self._visit.studio.correct(self._visit.user, self._visit.world, wish)
        self._visit.changed()
