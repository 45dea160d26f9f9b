"""What a walk is told in words: one prompt, captions by frame, or what a captioner makes of the place and the way.

It knows nothing of networks; captioners are given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.splatting import reliable_depth
from photowalk.memory.policies import GreedyCoverage
from photowalk.perception.captions import Captioner, CaptionScene
from photowalk.scene.types import View
from photowalk.scene.warping import composite
from photowalk.world.state import WorldState

LOOKS_AHEAD = 4  # pictures of the way that a captioner is shown
RECALLED = 2  # earlier frames that they are made of, besides the latest
RELIABLE_RATIO = 0.05


@dataclass(frozen=True)
class Wording:
    prompt: str
    captions: Mapping[int, str] = field(default_factory=dict)  # from this frame of the walk on; 0 is where it begins
    negative_prompt: str | None = None  # None: the preset's
    captioner: Captioner | None = None  # rewrites the prompt, with what it sees

    def described(self) -> dict[str, Any]:
        """All but the prompt as plain values, which are the same after they were written as JSON."""
        return {
            "captions": {str(frame): text for frame, text in self.captions.items()} or None,
            "negative prompt": self.negative_prompt,
            "captioner": None if self.captioner is None else type(self.captioner).__name__,
        }

    def prompts(
        self, state: WorldState, cameras: Cameras, chunk_frames: int, reference_depth: float
    ) -> tuple[str, ...]:
        """One for each chunk of a walk along `cameras`. A chunk takes the latest caption that begins by its first
        frame."""
        prompt = self.prompt
        if self.captioner is not None:
            prompt = self.captioner.caption(caption_scene(state, cameras, prompt, reference_depth))
        firsts = range(1, len(cameras) + 1, chunk_frames)
        begun = [[frame for frame in sorted(self.captions) if frame <= first] for first in firsts]
        return tuple(self.captions[frames[-1]] if frames else prompt for frames in begun)


def caption_scene(state: WorldState, cameras: Cameras, hint: str, reference_depth: float) -> CaptionScene:
    """What a captioner is shown of a walk along `cameras`: what is known of the place from four of them."""
    looks = torch.linspace(0, len(cameras) - 1, LOOKS_AHEAD + 1)[1:].long()
    recalled = state.memory.recall(cameras[-1:], RECALLED, GreedyCoverage())
    views = {view.frame: _cleaned(view) for view in (*recalled, state.latest)}
    seen = composite(list(views.values()), cameras[looks])
    return CaptionScene(hint, state.first.image, state.latest.image, seen.video, cameras, reference_depth)


def read_captions(file: str | Path) -> dict[int, str]:
    """A .json file of frame numbers and texts, as the published programs read it. Raises ValueError."""
    wanted = 'a caption file is JSON like {"0": "a hall of stone", "81": "a garden behind it"}'
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        captions = {int(frame): text for frame, text in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read as captions ({error}); {wanted}") from error
    if not captions or min(captions) < 0 or not all(isinstance(text, str) for text in captions.values()):
        raise ValueError(f"{file} holds no captions by frame number; {wanted}")
    return captions


def _cleaned(view: View) -> View:
    depth = torch.where(reliable_depth(view.depth, ratio=RELIABLE_RATIO) | view.depth.isinf(), view.depth, 0.0)
    return View(view.image, depth, view.camera, view.frame)
