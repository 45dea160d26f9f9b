"""The namings of what is published: Wan 2.1's own, Lyra 2.0's, diffusers', Hugging Face's."""

from __future__ import annotations

from photowalk.checkpoints.names import Naming, Rule, Shape

_NEW_LAYERS = r"blocks\.\d+\.(cam_encoder|buffer_encoder)\..*|clean_patch_embeddings\..*"
_DIT_PREFIXES = ("net.", "model.diffusion_model.", "diffusion_model.", "model.", "")


def _convolution(channels: int | None = None):
    """A patch embedding [D, values] as the convolution [D, C, 1, 2, 2] that Wan 2.1 publishes."""

    def shape_in_file(ours: Shape) -> Shape:
        return ours[0], channels or ours[1] // 4, 1, 2, 2

    return {r"patch_embedding\.weight": shape_in_file}


# Our names are Lyra's. Its checkpoints also hold counters of the training run and state of the attention library.
LYRA_DENOISER = Naming(
    "Lyra 2.0",
    sign=r"blocks\.\d+\.(cam_encoder|buffer_encoder)\.",
    prefixes=_DIT_PREFIXES,
    ignored=(r"(net\.)?accum_\w+$", r".*\._extra_state$", r".*attn_op.*"),
)
WAN_I2V = Naming(
    "Wan 2.1",
    sign=r"blocks\.\d+\.cross_attn\.k_img\.",
    prefixes=_DIT_PREFIXES,
    shapes=_convolution(),
    absent=_NEW_LAYERS,
)
WAN_T2V = Naming(
    "Wan 2.1",
    sign=r"blocks\.\d+\.cross_attn\.k\.",
    prefixes=_DIT_PREFIXES,
    shapes=_convolution(channels=16),
    absent=_NEW_LAYERS,
)

_DIFFUSERS_RULES: tuple[Rule, ...] = (
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"^head\.head\.", "proj_out."),
    (r"^(head\.|(blocks\.\d+\.))modulation$", r"\2scale_shift_table"),
    (r"\.norm3\.", ".norm2."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.([qkv])\.", r".to_\1."),
    (r"\.o\.", ".to_out.0."),
    (r"\.([kv])_img\.", r".add_\1_proj."),
    (r"\.norm_k_img\.", ".norm_added_k."),
)
DIFFUSERS_I2V = Naming(
    "diffusers",
    sign=r"blocks\.\d+\.attn2\.add_k_proj\.",
    rules=_DIFFUSERS_RULES,
    shapes=_convolution(),
    absent=_NEW_LAYERS,
)
DIFFUSERS_T2V = Naming(
    "diffusers",
    sign=r"blocks\.\d+\.attn2\.to_k\.",
    rules=_DIFFUSERS_RULES,
    shapes=_convolution(channels=16),
    absent=_NEW_LAYERS,
)

