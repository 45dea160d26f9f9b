"""Make splats and files of a world, and download them."""

from __future__ import annotations

import viser

from photowalk.studio.service import EXPORTS
from photowalk.studio.snippets import hint, links
from photowalk.studio.visit import BRAND, QUIET, Visit


class FilesPanel:
    def __init__(self, visit: Visit) -> None:
        self._visit, gui = visit, visit.gui
        gui.add_button("Make splats", icon=viser.Icon.CUBE_PLUS, color=BRAND).on_click(
            visit.does(lambda: visit.studio.reconstruct(visit.user, visit.world))
        )
        self._splats = gui.add_html("")
        with gui.add_folder("Make a file"):
            formats = {f"{ending[1:]}: {what}": ending for ending, what in EXPORTS.items()}
            chosen = gui.add_dropdown("Format", tuple(formats))
            gui.add_button("Make it", color=QUIET, icon=viser.Icon.FILE_EXPORT).on_click(
                visit.does(lambda: visit.studio.export(visit.user, visit.world, formats[chosen.value]))
            )
        with gui.add_folder("Download"):
            self._downloads = gui.add_html("")

    def describe(self) -> None:
        summary = self._visit.summary
        assert summary is not None
        if summary.scene_frames:
            new = summary.frames - summary.scene_frames
            stale = f" The walk has changed since by {abs(new)} frames." if new else ""
            self._splats.content = hint(f"Made of {summary.scene_frames} frames.{stale} See them under Explore.")
        else:
            self._splats.content = hint("Splats are a scene that renders from anywhere, in any 3DGS viewer.")
        self._downloads.content = links(self._visit.world, summary.files)
