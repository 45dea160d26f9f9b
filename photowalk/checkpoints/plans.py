"""What is to be done with a checkpoint: it is recognised, and checked against the network that it is to become."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from photowalk.checkpoints.catalogue import CATALOGUE
from photowalk.checkpoints.convert import Portion, stored_format
from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.found import TOKENIZER_FILES
from photowalk.checkpoints.load import stored_shapes
from photowalk.checkpoints.match import Match, match, prefix_of
from photowalk.checkpoints.names import Link, Naming, Shape
from photowalk.checkpoints.networks import Network
from photowalk.checkpoints.new_layers import HISTORY_EMBEDDINGS, new_layers
from photowalk.checkpoints.readers import Checkpoint, open_checkpoint
from photowalk.models.lora import read_lora
from photowalk.models.world_transformer import WorldTransformer

NEGATIVE_PROMPT, _NEGATIVE_FEATURES = "lyra2-negative-prompt", "t5_text_embeddings"
TOKENIZER = "umt5-tokenizer"
_LORA_SIGNS = (".lora_A.weight", ".lora_down.weight")
_LORA_PARTS = {"down": "lora_A.weight", "up": "lora_B.weight", "alpha": "alpha", "bias": "diff_b"}


@dataclass(frozen=True)
class Plan:
    name: str  # in the store
    files: tuple[Path, ...]  # that it is made from
    portions: tuple[Portion, ...] = ()
    copies: tuple[Path, ...] = ()  # files that are taken as they are
    facts: dict[str, object] = field(default_factory=dict)  # for the manifest

    @property
    def size(self) -> int:
        """Bytes that it will take."""
        return sum(part.size for part in self.portions) + sum(path.stat().st_size for path in self.copies)


def plan_for(paths: tuple[Path, ...], networks: Sequence[Network], name: str | None = None) -> Plan | None:
    """None for files that are nothing known. `name`: what they are to be, where a user says so.

    Raises CheckpointError for a checkpoint that is known and damaged, or does not fit.
    """
    if paths[0].name in TOKENIZER_FILES:
        return _tokenizer(paths)
    checkpoint = open_checkpoint(paths)
    if any(key.endswith(_LORA_SIGNS) for key in checkpoint.tensors):
        return _lora(checkpoint, next(network for network in networks if network.takes_loras), name)
    if _NEGATIVE_FEATURES in checkpoint.tensors:
        return _negative_prompt(checkpoint)
    for network in networks:
        for naming in network.namings if name in (None, network.name) else ():
            prefix = prefix_of(checkpoint, naming)
            if prefix is not None:
                return network_plan(checkpoint, network, naming, prefix)
    return None


def network_plan(checkpoint: Checkpoint, network: Network, naming: Naming, prefix: str) -> Plan:
    with torch.device("meta"):
        module = network.build()
    ours = stored_shapes(module)
    matched = match(checkpoint, ours, naming, prefix)
    portions = [_portion(checkpoint, link, prefix, network.dtype) for link in matched.links]
    absent = {name: shape for name, shape in ours.items() if naming.is_absent(name)}
    if absent and isinstance(module, WorldTransformer):
        by_target = {target: link for link in matched.links for target, _ in link.targets}

        def base(name: str) -> torch.Tensor:
            link = by_target[name]
            return link.ours(checkpoint.read(prefix + link.source))[name]

        patches = prefix + by_target["patch_embedding.weight"].source
        dtype = network.dtype or stored_format(checkpoint.tensors[patches][1])
        portions += new_layers(module.config, absent, base, dtype)
    given = {checkpoint.tensors[prefix + link.source][1] for link in matched.links}
    facts = {"formats in the file": sorted(str(dtype).removeprefix("torch.") for dtype in given)}
    return Plan(network.name, checkpoint.files, tuple(portions), facts=facts | _facts(naming, matched, tuple(absent)))


def _portion(checkpoint: Checkpoint, link: Link, prefix: str, dtype: torch.dtype | None) -> Portion:
    source = prefix + link.source
    kept = dtype or stored_format(checkpoint.tensors[source][1])
    return Portion(
        {name: (shape, kept) for name, shape in link.targets}, lambda: link.ours(checkpoint.read(source).to(kept))
    )


def _facts(naming: Naming, matched: Match, absent: tuple[str, ...]) -> dict[str, object]:
    """What the manifest says of tensors that are not simply those of the file."""
    widened = [name for link in matched.links if link.is_widened for name, _ in link.targets]
    facts = {
        "left out": list(matched.ignored),
        "begun as copies of the patch embedding": [name for name in absent if name.startswith(HISTORY_EMBEDDINGS)],
        "begun at random": [name for name in absent if not name.startswith(HISTORY_EMBEDDINGS)],
        "begun as zeros where the file has no columns": widened,
    }
    return {"names by": naming.publisher, **{what: names for what, names in facts.items() if names}}


def _lora(checkpoint: Checkpoint, network: Network, name: str | None) -> Plan:
    path = checkpoint.files[0]
    with torch.device("meta"):
        module = network.build()
    tensors = {key: checkpoint.read(key) for key in checkpoint.tensors}
    try:
        layers = read_lora(module, tensors)
    except ValueError as error:
        raise CheckpointError(f"{path} is a LoRA, but not one for {network.name}: {error}") from error
    kept = {f"{layer}.{_LORA_PARTS[part]}": tensor for layer, parts in layers.items() for part, tensor in parts.items()}
    facts = {"changes": f"{len(layers)} layers", "left out": sorted(_unused(tensors, kept))}
    stored = {key: (tuple(value.shape), stored_format(value.dtype)) for key, value in kept.items()}
    return Plan(_lora_name(path, name), checkpoint.files, (Portion(stored, lambda: kept),), facts=facts)


def _lora_name(path: Path, name: str | None) -> str:
    """A published one is known by its file's name; others are called lora-..., so that they cannot take its place."""
    for entry in (entry for entry in CATALOGUE.values() if "-lora-" in entry.name):
        if name == entry.name or (name is None and path.name == Path(entry.files[0]).name):
            return entry.name
    plain = re.sub(r"[^\w.-]", "_", name or path.stem)
    return plain if plain.startswith("lora-") else f"lora-{plain}"


