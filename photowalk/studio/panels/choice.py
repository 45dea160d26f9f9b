"""A row of buttons of which one is chosen: it carries a tick, which viser's own rows of buttons do not show."""

from __future__ import annotations

from collections.abc import Callable

from photowalk.studio.visit import Visit

TICK = "\u2713 "


class Choice:
    """The first option is chosen at first; `chosen` is called when a person has chosen."""

    def __init__(self, visit: Visit, label: str, options: tuple[str, ...], chosen: Callable[[], object]) -> None:
        self.value, self._options, self._chosen = options[0], options, chosen
        self._buttons = visit.gui.add_button_group(label, self._labels())
        self._buttons.on_click(visit.does(self._clicked))

    def choose(self, option: str) -> None:
        self.value = option
        self._buttons.options = self._labels()

    def _clicked(self) -> None:
        self.choose(self._buttons.value.removeprefix(TICK))
        self._chosen()

    def _labels(self) -> tuple[str, ...]:
        return tuple(TICK + option if option == self.value else option for option in self._options)
