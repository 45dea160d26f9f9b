"""What a planned walk will see of what is known already: said before minutes are spent on it.

It knows surfaces only. A look into the sky counts as a look at nothing, as there is nothing there to hold on to.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.memory.policies import Candidates

LITTLE = 0.05  # of a picture; a frame that sees no more than this of what is known is drawn out of nothing
_EVERY = 8  # frames of a walk; one of these is looked at, but of long walks no more than _LOOKS frames
_LOOKS = 24
_VIEWS = 32  # remembered frames that are asked, spread over all
_COARSE = 4  # points to the side of a cell: surfaces twice as near as they were seen from still fill it


def share_known(path: Cameras, candidates: Candidates) -> Tensor:
    """How much of each picture of a path [F] shows a surface that a candidate saw: [F] in [0, 1], roughly.

    The sky is never known; behind a surface nothing is."""
    if not candidates.points or len(path) == 0:
        return path.camera_from_world.new_zeros(len(path))
    last = len(candidates.points) - 1
    chosen = sorted({round(index) for index in torch.linspace(0, last, _VIEWS).tolist()})
    coarse = replace(
        candidates,
        points=[candidates.points[index][::2] for index in chosen],
        frames=[candidates.frames[index] for index in chosen],
        stride=_COARSE * candidates.stride,
    )
    return coarse.coverage(path).any(0).unflatten(0, (len(path), -1)).float().mean(1)


def lost_note(path: Cameras, candidates: Candidates) -> str | None:
    """In words, which frames of a path [F], whose first is where the walk stands, see next to nothing that is known;
    None where all see something."""
    every = max(_EVERY, -(-len(path) // _LOOKS))
    looked = list(range(every, len(path), every))
    lost = [frame for frame, share in zip(looked, share_known(path[looked], candidates)) if float(share) < LITTLE]
    if not lost:
        return None
    return (
        f"about {every * len(lost)} frames from frame {lost[0]} to frame {lost[-1]} of this path see next to no "
        f"surface that is known yet; what they show, but for the sky, is made up; turn or go less"
    )
