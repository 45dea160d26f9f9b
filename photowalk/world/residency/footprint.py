"""What large networks take of memory: their weights counted, their working memory estimated from how they compute.

Networks may be on torch's meta device, where the largest weigh nothing. It knows nothing of how much memory there is.
"""

from __future__ import annotations

from torch import nn

from photowalk.models.world_transformer import WorldTransformer
from photowalk.world.residency.arrange import block_layers
from photowalk.world.residency.plan import Footprint
from photowalk.world.residency.visiting import visiting_layers

_WIDTHS_PER_TOKEN = 24  # bytes per token and width at the peak of a block: queries and keys being rotated in float32
_CODING, _STREAMS = 10_000, 7_540  # bytes per pixel of a frame: while it is coded; kept between calls
_SEEING = 1_600  # bytes per pixel of a picture that the depth network sees: Depth Anything 3 at its largest
_CHUNKS = 4  # of a walk that is kept on the GPU, as the planner assumes


def footprint(
    denoiser: WorldTransformer,
    text: nn.Module,
    image: nn.Module,
    codec: nn.Module,
    depth: nn.Module,
    *,
    latent_size: tuple[int, int],
    codec_factors: tuple[int, int],  # frames per latent frame, pixels per latent row
    branches: int,  # 2 with guidance
    together: bool = False,  # branches are one batch
    views: int,  # that the depth network sees at once
) -> Footprint:
    """For frames of `latent_size` times the codec's factor, and networks in the number formats they are in.

    The figures for working memory were measured by following every allocation of the published classes on a CPU.
    """
    block = denoiser.blocks[0]
    groups = [_size(*layers) for layers in block_layers(block)]
    blocks = len(denoiser.blocks)
    group, side = codec_factors
    pixels = latent_size[0] * latent_size[1] * side**2
    frames = denoiser.config.layout.new_frames * group
    picture = 3 * 4 + 4  # bytes per pixel of float32 colours and depth
    visitors = [visitor for network in (text, image, depth) for visitor in visiting_layers(network)]
    return Footprint(
        blocks=blocks,
        step=groups[0],
        once=sum(groups[1:]),
        rest=_size(denoiser) - blocks * sum(groups),
        text=_size(text),
        image=_size(image),
        codec=_size(codec),
        depth=_size(depth),
        largest_visitor=max(map(_size, visitors)),
        # beside it lies the chunk's preview
        sampling=(1 + together) * _sampling(denoiser.config, latent_size, branches) + frames * pixels * picture,
        coding=_CODING * pixels + frames * pixels * picture,
        seeing=_SEEING * pixels * views,
        streams=_STREAMS * pixels,
        walk=_CHUNKS * frames * pixels * picture,
    )


def _sampling(config: WorldTransformer.Config, latent_size: tuple[int, int], branches: int) -> int:
    """A block at work, what is prepared of a chunk, and the conditioning that it was prepared from (float32)."""
    rows, columns = (side // patch for side, patch in zip(latent_size, config.patch[1:]))
    segments = config.layout.segments(rows, columns)
    tokens = segments[-1].tokens.stop
    located = sum(len(segment.tokens) for segment in segments if segment.kind != "time")
    block_values = config.condition_side**2
    rays = 6 * block_values * config.patch[1] * config.patch[2]
    words = branches * config.text_length + (257 if config.image_dim else 0)  # CLIP's 256 patches and its class token
    prepared = tokens * (rays + 2 * config.width // config.heads)
    prepared += config.depth * (located * config.squeeze + words * 2 * config.width)
    latents = latent_size[0] * latent_size[1]
    told = (
        latents * block_values * (6 * config.layout.frames + 4 * config.layout.space_frames * config.layout.new_frames)
    )
    return _WIDTHS_PER_TOKEN * config.width * tokens + 2 * prepared + 4 * told


def _size(*modules: nn.Module) -> int:
    return sum({id(weight): weight.nbytes for module in modules for weight in module.parameters()}.values())
