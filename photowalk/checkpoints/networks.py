"""Which network each published checkpoint becomes, and under which names it may come. One entry per network.

This is where a new one is added: its name in the catalogue, how it is built, and a naming for every way in which it is
published. It stands above the presets, which know the sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from photowalk.checkpoints import namings
from photowalk.checkpoints.names import Naming
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.models.world_transformer import WorldTransformer
from photowalk.presets import depth_anything, published


@dataclass(frozen=True)
class Network:
    name: str  # in the catalogue and in the store
    build: Callable[[], nn.Module]  # called for names and shapes only, on torch's meta device
    namings: tuple[Naming, ...]
    dtype: torch.dtype | None = None  # to store in; None: that of the file
    takes_loras: bool = False  # published adaptations are made for it


def _lyra2() -> nn.Module:
    return WorldTransformer(published.lyra2_14b_denoiser())


def _wan_1_3b() -> nn.Module:
    return WorldTransformer(published.wan_1_3b_denoiser())


def _lyra2_reconstruction() -> nn.Module:
    return DepthAnything3(depth_anything.lyra2_reconstruction())


def _da3_base() -> nn.Module:
    return DepthAnything3(depth_anything.da3_base())


# In the order in which they are recognised: what has a sign of one may have those of later ones too.
NETWORKS = (
    Network("lyra2-denoiser", _lyra2, (namings.LYRA_DENOISER,), torch.bfloat16, takes_loras=True),
    Network("wan2.1-i2v-14b", _lyra2, (namings.WAN_I2V, namings.DIFFUSERS_I2V)),
    Network("wan2.1-t2v-1.3b", _wan_1_3b, (namings.WAN_T2V, namings.DIFFUSERS_T2V)),
    Network("wan2.1-codec", published.wan_codec_network, (namings.WAN_CODEC, namings.DIFFUSERS_CODEC)),
    Network("umt5-xxl", published.umt5_xxl_network, (namings.WAN_UMT5, namings.HUGGING_FACE_UMT5)),
    Network("lyra2-reconstruction", _lyra2_reconstruction, (namings.DEPTH_ANYTHING_NESTED,)),
    Network("da3-nested", _lyra2_reconstruction, (namings.DEPTH_ANYTHING_NESTED,)),
    Network("da3-base", _da3_base, (namings.DEPTH_ANYTHING,)),
    Network("clip-vit-h", published.clip_vit_h_network, (namings.WAN_CLIP, namings.HUGGING_FACE_CLIP)),
)
