"""Work that is left out without changing a number, beyond the last bits of sums in another order.

Each saving can be turned off, to compare with the published system, which saves none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Savings:
    correspondence_once: bool = True  # encoded once in a chunk for all steps and both branches; off: in every pass
    texts_once: bool = True  # keys and values of text and picture once in a chunk; off: in every pass
    new_tokens_only: bool = True  # in the last block and the head; off: they also work on history that nobody reads
    merged_loras: bool = True  # LoRAs are added to the weights; off: they compute beside the layers
    fused_splat: bool = True  # one splat of all channels into the frames wanted; off: one each, into every frame
    needed_rays: bool = True  # of the frames shown to the denoiser; off: of the whole walk, then chosen
    batched_encodes: bool = True  # the memory slots' pictures together, each once; off: slot by slot
    primed_once: bool = True  # the still photo opens the codec's streams once; off: again for each walk that leaves it

    @classmethod
    def without(cls, names: Iterable[str]) -> Savings:
        """All but these. Raises ValueError for a name that is none."""
        names = list(names)
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            raise ValueError(f"there is no saving {unknown[0]!r}; known are {', '.join(NAMES)}")
        return replace(cls(), **dict.fromkeys(names, False))


NAMES = tuple(field.name for field in fields(Savings))
ALL_SAVINGS = Savings()
