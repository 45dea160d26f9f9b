"""Picture encoder of Depth Anything 3: DINOv2 whose later layers look in turn at one view and at all of them.

It knows tokens only; what a camera is and what becomes of the features is decided elsewhere. Parameters have the names
of the published files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_EPSILON, EPSILON = 1e-6, 1e-5
ROPE_BASE = 100.0
POSITION_OFFSET = 0.1  # added to the grid's sides when position embeddings are resampled; the weights were trained so


@dataclass(frozen=True)
class BackboneConfig:
    width: int
    depth: int
    heads: int
    outputs: tuple[int, ...]  # layers whose tokens are handed on
    alternate_from: int | None = None  # from this layer on odd layers see all views; None: every view by itself
    gated: bool = False  # SwiGLU instead of GELU in the feed-forward part
    patch: int = 14
    trained_grid: int = 37  # patches per side that the position embedding was trained for


@dataclass(frozen=True)
class Features:
    patches: tuple[Tensor, ...]  # for each output layer [B, S, h*w, C]
    camera: Tensor  # [B, S, C] token 0 of the last output layer, not normalised


class Backbone(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.alternate_from is not None:
            self.camera_token = nn.Parameter(torch.zeros(1, 2, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.trained_grid**2 + 1, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, config.patch, config.patch)})
        self.blocks = nn.ModuleList(
            Block(width, config.heads, rotary=self._alternates(layer), gated=config.gated, epsilon=BLOCK_EPSILON)
            for layer in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, EPSILON)

    def forward(self, images: Tensor, camera_tokens: Tensor | None = None) -> Features:
        """images [B, S, 3, H, W], normalised, sides divisible by the patch; camera_tokens [B, S, D] if known."""
        batch, views, _, height, width = images.shape
        grid = (height // self.config.patch, width // self.config.patch)
        tokens = self._embed(images.flatten(0, 1), grid).unflatten(0, (batch, views))
        local_places, global_places = _places(grid, images.device)
        reorder = self.config.alternate_from is not None and camera_tokens is None and views >= 3
        order, local, taken = None, tokens, []
        for layer, block in enumerate(self.blocks):
            if reorder and layer == (self.config.alternate_from or 0) - 1:
                order = _reference_first(self._reference(tokens), views)
                tokens = tokens.gather(1, order[..., None, None].expand_as(tokens))
            if layer == self.config.alternate_from:
                tokens = torch.cat([self._camera_tokens(camera_tokens, tokens)[:, :, None], tokens[:, :, 1:]], dim=2)
                local = tokens if layer % 2 else local
            if self._alternates(layer) and layer % 2:
                everything = block(tokens.flatten(1, 2), global_places.repeat(views, 1))
                tokens = everything.unflatten(1, (views, -1))
            else:
                places = local_places if self._alternates(layer) else None
                tokens = local = block(tokens.flatten(0, 1), places).unflatten(0, (batch, views))
            if layer in self.config.outputs:
                taken.append(_restored(torch.cat([local, tokens], dim=-1) if self._joins() else tokens, order))
        return Features(tuple(self._normalised(each)[:, :, 1:] for each in taken), taken[-1][:, :, 0])

    def _alternates(self, layer: int) -> bool:
        return self.config.alternate_from is not None and layer >= self.config.alternate_from

    def _joins(self) -> bool:
        return self.config.alternate_from is not None

    def _embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        patches = self.patch_embed["proj"](images).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        return tokens + self._positions(grid)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        side = self.config.trained_grid
        if grid == (side, side):
            return self.pos_embed
        first, patches = self.pos_embed[:, :1].float(), self.pos_embed[:, 1:].float()
        scale = tuple((n + POSITION_OFFSET) / side for n in grid)
        square = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        resampled = F.interpolate(square, scale_factor=scale, mode="bicubic", antialias=False)
        return torch.cat([first, resampled.flatten(2).mT], dim=1).to(self.pos_embed.dtype)

    def _camera_tokens(self, known: Tensor | None, tokens: Tensor) -> Tensor:
        if known is not None:
            return known.to(tokens.dtype)
        others = self.camera_token[:, 1:].expand(-1, tokens.shape[1] - 1, -1)
        return torch.cat([self.camera_token[:, :1], others], dim=1).expand(len(tokens), -1, -1)

    def _reference(self, tokens: Tensor) -> Tensor:
        """[B] the view that is neither the most usual nor the most unusual one, by its class token."""
        return reference_scores(tokens[:, :, 0]).argmin(dim=1)

    def _normalised(self, tokens: Tensor) -> Tensor:
        if not self._joins():
            return self.norm(tokens)
        local, last = tokens.chunk(2, dim=-1)
        return torch.cat([local, self.norm(last)], dim=-1)


def reference_scores(tokens: Tensor) -> Tensor:
    """Class tokens [B, S, C] -> [B, S]: distance from the middle in likeness to the others, length and variance."""
    unit = F.normalize(tokens.float(), dim=-1)
    likeness = ((unit @ unit.mT).sum(-1) - 1) / (tokens.shape[1] - 1)
    traits = torch.stack([likeness, tokens.float().norm(dim=-1), unit.var(dim=-1)])
    low, high = traits.amin(-1, keepdim=True), traits.amax(-1, keepdim=True)
    return ((traits - low) / (high - low + 1e-8) - 0.5).abs().sum(0)


def _reference_first(reference: Tensor, views: int) -> Tensor:
    """[B] -> [B, S] indices of the views, the reference first and the others in their order."""
    index = torch.arange(views, device=reference.device).expand(len(reference), -1)
    key = torch.where(index == reference[:, None], -1, index)
    return key.argsort(dim=1)


def _restored(tokens: Tensor, order: Tensor | None) -> Tensor:
    if order is None:
        return tokens
    back = order.argsort(dim=1)
    return tokens.gather(1, back[..., None, None].expand_as(tokens))


def _places(grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns [1 + h*w, 2] of the tokens for layers that see one view, and for those that see all: these
    learn from them only which token stands for the camera."""
    y, x = torch.meshgrid(*(torch.arange(1, n + 1, device=device) for n in grid), indexing="ij")
    local = torch.stack([y.flatten(), x.flatten()], dim=-1)
    local = torch.cat([torch.zeros_like(local[:1]), local])
    return local, local.clamp(max=1)


