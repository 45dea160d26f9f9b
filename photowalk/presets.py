"""The only file that knows sizes: each preset is one complete, frozen description of a generator.

Everything else is built from the same classes, whatever the preset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from photowalk.checkpoints.catalogue import CATALOGUE
from photowalk.checkpoints.load import load as load_stored
from photowalk.checkpoints.store import find, is_stored, weight_files
from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.sampler import Sampler
from photowalk.diffusion.unipc import UniPC
from photowalk.memory.policies import GreedyCoverage
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.models.byte_text import ByteText
from photowalk.models.clip_image import ClipImage
from photowalk.models.depth_anything3.backbone import BackboneConfig
from photowalk.models.depth_anything3.dense_heads import HeadConfig
from photowalk.models.depth_anything3.network import DepthAnything3, DepthAnything3Config
from photowalk.models.depth_anything3.pose_tokens import CameraEncoderConfig
from photowalk.models.depth_network import DepthNetwork
from photowalk.models.detail import DetailNetwork
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.image_tokens import ImageTokens
from photowalk.models.lora import Changes, add_lora, merge_layer, merged_and_beside, read_lora
from photowalk.models.nano_codec import NanoCodec
from photowalk.models.splat_head import EVIDENCE, SplatHead
from photowalk.models.umt5_text import Umt5Text, load_tokenizer
from photowalk.models.wan_codec import WanCodec
from photowalk.models.weights import load_weights
from photowalk.models.world_transformer import WorldTransformer
from photowalk.perception.depth import DepthEstimator, NanoDepth
from photowalk.perception.depth_anything3 import DepthAnything3Depth
from photowalk.perception.transformers_depth import TransformersDepth
from photowalk.world.conditioning import ConditioningConfig
from photowalk.world.generator import GenerationConfig, Generator
from photowalk.world.placement import Placement, choose_placement
from photowalk.world.preview import PreviewConfig
from photowalk.world.residency.arrange import arrange
from photowalk.world.residency.footprint import footprint
from photowalk.world.residency.plan import Footprint, choose_plan
from photowalk.world.residency.visiting import VisitingCodec, let_visit

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from transformers import CLIPVisionModel, UMT5EncoderModel

Module = TypeVar("Module", bound=nn.Module)
WEIGHTS = Path(__file__).parent / "weights"
NO_LORAS: Mapping[str, float] = MappingProxyType({})
PUBLISHED_LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")


@dataclass(frozen=True)
class Preset:
    name: str
    height: int
    width: int
    chunk_frames: int
    licence: str  # of the weights
    assemble: Callable[[Placement], Generator]
    # at a height and width, and whether branches of guidance run together; None: too small to plan for
    footprint: Callable[[int, int, bool], Footprint] | None = None
    splat_head: Callable[[], SplatHead] | None = None  # corrects the splats of its walks; None: they are as they are

    def build(
        self,
        placement: Placement | None = None,
        *,
        size: tuple[int, int] | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> Generator:
        """The generator with its weights loaded, on the given device or the best one there is. What is large is laid
        out for frames of `size`, by default the preset's, and `on_note` is told how. Raises PlanError where no layout
        fits."""
        placement = placement or choose_placement()
        asked, memory = placement.vram is not None or placement.weights is not None, placement.memory
        if self.footprint is None or memory is None:
            if asked:
                small = f"{self.name} is small and needs no GPU memory to be set aside"
                on_note(
                    f"{small if self.footprint is None else 'torch sees no GPU here'}; --vram and --weights do nothing"
                )
            return self._assembled(placement)
        needed = self.footprint(*(size or (self.height, self.width)), placement.branches_together)
        plan = choose_plan(needed, memory, placement.host, placement.weights)
        on_note(plan.described())
        return self._assembled(replace(placement, plan=plan))

    def _assembled(self, placement: Placement) -> Generator:
        generator = self.assemble(placement)
        if placement.compiled:
            for block in generator.denoiser.blocks:
                block.compile()
        return generator


def load_preset(name: str) -> Preset:
    """Raises ValueError for a name that is no preset."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; known are {', '.join(PRESETS)}")
    return PRESETS[name]()


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


