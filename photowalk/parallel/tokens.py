"""A sequence of tokens shared out evenly among processes, which show each other keys and values.

Every process gathers everybody's keys and values in each block and answers its own queries. Unlike exchanging heads
this works for any number of processes, whatever the number of heads and tokens, and nothing has to be masked; it moves
more bytes, which is little beside the attention of long sequences. It knows nothing of what the tokens mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TokensAmong:
    """Implements the protocol `TokenShare` for one of the processes that were joined, or of a group of them.

    Whoever computes the same loss of what all have gathered gets, as the mean of everybody's gradients, those that one
    process would have alone.
    """

    rank: int  # in the group
    processes: int
    group: dist.ProcessGroup | None = None  # None: all of them

    def mine(self, count: int) -> slice:
        return self._of(self.rank, count)

    def whole(self, *tokens: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
        lengths = [self._length(rank, counts) for rank in range(self.processes)]
        together = torch.cat(tokens, dim=-1)
        padded = F.pad(together, (0, 0, 0, max(lengths) - together.shape[1])).contiguous()
        gathered = _Gathered.apply(padded, self.group, self.processes)
        everyones = torch.cat([part[:, :length] for part, length in zip(gathered, lengths)], dim=1)
        return everyones.split([part.shape[-1] for part in tokens], dim=-1)

    def _length(self, rank: int, counts: tuple[int, ...]) -> int:
        slices = [self._of(rank, count) for count in counts]
        return sum(part.stop - part.start for part in slices)

    def _of(self, rank: int, count: int) -> slice:
        return slice(count * rank // self.processes, count * (rank + 1) // self.processes)


class _Gathered(torch.autograd.Function):
    """Tokens [B, L, D] of every process, one after the other. Their gradients are summed over who has seen them."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, group: dist.ProcessGroup | None, processes: int) -> tuple[Tensor, ...]:
        ctx.group = group
        gathered = [torch.empty_like(tokens) for _ in range(processes)]
        dist.all_gather(gathered, tokens, group=group)
        return tuple(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        everyones = torch.stack(gradients).float()
        dist.all_reduce(everyones, group=ctx.group)  # not every backend can sum up for each process its own alone
        return everyones[dist.get_rank(ctx.group)].to(gradients[0].dtype), None, None
