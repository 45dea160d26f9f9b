"""The published 14B presets and the stock networks that they use: sizes, and how a generator is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from photowalk.checkpoints.catalogue import CATALOGUE
from photowalk.checkpoints.store import find
from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.sampler import Sampler
from photowalk.diffusion.unipc import UniPC
from photowalk.memory.policies import GreedyCoverage
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.models.clip_image import ClipImage
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.models.depth_network import DepthNetwork
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.lora import add_lora, merged_and_beside, read_lora
from photowalk.models.umt5_text import Umt5Text, load_tokenizer
from photowalk.models.wan_codec import WanCodec
from photowalk.models.world_transformer import WorldTransformer
from photowalk.perception.depth import NanoDepth
from photowalk.presets.depth_anything import DEPTH_ANYTHING, depth_estimator, stored_depth_anything
from photowalk.presets.nano import nano_depth, nano_depth_network
from photowalk.presets.preset import Preset
from photowalk.presets.stored import lodge, settle, stored_network, stored_tensors
from photowalk.world.conditioning import ConditioningConfig
from photowalk.world.generator import GenerationConfig, Generator
from photowalk.world.placement import Placement
from photowalk.world.preview import PreviewConfig
from photowalk.world.residency.arrange import arrange
from photowalk.world.residency.footprint import footprint
from photowalk.world.residency.plan import Footprint
from photowalk.world.residency.visiting import VisitingCodec

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from transformers import CLIPVisionModel, UMT5EncoderModel

NO_LORAS: Mapping[str, float] = MappingProxyType({})
PUBLISHED_LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")


def lyra2_14b() -> Preset:
    """The published weights at their best: 35 steps, each with and without the prompt."""
    return _lyra2("lyra2-14b", UniPC(35))


def lyra2_14b_fast() -> Preset:
    """Four steps, by the published LoRA for it."""
    return _lyra2("lyra2-14b-fast", FewStep(4), guidance=1.0, loras={"lyra2-lora-dmd": 1.0})


def lyra2_14b_zoom() -> Preset:
    """As the published zoom program samples: more steps, and two LoRAs for looks."""
    return _lyra2("lyra2-14b-zoom", UniPC(50), loras={"lyra2-lora-realism": 0.4, "lyra2-lora-detail": 0.4})


def lyra2_14b_zoom_fast() -> Preset:
    """As the published zoom program samples with its switch for few steps."""
    loras = {"lyra2-lora-realism": 0.4, "lyra2-lora-detail": 0.4, "lyra2-lora-dmd": 1.0}
    return _lyra2("lyra2-14b-zoom-fast", FewStep(4), guidance=1.0, loras=loras)


def _lyra2(name: str, sampler: Sampler, guidance: float = 5.0, loras: Mapping[str, float] = NO_LORAS) -> Preset:
    licence = CATALOGUE["lyra2-denoiser"].licence.name
    assemble = partial(_assemble_lyra2, sampler=sampler, guidance=guidance, loras=loras)
    return Preset(name, 480, 832, 80, licence, assemble, partial(lyra2_footprint, guidance=guidance))


def lyra2_14b_denoiser() -> WorldTransformer.Config:
    """The published denoiser: Wan 2.1 I2V 14B with history, rays and correspondence."""
    return WorldTransformer.Config(
        width=5120,
        heads=40,
        depth=40,
        ffn=13824,
        layout=PUBLISHED_LAYOUT,
        channels=16,
        text_dim=4096,
        text_length=512,
        image_dim=1280,
        condition_side=8,
        squeeze=256,
    )


def wan_1_3b_denoiser() -> WorldTransformer.Config:
    """A small start for training: Wan 2.1 T2V 1.3B, which has no picture in its cross-attention."""
    return replace(lyra2_14b_denoiser(), width=1536, heads=12, depth=30, ffn=8960, image_dim=0)


def wan_codec_network() -> AutoencoderKLWan:
    """The video codec of Wan 2.1, with random weights."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan()


