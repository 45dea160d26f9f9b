"""Carries out a plan on the denoiser: layer by layer its weights are filled, made coarser and put where they belong.

No more than a layer is ever held twice, so neither the GPU nor the host needs room for the whole network. It knows how
a block of the denoiser is used, and nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from photowalk.models.weight_only import WeightOnlyLinear
from photowalk.models.world_transformer import WorldTransformer
from photowalk.world.placement import Copies
from photowalk.world.residency.plan import Plan
from photowalk.world.residency.streaming import WeightStream

Fill = Callable[[str, nn.Module], None]
# Used block after block when a chunk is prepared and not again, each group in a pass of its own.
_ONCE = (("cross_attn.k", "cross_attn.v"), ("cross_attn.k_img", "cross_attn.v_img"), ("buffer_encoder.0",))


def block_layers(block: nn.Module) -> list[list[nn.Linear]]:
    """A block's linear layers in groups that are used one after the other in every block: first those of a pass, then
    those of the preparation of a chunk. All else that a block holds is little."""
    linear: dict[str, nn.Linear] = {name: part for name, part in block.named_modules() if isinstance(part, nn.Linear)}
    once = [[linear[name] for name in names if name in linear] for names in _ONCE]
    step = [layer for name, layer in linear.items() if not any(name in names for names in _ONCE)]
    return [step, *(group for group in once if group)]


def arrange(network: WorldTransformer, plan: Plan | None, copies: Copies, fill: Fill) -> None:
    """Bring a network that has no weights yet, or has them elsewhere, into the state that the plan says; without
    a plan all of it stays on the device.

    `fill(name, module)` gives the weights that a module holds itself (not those of its parts) to the device; it is
    called once for every module that has any.
    """
    names = {module: name for name, module in network.named_modules()}
    linear = {layer for block in network.blocks for group in block_layers(block) for layer in group}
    for module, name in names.items():
        if module not in linear and (any(True for _ in module.parameters(recurse=False)) or module._buffers):
            fill(name, module)

    def filled(layer: nn.Linear) -> nn.Module:
        fill(names[layer], layer)
        if plan is None or plan.weights == "bfloat16":
            return layer
        parent, _, child = names[layer].rpartition(".")
        coarse = WeightOnlyLinear(layer, plan.weights)
        network.get_submodule(parent)._modules[child] = coarse
        return coarse

    streamed = () if plan is None else plan.streamed
    for block in (block for index, block in enumerate(network.blocks) if index not in streamed):
        for layer in (layer for group in block_layers(block) for layer in group):
            filled(layer)
    # all blocks are alike: group i of each of them is used in the same pass
    for groups in zip(*(block_layers(network.blocks[index]) for index in streamed)):
        WeightStream(([filled(layer) for layer in group] for group in groups), copies)
