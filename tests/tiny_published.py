"""The published arrangement on the real classes at their smallest, untrained."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from photowalk.diffusion.unipc import UniPC
from photowalk.models.clip_image import ClipImage
from photowalk.models.depth_network import DepthNetwork
from photowalk.models.umt5_text import Umt5Text
from photowalk.models.wan_codec import WanCodec
from photowalk.models.world_transformer import WorldTransformer
from photowalk.perception.depth import NanoDepth
from photowalk.presets.preset import Preset
from photowalk.presets.published import lyra2_14b_generation
from photowalk.world.generator import Generator
from photowalk.world.placement import Placement

HEIGHT, WIDTH, CHUNK_FRAMES = 32, 48, 80
WORDS = ("<pad>", "</s>", "<unk>", "a", "hall", "of", "stone", "forest", "blurry")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def tiny_umt5() -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=16, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return UMT5EncoderModel(config).eval()


def tiny_clip() -> CLIPVisionModel:
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        hidden_act="gelu",
    )
    return CLIPVisionModel(config).eval()


def tiny_wan():
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=4, num_res_blocks=1).eval()


def tiny_denoiser() -> WorldTransformer:
    generation = lyra2_14b_generation()
    config = WorldTransformer.Config(
        width=32,
        heads=2,
        depth=2,
        ffn=48,
        layout=generation.conditioning.layout,
        channels=16,
        text_dim=16,
        text_length=32,
        image_dim=16,
        condition_side=8,
        squeeze=8,
    )
    network = WorldTransformer(config).eval()
    torch.nn.init.normal_(network.head.head.weight, std=0.05)  # as released, it would begin at zero
    return network


def tiny_published_preset(name: str = "tiny-published", **changes) -> Preset:
    return Preset(name, HEIGHT, WIDTH, CHUNK_FRAMES, "none, it is untrained", lambda p: tiny_published(p, **changes))


def tiny_published(placement: Placement, **changes) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            "denoiser": tiny_denoiser(),
            "codec": WanCodec(tiny_wan()),
            "text": Umt5Text(tiny_umt5(), tiny_tokenizer(), length=32),
            "image": ClipImage(tiny_clip()),
            "depth": NanoDepth(DepthNetwork(DepthNetwork.Config()).eval()),
            "detail": None,
            "sampler": UniPC(2),
            "placement": placement,
            "config": lyra2_14b_generation(),
        }
    return Generator(**{**parts, **changes})
