"""The only file that knows sizes: each preset is one complete, frozen description of a generator.

Everything else is built from the same classes, whatever the preset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from photowalk.diffusion.few_step import FewStep
from photowalk.memory.policies import GreedyCoverage
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.models.byte_text import ByteText
from photowalk.models.depth_network import DepthNetwork
from photowalk.models.detail import DetailNetwork
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.image_tokens import ImageTokens
from photowalk.models.nano_codec import NanoCodec
from photowalk.models.weights import load_weights
from photowalk.models.world_transformer import WorldTransformer
from photowalk.perception.depth import NanoDepth
from photowalk.world.conditioning import ConditioningConfig
from photowalk.world.generator import GenerationConfig, Generator
from photowalk.world.placement import Placement, choose_placement
from photowalk.world.preview import PreviewConfig

if TYPE_CHECKING:
    from transformers import CLIPVisionModel, UMT5EncoderModel

Module = TypeVar("Module", bound=nn.Module)
WEIGHTS = Path(__file__).parent / "weights"
PUBLISHED_LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")


@dataclass(frozen=True)
class Preset:
    name: str
    height: int
    width: int
    chunk_frames: int
    licence: str  # of the weights
    assemble: Callable[[Placement], Generator]

    def build(self, placement: Placement | None = None) -> Generator:
        """The generator with its weights loaded, on the given device or the best one there is."""
        return self.assemble(placement or choose_placement())


def load_preset(name: str) -> Preset:
    """Raises ValueError for a name that is no preset."""
    presets = {"nano": nano}
    if name not in presets:
        raise ValueError(f"there is no preset {name!r}; known are {', '.join(presets)}")
    return presets[name]()


def nano() -> Preset:
    """The small model that comes with the package: minutes on two CPU cores."""
    return Preset("nano", 256, 448, 80, "Apache-2.0", _assemble_nano)


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


# The published layout looks back 19 latent frames; at nano's size memory does that better for less.
NANO_LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f4k2f1k1_g20")


def nano_text() -> ByteText.Config:
    return ByteText.Config(width=128, heads=4, depth=2, length=128)


def nano_detail() -> DetailNetwork.Config:
    return DetailNetwork.Config(widths=(32, 64, 96))


def nano_depth() -> DepthNetwork.Config:
    """Completes the depth of new frames."""
    return DepthNetwork.Config()


def nano_photo_depth() -> DepthNetwork.Config:
    """Guesses the depth of a photo."""
    return DepthNetwork.Config()


def nano_trained_photo_depth() -> DepthNetwork:
    """Its encoder also describes pictures to the denoiser, and judges restored ones in training."""
    network = DepthNetwork(nano_photo_depth())
    load_weights(network, WEIGHTS / "nano" / "photo_depth.safetensors")
    return network.eval()


def nano_conditioning() -> ConditioningConfig:
    return ConditioningConfig(
        layout=NANO_LAYOUT,
        preview=PreviewConfig(warp_from="latest and recalled", fill_holes=True, pixel_centre=0.5),
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
        guidance=1.0,
        negative_prompt="",
    )


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
        guidance=guidance,
        negative_prompt="",
        memory=SpatialMemory(pixel_centre=0.0, invalid_at_origin=True),
    )


def nano_untrained(placement: Placement) -> Generator:
    """Nano with a fresh denoiser and text encoder; what those are trained on top of is loaded."""
    photo_depth = nano_trained_photo_depth().to(placement.device)
    return Generator(
        denoiser=WorldTransformer(nano_denoiser()).to(placement.device),
        codec=_loaded(NanoCodec(NanoCodec.Config()), "codec", placement),
        text=ByteText(nano_text()).to(placement.device),
        image=ImageTokens(photo_depth.encoder, grid=(4, 7), seen_at=(128, 224)).eval(),
        depth=NanoDepth(
            _loaded(DepthNetwork(nano_depth()), "depth", placement),
            photo_depth,
        ),
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
