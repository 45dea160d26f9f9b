"""The published weights by name: what each is, how large, under which licence, and where it is published.

Plain data. `photowalk weights get` asks the hub for the true sizes before it starts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    name: str
    short: str
    terms: str  # what a user must know, in a sentence
    address: str  # where the full text is
    restricted: bool  # to be accepted before weights are fetched or converted


@dataclass(frozen=True)
class Published:
    """A network, or a few files of one, as it is published on the Hugging Face hub."""

    name: str  # in the store
    what: str
    size: int | None  # bytes of the published files, about; None where it is not known
    licence: Licence
    repository: str
    files: tuple[str, ...]  # patterns of paths within the repository


APACHE = Licence(
    "Apache-2.0",
    "Apache-2.0",
    "Free for any use; keep the notices.",
    "https://www.apache.org/licenses/LICENSE-2.0",
    restricted=False,
)
NVIDIA_RESEARCH = Licence(
    "NVIDIA Internal Scientific Research and Development Model License",
    "research only",
    "For research and development inside your organisation only: no distribution, no deployment, no public display, no "
    "use in production. The full text is what counts.",
    "https://huggingface.co/nvidia/Lyra-2.0",
    restricted=True,
)
CC_BY_NC = Licence(
    "CC BY-NC 4.0",
    "not commercial",
    "Free to use and share with attribution, for non-commercial purposes only.",
    "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    restricted=True,
)
_LYRA, _WAN_I2V, _WAN_T2V = "nvidia/Lyra-2.0", "Wan-AI/Wan2.1-I2V-14B-480P", "Wan-AI/Wan2.1-T2V-1.3B"

CATALOGUE = {
    published.name: published
    for published in (
        Published(
            "lyra2-denoiser",
            "the denoiser of Lyra 2.0, 14B: Wan 2.1 with history, rays and correspondence",
            34_060_000_000,
            NVIDIA_RESEARCH,
            _LYRA,
            ("checkpoints/model/*",),
        ),
        Published(
            "lyra2-negative-prompt",
            "what Lyra 2.0 is guided away from, as features of UMT5",
            4_200_000,
            NVIDIA_RESEARCH,
            _LYRA,
            ("checkpoints/text_encoder/negative_prompt.pt",),
        ),
        Published(
            "lyra2-reconstruction",
            "Depth Anything 3 with a splat head as Lyra 2.0 fine-tuned it: depth, cameras, splats",
            6_760_000_000,
            NVIDIA_RESEARCH,
            _LYRA,
            ("checkpoints/recon/model.pt",),
        ),
        Published(
            "lyra2-lora-dmd",
            "LoRA of Lyra 2.0 for sampling in 4 steps",
            None,
            NVIDIA_RESEARCH,
            _LYRA,
            ("checkpoints/lora/dmd_distillation.safetensors",),
        ),
        Published(
            "lyra2-lora-realism",
            "LoRA of Lyra 2.0 for realism, weight 0.4",
            None,
            NVIDIA_RESEARCH,
            _LYRA,
            ("checkpoints/lora/realism_boost.safetensors",),
        ),
        Published(
            "lyra2-lora-detail",
            "LoRA of Lyra 2.0 for detail, weight 0.4",
            None,
            NVIDIA_RESEARCH,
            _LYRA,
            ("checkpoints/lora/detail_enhancer.safetensors",),
        ),
        Published(
            "wan2.1-codec",
            "the video codec of Wan 2.1",
            507_609_880,
            APACHE,
            _WAN_I2V,
            ("Wan2.1_VAE.pth",),
        ),
        Published(
            "umt5-xxl",
            "the text encoder UMT5-XXL as Wan 2.1 publishes it",
            11_400_000_000,
            APACHE,
            _WAN_I2V,
            ("models_t5_umt5-xxl-enc-bf16.pth",),
        ),
        Published(
            "umt5-tokenizer",
            "the tokenizer of UMT5-XXL",
            21_000_000,
            APACHE,
            "google/umt5-xxl",
            ("special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"),
        ),
        Published(
            "clip-vit-h",
            "the picture encoder CLIP ViT-H/14 as Wan 2.1 publishes it",
            4_772_359_047,
            APACHE,
            _WAN_I2V,
            ("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",),
        ),
        Published(
            "da3-nested",
            "Depth Anything 3, nested giant and large 1.1: depth, cameras, splats, metres and sky",
            6_760_000_000,
            CC_BY_NC,
            "depth-anything/DA3NESTED-GIANT-LARGE-1.1",
            ("model.safetensors",),
        ),
        Published(
            "da3-base",
            "Depth Anything 3, base: depth and cameras",
            None,
            APACHE,
            "depth-anything/DA3-BASE",
            ("model.safetensors",),
        ),
        Published(
            "wan2.1-i2v-14b",
            "Wan 2.1 image-to-video 14B at 480p, with new layers added: a start for training",
            32_800_000_000,
            APACHE,
            _WAN_I2V,
            ("diffusion_pytorch_model*.safetensors*",),
        ),
        Published(
            "wan2.1-t2v-1.3b",
            "Wan 2.1 text-to-video 1.3B, with new layers added: a small start for training",
            5_680_000_000,
            APACHE,
            _WAN_T2V,
            ("diffusion_pytorch_model*.safetensors*",),
        ),
    )
}

_LYRA2 = (
    "lyra2-denoiser",
    "lyra2-negative-prompt",
    "lyra2-reconstruction",
    "wan2.1-codec",
    "umt5-xxl",
    "umt5-tokenizer",
    "clip-vit-h",
)
_ZOOM_LOOKS = ("lyra2-lora-realism", "lyra2-lora-detail")

# What a preset wants to run, under the preset's name.
BUNDLES = {
    "lyra2-14b": _LYRA2,
    "lyra2-14b-fast": (*_LYRA2, "lyra2-lora-dmd"),
    "lyra2-14b-zoom": (*_LYRA2, *_ZOOM_LOOKS),
    "lyra2-14b-zoom-fast": (*_LYRA2, *_ZOOM_LOOKS, "lyra2-lora-dmd"),
}


def named(name: str) -> tuple[Published, ...]:
    """The weights of that name, or all that a bundle wants. Raises ValueError for a name that is neither."""
    if name not in BUNDLES and name not in CATALOGUE:
        raise ValueError(f"no weights are called {name!r}; known are {', '.join([*BUNDLES, *CATALOGUE])}")
    return tuple(CATALOGUE[part] for part in BUNDLES.get(name, (name,)))


def human_size(size: int | None) -> str:
    """Bytes in the decimal units that hubs and disks are sold by."""
    if size is None:
        return "unknown size"
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
