"""A small text encoder that reads UTF-8 bytes: no vocabulary, any language. It is trained with the denoiser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class ByteText(nn.Module):
    """Implements the protocol `TextEncoder`."""

    @dataclass(frozen=True)
    class Config:
        width: int
        heads: int
        depth: int
        length: int  # bytes; a longer text is cut, at the end of a character

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.bytes = nn.Embedding(257, config.width, padding_idx=256)
        self.positions = nn.Parameter(torch.randn(config.length, config.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 2 * config.width, dropout=0.0, activation="gelu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)

    def encode(self, prompts: list[str]) -> Tensor:
        """-> [B, length, width], zero beyond the end of each text; an empty text is all zeros."""
        codes = torch.stack([self._bytes_of(prompt) for prompt in prompts]).to(self.positions.device)
        ended = codes == 256
        ended_for_attention = ended.clone()
        ended_for_attention[:, 0] = False  # attention over nothing would be NaN
        features = self.layers(self.bytes(codes) + self.positions, src_key_padding_mask=ended_for_attention)
        return features.masked_fill(ended[..., None], 0.0)

    def _bytes_of(self, prompt: str) -> Tensor:
        kept = prompt.encode()[: self.config.length].decode(errors="ignore").encode()
        codes = torch.full((self.config.length,), 256)
        codes[: len(kept)] = torch.tensor(list(kept), dtype=torch.long)
        return codes
