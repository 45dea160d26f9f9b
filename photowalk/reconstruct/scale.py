"""How long a metre is, told by a person: something's true length, and where it is in the photo."""

from __future__ import annotations

import re

import torch

from photowalk.scene.ground import Ground
from photowalk.scene.types import View

_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}
_NUMBER = r"(\d+(?:\.\d+)?)"
_TEXT = re.compile(
    rf"\s*(?P<what>.*?)\s+(?P<length>{_NUMBER})\s*(?P<unit>mm|cm|m|ft|in)"
    rf"(?:\s+from\s+(?P<x0>{_NUMBER})\s*,\s*(?P<y0>{_NUMBER})\s+to\s+(?P<x1>{_NUMBER})\s*,\s*(?P<y1>{_NUMBER}))?\s*"
)
_HELP = (
    "write 'camera height 1.6m', or name something and the pixels of photo.png between which it extends: "
    "'door height 2.0m from 210,80 to 214,300'"
)


def scale_to(text: str, ground: Ground, photo: View) -> Ground:
    """The ground with its metre corrected so that what `text` names has the length that it says.

    `camera height` is the photo's camera above the floor; anything else is measured between two pixels (x,y) of the
    photo at the depths there. Raises ValueError for other texts and for pixels without depth.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' names no length; {_HELP}")
    metres = float(match["length"]) * _METRES[match["unit"]]
    if match["x0"] is not None:
        one, other = (_place(float(match[x]), float(match[y]), photo) for x, y in (("x0", "y0"), ("x1", "y1")))
        measured = float((one - other).norm())
    elif match["what"].lower() == "camera height":
        measured = float(ground.height(photo.camera.centres.double()))
    else:
        raise ValueError(f"where the {match['what']} is cannot be told from '{text}'; {_HELP}")
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
