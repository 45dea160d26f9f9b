"""The denoiser: a video diffusion transformer that reads packed history, rays and correspondence.

The backbone is Wan 2.1's image-to-video transformer. Added to it: history slots with patch embeddings of their own, and
two features that enter every block as a bias of attention queries and keys: rays (where each token looks from) and
correspondence (which recalled pixel each new pixel shows). Names in the state dict are the published ones.

It knows nothing of noise schedules, guidance, pixels or devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photowalk.models.attention import CrossAttention, KeysValues, SelfAttention
from photowalk.models.conditioning import Conditioning, memory_correspondence
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.patchify import Patch, pad_to_multiple, patchify, pool, space_to_channels, to_tokens, unpatchify
from photowalk.models.rope import packed_angles
from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.models.token_share import ALL_TOKENS, TokenShare

MASK_CHANNELS = 4


@dataclass(frozen=True)
class NetworkInputs:
    """A chunk in the channels that the network reads; `Conditioning` is what they are made from."""

    history: Tensor  # [B, 2C+4, T_old, h, w] latent, mask, condition latent
    new: Tensor  # [B, 4+C, T_new, h, w] mask, condition latent
    rays: Tensor  # [B, 6*s*s, T_old+T_new, h, w]
    correspondence: Tensor  # [B, K*4*s*s, K+T_new, h, w] of the memory slots, then of the new frames
    text: Tensor  # [B, L, D_text]
    image: Tensor  # [B, L_image, D_image]


@dataclass(frozen=True)
class PreparedBlock:
    """What one block makes of a chunk, whatever the noise."""

    correspondence: Tensor  # [B, L_valid + 1, squeeze], the last row zeros
    text: KeysValues
    image: KeysValues | None


@dataclass(frozen=True)
class PreparedConditioning:
    """Everything of a chunk that does not change between sampling steps, of the tokens in this process's share."""

    source: Conditioning | None
    history: Tensor  # [B, L_old, D] embedded tokens
    new: Tensor  # [B, 4+C, T_new, h, w] of all tokens
    rays: Tensor  # [B, L, 6*s*s*ph*pw] one row per token
    located: Tensor  # [L] each token's row of correspondence; L_valid, a row of zeros, where it has none
    cos: Tensor  # [L, head_dim / 2]
    sin: Tensor
    correspondence: Tensor | None  # [B, L_valid, K*4*s*s*ph*pw]; None when every block has what it makes of them
    text: Tensor | None  # [B, L, D_text]
    image: Tensor | None  # [B, L_image, D_image]
    squeezed: Sequence[
        Tensor
    ]  # [B, L_valid + 1, squeeze] of each block, as in PreparedBlock; empty: to be made in every pass
    texts: Sequence[KeysValues]
    images: Sequence[KeysValues | None]
    savings: Savings
    share: TokenShare
    counts: tuple[int, int]  # tokens of history and of the new frames that all processes have together

    @property
    def blocks(self) -> tuple[PreparedBlock, ...]:
        return tuple(map(PreparedBlock, self.squeezed, self.texts, self.images))