# The published layout looks back 19 latent frames; at nano's size memory does that better for less.
NANO_LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f4k2f1k1_g20")


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
        preview=PreviewConfig(warp_from="latest and recalled", fill_holes=True, pixel_centre=0.5, fill_wide=8),
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


def lyra2_reconstruction() -> DepthAnything3Config:
    """The published reconstruction network: Depth Anything 3, nested giant and large, with a splat head."""
    channels = (256, 512, 1024, 1024)
    return DepthAnything3Config(
        backbone=BackboneConfig(1536, 40, 24, outputs=(19, 27, 33, 39), alternate_from=13, gated=True),
        head=HeadConfig(3072, 256, channels),
        cameras=CameraEncoderConfig(1536),
        splats=HeadConfig(3072, 256, channels),
        metric_backbone=BackboneConfig(1024, 24, 16, outputs=(4, 11, 17, 23)),
        metric_head=HeadConfig(1024, 256, channels),
    )


def da3_base() -> DepthAnything3Config:
    """Depth Anything 3 as it is published in its base size: it knows neither splats nor metres nor sky."""
    return DepthAnything3Config(
        backbone=BackboneConfig(768, 12, 12, outputs=(5, 7, 9, 11), alternate_from=4),
        head=HeadConfig(1536, 128, (96, 192, 384, 768)),
        cameras=CameraEncoderConfig(768),
    )


def nano_reconstruction() -> DepthAnything3Config:
    """The reconstruction network at nano's size, 3.5 million parameters. It takes frames whose sides are multiples of
    16, such as nano's 256x448, 16 at once, with their known cameras, and gives their depth and, with `down_ratio` 1 or
    2, the raw splats of every pixel or of every second row and column. It has no branch for metres and sky, which a
    walk knows."""
    channels = (32, 48, 64, 96)
    return DepthAnything3Config(
        backbone=BackboneConfig(128, 8, 4, outputs=(3, 5, 6, 7), alternate_from=4, patch=16, trained_grid=24),
        head=HeadConfig(256, 48, channels),
        cameras=CameraEncoderConfig(128, heads=4, depth=2),
        splats=HeadConfig(256, 48, channels),
        rays=False,
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
        guidance=guidance,
        negative_prompt="",
        memory=SpatialMemory(pixel_centre=0.0, invalid_at_origin=True),
        reference_quantile=0.25,
    )


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


PRESETS: dict[str, Callable[[], Preset]] = {
    "nano": nano,
    "lyra2-14b": lyra2_14b,
    "lyra2-14b-fast": lyra2_14b_fast,
    "lyra2-14b-zoom": lyra2_14b_zoom,
    "lyra2-14b-zoom-fast": lyra2_14b_zoom_fast,
}


def _lyra2(name: str, sampler: Sampler, guidance: float = 5.0, loras: Mapping[str, float] = NO_LORAS) -> Preset:
    licence = CATALOGUE["lyra2-denoiser"].licence.name
    assemble = partial(_assemble_lyra2, sampler=sampler, guidance=guidance, loras=loras)
    return Preset(name, 480, 832, 80, licence, assemble, partial(lyra2_footprint, guidance=guidance))


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
    changes = [(read_lora(denoiser, _stored_tensors(folders[name])), weight) for name, weight in loras.items()]
    merged, beside = merged_and_beside(changes, all_merged=placement.savings.merged_loras)
    arrange(denoiser, placement.plan, placement.copies(), partial(_settle, device=device, changes=merged))
    for layers, weight in beside:
        for name, parts in layers.items():
            add_lora(denoiser.get_submodule(name), {key: part.to(device) for key, part in parts.items()}, weight)
    (negative,) = _stored_tensors(folders["lyra2-negative-prompt"]).values()
    text = stored_network(umt5_xxl_network, folders["umt5-xxl"])
    image = stored_network(clip_vit_h_network, folders["clip-vit-h"])
    for encoder in (text, image):
        _lodge(encoder, placement)
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