def _unused(tensors: dict[str, torch.Tensor], kept: dict[str, torch.Tensor]) -> list[str]:
    used = {id(tensor) for tensor in kept.values()}
    return [key for key, tensor in tensors.items() if id(tensor) not in used]


def _negative_prompt(checkpoint: Checkpoint) -> Plan:
    shape, dtype = checkpoint.tensors[_NEGATIVE_FEATURES]
    if len(shape) not in (2, 3) or shape[:-2] not in ((), (1,)):
        raise CheckpointError(
            f"{checkpoint.files[0]}: {_NEGATIVE_FEATURES} is to be [tokens, width] of one text, got {shape}"
        )
    features: Shape = (1, *shape[-2:])

    def read() -> dict[str, torch.Tensor]:
        return {"features": checkpoint.read(_NEGATIVE_FEATURES).view(features)}

    portion = Portion({"features": (features, stored_format(dtype))}, read)
    left_out = sorted(checkpoint.tensors.keys() - {_NEGATIVE_FEATURES})
    return Plan(NEGATIVE_PROMPT, checkpoint.files, (portion,), facts={"left out": left_out})


def _tokenizer(paths: tuple[Path, ...]) -> Plan | None:
    """Tokenizers of other text encoders (they have no spiece.model) are nothing we know."""
    names = {path.name for path in paths}
    if "spiece.model" not in names:
        return None
    if "tokenizer_config.json" not in names:
        raise CheckpointError(f"{paths[0].parent} is incomplete: tokenizer_config.json is missing; download it again")
    for path in paths:
        if path.suffix == ".json":
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CheckpointError(f"{path} is damaged or cut short ({error}); download it again") from error
        elif path.stat().st_size == 0:
            raise CheckpointError(f"{path} is empty; download it again")
    return Plan(TOKENIZER, paths, copies=paths)
