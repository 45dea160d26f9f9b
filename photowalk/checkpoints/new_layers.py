"""Wan 2.1 as a start for training: the layers that the world transformer has and Wan 2.1 lacks, as training begins.

History embeddings are copies of the patch embedding, averaged over what they merge; the encoders of rays and
correspondence are random, the same ones on every computer. Everything is made one layer at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from photowalk.checkpoints.convert import Portion
from photowalk.checkpoints.names import Shape
from photowalk.models.world_transformer import WorldTransformer

PATCH_EMBEDDING, HISTORY_EMBEDDINGS = "patch_embedding.", "clean_patch_embeddings."


def new_layers(
    config: WorldTransformer.Config, absent: Mapping[str, Shape], base: Callable[[str], Tensor], dtype: torch.dtype
) -> list[Portion]:
    """Tensors that are absent from a checkpoint of Wan 2.1, by name and shape; `base` reads those that are there."""
    copied = {name: (shape, dtype) for name, shape in absent.items() if name.startswith(HISTORY_EMBEDDINGS)}
    random = {name: (shape, dtype) for name, shape in absent.items() if name not in copied}
    return [
        Portion(copied, partial(_history_embeddings, config, base)),
        *(Portion({name: stored}, partial(_random, name, stored[0], config.width)) for name, stored in random.items()),
    ]


@torch.no_grad()
def _history_embeddings(config: WorldTransformer.Config, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = WorldTransformer(replace(config, depth=0))
    for part in (network.patch_embedding, network.clean_patch_embeddings):
        part.to_empty(device="cpu")
    for name, parameter in network.patch_embedding.named_parameters():
        parameter.copy_(base(f"{PATCH_EMBEDDING}{name}"))
    network.init_history_embeddings_from_base()
    return {f"{HISTORY_EMBEDDINGS}{name}": value for name, value in network.clean_patch_embeddings.state_dict().items()}


def _random(name: str, shape: Shape, width: int) -> dict[str, Tensor]:
    std, chance = width**-0.5, torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return {name: nn.init.trunc_normal_(torch.empty(shape), std=std, a=-3 * std, b=3 * std, generator=chance)}
