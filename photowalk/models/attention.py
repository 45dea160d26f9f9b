"""Self-attention over the packed sequence and cross-attention to text and picture, in the layout of Wan 2.1."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from photowalk.models.rope import rotate

SCORES = 2**23  # numbers: more leave the cache of usual processors, and halve the speed

KeysValues = tuple[Tensor, ...]  # [B, L, D] each
Exchange = Callable[[Tensor, Tensor], KeysValues]
# In torch's own order cuDNN, the fastest on recent GPUs, comes last. What a device or a format lacks is passed over.
FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        normed = F.rms_norm(features.float(), features.shape[-1:], eps=self.eps).to(features.dtype)
        return normed * self.weight.to(features.dtype)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(width, eps), RMSNorm(width, eps)

    def forward(
        self, tokens: Tensor, bias: Tensor, cos: Tensor, sin: Tensor, first_query: int, everyones: Exchange
    ) -> Tensor:
        """tokens, bias [B, L, D], angles [L, head_dim / 2] -> [B, L - first_query, D].

        The bias enters queries and keys only: it says where to look, never what to see. `everyones` turns keys and
        values of these tokens into those of the whole sequence, in any order.
        """
        located = tokens + bias
        queries = self.norm_q(self.q(located[:, first_query:])).unflatten(-1, (self.heads, -1))
        keys = self.norm_k(self.k(located)).unflatten(-1, (self.heads, -1))
        queries = rotate(queries, cos[first_query:], sin[first_query:]).flatten(-2)
        keys, values = rotate(keys, cos, sin).flatten(-2), self.v(tokens)
        keys, values = everyones(keys, values)
        return self.o(_attend(queries, keys, values, self.heads))


class CrossAttention(nn.Module):
    """Attends to text and, where there is one, to a picture, with the same queries; the two answers are added."""

    def __init__(self, width: int, heads: int, eps: float, *, image: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(width, eps), RMSNorm(width, eps)
        if image:
            self.k_img, self.v_img = nn.Linear(width, width), nn.Linear(width, width)
            self.norm_k_img = RMSNorm(width, eps)

    def text_keys_values(self, text: Tensor) -> KeysValues:
        return self.norm_k(self.k(text)), self.v(text)

    def image_keys_values(self, image: Tensor) -> KeysValues:
        return self.norm_k_img(self.k_img(image)), self.v_img(image)

    def forward(self, tokens: Tensor, text: KeysValues, image: KeysValues | None) -> Tensor:
        queries = self.norm_q(self.q(tokens))
        seen = _attend(queries, *text, self.heads)
        if image is not None:
            seen = seen + _attend(queries, *image, self.heads)
        return self.o(seen)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Full attention, [B, L, D] each -> [B, L_queries, D], by the fastest way that is installed."""
    q, k, v = (features.unflatten(-1, (heads, -1)).transpose(1, 2) for features in (queries, keys, values))
    if _has_slow_attention(q):
        attended = attend_in_blocks(q, k, v)
    elif q.is_cpu:
        attended = F.scaled_dot_product_attention(q, k, v)
    else:
        with sdpa_kernel(FASTEST_FIRST, set_priority=True):
            attended = F.scaled_dot_product_attention(q, k, v)
    return attended.transpose(1, 2).flatten(-2)


def _has_slow_attention(features: Tensor) -> bool:
    """torch's attention on CPUs multiplies bfloat16 at a quarter of the speed of its matrix product."""
    return features.is_cpu and features.dtype == torch.bfloat16


def attend_in_blocks(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[B, heads, L, head_dim] each; as many queries at a time as keep their scores in the cache, 256 at most."""
    scaled = queries * queries.shape[-1] ** -0.5
    q, k, v = (features.contiguous().flatten(0, 1) for features in (scaled, keys, values))
    turned = k.transpose(1, 2)
    rows = max(1, min(256, SCORES // (len(k) * k.shape[1])))
    with torch.autocast("cpu", enabled=False):  # it would widen the softmax
        blocks = [torch.bmm(torch.bmm(block, turned).softmax(-1), v) for block in q.split(rows, dim=1)]
    return torch.cat(blocks, dim=1).view(queries.shape)
