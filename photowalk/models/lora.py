"""Low-rank adaptations (Hu et al., LoRA, 2021): read the published key styles, add the changes to the weights.

Keys are `<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r] (also `lora_down` and `lora_up`), `.alpha` and
`.diff_b` (a change of the bias), with or without a prefix; musubi's keys write the module with underscores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PREFIXES = ("diffusion_model.", "net.", "lora_unet_")
_PARTS = {
    ".lora_A.weight": "down",
    ".lora_down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".diff_b": "bias",
    ".diff": "difference",
}
_FLAT_DIFFERENCE = 0.016  # published files carry differences of this spread that mean nothing; the reference drops them

Changes = Sequence[tuple[Mapping[str, Mapping[str, Tensor]], float]]  # of adaptations: what `read_lora` gives, weight


@torch.no_grad()
def merge_lora(network: nn.Module, tensors: Mapping[str, Tensor], weight: float) -> None:
    """Add weight * alpha / r * B @ A to the linear layers that the tensors name; without alpha the factor is `weight`.

    Merging several adaptations adds them up. Raises ValueError, before anything is changed, when a key or a shape does
    not fit. Whole-matrix differences (`.diff`) are ignored, as in the reference.
    """
    layers = dict(network.named_modules())
    for name, parts in read_lora(network, tensors).items():
        merge_layer(layers[name], parts, weight)


@torch.no_grad()
def merge_layer(layer: nn.Linear, parts: Mapping[str, Tensor], weight: float) -> None:
    """As `merge_lora`, for one layer and what `read_lora` found for it."""
    on_device = {name: part.to(layer.weight.device) for name, part in parts.items()}
    for parameter, change in _changes(layer, on_device, weight):
        parameter.copy_(parameter.float() + change)


def merged_and_beside(changes: Changes, *, all_merged: bool) -> tuple[Changes, Changes]:
    """The adaptations that are merged into weights, and those that compute beside their layers. Outside of the blocks
    all are merged: some layers there are never called, their weights are read."""

    def those(*, beside: bool) -> Changes:
        wanted = {
            name: (name.startswith("blocks.") and not all_merged) == beside for layers, _ in changes for name in layers
        }
        return [({name: parts for name, parts in layers.items() if wanted[name]}, weight) for layers, weight in changes]

    return those(beside=False), those(beside=True)


def add_lora(layer: nn.Module, parts: Mapping[str, Tensor], weight: float) -> None:
    """As `merge_layer`, but computed beside the layer whenever it is called, as adaptations are trained; its weights
    stay as they are, wherever they lie and in whichever format."""
    down, up, bias = (parts.get(part) for part in ("down", "up", "bias"))
    scale = _scale(parts, weight)

    def beside(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        change = torch.zeros_like(output)
        if down is not None and up is not None:
            change = F.linear(F.linear(inputs[0], down.to(output)), up.to(output))
        return output + scale * (change if bias is None else change + bias.to(output))

    layer.register_forward_hook(beside)


def read_lora(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What an adaptation of any of the key styles changes, by the name of the linear layer: `down` [r, in] and `up`
    [out, r], `alpha` [], `bias` [out]. The network may be on torch's meta device.

    Raises ValueError when a key or a shape does not fit.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    found = _by_layer(tensors, layers)
    for name, parts in found.items():
        _check(name, layers[name], parts)
    return found


def _by_layer(tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Linear]) -> dict[str, dict[str, Tensor]]:
    """The tensors' parts by the layer that they change."""
    names = {name: name for name in layers} | {name.replace(".", "_"): name for name in layers}
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        ending = next((ending for ending in _PARTS if key.endswith(ending)), None)
        if ending in (".diff", ".diff_b") and (ending == ".diff" or _is_flat(tensor)):
            continue
        name = key.removesuffix(ending or "")
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if ending is None or name not in names:
            raise ValueError(
                f"the LoRA tensor {key!r} names no linear layer of this network: it is made for another one"
            )
        found[names[name]][_PARTS[ending]] = tensor
    return found


def _is_flat(difference: Tensor) -> bool:
    sizes = difference.float().abs()
    return bool(sizes.max() - sizes.min() < _FLAT_DIFFERENCE)


def _check(name: str, layer: nn.Linear, parts: dict[str, Tensor]) -> None:
    down, up, alpha, bias = (parts.get(part) for part in ("down", "up", "alpha", "bias"))
    if (down is None) != (up is None):
        raise ValueError(f"the LoRA of {name} is incomplete: it wants both lora_A and lora_B, got {sorted(parts)}")
    if down is not None and up is not None:
        shapes = f"B {tuple(up.shape)} @ A {tuple(down.shape)}"
        if down.dim() != 2 or up.dim() != 2 or up.shape[1] != len(down):
            raise ValueError(f"the LoRA of {name} does not fit itself: {shapes}")
        if (len(up), down.shape[1]) != layer.weight.shape:
            raise ValueError(f"{name} is {tuple(layer.weight.shape)}: {shapes} do not fit")
    if alpha is not None and alpha.numel() != 1:
        raise ValueError(f"the alpha of the LoRA of {name} is to be one number, got {tuple(alpha.shape)}")
    if bias is not None and (layer.bias is None or layer.bias.shape != bias.shape):
        raise ValueError(f"{name} has no bias of shape {tuple(bias.shape)} to change")


def _changes(layer: nn.Linear, parts: dict[str, Tensor], weight: float) -> list[tuple[Tensor, Tensor]]:
    """Parameters of the layer and what is to be added to them, float32."""
    down, up, bias = (parts.get(part) for part in ("down", "up", "bias"))
    scale, changes = _scale(parts, weight), []
    if down is not None and up is not None:
        changes.append((layer.weight, scale * (up.float() @ down.float())))
    if bias is not None:
        changes.append((layer.bias, scale * bias.float()))
    return changes


def _scale(parts: Mapping[str, Tensor], weight: float) -> float:
    alpha, down = parts.get("alpha"), parts.get("down")
    return weight if alpha is None or down is None else weight * float(alpha) / len(down)
