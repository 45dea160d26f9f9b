"""One browser looking at one world: what its panels share. It knows the stage and the service, and no panel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps

import viser

from photowalk.studio import schemas
from photowalk.studio.scenery import Scenery
from photowalk.studio.service import Studio
from photowalk.studio.stage import Stage

BRAND, QUIET = (86, 132, 255), (58, 64, 77)


class Visit:
    """`changed` is to be called when the world was changed from here."""

    def __init__(
        self,
        client: viser.ClientHandle,
        studio: Studio,
        user: str,
        world: str,
        stage: Stage,
        changed: Callable[[], None],
    ) -> None:
        self.client, self.studio, self.user, self.world, self.stage = client, studio, user, world, stage
        self.changed = changed
        self.lock = threading.RLock()
        self.summary: schemas.World | None = None  # as it was looked at last
        self.scenery: Scenery | None = None

    @property
    def gui(self) -> viser.GuiApi:
        return self.client.gui

    def needed(self) -> Scenery:
        """What is on the stage. Raises ValueError while there is nothing."""
        if self.scenery is None:
            raise ValueError("the world is still being made; wait a moment")
        return self.scenery

    def ready(self) -> schemas.World:
        return self.studio.ready(self.user, self.world)

    def does(self, action: Callable[[], object]) -> Callable[[object], None]:
        """A callback of a widget."""
        safe = self.guarded(action)
        return lambda _: safe()

    def heeds(self, action: Callable[[], object]) -> Callable[[viser.GuiEvent], None]:
        """A callback of a widget that a person has changed; what the program sets itself is passed over."""
        safe = self.guarded(action)
        return lambda event: safe() if event.client_id is not None else None

    def guarded(self, action: Callable[[], object]) -> Callable[[], None]:
        """What goes wrong is said to the person, in the words of whoever refused."""

        @wraps(action)
        def run() -> None:
            try:
                with self.lock:
                    action()
            except (ValueError, OSError) as error:
                self.say("That did not work", str(error), bad=True)

        return run

    def say(self, title: str, text: str, *, bad: bool = False) -> None:
        color, seconds = ("red", 12) if bad else ("blue", 6)
        self.client.add_notification(title, text, auto_close_seconds=seconds, color=color)
