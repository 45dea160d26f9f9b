"""Nano, the small model that comes with the package: sizes, weights and how its generator is put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from photowalk.diffusion.few_step import FewStep
from photowalk.memory.policies import GreedyCoverage
from photowalk.models.byte_text import ByteText
from photowalk.models.depth_network import DepthNetwork
from photowalk.models.detail import DetailNetwork
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.image_tokens import ImageTokens
from photowalk.models.nano_codec import NanoCodec
from photowalk.models.splat_head import EVIDENCE, SplatHead
from photowalk.models.weights import load_weights
from photowalk.models.world_transformer import WorldTransformer
from photowalk.perception.depth import NanoDepth
from photowalk.presets.preset import Preset
from photowalk.world.conditioning import ConditioningConfig
from photowalk.world.generator import GenerationConfig, Generator
from photowalk.world.placement import Placement
from photowalk.world.preview import PreviewConfig

Module = TypeVar("Module", bound=nn.Module)


WEIGHTS = Path(__file__).parent.parent / "weights"


# The published layout looks back 19 latent frames; at nano's size memory does that better for less.
NANO_LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f4k2f1k1_g20")


def nano() -> Preset:
    """The small model that comes with the package: minutes on two CPU cores."""
    return Preset("nano", 256, 448, 80, "Apache-2.0", _assemble_nano, splat_head=trained_splat_head)


def nano_denoiser() -> WorldTransformer.Config:
    return WorldTransformer.Config(
        width=256,
        heads=2,
        depth=6,
        ffn=1024,
        layout=NANO_LAYOUT,
        channels=128,
        text_dim=128,
        text_length=128,
        image_dim=ImageTokens.width,
        condition_side=4,
        squeeze=64,
        predicts="correction",
        learned_merging=False,
    )


def nano_text() -> ByteText.Config:
    return ByteText.Config(width=128, heads=4, depth=2, length=128)


def nano_detail() -> DetailNetwork.Config:
    return DetailNetwork.Config(widths=(32, 64, 96))


def nano_splat_head() -> SplatHead.Config:
    return SplatHead.Config(evidence=EVIDENCE, widths=(32, 64, 96))


def trained_splat_head() -> SplatHead:
    """On the CPU, where reconstruction is."""
    head = SplatHead(nano_splat_head())
    load_weights(head, WEIGHTS / "nano" / "splats.safetensors")
    return head.eval()


def nano_depth() -> DepthNetwork.Config:
    return DepthNetwork.Config(attention=6)


def nano_depth_network(placement: Placement) -> DepthNetwork:
    """Trained; its encoder also describes pictures to the denoiser, and judges restored ones in training."""
    return _loaded(DepthNetwork(nano_depth()), "depth", placement)


def nano_conditioning() -> ConditioningConfig:
    return ConditioningConfig(
        layout=NANO_LAYOUT,
        preview=PreviewConfig(
            warp_from="latest and recalled", fill_holes=True, pixel_centre=0.5, continued=True, fill_wide=8
        ),
        condition_side=4,
        mask_known=True,
        inverse_depth=True,
    )


def nano_generation() -> GenerationConfig:
    return GenerationConfig(
        conditioning=nano_conditioning(),
        recall=GreedyCoverage(),
        recall_targets=4,
        depth_stride=4,
        witnesses=8,
        guidance=1.0,
        negative_prompt="",
        close_up=4,
    )


def nano_untrained(placement: Placement) -> Generator:
    """Nano with a fresh denoiser and text encoder; what those are trained on top of is loaded."""
    depth = nano_depth_network(placement)
    return Generator(
        denoiser=WorldTransformer(nano_denoiser()).to(placement.device),
        codec=_loaded(NanoCodec(NanoCodec.Config()), "codec", placement),
        text=ByteText(nano_text()).to(placement.device),
        image=ImageTokens(depth.encoder, grid=(4, 7), seen_at=(128, 224)).eval(),
        depth=NanoDepth(depth),
        detail=_loaded(DetailNetwork(nano_detail()), "detail", placement),
        sampler=FewStep(steps=4),
        placement=placement,
        config=nano_generation(),
    )


def _assemble_nano(placement: Placement) -> Generator:
    generator = nano_untrained(placement)
    return replace(
        generator,
        denoiser=_loaded(generator.denoiser, "denoiser", placement),
        text=_loaded(ByteText(nano_text()), "text", placement),
    )


def _loaded(module: Module, part: str, placement: Placement) -> Module:
    load_weights(module, WEIGHTS / "nano" / f"{part}.safetensors")
    return module.to(placement.device).eval()
