"""Tiny networks in every format in which the large ones are published."""

import json
from dataclasses import replace
from functools import partial

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn

from photowalk.checkpoints import namings
from photowalk.checkpoints.load import stored_shapes
from photowalk.checkpoints.names import links
from photowalk.checkpoints.networks import Network
from photowalk.models.depth_anything3.backbone import BackboneConfig
from photowalk.models.depth_anything3.dense_heads import HeadConfig
from photowalk.models.depth_anything3.network import DepthAnything3, DepthAnything3Config
from photowalk.models.depth_anything3.pose_tokens import CameraEncoderConfig
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.world_transformer import WorldTransformer

DENOISER = WorldTransformer.Config(
    width=24,
    heads=2,
    depth=2,
    ffn=40,
    layout=HistoryLayout.parse("f1k1f2s2f1s1f5k4f2k2f1k1_g2"),
    channels=16,
    text_dim=7,
    text_length=6,
    image_dim=10,
    condition_side=2,
    squeeze=5,
    freq_dim=16,
)
TEXT_DENOISER = WorldTransformer.Config(**{**vars(DENOISER), "image_dim": 0})


def tiny_codec() -> nn.Module:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=4, z_dim=2, latents_mean=[0.0] * 2, latents_std=[1.0] * 2)


def tiny_umt5() -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"vocab_size": 11, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2}
    return UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", **sizes))


def tiny_clip() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPVisionModel(CLIPVisionConfig(image_size=28, patch_size=14, **sizes))


RECONSTRUCTION = DepthAnything3Config(
    backbone=BackboneConfig(16, 6, 2, outputs=(2, 3, 4, 5), alternate_from=2, gated=True, trained_grid=4),
    head=HeadConfig(32, 8, (4, 8, 8, 8)),
    cameras=CameraEncoderConfig(16, heads=2, depth=1),
    splats=HeadConfig(32, 8, (4, 8, 8, 8)),
    metric_backbone=BackboneConfig(16, 4, 2, outputs=(0, 1, 2, 3), trained_grid=4),
    metric_head=HeadConfig(16, 8, (4, 8, 8, 8)),
)
DEPTH_ALONE = replace(RECONSTRUCTION, splats=None, metric_backbone=None, metric_head=None)


TINY = (
    Network("lyra2-denoiser", partial(WorldTransformer, DENOISER), (namings.LYRA_DENOISER,), takes_loras=True),
    Network("wan2.1-i2v-14b", partial(WorldTransformer, DENOISER), (namings.WAN_I2V, namings.DIFFUSERS_I2V)),
    Network("wan2.1-t2v-1.3b", partial(WorldTransformer, TEXT_DENOISER), (namings.WAN_T2V, namings.DIFFUSERS_T2V)),
    Network("wan2.1-codec", tiny_codec, (namings.WAN_CODEC, namings.DIFFUSERS_CODEC)),
    Network("umt5-xxl", tiny_umt5, (namings.WAN_UMT5, namings.HUGGING_FACE_UMT5)),
    Network("lyra2-reconstruction", partial(DepthAnything3, RECONSTRUCTION), (namings.DEPTH_ANYTHING_NESTED,)),
    Network("da3-nested", partial(DepthAnything3, RECONSTRUCTION), (namings.DEPTH_ANYTHING_NESTED,)),
    Network("da3-base", partial(DepthAnything3, DEPTH_ALONE), (namings.DEPTH_ANYTHING,)),
    Network("clip-vit-h", tiny_clip, (namings.WAN_CLIP, namings.HUGGING_FACE_CLIP)),
)


def tiny_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = next(network for network in TINY if network.name == name).build()
    for parameter in module.parameters():  # zeros and ones would hide mistakes
        nn.init.normal_(parameter)
    return module


def published(module: nn.Module, naming, prefix: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a network as this publisher would name and shape them."""
    ours, prefix = module.state_dict(), naming.prefixes[-1] if prefix is None else prefix
    return {prefix + link.source: link.theirs(ours).contiguous() for link in links(stored_shapes(module), naming)}


def write_distributed(folder, tensors):
    folder.mkdir(parents=True)
    dcp.save(dict(tensors), checkpoint_id=folder, no_dist=True)
    return folder


def write_torch(path, content):
    torch.save(content, path)
    return path


def write_sharded(folder, tensors, *, index=True):
    """Two shards, with an index or without."""
    folder.mkdir(parents=True)
    names = sorted(tensors)
    files = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        files |= dict.fromkeys(part, file)
    if index:
        text = json.dumps({"metadata": {}, "weight_map": files})
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    return folder