class Block(nn.Module):
    """Pre-norm transformer layer with layer scale."""

    def __init__(
        self, width: int, heads: int, *, rotary: bool = False, gated: bool = False, epsilon: float = EPSILON
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attn = Attention(width, heads, rotary)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = GatedFeedForward(width) if gated else FeedForward(width, 4 * width, width)
        self.ls2 = LayerScale(width)

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """tokens [B, L, D]; places [L, 2] where attention is rotary."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), places))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, rotary: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        if rotary:
            self.q_norm = nn.LayerNorm(width // heads, EPSILON)
            self.k_norm = nn.LayerNorm(width // heads, EPSILON)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, places: Tensor | None) -> Tensor:
        queries, keys, values = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if places is not None:
            queries, keys = rotate(self.q_norm(queries), places), rotate(self.k_norm(keys), places)
        return self.proj(
            F.scaled_dot_product_attention(queries, keys, values.to(queries.dtype)).transpose(1, 2).flatten(2)
        )


def rotate(features: Tensor, places: Tensor) -> Tensor:
    """Rotary embedding in two dimensions: of features [B, heads, L, D] the first half turns with the row, the
    second with the column of places [L, 2]."""
    quarter = features.shape[-1] // 4
    frequencies = ROPE_BASE ** -(torch.arange(quarter, device=features.device, dtype=torch.float32) / quarter)
    halves = features.chunk(2, dim=-1)
    turned = [_turn(half, places[:, axis, None] * frequencies) for axis, half in enumerate(halves)]
    return torch.cat(turned, dim=-1)


def _turn(features: Tensor, angles: Tensor) -> Tensor:
    cosine, sine = angles.cos().to(features.dtype), angles.sin().to(features.dtype)
    a, b = features.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 0.01))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class FeedForward(nn.Module):
    def __init__(self, inner: int, hidden: int, outer: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inner, hidden)
        self.fc2 = nn.Linear(hidden, outer)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class GatedFeedForward(nn.Module):
    """SwiGLU; its hidden width is two thirds of the usual one, rounded up to a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-(4 * width * 2 // 3) // 8) * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        gate, value = self.w12(tokens).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)
