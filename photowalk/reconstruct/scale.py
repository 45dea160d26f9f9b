"""How long a metre is, told by a person: something's true length, and where it is in the photo."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from photowalk.perception.gravity import find_ceiling
from photowalk.scene.ground import Ground
from photowalk.scene.types import View

_ROOM = ("floor to ceiling", "ceiling height", "room height")
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}
_NUMBER = r"(\d+(?:\.\d+)?)"
_TEXT = re.compile(
    rf"\s*(?:(?P<what>.*?)\s+)?(?P<length>{_NUMBER})\s*(?P<unit>mm|cm|m|ft|in)"
    rf"(?:\s+from\s+(?P<x0>{_NUMBER})\s*,\s*(?P<y0>{_NUMBER})\s+to\s+(?P<x1>{_NUMBER})\s*,\s*(?P<y1>{_NUMBER}))?\s*"
)
_HELP = (
    "write 'camera height 1.6m' or 'floor to ceiling 2.5m', or name something and the pixels of photo.png between "
    "which it extends: 'door height 2.0m from 210,80 to 214,300'"
)


def scale_to(text: str, ground: Ground, views: Sequence[View]) -> Ground:
    """The ground with its metre corrected so that what `text` names has the length that it says.

    `camera height` is the photo's camera above the floor, `floor to ceiling` the height of a room in any of the views,
    of which the first is the photo; anything else is measured between two pixels (x,y) of the photo at the depths
    there. Raises ValueError for other texts, for pixels without depth and for rooms without a ceiling.
    """
    photo = views[0]
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' names no length; {_HELP}")
    what = (match["what"] or "length").strip()
    metres = float(match["length"]) * _METRES[match["unit"]]
    if match["x0"] is not None:
        one, other = (_place(float(match[x]), float(match[y]), photo) for x, y in (("x0", "y0"), ("x1", "y1")))
        measured = float((one - other).norm())
    elif not ground.floor_seen and what.lower() in ("camera height", *_ROOM):
        raise ValueError(f"'{text}': no floor was seen in this walk to measure it from; {_HELP}")
    elif what.lower() == "camera height":
        measured = float(ground.height(photo.camera.centres.double()))
    elif what.lower() in _ROOM:
        measured = find_ceiling(views, ground)
        if measured is None:
            raise ValueError(f"'{text}': no level ceiling was seen in this walk; {_HELP}")
    else:
        raise ValueError(
            f"'{text}' does not say where the {what} is, and it is not looked for in the photo: open photo.png, read "
            f"off the pixels x,y of its two ends, and write '{what} {match['length']}{match['unit']} from X,Y to X,Y'. "
            f"Without pixels, 'camera height' and 'floor to ceiling' can be measured"
        )
    if not (metres > 0 and measured > 0):
        raise ValueError(f"'{text}' corrects nothing: it is {measured:.3g} long here; {_HELP}")
    return ground.scaled(metres / measured, f"{text.strip()}, which was {measured:.3g} long")


def _place(x: float, y: float, photo: View) -> torch.Tensor:
    """The point [3] that the photo sees at pixel x, y."""
    column, row = int(x), int(y)
    height, width = photo.depth.shape
    if not (column < width and row < height):
        raise ValueError(f"pixel {x:g},{y:g} lies outside the photo, which is {width} wide and {height} high")
    depth = float(photo.depth[row, column])
    if not 0 < depth < float("inf"):
        raise ValueError(f"at pixel {x:g},{y:g} the photo's depth is not known; choose another pixel nearby")
    return photo.camera.unproject(photo.depth)[row, column].double()
