"""Generate what is planned: prompt, seed, quality."""

from __future__ import annotations

import random

import viser

from photowalk.studio import schemas
from photowalk.studio.panels.plan import PlanPanel
from photowalk.studio.snippets import hint
from photowalk.studio.visit import BRAND, QUIET, Visit

_OF_NANO: dict[str, int | None] = {"As trained (fast)": None, "Fine (twice the steps)": 8, "Draft (one step)": 1}
_OF_OTHERS: dict[str, int | None] = {
    "As the preset says": None,
    **{f"{steps} steps": steps for steps in (50, 20, 10, 4)},
}


class GeneratePanel:
    def __init__(self, visit: Visit, plan: PlanPanel) -> None:
        self._visit, self._plan = visit, plan
        self._hint, self._writing = "", ""  # what the person wrote before it was expanded; the job that expands it
        gui = visit.gui
        self._prompt = gui.add_text("What is there", "", multiline=True, hint="Empty: as in the chunk before")
        self._expand_button = gui.add_button(
            "Expand", color=QUIET, icon=viser.Icon.SPARKLES, hint="Write it out for the walk that is planned"
        )
        self._expand_button.on_click(visit.does(self._expand))
        self._seed = gui.add_number("Seed", 0, min=0, max=2**31 - 1, step=1)
        gui.add_button("Re-roll", color=QUIET, icon=viser.Icon.DICE).on_click(
            lambda _: setattr(self._seed, "value", random.randrange(2**31))
        )
        self._steps = _OF_NANO if visit.studio.preset == "nano" else _OF_OTHERS
        self._quality = gui.add_dropdown("Quality", tuple(self._steps))
        self._offer = gui.add_html(hint("Plan a walk first, or generate what the Plan tab says."))
        gui.add_button("Generate", icon=viser.Icon.WAND, color=BRAND).on_click(visit.does(self._generate))
        self._rest = gui.add_button(
            "Finish the interrupted walk", color=QUIET, icon=viser.Icon.PLAYER_TRACK_NEXT, visible=False
        )
        self._rest.on_click(visit.does(lambda: visit.studio.go_on(visit.user, visit.world)))
        plan.offer = lambda html: setattr(self._offer, "content", html)

    def describe(self) -> None:
        summary = self._visit.summary
        assert summary is not None
        self._rest.visible = summary.to_go > 0 and not self._visit.studio.queue.busy(self._visit.world)
        self._rest.label = f"Finish the interrupted walk ({summary.to_go} to go)"

    def heard(self) -> None:
        """A job of this world has changed."""
        if self._writing:
            job = self._visit.studio.queue.job(self._visit.user, self._writing)
            if job.state == "done":
                self._prompt.value = job.message
            if job.state in schemas.FINISHED:
                self._writing = ""
                self._expand_button.disabled = False

    def _expand(self) -> None:
        visit = self._visit
        written = self._prompt.value.strip()
        if not (self._hint and written.startswith(self._hint)):  # a second time it starts from the person's own words
            self._hint = written
        request = schemas.ExpandRequest(**self._plan.request().model_dump(), prompt=self._hint)
        expansion = visit.studio.expand(visit.user, visit.world, request)
        if expansion.job is None:
            self._prompt.value = expansion.prompt or ""
        else:
            self._writing = expansion.job.id
            self._expand_button.disabled = True

    def _generate(self) -> None:
        visit, request = self._visit, self._plan.request().model_dump()
        visit.studio.extend(
            visit.user,
            visit.world,
            schemas.ExtendRequest(
                **request,
                prompt=self._prompt.value.strip() or None,
                seed=int(self._seed.value),
                steps=self._steps[self._quality.value],
            ),
        )
        if request["keyframes"]:
            self._plan.keys.walked()