def umt5_xxl_network() -> UMT5EncoderModel:
    """The text encoder of Wan 2.1, with random weights."""
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=256384,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def clip_vit_h_network() -> CLIPVisionModel:
    """The picture encoder of Wan 2.1, with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=1280,
            intermediate_size=5120,
            num_hidden_layers=32,
            num_attention_heads=16,
            image_size=224,
            patch_size=14,
            hidden_act="gelu",
        )
    )


def lyra2_14b_conditioning() -> ConditioningConfig:
    """With the conventions that the published weights were trained with."""
    return ConditioningConfig(
        layout=PUBLISHED_LAYOUT,
        preview=PreviewConfig(warp_from="latest", fill_holes=False, pixel_centre=0.0, invalid_at_origin=True),
        condition_side=8,
        mask_known=False,
        inverse_depth=False,
    )


def lyra2_14b_generation(guidance: float = 5.0) -> GenerationConfig:
    return GenerationConfig(
        conditioning=lyra2_14b_conditioning(),
        recall=GreedyCoverage(tolerance=0.1, relative_tolerance=0.0),
        recall_targets=1,
        depth_stride=8,
        witnesses=0,
        guidance=guidance,
        negative_prompt="",
        memory=SpatialMemory(pixel_centre=0.0, invalid_at_origin=True),
        reference_quantile=0.25,
    )


def lyra2_footprint(height: int, width: int, branches_together: bool = False, *, guidance: float) -> Footprint:
    """From the networks' own sizes; no weights are needed."""
    depth_name = stored_depth_anything()
    with torch.device("meta"):
        denoiser, codec = WorldTransformer(lyra2_14b_denoiser()), WanCodec(wan_codec_network())
        text, image = umt5_xxl_network(), clip_vit_h_network()
        depth = DepthNetwork(nano_depth()) if depth_name is None else DepthAnything3(DEPTH_ANYTHING[depth_name]())
    generation = lyra2_14b_generation(guidance)
    frames = generation.conditioning.layout.new_frames * codec.temporal_factor
    return footprint(
        denoiser.bfloat16(),
        text.bfloat16(),
        image.bfloat16(),
        codec.bfloat16(),
        depth,
        latent_size=(height // codec.spatial_factor, width // codec.spatial_factor),
        codec_factors=(codec.temporal_factor, codec.spatial_factor),
        branches=1 if guidance == 1 else 2,
        together=branches_together and guidance != 1,
        views=frames // generation.depth_stride,
    )


def _assemble_lyra2(placement: Placement, sampler: Sampler, guidance: float, loras: Mapping[str, float]) -> Generator:
    """From the store; what is missing there is said before anything is read."""
    parts = ("lyra2-denoiser", "wan2.1-codec", "umt5-xxl", "umt5-tokenizer", "clip-vit-h", "lyra2-negative-prompt")
    folders = {name: find(name) for name in (*parts, *loras)}
    device, visiting = placement.device, placement.plan is not None and placement.plan.visiting
    denoiser = stored_network(lambda: WorldTransformer(lyra2_14b_denoiser()), folders["lyra2-denoiser"])
    changes = [(read_lora(denoiser, stored_tensors(folders[name])), weight) for name, weight in loras.items()]
    merged, beside = merged_and_beside(changes, all_merged=placement.savings.merged_loras)
    arrange(denoiser, placement.plan, placement.copies(), partial(settle, device=device, changes=merged))
    for layers, weight in beside:
        for name, parts in layers.items():
            add_lora(denoiser.get_submodule(name), {key: part.to(device) for key, part in parts.items()}, weight)
    (negative,) = stored_tensors(folders["lyra2-negative-prompt"]).values()
    text = stored_network(umt5_xxl_network, folders["umt5-xxl"])
    image = stored_network(clip_vit_h_network, folders["clip-vit-h"])
    for encoder in (text, image):
        lodge(encoder, placement)
    codec = WanCodec(stored_network(wan_codec_network, folders["wan2.1-codec"]))
    return Generator(
        denoiser=denoiser,
        codec=VisitingCodec(codec, device) if visiting else codec.to(device),
        text=Umt5Text(text, load_tokenizer(folders["umt5-tokenizer"]), device=device),
        image=ClipImage(image),
        depth=depth_estimator(stored_depth_anything() or "nano", placement),
        detail=None,
        sampler=sampler,
        placement=placement,
        config=lyra2_14b_generation(guidance),
        negative=negative.to(device).view(1, *negative.shape[-2:]),
    )


def lyra2_14b_to_train(placement: Placement) -> Generator:
    """What the published training began with: Wan 2.1 with new layers. The denoiser stays on the CPU, as views of the
    stored files, until it is split among GPUs. What is missing in the store is said before anything is read."""
    parts = ("wan2.1-i2v-14b", "wan2.1-codec", "umt5-xxl", "umt5-tokenizer", "clip-vit-h")
    folders = {name: find(name) for name in parts}
    text = stored_network(umt5_xxl_network, folders["umt5-xxl"])
    image = stored_network(clip_vit_h_network, folders["clip-vit-h"])
    return Generator(
        denoiser=stored_network(lambda: WorldTransformer(lyra2_14b_denoiser()), folders["wan2.1-i2v-14b"]),
        codec=WanCodec(stored_network(wan_codec_network, folders["wan2.1-codec"])).to(placement.device),
        text=Umt5Text(text.to(placement.device), load_tokenizer(folders["umt5-tokenizer"])),
        image=ClipImage(image.to(placement.device)),
        depth=NanoDepth(nano_depth_network(placement)),
        detail=None,
        sampler=UniPC(35),
        placement=placement,
        config=lyra2_14b_generation(),
    )
