"""One browser's page: a world on the stage and the panels beside it, kept true while the world changes.

Panels say what a person wants; what is done is `service.Studio`'s. Nothing here is kept: a page that is loaded again
starts from the world as it is.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable
from functools import wraps

import numpy as np
import viser

from photowalk.studio import planning, schemas
from photowalk.studio.memory_picture import seen_from
from photowalk.studio.scenery import Scenery
from photowalk.studio.service import EXPORTS, Studio
from photowalk.studio.snippets import facts, hint, links, notes
from photowalk.studio.stage import SOFTWARE, Budget, Stage

BRAND, QUIET = (86, 132, 255), (58, 64, 77)
RECORD_SECONDS, RECORD_KEYFRAMES = 0.4, 60
TIDY_SECONDS = 0.25
_BY_WORDS, _BY_KEYFRAMES = "In words", "By keyframes"
_POINTS, _SPLATS = "Points", "Splats"
_NO_KEYS: tuple[str, ...] = ("none yet",)
_ORBIT, _FIRST_PERSON = "Orbit", "First person"
_EXAMPLES = {
    "Choose an example ...": "",
    "Step forward": "forward 1",
    "Look around and come back": "look_around",
    "Walk an oval": "walk",
    "Turn left, go on": "left 40deg, forward 1",
    "Rise and look down": "up 0.5, down 15deg",
    "Around the middle": "orbit left 30deg",
    "Back to the photo": "back to start",
}
_QUALITIES: dict[str, int | None] = {"As trained (fast)": None, "Fine (twice the steps)": 8, "Draft (one step)": 1}


class Page:
    def __init__(self, client: viser.ClientHandle, studio: Studio, user: str, world: str, *, software: bool) -> None:
        self._client, self._studio, self._user, self._world = client, studio, user, world
        self._stage = Stage(client, SOFTWARE if software else Budget())
        self._lock = threading.RLock()
        self._scenery: Scenery | None = None
        self._summary: schemas.World | None = None
        self._plan: schemas.Plan | None = None
        self._keys: list[schemas.Pose] = []
        self._chosen = -1
        self._marks: list[viser.SceneNodeHandle] = []
        self._recorded = self._tidied = 0.0
        self._jobs_seen: tuple = ()  # which jobs of this world were where when it was looked at last
        self._photo_files: dict = {}  # of the photo that is shown; a correction makes others
        self._flying = False
        self._build()
        self._stop = studio.queue.watch(self._heard)
        self.refresh()

    def close(self) -> None:
        self._stop()

    # ---- what the shell around the page asks for

    def look_at_frame(self, frame: int) -> None:
        with self._lock:
            if self._scenery is not None and 0 <= frame < len(self._scenery.cameras):
                self._stage.look_from(self._scenery.cameras[frame])
                self._stage.declutter(self._marks)
                self._frame.value = frame

    def draw_less(self) -> int:
        """Halve what the browser has to draw; how many points or splats it now gets."""
        with self._lock:
            self._stage.budget = self._stage.budget.halved()
            self._draw()
            return self._stage.budget.splats if self._shown.value == _SPLATS else self._stage.budget.points

    def refresh(self) -> None:
        """Show the world as it is now."""
        with self._lock:
            summary = self._studio.library.world(self._user, self._world)
            if not summary.ready:
                return
            before, self._summary = self._summary, summary
            scenery = self._studio.scenery(self._user, self._world)
            changed = self._scenery is None or scenery.manifest.chunks != self._scenery.manifest.chunks
            self._scenery = scenery
            if before is None or (before.roll_deg, before.pitch_deg) != (summary.roll_deg, summary.pitch_deg):
                self._stage.set_up(summary.roll_deg, summary.pitch_deg)
            self._describe()
            if changed:
                first = before is None or scenery.manifest.chunks[0].files != self._photo_files
                self._photo_files = scenery.manifest.chunks[0].files
                self._chunks_shown(len(scenery.chunks) - 1)
                self._draw()
                if first:
                    self._stage.look_from(scenery.cameras[-1], back=0.3)
                self._forget_plan()
            elif before is not None and before.scene_frames != summary.scene_frames:
                self._shown.value = _SPLATS
                self._draw()

    def _heard(self, user: str) -> None:
        """Something about this user's jobs has changed; it may be this world. Called from other threads."""
        if user == self._user:
            jobs = self._studio.queue.jobs(user, self._world)
            state = tuple((job.id, job.state, job.progress.chunk) for job in jobs[:3])
            if state != self._jobs_seen:
                self._jobs_seen = state
                threading.Thread(target=self._guarded(self.refresh), daemon=True).start()

    # ---- panels

    def _build(self) -> None:
        gui = self._client.gui
        gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, control_width="medium", brand_color=BRAND
        )
        gui.set_panel_label("Studio")
        gui.main_panel.dock_right()
        tabs = gui.add_tab_group()
        with tabs.add_tab("Explore"):
            self._build_explore(gui)
        with tabs.add_tab("Plan"):
            self._build_plan(gui)
        with tabs.add_tab("Generate"):
            self._build_generate(gui)
        with tabs.add_tab("Export"):
            self._build_export(gui)
        self._client.camera.on_update(lambda _: self._moved())

    def _build_explore(self, gui: viser.GuiApi) -> None:
        self._about = gui.add_markdown("")
        self._shown = gui.add_dropdown("Show", (_POINTS, _SPLATS), hint="Splats are there once you have made them")
        self._point_size = gui.add_slider("Point size", 0.5, 6.0, 0.1, 2.0)
        self._chunk_range = gui.add_multi_slider("Chunks", 0, 1, 1, (0, 1), visible=False)
        self._cameras = gui.add_checkbox("Cameras of the walk", True)
        self._shown.on_update(self._does(self._draw))
        self._point_size.on_update(lambda _: self._stage.size_points(self._point_size.value))
        self._chunk_range.on_update(self._does(self._draw))
        self._cameras.on_update(self._does(self._draw_cameras))
        with gui.add_folder("Move"):
            self._mode = gui.add_button_group("Drag to", (_ORBIT, _FIRST_PERSON))
            self._mode.on_click(self._does(self._turn))
            self._frame = gui.add_number("Frame", 0, min=0, step=1, hint="Stand where this frame was taken")
            gui.add_button("Stand there", color=QUIET, icon=viser.Icon.CAMERA).on_click(
                self._does(lambda: self.look_at_frame(int(self._frame.value)))
            )
            gui.add_markdown("**W A S D** walk, **Q E** down and up, arrows turn, wheel zooms.")
        with gui.add_folder("What does memory see from here?", expand_by_default=True):
            gui.add_button("Ask memory", color=QUIET, icon=viser.Icon.EYE).on_click(self._does(self._ask_memory))
            self._recall = gui.add_html("")
            self._recall_picture = gui.add_image(np.zeros((4, 4, 3), np.uint8), visible=False)
        self._photo = gui.add_folder("The photo", expand_by_default=False)
        with self._photo:
            gui.add_markdown("What was guessed from the photo. Correct it before you walk.")
            self._scale = gui.add_number("Depth x", 1.0, min=0.05, max=20.0, step=0.05)
            self._fov = gui.add_number("Lens, degrees wide", 60.0, min=5.0, max=150.0, step=0.5)
            gui.add_button("Make it so", color=QUIET).on_click(self._does(self._correct))
            self._roll = gui.add_slider("Horizon roll", -30.0, 30.0, 0.5, 0.0)
            self._pitch = gui.add_slider("Horizon pitch", -45.0, 45.0, 0.5, 0.0)
            for slider in (self._roll, self._pitch):
                slider.on_update(self._does(self._level))

    def _build_plan(self, gui: viser.GuiApi) -> None:
        self._kind = gui.add_button_group("Plan", (_BY_WORDS, _BY_KEYFRAMES))
        self._kind.on_click(self._does(self._switch_kind))
        self._words_folder = gui.add_folder("Where to?")
        with self._words_folder:
            self._words = gui.add_text("Walk", "forward 1, left 30deg")
            examples = gui.add_dropdown("Examples", tuple(_EXAMPLES))

            @examples.on_update
            def _(_) -> None:
                if _EXAMPLES[examples.value]:
                    self._words.value = _EXAMPLES[examples.value]
                    self._guarded(self._preview)()

        self._keys_folder = gui.add_folder("Keyframes", visible=False)
        with self._keys_folder:
            self._key_list = gui.add_dropdown("Chosen", _NO_KEYS, disabled=True)
            self._key_list.on_update(self._does(self._choose_key))
            gui.add_button("Add from my view", color=QUIET, icon=viser.Icon.PLUS).on_click(self._does(self._add_key))
            gui.add_button("Add: come back to the frame", color=QUIET, icon=viser.Icon.ARROW_BACK_UP).on_click(
                self._does(self._add_return)
            )
            gui.add_markdown("Move a keyframe with its handles in the scene.")
            self._recording = gui.add_checkbox("Record while I walk", False)
            gui.add_button("Delete chosen", color=QUIET, icon=viser.Icon.TRASH).on_click(self._does(self._delete_key))
            gui.add_button("Clear all", color=QUIET).on_click(self._does(self._clear_keys))
            self._constant = gui.add_checkbox("Constant speed", False)
            self._length = gui.add_number("Frames (0: as a person walks)", 0, min=0, step=1)
        self._avoid = gui.add_checkbox("Keep clear of things", True)
        gui.add_button("Preview", icon=viser.Icon.ROUTE, color=BRAND).on_click(self._does(self._preview))
        self._plan_text = gui.add_html(hint("Nothing planned. Say where to go, or set keyframes, then preview."))
        gui.add_button("Fly along", color=QUIET, icon=viser.Icon.PLAYER_PLAY).on_click(self._does(self._fly))
        with gui.add_folder("Paths in files", expand_by_default=False):
            load = gui.add_upload_button("Load keyframes", color=QUIET, icon=viser.Icon.UPLOAD)
            load.on_upload(self._does(lambda: self._load_path(load.value)))
            gui.add_button("Save the plan (.json)", color=QUIET, icon=viser.Icon.DOWNLOAD).on_click(
                self._does(lambda: self._save_path(".json"))
            )
            gui.add_button("Save the plan (.npz)", color=QUIET, icon=viser.Icon.DOWNLOAD).on_click(
                self._does(lambda: self._save_path(".npz"))
            )

    def _build_generate(self, gui: viser.GuiApi) -> None:
        self._prompt = gui.add_text("What is there", "", multiline=True, hint="Empty: as in the chunk before")
        self._seed = gui.add_number("Seed", 0, min=0, max=2**31 - 1, step=1)
        gui.add_button("Re-roll", color=QUIET, icon=viser.Icon.DICE).on_click(
            lambda _: setattr(self._seed, "value", random.randrange(2**31))
        )
        self._quality = gui.add_dropdown("Quality", tuple(_QUALITIES))
        self._offer = gui.add_html(hint("Plan a walk first, or generate what the Plan tab says."))
        gui.add_button("Generate", icon=viser.Icon.WAND, color=BRAND).on_click(self._does(self._generate))
        self._rest = gui.add_button(
            "Finish the interrupted walk", color=QUIET, icon=viser.Icon.PLAYER_TRACK_NEXT, visible=False
        )
        self._rest.on_click(self._does(lambda: self._studio.go_on(self._user, self._world)))

    def _build_export(self, gui: viser.GuiApi) -> None:
        gui.add_button("Make splats", icon=viser.Icon.CUBE_PLUS, color=BRAND).on_click(
            self._does(lambda: self._studio.reconstruct(self._user, self._world))
        )
        self._splat_text = gui.add_html("")
        with gui.add_folder("Make a file"):
            formats = {f"{ending[1:]}: {what}": ending for ending, what in EXPORTS.items()}
            self._format = gui.add_dropdown("Format", tuple(formats))
            gui.add_button("Make it", color=QUIET, icon=viser.Icon.FILE_EXPORT).on_click(
                self._does(lambda: self._studio.export(self._user, self._world, formats[self._format.value]))
            )
        with gui.add_folder("Download"):
            self._downloads = gui.add_html("")

    # ---- explore

    def _draw(self) -> None:
        scenery, summary = self._scenery, self._summary
        if scenery is None or summary is None:
            return
        splats = self._studio.library.files(self._user, self._world).get("splats.ply")
        if self._shown.value == _SPLATS and splats is None:
            self._shown.value = _POINTS
            self._say("No splats yet", "Make them in the Export tab; until then you see points.")
        if self._shown.value == _SPLATS and splats is not None:
            shown, there = self._stage.show_splats(splats)
            self._stage.hide_points()
            if shown < there:
                self._say("Fewer splats", f"{shown:,} of {there:,} splats are drawn, so that this machine keeps up.")
        else:
            first, last = self._chunk_range.value
            self._stage.show_points(scenery, (int(first), int(last)), self._point_size.value)
            self._stage.hide_splats()
        self._draw_cameras()

    def _draw_cameras(self) -> None:
        if self._scenery is not None:
            self._stage.show_cameras(self._scenery, self._cameras.value)

    def _chunks_shown(self, last: int) -> None:
        self._chunk_range.visible = last > 0
        self._chunk_range.max = max(last, 1)
        self._chunk_range.value = (0, max(last, 1))

    def _turn(self) -> None:
        if self._mode.value == _FIRST_PERSON:
            self._stage.turn_on_the_spot()
        else:
            self._stage.circle()

    def _ask_memory(self) -> None:
        scenery = self._needed()
        pose = self._stage.pose
        recall = self._studio.recall(self._user, self._world, pose)
        self._stage.mark_recalled(scenery, recall.frames)
        names = ", ".join(str(frame) for frame in reversed(recall.frames)) or "none"
        self._recall.content = facts(
            ("Known from memory", f"{recall.coverage:.0%}"),
            ("by the recalled frames", f"{recall.recalled_coverage:.0%}"),
            ("Never seen, will be invented", f"{recall.never_seen:.0%}"),
            ("Recalled frames", names),
        )
        self._recall_picture.image = seen_from(scenery, planning.camera_at(pose, scenery.cameras[-1]))
        self._recall_picture.visible = True

    def _correct(self) -> None:
        summary = self._studio.ready(self._user, self._world)
        fov = None if abs(self._fov.value - summary.fov_deg) < 0.05 else self._fov.value
        scale = None if self._scale.value == 1 else self._scale.value
        if fov is None and scale is None:
            self._say("Nothing to correct", "Change the depth or the lens first.")
            return
        self._studio.correct(self._user, self._world, schemas.CorrectRequest(depth_scale=scale, fov_deg=fov))
        self._scale.value = 1.0

    def _level(self) -> None:
        wish = schemas.CorrectRequest(roll_deg=self._roll.value, pitch_deg=self._pitch.value)
        self._studio.correct(self._user, self._world, wish)
        self._stage.set_up(self._roll.value, self._pitch.value)

    # ---- plan

    def _switch_kind(self) -> None:
        by_words = self._kind.value == _BY_WORDS
        self._words_folder.visible, self._keys_folder.visible = by_words, not by_words

    def _request(self) -> schemas.PathRequest:
        if self._kind.value == _BY_WORDS:
            return schemas.PathRequest(path=self._words.value.strip() or "wait 1", avoid=self._avoid.value)
        if not self._keys:
            raise ValueError("there are no keyframes yet; add one from your view")
        return schemas.PathRequest(
            keyframes=self._keys,
            frames=int(self._length.value) or None,
            constant_speed=self._constant.value,
            avoid=self._avoid.value,
        )

    def _preview(self) -> None:
        scenery = self._needed()
        plan = self._studio.plan(self._user, self._world, self._request())
        self._plan = plan
        self._stage.show_path(plan, scenery.cameras[-1])
        hits = sum(plan.blocked[1:])
        table = facts(
            ("New frames", f"{plan.frames} in {plan.chunks} chunk{'s' * (plan.chunks != 1)}"),
            ("Length", f"{plan.length:.2f} m in {plan.seconds:.1f} s"),
            ("Collisions", "none" if not hits else f"{hits} frames" + (", avoided" if plan.shortened else "")),
        )
        self._plan_text.content = table + notes(plan.notes)
        self._offer.content = table

    def _forget_plan(self) -> None:
        self._plan = None
        self._stage.hide_path()
        self._plan_text.content = hint("Nothing planned. Say where to go, or set keyframes, then preview.")
        self._offer.content = hint("Generate makes what the Plan tab says; preview it there first.")
        self._draw_keys()

    def _fly(self) -> None:
        """Move the eye along the plan, twice as fast as the walk."""
        scenery = self._needed()
        if self._plan is None:
            self._preview()
        plan = self._plan
        if plan is None or self._flying:
            return
        self._flying = True
        try:
            cameras = planning.cameras_at(plan.poses, scenery.cameras[-1])
            for index in range(0, len(cameras), 4):
                self._stage.look_from(cameras[index])
                time.sleep(1 / 8)
        finally:
            self._flying = False

    def _add_key(self) -> None:
        self._keys.append(self._stage.pose)
        self._chosen = len(self._keys) - 1
        self._keys_changed()

    def _add_return(self) -> None:
        scenery = self._needed()
        frame = int(self._frame.value)
        if not 0 <= frame < len(scenery.cameras):
            raise ValueError(f"this world has frames 0 to {len(scenery.cameras) - 1}; choose one in Explore")
        self._keys.append(planning.poses_of(scenery.cameras[frame : frame + 1])[0])
        self._chosen = len(self._keys) - 1
        self._keys_changed()

    def _delete_key(self) -> None:
        if 0 <= self._chosen < len(self._keys):
            del self._keys[self._chosen]
            self._chosen = min(self._chosen, len(self._keys) - 1)
            self._keys_changed()

    def _clear_keys(self) -> None:
        self._keys, self._chosen = [], -1
        self._keys_changed()

    def _choose_key(self) -> None:
        name = self._key_list.value
        if name.startswith("Keyframe ") and int(name.split()[1]) - 1 != self._chosen:
            self._chosen = int(name.split()[1]) - 1
            self._draw_keys()

    def _keys_changed(self) -> None:
        self._kind.value = _BY_KEYFRAMES
        self._switch_kind()
        self._list_keys()
        self._draw_keys()
        if self._keys:
            self._preview()
        else:
            self._forget_plan()

    def _list_keys(self) -> None:
        self._key_list.options = tuple(f"Keyframe {i + 1}" for i in range(len(self._keys))) or _NO_KEYS
        self._key_list.disabled = not self._keys
        if self._keys:
            self._key_list.value = f"Keyframe {self._chosen + 1}"

    def _draw_keys(self) -> None:
        for mark in self._marks:
            mark.remove()
        self._marks = []
        if self._scenery is None:
            return
        lens = self._scenery.cameras[-1]
        for index, pose in enumerate(self._keys):
            if index != self._chosen:
                self._marks.append(self._stage.add_keyframe(f"{index}", pose, lens, False))
                continue
            gizmo = self._stage.add_gizmo(f"{index}", pose)
            frustum = self._stage.add_keyframe(f"{index}/camera", _AT_HOME, lens, True)
            self._marks += [frustum, gizmo]
            self._stage.declutter([gizmo])

            @gizmo.on_update
            def _(_, gizmo=gizmo, index=index) -> None:
                if index < len(self._keys):
                    position, wxyz = tuple(map(float, gizmo.position)), tuple(map(float, gizmo.wxyz))
                    self._keys[index] = schemas.Pose(position=position, wxyz=wxyz)

            @gizmo.on_drag_end
            def _(_) -> None:
                self._guarded(self._preview)()

    def _moved(self) -> None:
        """The eye has moved. viser tells this often; what follows from it need not."""
        now = time.monotonic()
        if now - self._tidied > TIDY_SECONDS and self._scenery is not None:
            self._tidied = now
            self._stage.declutter(self._marks)
        self._record()

    def _record(self) -> None:
        """A keyframe now and then from where the eye goes."""
        now = time.monotonic()
        if self._recording.value and now - self._recorded > RECORD_SECONDS and len(self._keys) < RECORD_KEYFRAMES:
            self._recorded = now
            pose = self._stage.pose
            if not self._keys or np.linalg.norm(np.subtract(pose.position, self._keys[-1].position)) > 0.02:
                self._guarded(self._add_key)()

    def _load_path(self, upload: viser.UploadedFile) -> None:
        poses = self._studio.read_path(self._user, self._world, io.BytesIO(upload.content), upload.name)
        self._keys, self._chosen = poses, len(poses) - 1
        self._keys_changed()

    def _save_path(self, ending: str) -> None:
        scenery = self._needed()
        if self._plan is None:
            raise ValueError("there is no plan yet; preview one first")
        cameras = planning.cameras_at(self._plan.poses, scenery.cameras[-1])
        content = self._studio.path_file(cameras, ending)
        self._client.send_file_download(f"plan{ending}", content, save_immediately=True)

    # ---- generate, export

    def _generate(self) -> None:
        request = self._request().model_dump()
        prompt = self._prompt.value.strip()
        self._studio.extend(
            self._user,
            self._world,
            schemas.ExtendRequest(
                **request, prompt=prompt or None, seed=int(self._seed.value), steps=_QUALITIES[self._quality.value]
            ),
        )
        if request["keyframes"]:  # they are walked now; the line stays until the frames are there
            self._keys, self._chosen = [], -1
            self._list_keys()
            self._draw_keys()

    def _describe(self) -> None:
        """Everything in the panels that tells of the world."""
        summary = self._summary
        assert summary is not None
        last = len(summary.chunks) - 1
        self._about.content = (
            f"**{summary.frames}** frames, **{summary.walked:.1f} m** walked, lens {summary.fov_deg:.0f} degrees wide"
            if last
            else f"The photo and its depth; lens **{summary.fov_deg:.0f}** degrees wide. Plan a walk to see more."
        )
        self._photo.visible = last == 0
        self._fov.value = round(summary.fov_deg, 1)
        self._frame.max = summary.frames - 1
        self._rest.visible = summary.to_go > 0 and not self._studio.queue.busy(self._world)
        self._rest.label = f"Finish the interrupted walk ({summary.to_go} to go)"
        if summary.scene_frames:
            new = summary.frames - summary.scene_frames
            stale = f" The walk has changed since by {abs(new)} frames." if new else ""
            self._splat_text.content = hint(f"Made of {summary.scene_frames} frames.{stale} See them under Explore.")
        else:
            self._splat_text.content = hint("Splats are a scene that renders from anywhere, in any 3DGS viewer.")
        self._downloads.content = links(self._world, summary.files)

    # ---- inside

    def _needed(self) -> Scenery:
        if self._scenery is None:
            raise ValueError("the world is still being made; wait a moment")
        return self._scenery

    def _does(self, action: Callable[[], object]) -> Callable[[object], None]:
        """A callback of a widget."""
        safe = self._guarded(action)
        return lambda _: safe()

    def _guarded(self, action: Callable[[], object]) -> Callable[[], None]:
        """What goes wrong is said to the person, in the words of whoever refused."""

        @wraps(action)
        def run() -> None:
            try:
                with self._lock:
                    action()
            except (ValueError, OSError) as error:
                self._say("That did not work", str(error), bad=True)

        return run

    def _say(self, title: str, text: str, *, bad: bool = False) -> None:
        color, seconds = ("red", 12) if bad else ("blue", 6)
        self._client.add_notification(title, text, auto_close_seconds=seconds, color=color)


_AT_HOME = schemas.Pose(position=(0.0, 0.0, 0.0), wxyz=(1.0, 0.0, 0.0, 0.0))
