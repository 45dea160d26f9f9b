"""Which tokens of a sequence this process works on, and how it sees those of the others.

Attention is all that mixes tokens: whoever has everybody's keys and values can do the rest for tokens of its own. It
knows nothing of processes; `photowalk/parallel` does.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class TokenShare(Protocol):
    def mine(self, count: int) -> slice:
        """The tokens of this process, of `count` in a row."""
        ...

    def whole(self, *tokens: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Features [B, L, D] of the tokens `mine(count)` of each count -> of everybody's, process by process. With a
        single count they are in order again."""
        ...


class AllTokens:
    """Of a process that works alone."""

    def mine(self, count: int) -> slice:
        return slice(0, count)

    def whole(self, *tokens: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
        return tokens


ALL_TOKENS = AllTokens()
