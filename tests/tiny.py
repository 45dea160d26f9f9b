"""A preset of the real classes at their smallest, untrained: for tests of what happens around the networks."""

import torch

from photowalk.diffusion.few_step import FewStep
from photowalk.memory.policies import GreedyCoverage
from photowalk.models.byte_text import ByteText
from photowalk.models.depth_network import DepthNetwork
from photowalk.models.detail import DetailNetwork
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.image_tokens import ImageTokens
from photowalk.models.nano_codec import NanoCodec
from photowalk.models.squeeze_features import SqueezeFeatures
from photowalk.models.world_transformer import WorldTransformer
from photowalk.perception.depth import NanoDepth
from photowalk.presets.preset import Preset
from photowalk.world.conditioning import ConditioningConfig
from photowalk.world.generator import GenerationConfig, Generator
from photowalk.world.placement import Placement
from photowalk.world.preview import PreviewConfig

HEIGHT, WIDTH, CHUNK_FRAMES = 64, 96, 16
LAYOUT = HistoryLayout.parse("f1k1f2s2f1s1f2k2f1k1_g4")


def tiny_preset() -> Preset:
    return Preset("tiny", HEIGHT, WIDTH, CHUNK_FRAMES, "none, it is untrained", _assemble)


def _assemble(placement: Placement) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = NanoCodec(NanoCodec.Config())
        denoiser = WorldTransformer.Config(
            width=32,
            heads=2,
            depth=1,
            ffn=32,
            layout=LAYOUT,
            channels=codec.channels,
            text_dim=16,
            text_length=16,
            image_dim=ImageTokens.width,
            condition_side=4,
            squeeze=16,
        )
        conditioning = ConditioningConfig(
            layout=LAYOUT,
            preview=PreviewConfig(warp_from="latest and recalled", fill_holes=True, pixel_centre=0.5),
            condition_side=4,
            mask_known=True,
            inverse_depth=True,
        )
        return Generator(
            denoiser=WorldTransformer(denoiser).eval(),
            codec=codec.eval(),
            text=ByteText(ByteText.Config(width=16, heads=2, depth=1, length=16)).eval(),
            image=ImageTokens(SqueezeFeatures(), grid=(2, 3), seen_at=(64, 96)).eval(),
            depth=NanoDepth(DepthNetwork(DepthNetwork.Config()).eval()),
            detail=DetailNetwork(DetailNetwork.Config(widths=(8,))).eval(),
            sampler=FewStep(steps=2),
            placement=placement,
            config=GenerationConfig(conditioning, GreedyCoverage(), 2, 4, 4, 1.0, "", close_up=2),
        )