_CODEC_BLOCK: tuple[Rule, ...] = (
    (r"\.norm1\.", ".residual.0."),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
WAN_CODEC = Naming(
    "Wan 2.1",
    sign=r"decoder\.upsamples\.\d+\.residual\.",
    rules=(
        *_CODEC_BLOCK,
        (r"\.down_blocks\.", ".downsamples."),
        # three blocks and an upsampler make a stage
        (r"\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f".upsamples.{4 * int(m[1]) + int(m[2])}"),
        (r"\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f".upsamples.{4 * int(m[1]) + 3}"),
        (r"\.mid_block\.resnets\.(\d)", lambda m: f".middle.{2 * int(m[1])}"),
        (r"\.mid_block\.attentions\.0", ".middle.1"),
        (r"\.norm_out\.", ".head.0."),
        (r"\.conv_out\.", ".head.2."),
        (r"\.conv_in\.", ".conv1."),
        (r"^post_quant_conv\.", "conv2."),
        (r"^quant_conv\.", "conv1."),
    ),
    prefixes=("", "model.", "vae."),
)
DIFFUSERS_CODEC = Naming("diffusers", sign=r"decoder\.up_blocks\.\d+\.resnets\.")

WAN_UMT5 = Naming(
    "Wan 2.1",
    sign=r"blocks\.\d+\.pos_embedding\.",
    rules=(
        (r"^shared\.", "token_embedding."),
        (r"^encoder\.final_layer_norm\.", "norm."),
        (r"^encoder\.block\.", "blocks."),
        (r"\.layer\.0\.layer_norm\.", ".norm1."),
        (r"\.layer\.0\.SelfAttention\.relative_attention_bias\.", ".pos_embedding.embedding."),
        (r"\.layer\.0\.SelfAttention\.", ".attn."),
        (r"\.layer\.1\.layer_norm\.", ".norm2."),
        (r"\.layer\.1\.DenseReluDense\.wi_0\.", ".ffn.gate.0."),
        (r"\.layer\.1\.DenseReluDense\.wi_1\.", ".ffn.fc1."),
        (r"\.layer\.1\.DenseReluDense\.wo\.", ".ffn.fc2."),
    ),
)
HUGGING_FACE_UMT5 = Naming(
    "Hugging Face",
    sign=r"encoder\.block\.\d+\.layer\.0\.SelfAttention\.",
    ignored=(r"encoder\.embed_tokens\.", r"decoder\.", r"lm_head\."),
)

WAN_CLIP = Naming(
    "Wan 2.1",
    sign=r"visual\.transformer\.",
    rules=(
        (r"^(vision_model\.)?", "visual."),  # newer versions of transformers have no prefix
        (r"embeddings\.class_embedding", "cls_embedding"),
        (r"embeddings\.patch_embedding", "patch_embedding"),
        (r"embeddings\.position_embedding\.weight", "pos_embedding"),
        (r"\.pre_layrnorm\.", ".pre_norm."),
        (r"\.post_layernorm\.", ".post_norm."),
        (r"\.encoder\.layers\.", ".transformer."),
        (r"\.layer_norm(\d)\.", r".norm\1."),
        (r"\.self_attn\.q_proj\.", ".attn.to_qkv[0]."),
        (r"\.self_attn\.k_proj\.", ".attn.to_qkv[1]."),
        (r"\.self_attn\.v_proj\.", ".attn.to_qkv[2]."),
        (r"\.self_attn\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.2."),
    ),
    shapes={
        r"visual\.cls_embedding": lambda ours: (1, 1, *ours),
        r"visual\.pos_embedding": lambda ours: (1, *ours),
    },
    ignored=(r"textual\.", r"log_scale$", r"visual\.head$"),  # the text tower and the common space
)
HUGGING_FACE_CLIP = Naming(
    "Hugging Face",
    sign=r"vision_model\.encoder\.layers\.",
    rules=((r"^(vision_model\.)?", "vision_model."),),
    ignored=(
        r"text_model\.",
        r"(visual|text)_projection\.",
        r"logit_scale$",
        r"vision_model\.embeddings\.position_ids$",
    ),
)

# The depth head repeats one layer norm under four names; a file may hold it under some of them.
_ONE_NORM: tuple[Rule, ...] = ((r"(\.output_conv2_aux)\.[123](\.2\.)", r"\1.0\2"),)
# Whatever else a training program saved has no prefix.
DEPTH_ANYTHING_NESTED = Naming(
    "Depth Anything 3",
    sign=r"da3\.backbone\.",
    prefixes=("model.",),
    ignored=(r"(?!model\.)",),
    repeated=_ONE_NORM,
)
DEPTH_ANYTHING = Naming(
    "Depth Anything 3",
    sign=r"backbone\.pretrained\.",
    rules=((r"^da3\.", ""),),
    prefixes=("model.",),
    ignored=(r"(?!model\.)",),
    repeated=_ONE_NORM,
)
