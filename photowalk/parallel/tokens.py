"""A sequence of tokens shared out evenly among processes, which show each other keys and values.

Every process gathers everybody's keys and values in each block and answers its own queries. Unlike exchanging heads
this works for any number of processes, whatever the number of heads and tokens, and nothing has to be masked; it moves
more bytes, which is little beside the attention of long sequences. It knows nothing of what the tokens mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TokensAmong:
    """Implements the protocol `TokenShare` for one of the processes that were joined."""

    rank: int
    processes: int

    def mine(self, count: int) -> slice:
        return self._of(self.rank, count)

    def whole(self, *tokens: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
        lengths = [self._length(rank, counts) for rank in range(self.processes)]
        together = torch.cat(tokens, dim=-1)
        padded = F.pad(together, (0, 0, 0, max(lengths) - together.shape[1])).contiguous()
        gathered = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(gathered, padded)
        everyones = torch.cat([part[:, :length] for part, length in zip(gathered, lengths)], dim=1)
        return everyones.split([part.shape[-1] for part in tokens], dim=-1)

    def _length(self, rank: int, counts: tuple[int, ...]) -> int:
        slices = [self._of(rank, count) for count in counts]
        return sum(part.stop - part.start for part in slices)

    def _of(self, rank: int, count: int) -> slice:
        return slice(count * rank // self.processes, count * (rank + 1) // self.processes)
