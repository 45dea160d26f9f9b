"""How the past of a chunk is packed into the denoiser's sequence: which latent frames, in which order, how coarse.

A layout is written like `f1k1f4s2f1s1f16k4f2k2f1k1_g20`: `f<frames>k<n>` holds frames of the timeline, shrunk n times
in time, rows and columns; `f<frames>s<n>` holds recalled frames, shrunk n times in rows and columns; `_g<frames>` are
the frames to generate. The first slot is the anchor, the first latent of the timeline; the other timeline slots hold
its latest latents, oldest first. This file knows no pixels, cameras or weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

_FORMAT = re.compile(r"((?:f\d+[ks]\d+)+)_g(\d+)")
_KINDS: dict[str, Literal["time", "space"]] = {"k": "time", "s": "space"}


@dataclass(frozen=True)
class Slot:
    """Latent frames that share a patch embedding: "time" from the timeline, "space" recalled from memory."""

    kind: Literal["time", "space"]
    frames: int
    shrink: int  # how many times coarser than a generated frame; "time" shrinks along time too

    def __post_init__(self) -> None:
        if self.frames < 1 or self.shrink < 1:
            raise ValueError(f"a slot wants at least one frame and a shrink of at least 1, got {self}")

    @property
    def factors(self) -> tuple[int, int, int]:
        """Shrink along time, rows and columns."""
        return (self.shrink if self.kind == "time" else 1, self.shrink, self.shrink)


@dataclass(frozen=True)
class Segment:
    """A run of equally treated frames in the packed sequence, and where its tokens lie."""

    kind: Literal["time", "space", "new"]
    frames: range  # indices in the packed sequence: also the temporal positions of the rotary embedding
    factors: tuple[int, int, int]
    tokens: range


@dataclass(frozen=True)
class HistoryLayout:
    slots: tuple[Slot, ...]
    new_frames: int

    def __post_init__(self) -> None:
        if self.new_frames < 1:
            raise ValueError(f"a layout must generate at least one latent frame, got {self.new_frames}")
        if not self.slots or self.slots[0].kind != "time" or self.slots[0].frames != 1:
            raise ValueError(
                f"a layout begins with its anchor, one latent frame of the timeline (f1k1), got {self.slots[:1]}"
            )

    @classmethod
    def parse(cls, text: str) -> HistoryLayout:
        """Read the written form. Raises ValueError."""
        match = _FORMAT.fullmatch(text)
        if match is None:
            raise ValueError(
                f"cannot read the history layout {text!r}: it wants groups f<frames>k<shrink> (timeline) or "
                "f<frames>s<shrink> (memory), then _g<frames>, for example f1k1f4s2f1s1f16k4f2k2f1k1_g20"
            )
        groups = re.findall(r"f(\d+)([ks])(\d+)", match[1])
        return cls(
            tuple(Slot(_KINDS[kind], int(frames), int(shrink)) for frames, kind, shrink in groups), int(match[2])
        )

    def __str__(self) -> str:
        letters = {kind: letter for letter, kind in _KINDS.items()}
        return (
            "".join(f"f{slot.frames}{letters[slot.kind]}{slot.shrink}" for slot in self.slots) + f"_g{self.new_frames}"
        )

    @property
    def time_frames(self) -> int:
        """Latent frames taken from the timeline, the anchor included."""
        return sum(slot.frames for slot in self.slots if slot.kind == "time")

    @property
    def space_frames(self) -> int:
        """Memory slots: how many recalled frames fit."""
        return sum(slot.frames for slot in self.slots if slot.kind == "space")

    @property
    def history_frames(self) -> int:
        return self.time_frames + self.space_frames

    @property
    def frames(self) -> int:
        """All latent frames of the packed sequence."""
        return self.history_frames + self.new_frames

    def time_indices(self, timeline_length: int) -> list[int]:
        """Which latents of the timeline the "time" slots hold, in packed order: the first, then the latest ones."""
        latest = self.time_frames - 1
        if timeline_length < latest + 1:
            raise ValueError(
                f"the layout {self} wants a timeline of at least {latest + 1} latent frames, got {timeline_length}: "
                "show the first frame to the codec more often before the walk begins"
            )
        return [0, *range(timeline_length - latest, timeline_length)]

    def arrange(self, *, time: Tensor, space: Tensor) -> Tensor:
        """Pack what the slots hold: time [..., T, h, w] the whole timeline, space [..., K, h, w] one latent frame per
        memory slot, best last -> [..., T_old, h, w]."""
        if space.shape[-3] != self.space_frames:
            raise ValueError(f"the layout {self} has {self.space_frames} memory slots, got {space.shape[-3]} frames")
        selected = time.index_select(
            time.dim() - 3, torch.tensor(self.time_indices(time.shape[-3]), device=time.device)
        )
        parts = {"time": selected, "space": space}
        taken = {"time": 0, "space": 0}
        packed = []
        for slot in self.slots:
            packed.append(parts[slot.kind].narrow(-3, taken[slot.kind], slot.frames))
            taken[slot.kind] += slot.frames
        return torch.cat(packed, dim=-3)

    def segments(self, rows: int, columns: int) -> tuple[Segment, ...]:
        """The slots, then the new frames, with their tokens at a token grid of rows x columns per generated frame."""
        parts = [(slot.kind, slot.frames, slot.factors) for slot in self.slots]
        return tuple(_segments([*parts, ("new", self.new_frames, (1, 1, 1))], rows, columns))

    def tokens(self, rows: int, columns: int) -> int:
        """Length of the packed sequence."""
        return self.segments(rows, columns)[-1].tokens.stop


def _segments(parts: list, rows: int, columns: int) -> Iterator[Segment]:
    frame_edges = list(accumulate((frames for _, frames, _ in parts), initial=0))
    first_token = 0
    for (kind, frames, factors), first_frame in zip(parts, frame_edges):
        count = -(-frames // factors[0]) * -(-rows // factors[1]) * -(-columns // factors[2])
        tokens = range(first_token, first_token + count)
        yield Segment(kind, range(first_frame, first_frame + frames), factors, tokens)
        first_token += count
