"""One browser's page: a world on the stage and the panels beside it, kept true while the world changes.

Nothing here is kept: a page that is loaded again starts from the world as it is.
"""

from __future__ import annotations

import threading
import time

import viser

from photowalk.studio import schemas
from photowalk.studio.horizon import up_of
from photowalk.studio.panels.explore import SPLATS, ExplorePanel
from photowalk.studio.panels.files import FilesPanel
from photowalk.studio.panels.generate import GeneratePanel
from photowalk.studio.panels.plan import PlanPanel
from photowalk.studio.service import Studio
from photowalk.studio.stage import SOFTWARE, Budget, Stage
from photowalk.studio.visit import BRAND, Visit

TIDY_SECONDS = 0.25


class Page:
    """Panels are there at once; `refresh` shows the world."""

    def __init__(self, client: viser.ClientHandle, studio: Studio, user: str, world: str, *, software: bool) -> None:
        stage = Stage(client, SOFTWARE if software else Budget())
        self._visit = Visit(client, studio, user, world, stage, self.refresh)
        self._tidied = 0.0
        self._jobs_seen: tuple = ()  # which jobs of this world were where when it was looked at last
        self._photo_files: dict = {}  # of the photo that is shown; a correction makes others
        self._build(client.gui)
        client.camera.on_update(lambda _: self._moved())
        self._stop = studio.queue.watch(self._heard)

    def close(self) -> None:
        self._stop()
        self._plan.stop()

    # ---- what the shell around the page asks for

    def look_at_frame(self, frame: int) -> None:
        with self._visit.lock:
            if self._visit.scenery is not None:
                self._explore.look_at_frame(frame)

    def take_keyframes(self, poses: list[schemas.Pose]) -> None:
        """Plan by these."""
        with self._visit.lock:
            self._plan.take(poses)

    def draw_less(self) -> int:
        """Halve what the browser has to draw; how many points or splats it now gets."""
        stage = self._visit.stage
        with self._visit.lock:
            stage.budget = stage.budget.halved()
            self._explore.draw()
            return stage.budget.splats if self._explore.shown.value == SPLATS else stage.budget.points

    def show(self) -> None:
        """As `refresh`; what goes wrong is said on the page."""
        self._visit.guarded(self.refresh)()

    def refresh(self) -> None:
        """Show the world as it is now."""
        visit = self._visit
        with visit.lock:
            summary = visit.studio.library.world(visit.user, visit.world)
            if not summary.ready:
                return
            before, visit.summary = visit.summary, summary
            scenery = visit.studio.scenery(visit.user, visit.world)
            changed = visit.scenery is None or scenery.manifest.chunks != visit.scenery.manifest.chunks
            visit.scenery = scenery
            if before is None or (before.roll_deg, before.pitch_deg) != (summary.roll_deg, summary.pitch_deg):
                visit.stage.set_up(up_of(summary.roll_deg, summary.pitch_deg))
            for panel in (self._explore, self._generate, self._files):
                panel.describe()
            if changed:
                visit.stage.mark_recalled(scenery, [])  # an answer about the world as it was
                first = before is None or scenery.manifest.chunks[0].files != self._photo_files
                self._photo_files = scenery.manifest.chunks[0].files
                self._explore.show_all_chunks()
                self._explore.draw()
                if first:
                    visit.stage.look_from(scenery.cameras[-1], back=0.2)
                self._plan.forget()
                return
            if before is not None and before.metres_per_unit != summary.metres_per_unit:
                self._plan.forget()  # its lengths were others
            if before is not None and before.scene_frames != summary.scene_frames:
                self._explore.shown.value = SPLATS
            self._explore.draw()  # splats may have been made anew of as many frames

    def _heard(self, user: str) -> None:
        """Something about this user's jobs has changed; it may be this world. Called from other threads."""
        visit = self._visit
        if user == visit.user:
            jobs = visit.studio.queue.jobs(user, visit.world)
            state = tuple((job.id, job.state, job.progress.chunk) for job in jobs)
            if state != self._jobs_seen:
                self._jobs_seen = state
                threading.Thread(target=visit.guarded(self._catch_up), daemon=True).start()

    def _catch_up(self) -> None:
        self.refresh()
        self._generate.heard()

    def _build(self, gui: viser.GuiApi) -> None:
        gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, control_width="medium", brand_color=BRAND
        )
        gui.set_panel_label("Studio")
        gui.main_panel.dock_right()
        tabs = gui.add_tab_group()
        with tabs.add_tab("Explore"):
            self._explore = ExplorePanel(self._visit)
        with tabs.add_tab("Plan"):
            self._plan = PlanPanel(self._visit, self._explore.frame)
        with tabs.add_tab("Generate"):
            self._generate = GeneratePanel(self._visit, self._plan)
        with tabs.add_tab("Export"):
            self._files = FilesPanel(self._visit)

    def _moved(self) -> None:
        """The eye has moved. viser tells this often; what follows from it need not."""
        now = time.monotonic()
        if self._visit.scenery is None:
            return
        if now - self._tidied > TIDY_SECONDS:
            self._tidied = now
            self._visit.stage.declutter()
            self._explore.follow_eye()
        self._plan.keys.record()