# Published networks that see depth from any number of views, the most capable first.
DEPTH_ANYTHING: Mapping[str, Callable[[], DepthAnything3Config]] = MappingProxyType(
    {"lyra2-reconstruction": lyra2_reconstruction, "da3-nested": lyra2_reconstruction, "da3-base": da3_base}
)


def stored_depth_anything() -> str | None:
    """The name of the most capable one in the store."""
    return next((name for name in DEPTH_ANYTHING if is_stored(name)), None)


def depth_estimator(name: str, placement: Placement) -> DepthEstimator:
    """By a name in the store, "da3" for the most capable one there, "nano", or the name or folder of a depth model of
    transformers. Raises ValueError that says how to get what is missing."""
    nano_depth = NanoDepth(nano_depth_network(placement))
    if name == nano_depth.name:
        return nano_depth
    if name == "da3":
        name = _first_stored(tuple(DEPTH_ANYTHING))
    if name in DEPTH_ANYTHING:
        return DepthAnything3Depth(depth_anything_network(name, placement), name, nano_depth)
    return TransformersDepth.of(name, nano_depth, placement.device)


def splat_network(name: str, placement: Placement) -> DepthAnything3:
    """A network of the store that gives splats, by name, "da3" for the most capable one there. Raises ValueError."""
    giving = [known for known in DEPTH_ANYTHING if gives_splats(known)]
    if name == "da3":
        name = _first_stored(tuple(giving))
    if name not in giving:
        raise ValueError(f"{name!r} gives no splats; networks that do are da3, {', '.join(giving)}")
    return depth_anything_network(name, placement)


def _first_stored(names: tuple[str, ...]) -> str:
    found = next((name for name in names if is_stored(name)), None)
    if found is None:
        known = ", ".join(f"{name} ({CATALOGUE[name].licence.short})" for name in names)
        raise ValueError(f"none of {known} is in the store; bring one there with: photowalk weights get {names[-1]}")
    return found


def gives_splats(name: str) -> bool:
    """Whether the depth network of that name gives splats too."""
    return name in DEPTH_ANYTHING and DEPTH_ANYTHING[name]().splats is not None


def depth_licence(name: str) -> str | None:
    """Of the weights of a depth network of the store; None for others."""
    return CATALOGUE[name].licence.name if name in DEPTH_ANYTHING else None


def depth_anything_network(name: str, placement: Placement) -> DepthAnything3:
    """From the store, in the format that it was published in: its heads want all digits. Raises ValueError."""
    folder = find(name)
    with torch.device("meta"):
        network = DepthAnything3(DEPTH_ANYTHING[name]())
    load_stored(network, folder)
    network.eval().requires_grad_(False)
    _lodge(network, placement)
    return network


def stored_network(build: Callable[[], Module], folder: Path) -> Module:
    """A network with the weights of a folder of the store, in bfloat16 as published: views of the files, which take no
    memory that is wanted elsewhere."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        network = build()
    tie = getattr(network, "tie_weights", None)
    if callable(tie):  # a network of transformers, which has lost in this what its parts share
        tie()
    load_stored(network, folder, torch.bfloat16)
    return network.eval().requires_grad_(False)


def _lodge(network: nn.Module, placement: Placement) -> None:
    """Bring a network to the device, for good or for each of its uses."""
    if placement.plan is not None and placement.plan.visiting:
        let_visit(network, placement.device)
    else:
        network.to(placement.device)


def _settle(name: str, module: nn.Module, *, device: torch.device, changes: Changes) -> None:
    """Bring what a module holds itself to the device, with the adaptations of its weights."""
    for key, parameter in module.named_parameters(recurse=False):
        module._parameters[key] = nn.Parameter(parameter.to(device), requires_grad=False)
    for key, buffer in module.named_buffers(recurse=False):
        module._buffers[key] = buffer.to(device)
    for layers, weight in changes:
        if name in layers and isinstance(module, nn.Linear):
            merge_layer(module, layers[name], weight)


def _stored_tensors(folder: Path) -> dict[str, Tensor]:
    files = [load_file(file) for file in weight_files(folder)]
    return {name: tensor for file in files for name, tensor in file.items()}


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
