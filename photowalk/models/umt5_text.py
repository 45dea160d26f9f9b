"""UMT5's text encoder, as the published denoiser reads it: cleaned text, features of the words, zeros after them.

The network and the tokenizer are those of transformers. It knows nothing of where weights lie.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

_KEPT_TEXTS = 8  # features of the latest texts: a walk asks for its prompt and the negative one in every chunk


def clean(text: str) -> str:
    """Broken encodings mended, HTML entities (also twice escaped) resolved, runs of white space made one space."""
    import ftfy

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", mended).strip()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """From a folder with the files that are published; nothing is downloaded."""
    from transformers import AutoTokenizer

    return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(folder, local_files_only=True))


class Umt5Text(nn.Module):
    """Implements the protocol `TextEncoder`. Works in the number format of its weights, without autocast."""

    def __init__(
        self,
        network: UMT5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        length: int = 512,
        device: torch.device | None = None,
    ) -> None:
        """The network computes on `device`, by default where its weights lie."""
        super().__init__()
        self.network, self.tokenizer, self.length, self._device = network, tokenizer, length, device
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """-> [B, length, D]; longer texts are cut."""
        texts = [clean(prompt) for prompt in prompts]
        found = {text: self._known.get(text) for text in texts}
        found = {text: self._features(text) if known is None else known for text, known in found.items()}
        self._known = dict([*self._known.items(), *found.items()][-_KEPT_TEXTS:])
        return torch.cat([found[text] for text in texts])

    def _features(self, text: str) -> Tensor:
        """[1, length, D]"""
        tokens = self.tokenizer(
            [text],
            padding="max_length",
            truncation=True,
            max_length=self.length,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = self._device or self.network.get_input_embeddings().weight.device
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        with torch.autocast(device.type, enabled=False):
            features = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return features * mask[..., None].to(features)