class WorldTransformer(nn.Module):
    """Implements the protocol `Denoiser`."""

    @dataclass(frozen=True)
    class Config:
        width: int
        heads: int
        depth: int
        ffn: int
        layout: HistoryLayout
        channels: int  # latent channels
        text_dim: int
        text_length: int  # texts are zero-padded to it
        image_dim: int  # 0: no picture in the cross-attention
        condition_side: int  # condition pixels per latent pixel and side
        squeeze: int  # width between the two layers of the correspondence encoder
        predicts: Literal["velocity", "correction"] = "velocity"  # published: "velocity"
        learned_merging: bool = True  # published; False: coarse history is averaged, which saves most embedding weights
        waves: int = 2  # sine and cosine of pi, 2 pi, 4 pi, ... times the correspondence
        patch: Patch = (1, 2, 2)
        freq_dim: int = 256
        eps: float = 1e-6

        def __post_init__(self) -> None:
            if self.width % self.heads or (self.width // self.heads) % 2:
                raise ValueError(f"width {self.width} wants to be an even multiple of {self.heads} heads")
            if self.layout.space_frames < 1:
                raise ValueError(f"correspondence wants a layout with at least one memory slot, got {self.layout}")
            if self.patch[0] != 1:
                raise ValueError(f"patches span one latent frame, got {self.patch}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, patch_area = config.width, math.prod(config.patch)
        patch_values = (2 * config.channels + MASK_CHANNELS) * patch_area
        self.patch_embedding = nn.Linear(patch_values, width)
        self.clean_patch_embeddings = nn.ModuleList(
            nn.Linear(patch_values * (math.prod(slot.factors) if config.learned_merging else 1), width)
            for slot in config.layout.slots
        )
        self.text_embedding = _two_layers(config.text_dim, width, width, nn.GELU(approximate="tanh"))
        self.time_embedding = _two_layers(config.freq_dim, width, width, nn.SiLU())
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.img_emb = _ImageEmbedding(config.image_dim, width) if config.image_dim else None
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.head = _Head(width, config.channels * patch_area, config.eps)
        self._initialise()

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        conditioning: Conditioning | PreparedConditioning,
        *,
        share: TokenShare = ALL_TOKENS,
    ) -> Tensor:
        """noisy [B, C, T_new, h, w], timestep [B] in [0, 1000] -> velocity noise - clean [B, C, T_new, h, w], float32.

        A chunk that is asked about several times is cheaper after `prepare`, which then also says the `share`; the
        numbers are the same.
        """
        prepared = self.prepare(conditioning, share=share) if isinstance(conditioning, Conditioning) else conditioning
        prepared = self._complete(prepared)
        rows, columns = self._token_grid(noisy)
        share, (_, new_tokens) = prepared.share, prepared.counts
        new = patchify(torch.cat([noisy.to(prepared.new.dtype), prepared.new], dim=1), self.config.patch)
        new = new[:, share.mine(new_tokens)]
        tokens = torch.cat([prepared.history, self.patch_embedding(new).to(prepared.history.dtype)], dim=1)
        time, modulation = self._embed_time(timestep)
        first_new, last = prepared.history.shape[1], len(self.blocks) - 1
        for i, (block, known) in enumerate(zip(self.blocks, prepared.blocks)):
            # nobody reads history after the last block
            first_query = first_new if i == last and prepared.savings.new_tokens_only else 0
            tokens = block(tokens, modulation, prepared, known, first_query)
        (values,) = share.whole(self.head(tokens, time)[:, first_new - first_query :], counts=(new_tokens,))
        grid = (self.config.layout.new_frames, rows, columns)
        predicted = unpatchify(values, grid, self.config.patch)
        if self.config.predicts == "velocity":
            return predicted
        # A narrow network cannot carry the noise of a token with more values than its width; it need not, if it says
        # what to correct in the warp instead (Li and He, Back to Basics, 2025, on predicting clean data).
        clean = prepared.new[:, MASK_CHANNELS:].float() + predicted
        sigma = (timestep.float() / 1000).clamp_min(1e-3).view(-1, 1, 1, 1, 1)
        return (noisy.float() - clean) / sigma

    def prepare(
        self,
        conditioning: Conditioning,
        like: PreparedConditioning | None = None,
        *,
        savings: Savings = ALL_SAVINGS,
        share: TokenShare = ALL_TOKENS,
    ) -> PreparedConditioning:
        """Work out what every step of this chunk shares. With `like`, the preparation of a conditioning that differs
        in its text only, all but the text is taken from there. `share` are the tokens that this process works on."""
        if like is not None and like.source is not None and _same_but_text(conditioning, like.source):
            return self._with_text(like, conditioning)
        self._check(conditioning)
        memory = memory_correspondence(
            self.config.layout.space_frames,
            self.config.condition_side,
            *conditioning.correspondence.shape[-2:],
            device=conditioning.correspondence.device,
        )
        memory = memory.to(conditioning.correspondence.dtype).expand(len(conditioning.history), -1, -1, -1, -1)
        seen = torch.ones_like(conditioning.history[:, :1]).expand(-1, MASK_CHANNELS, -1, -1, -1)
        inputs = NetworkInputs(
            history=torch.cat([conditioning.history, seen, conditioning.history], dim=1),
            new=torch.cat([conditioning.known, conditioning.warp], dim=1),
            rays=conditioning.rays,
            correspondence=torch.cat([memory, conditioning.correspondence], dim=2),
            text=conditioning.text,
            image=conditioning.image,
        )
        return self.prepare_inputs(inputs, conditioning, savings=savings, share=share)

    def prepare_inputs(
        self,
        inputs: NetworkInputs,
        source: Conditioning | None = None,
        *,
        savings: Savings = ALL_SAVINGS,
        share: TokenShare = ALL_TOKENS,
    ) -> PreparedConditioning:
        """As `prepare`, for channels given one by one. Inputs may be finer than the weights' dtype."""
        rows, columns = self._token_grid(inputs.history)
        device, dtype = inputs.history.device, self.patch_embedding.weight.dtype
        config = self.config
        angles = packed_angles(config.layout, config.width // config.heads, rows, columns).to(device)
        history = self.embed_history(inputs.history.to(dtype)).to(dtype)
        counts = (history.shape[1], len(angles) - history.shape[1])
        chosen = torch.cat(
            [torch.arange(n, device="cpu")[share.mine(n)] + first for n, first in zip(counts, (0, counts[0]))]
        )
        valid, located = _rows_of(chosen, self._located_tokens(rows, columns))
        chosen, located, valid = (indices.to(device) for indices in (chosen, located, valid))
        angles = angles[chosen]
        correspondence = _picked(self.correspondence_tokens(inputs.correspondence), valid)
        text, image = inputs.text.to(dtype), inputs.image.to(dtype)
        return PreparedConditioning(
            source=source,
            history=history[:, share.mine(counts[0])],
            new=inputs.new.to(dtype),
            rays=_picked(self.ray_tokens(inputs.rays), chosen).to(dtype),
            located=located,
            cos=angles.cos(),
            sin=angles.sin(),
            correspondence=None if savings.correspondence_once else correspondence,
            text=None if savings.texts_once else text,
            image=None if savings.texts_once else image,
            squeezed=self._squeeze(correspondence) if savings.correspondence_once else (),
            texts=self._text_keys_values(text) if savings.texts_once else (),
            images=self._image_keys_values(image) if savings.texts_once else (),
            savings=savings,
            share=share,
            counts=counts,
        )

    def stacked(self, one: PreparedConditioning, other: PreparedConditioning) -> PreparedConditioning:
        """Two preparations of one geometry as one of twice the batch; what they share is not copied where B = 1."""
        alone = ("source", "located", "cos", "sin", "savings", "share", "counts")
        both = {name: _stack(value, getattr(other, name)) for name, value in vars(one).items() if name not in alone}
        return replace(one, source=None, **both)

    def embed_history(self, history: Tensor) -> Tensor:
        """[B, 2C+4, T_old, h, w] -> tokens [B, L_old, D]; every slot is patched as coarsely as its layout says."""
        segments = self.config.layout.segments(*self._token_grid(history))
        embedded = []
        for segment, embedding in zip(segments, self.clean_patch_embeddings):
            frames = history[:, :, segment.frames.start : segment.frames.stop]
            patch = tuple(side * factor for side, factor in zip(self.config.patch, segment.factors))
            if not self.config.learned_merging:
                frames, patch = pool(pad_to_multiple(frames, patch), segment.factors), self.config.patch
            embedded.append(embedding(patchify(frames, patch)))
        return torch.cat(embedded, dim=1)

    def ray_tokens(self, rays: Tensor) -> Tensor:
        """[B, 6*s*s, T, h, w] -> [B, L, 6*s*s*ph*pw], averaged where a token stands for several base tokens."""
        segments = self.config.layout.segments(*self._token_grid(rays))
        grid = space_to_channels(rays, self.config.patch)
        return torch.cat(
            [to_tokens(pool(grid[:, :, s.frames.start : s.frames.stop], s.factors)) for s in segments], dim=1
        )

    def correspondence_tokens(self, correspondence: Tensor) -> Tensor:
        """[B, K*4*s*s, K+T_new, h, w] -> [B, L_valid, K*4*s*s*ph*pw]; unlike rays, averaged before the patches are cut.

        Only memory slots and new frames: for the timeline the published network multiplies the result by zero.
        """
        segments = self.config.layout.segments(*self._token_grid(correspondence))
        parts, first = [], 0
        for segment in segments:
            if segment.kind != "time":
                frames = correspondence[:, :, first : first + len(segment.frames)]
                parts.append(patchify(pool(frames, segment.factors), self.config.patch))
                first += len(segment.frames)
        return torch.cat(parts, dim=1)

    def init_history_embeddings_from_base(self) -> None:
        """Let every history embedding begin as the base embedding of the average of what it merges."""
        base = self.patch_embedding.weight.data.unflatten(1, (-1, *self.config.patch))
        for slot, embedding in zip(self.config.layout.slots, self.clean_patch_embeddings):
            factors = slot.factors if self.config.learned_merging else (1, 1, 1)
            kernel = base
            for axis, factor in zip((2, 3, 4), factors):
                kernel = kernel.repeat_interleave(factor, dim=axis)
            embedding.weight.data.copy_(kernel.flatten(1) / math.prod(factors))
            embedding.bias.data.copy_(self.patch_embedding.bias.data)

    def _initialise(self) -> None:
        """As Wan 2.1, with the added encoders as published; the head starts at zero velocity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layers in (self.text_embedding, self.time_embedding):
            nn.init.normal_(layers[0].weight, std=0.02)
            nn.init.normal_(layers[2].weight, std=0.02)
        std = self.config.width**-0.5
        for block in self.blocks:
            nn.init.normal_(block.modulation, std=std)
            for layer in (block.cam_encoder, *block.buffer_encoder):
                nn.init.trunc_normal_(layer.weight, std=std, a=-3 * std, b=3 * std)
        nn.init.normal_(self.head.modulation, std=std)
        nn.init.zeros_(self.head.head.weight)
        self.init_history_embeddings_from_base()

    def _embed_time(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """[B] -> the embedding [B, 1, D] and the modulation [B, 6, D], float32 whatever the weights are."""
        half = self.config.freq_dim // 2
        steps = torch.arange(half, dtype=torch.float64, device=timestep.device)
        angles = timestep.double()[:, None] * 10000.0 ** (-steps / half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).float()
        with _without_autocast(timestep.device):
            first, activation, second = self.time_embedding
            time = _linear_float32(second, activation(_linear_float32(first, waves)))
            activation, projection = self.time_projection
            modulation = _linear_float32(projection, activation(time))
        return time[:, None], modulation.unflatten(-1, (6, -1))

    def _complete(self, prepared: PreparedConditioning) -> PreparedConditioning:
        """With what blocks make of the chunk, made anew where that is not to be saved."""
        if prepared.correspondence is not None:
            prepared = replace(prepared, squeezed=self._squeeze(prepared.correspondence))
        if prepared.text is not None and prepared.image is not None:
            texts, images = self._text_keys_values(prepared.text), self._image_keys_values(prepared.image)
            prepared = replace(prepared, texts=texts, images=images)
        return prepared

    def _squeeze(self, tokens: Tensor) -> list[Tensor]:
        """Correspondence [B, L_valid, V] -> [B, L_valid + 1, squeeze] for every block, the last row zeros. A frame's
        worth of tokens at a time: all waves of a large chunk at once would be the network's largest tensor."""
        dtype = self.patch_embedding.weight.dtype
        pieces = [_waves(piece, self.config.waves, dtype) for piece in tokens.split(2048, dim=1)]
        squeezed = ([block.buffer_encoder[0](piece) for piece in pieces] for block in self.blocks)
        return [F.pad(torch.cat(parts, dim=1), (0, 0, 0, 1)) for parts in squeezed]

    def _text_keys_values(self, text: Tensor) -> list[KeysValues]:
        padded = F.pad(text, (0, 0, 0, self.config.text_length - text.shape[1]))
        context = self.text_embedding(padded)
        return [block.cross_attn.text_keys_values(context) for block in self.blocks]

    def _image_keys_values(self, image: Tensor) -> list[KeysValues | None]:
        if self.img_emb is None:
            return [None] * len(self.blocks)
        context = self.img_emb(image)
        return [block.cross_attn.image_keys_values(context) for block in self.blocks]

    def _with_text(self, prepared: PreparedConditioning, conditioning: Conditioning) -> PreparedConditioning:
        text = conditioning.text.to(prepared.new.dtype)
        if prepared.text is not None:
            return replace(prepared, source=conditioning, text=text)
        return replace(prepared, source=conditioning, texts=self._text_keys_values(text))

    def _located_tokens(self, rows: int, columns: int) -> Tensor:
        segments = self.config.layout.segments(rows, columns)
        located = (range(s.tokens.start, s.tokens.stop) for s in segments if s.kind != "time")
        return torch.tensor([token for tokens in located for token in tokens], device="cpu")

    def _token_grid(self, frames: Tensor) -> tuple[int, int]:
        rows, columns = frames.shape[-2:]
        _, ph, pw = self.config.patch
        if rows % ph or columns % pw:
            raise ValueError(
                f"a latent grid of {rows}x{columns} is no multiple of the patch {ph}x{pw}: resize the frames"
            )
        return rows // ph, columns // pw

    def _check(self, conditioning: Conditioning) -> None:
        config, layout = self.config, self.config.layout
        batch, _, _, rows, columns = conditioning.history.shape
        block = config.condition_side**2
        wanted = {
            "history": (batch, config.channels, layout.history_frames, rows, columns),
            "warp": (batch, config.channels, layout.new_frames, rows, columns),
            "known": (batch, MASK_CHANNELS, layout.new_frames, rows, columns),
            "rays": (batch, 6 * block, layout.frames, rows, columns),
            "correspondence": (batch, layout.space_frames * 4 * block, layout.new_frames, rows, columns),
        }
        for name, shape in wanted.items():
            if getattr(conditioning, name).shape != shape:
                raise ValueError(f"{name} wants shape {shape}, got {tuple(getattr(conditioning, name).shape)}")
        if conditioning.text.shape[1] > config.text_length:
            raise ValueError(
                f"a text of {conditioning.text.shape[1]} tokens is longer than {config.text_length}: cut it"
            )


class _Block(nn.Module):
    def __init__(self, config: WorldTransformer.Config) -> None:
        super().__init__()
        width, area = config.width, config.patch[1] * config.patch[2]
        condition_values = config.condition_side**2 * area
        waves = 2 * config.waves * 4 * config.layout.space_frames * condition_values
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.empty(1, 6, width))
        self.self_attn = SelfAttention(width, config.heads, config.eps)
        self.norm3 = nn.LayerNorm(width, eps=config.eps)
        self.cross_attn = CrossAttention(width, config.heads, config.eps, image=config.image_dim > 0)
        self.ffn = _two_layers(width, config.ffn, width, nn.GELU(approximate="tanh"))
        self.cam_encoder = nn.Linear(6 * condition_values, width, bias=False)
        self.buffer_encoder = nn.Sequential(
            nn.Linear(waves, config.squeeze, bias=False), nn.Linear(config.squeeze, width, bias=False)
        )

    def forward(
        self,
        tokens: Tensor,
        modulation: Tensor,
        prepared: PreparedConditioning,
        known: PreparedBlock,
        first_query: int,
    ) -> Tensor:
        """[B, L, D], modulation [B, 6, D] -> [B, L - first_query, D]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation.float() + modulation).split(1, dim=1)
        seen = _modulated_norm(tokens, shift1, scale1, self.eps)
        bias = self.cam_encoder(prepared.rays)
        # gathered, not scattered by index_add: on CPUs inductor of torch 2.13 gives that wrong numbers
        bias = bias + self.buffer_encoder[1](known.correspondence)[:, prepared.located].to(bias.dtype)
        everyones = partial(prepared.share.whole, counts=prepared.counts)
        attended = self.self_attn(seen, bias.to(seen.dtype), prepared.cos, prepared.sin, first_query, everyones)
        tokens = tokens[:, first_query:]
        tokens = tokens + attended * gate1.to(tokens.dtype)
        tokens = tokens + self.cross_attn(self.norm3(tokens), known.text, known.image)
        transformed = self.ffn(_modulated_norm(tokens, shift2, scale2, self.eps))
        return tokens + transformed * gate2.to(tokens.dtype)


class _ImageEmbedding(nn.Module):
    """Image tokens to context tokens."""

    def __init__(self, image_dim: int, width: int) -> None:
        super().__init__()
        layers = _two_layers(image_dim, image_dim, width, nn.GELU())
        self.proj = nn.Sequential(nn.LayerNorm(image_dim), *layers, nn.LayerNorm(width))

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image)


class _Head(nn.Module):
    def __init__(self, width: int, values: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.head = nn.Linear(width, values)
        self.modulation = nn.Parameter(torch.empty(1, 2, width))

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        """tokens [B, L, D], time [B, 1, D] -> [B, L, values], float32 whatever the weights are."""
        shift, scale = (self.modulation.float() + time).split(1, dim=1)
        with _without_autocast(tokens.device):
            return _linear_float32(self.head, _modulated_norm(tokens.float(), shift, scale, self.eps))


def _modulated_norm(tokens: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    normed = F.layer_norm(tokens.float(), tokens.shape[-1:], eps=eps)
    return (normed * (1 + scale) + shift).to(tokens.dtype)


def _waves(values: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """[..., V] -> [..., 2*count*V]: sin and cos of pi times the values, then of 2 pi times, 4 pi times, ...; worked out
    in float32."""
    phases = [values.float() * (math.pi * 2**i) for i in range(count)]
    return torch.cat([wave.to(dtype) for phase in phases for wave in (phase.sin(), phase.cos())], dim=-1)


def _two_layers(width_in: int, width_between: int, width_out: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width_between), activation, nn.Linear(width_between, width_out))


def _linear_float32(layer: nn.Linear, values: Tensor) -> Tensor:
    return F.linear(values, layer.weight.float(), layer.bias.float())


def _picked(tokens: Tensor, rows: Tensor) -> Tensor:
    """Different rows of tokens [B, L, V], in order; all of them are not copied."""
    return tokens if len(rows) == tokens.shape[1] else tokens[:, rows]


def _without_autocast(device: torch.device) -> AbstractContextManager:
    """Torch's meta device, on which work is counted, has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _same_but_text(one: Conditioning, other: Conditioning) -> bool:
    return all(getattr(one, name) is value for name, value in vars(other).items() if name != "text")


def _rows_of(chosen: Tensor, located: Tensor) -> tuple[Tensor, Tensor]:
    """Some of all tokens, and those of all that are located, in order -> the rows of `located` that are among the
    chosen, and for each chosen token which of these rows is its own, their number where it is not located."""
    here = torch.isin(chosen, located)
    valid = torch.searchsorted(located, chosen[here])
    return valid, torch.where(here, here.cumsum(0) - 1, len(valid))


def _stack(one: Any, other: Any) -> Any:
    """Along the batch, whatever is nested in tuples."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.expand(2, *one.shape[1:]) if one is other and len(one) == 1 else torch.cat([one, other])
    return one if one is None else tuple(map(_stack, one, other))  # equally long: made by one network
