"""Published checkpoints: their names both ways, every format into the store and out, everything that is refused."""

import json
import math
import os
import pickle
import random
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import (
    DENOISER,
    RECONSTRUCTION,
    TINY,
    published,
    tiny_network,
    write_distributed,
    write_sharded,
    write_torch,
)
from disks import smallest_disk
from safetensors.torch import load_file, save_file

from photowalk.checkpoints import namings
from photowalk.checkpoints.convert import write_weights
from photowalk.checkpoints.errors import CheckpointError
from photowalk.checkpoints.importing import import_weights
from photowalk.checkpoints.load import load, stored_shapes
from photowalk.checkpoints.names import links
from photowalk.checkpoints.networks import NETWORKS, Network
from photowalk.checkpoints.plans import plan_for
from photowalk.checkpoints.store import find, manifest_of, new_entry, stored
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.models.lora import merge_lora
from photowalk.models.weights import WeightsError
from photowalk.models.world_transformer import WorldTransformer

GOLDEN = Path(__file__).parent / "golden"
EVERY_NAMING = [(network.name, naming) for network in TINY for naming in network.namings]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path / "store"))
    return tmp_path / "store"


def bring(*paths, name=None, on_step=None):
    return import_weights(paths, lambda licence: True, name, networks=TINY, on_step=on_step, on_note=lambda text: None)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # writing a checkpoint in one process


# --- names ----------------------------------------------------------------------------------------------------------


def full_size(name):
    network = next(network for network in NETWORKS if network.name == name)
    with torch.device("meta"):
        return network.build()


def keys_of_the_published_denoiser():
    lines = [line.split("\t") for line in (GOLDEN / "keys14b.txt").read_text().splitlines()]
    keys = {name: tuple(map(int, re.findall(r"\d+", shape))) for name, shape in lines}
    return {name: shape for name, shape in keys.items() if not namings.LYRA_DENOISER.is_ignored(name)}


def test_the_published_denoiser_has_exactly_the_published_names_and_shapes():
    ours = full_size("lyra2-denoiser")
    theirs = {link.source: link.shape for link in links(stored_shapes(ours), namings.LYRA_DENOISER)}
    assert theirs == keys_of_the_published_denoiser()
    assert len(theirs) == 1435


def test_wan_has_the_published_names_but_for_the_new_layers_and_a_convolution():
    theirs = {link.source: link.shape for link in links(stored_shapes(full_size("wan2.1-i2v-14b")), namings.WAN_I2V)}
    new = re.compile(r".*(cam_encoder|buffer_encoder|clean_patch_embeddings)\.")
    wanted = {name: shape for name, shape in keys_of_the_published_denoiser().items() if not new.match(name)}
    assert theirs == wanted | {"patch_embedding.weight": (5120, 36, 1, 2, 2)}
    assert len(theirs) == 1303


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_names_lead_there_and_back_at_full_size(network):
    module = full_size(network.name)
    ours = module.state_dict()
    for naming in network.namings:
        found = {}
        for link in links(stored_shapes(module), naming):
            there = link.theirs(ours)
            assert there.is_meta
            assert there.shape == link.shape
            found |= {name: tuple(value.shape) for name, value in link.ours(there).items()}
        absent = {name for name in stored_shapes(module) if naming.is_absent(name)}
        assert found == {name: shape for name, shape in stored_shapes(module).items() if name not in absent}


@pytest.mark.parametrize(("name", "naming"), EVERY_NAMING, ids=lambda value: getattr(value, "publisher", value))
def test_numbers_survive_the_way_there_and_back(name, naming):
    module = tiny_network(name)
    ours = module.state_dict()
    for link in links(stored_shapes(module), naming):
        back = link.ours(link.theirs(ours))
        if not link.is_widened:
            assert all(torch.equal(value, ours[target]) for target, value in back.items())


@pytest.mark.parametrize(
    ("name", "wan", "diffusers", "converter"),
    [
        ("wan2.1-codec", namings.WAN_CODEC, namings.DIFFUSERS_CODEC, "convert_wan_vae_to_diffusers"),
        ("wan2.1-i2v-14b", namings.WAN_I2V, namings.DIFFUSERS_I2V, "convert_wan_transformer_to_diffusers"),
        ("wan2.1-t2v-1.3b", namings.WAN_T2V, namings.DIFFUSERS_T2V, "convert_wan_transformer_to_diffusers"),
    ],
)
def test_names_are_those_that_diffusers_converts(name, wan, diffusers, converter):
    convert = getattr(pytest.importorskip("diffusers.loaders.single_file_utils"), converter)
    ours = stored_shapes(full_size(name))
    theirs = {link.targets: link.source for link in links(ours, diffusers)}
    assert convert({link.source: link.targets for link in links(ours, wan)}) == {
        source: targets for targets, source in theirs.items()
    }


def test_encoders_have_the_names_that_wan_publishes():
    text = {link.source for link in links(stored_shapes(full_size("umt5-xxl")), namings.WAN_UMT5)}
    assert {name for name in text if "blocks.23." in name or "blocks" not in name} == {
        "token_embedding.weight",
        "norm.weight",
        *(f"blocks.23.attn.{part}.weight" for part in "qkvo"),
        *(f"blocks.23.{part}.weight" for part in ("norm1", "norm2", "pos_embedding.embedding")),
        *(f"blocks.23.ffn.{part}.weight" for part in ("gate.0", "fc1", "fc2")),
    }
    picture = {link.source: link.shape for link in links(stored_shapes(full_size("clip-vit-h")), namings.WAN_CLIP)}
    assert {name: shape for name, shape in picture.items() if ".31." in name or "transformer" not in name} == {
        "visual.cls_embedding": (1, 1, 1280),
        "visual.pos_embedding": (1, 257, 1280),
        "visual.patch_embedding.weight": (1280, 3, 14, 14),
        **{f"visual.{norm}_norm.{part}": (1280,) for norm in ("pre", "post") for part in ("weight", "bias")},
        **{f"visual.transformer.31.norm{i}.{part}": (1280,) for i in (1, 2) for part in ("weight", "bias")},
        "visual.transformer.31.attn.to_qkv.weight": (3840, 1280),
        "visual.transformer.31.attn.to_qkv.bias": (3840,),
        "visual.transformer.31.attn.proj.weight": (1280, 1280),
        "visual.transformer.31.attn.proj.bias": (1280,),
        "visual.transformer.31.mlp.0.weight": (5120, 1280),
        "visual.transformer.31.mlp.0.bias": (5120,),
        "visual.transformer.31.mlp.2.weight": (1280, 5120),
        "visual.transformer.31.mlp.2.bias": (1280,),
    }


def test_the_reconstruction_has_every_parameter_of_the_published_one():
    shapes = stored_shapes(full_size("lyra2-reconstruction"))
    parts = {name.partition(".")[0]: 0 for name in shapes}
    for name in shapes:
        parts[name.partition(".")[0]] += 1
    assert parts == {"da3": 971, "da3_metric": 406}
    assert sum(map(math.prod, shapes.values())) == 1_689_845_519


def test_the_codec_computes_what_the_reference_does_with_the_same_file(store, tmp_path):
    """The golden numbers were made with weights that are drawn by their published names."""
    golden = load_file(GOLDEN / "stage1" / "vae_tiny.safetensors")
    network = Network("wan2.1-codec", codec_of_the_golden_numbers, (namings.WAN_CODEC,))
    found = links(stored_shapes(codec_of_the_golden_numbers()), namings.WAN_CODEC)
    source = write_torch(tmp_path / "Wan2.1_VAE.pth", {link.source: drawn(link.source, link.shape) for link in found})
    import_weights([source], lambda licence: False, networks=[network], on_note=lambda text: None)
    loaded = codec_of_the_golden_numbers()
    load(loaded, find("wan2.1-codec"))
    with torch.no_grad():
        latents = loaded.encode(golden["x"]).latent_dist.mode()
    mean, std = (torch.tensor(loaded.config[f"latents_{what}"]).view(-1, 1, 1, 1) for what in ("mean", "std"))
    torch.testing.assert_close((latents - mean) / std, golden["z"], atol=2e-5, rtol=0)


def drawn(name, shape):
    """The rule that the golden file states."""
    values = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).standard_normal(shape).astype(np.float32)
    if name.endswith("gamma"):
        return torch.from_numpy(1 + np.float32(0.1) * values)
    scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
    return torch.from_numpy(values * np.float32(scale))


def codec_of_the_golden_numbers():
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=8).eval()


def test_stacked_queries_keys_and_values_keep_their_order():
    module = tiny_network("clip-vit-h")
    stacked = published(module, namings.WAN_CLIP)["visual.transformer.1.attn.to_qkv.bias"]
    attention = module.get_submodule("encoder.layers.1.self_attn")
    parts = [getattr(attention, f"{part}_proj").bias for part in "qkv"]
    assert torch.equal(stacked, torch.cat(parts))


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["distributed", "torch", "old torch", "wrapped", "safetensors", "sharded", "no index"])
def test_every_format_comes_through_unchanged(form, store, tmp_path):
    network = tiny_network("lyra2-denoiser")
    tensors = published(network, namings.LYRA_DENOISER, "net.")
    tensors |= {"net.accum_iteration": torch.tensor(7), "net.blocks.0.self_attn.attn_op._extra_state": torch.zeros(3)}
    if form == "distributed":
        source = write_distributed(tmp_path / "model", tensors)
    elif form == "torch":
        source = write_torch(tmp_path / "model.pth", tensors)
    elif form == "old torch":
        source = tmp_path / "model.pt"
        torch.save(tensors, source, _use_new_zipfile_serialization=False)
    elif form == "wrapped":
        source = write_torch(tmp_path / "model.pt", {"model": tensors, "step": 3, "name": "a run"})
    elif form == "safetensors":
        source = tmp_path / "model.safetensors"
        save_file(tensors, source)
    else:
        source = write_sharded(tmp_path / "model", tensors, index=form == "sharded")
    assert bring(source) == ["lyra2-denoiser"]
    loaded = WorldTransformer(DENOISER)
    load(loaded, find("lyra2-denoiser"))
    assert same(loaded, network)
    manifest = manifest_of("lyra2-denoiser")
    assert sorted(manifest["left out"]) == ["net.accum_iteration", "net.blocks.0.self_attn.attn_op._extra_state"]
    assert manifest["licence"]["accepted"]
    assert all(len(entry["sha256"]) == 64 for entry in manifest["made from"])


@pytest.mark.parametrize(("name", "naming"), EVERY_NAMING, ids=lambda value: getattr(value, "publisher", value))
def test_every_network_comes_through_unchanged_from_every_publisher(name, naming, store, tmp_path):
    module = tiny_network(name)
    surplus = {
        ("clip-vit-h", "Wan 2.1"): ("textual.head.0.weight", "log_scale", "visual.head"),
        ("clip-vit-h", "Hugging Face"): ("visual_projection.weight", "logit_scale", "text_model.final_layer_norm.bias"),
        ("lyra2-reconstruction", "Depth Anything 3"): (
            "optimizer.step",
            "model.da3.head.scratch.output_conv2_aux.3.2.bias",
        ),
        ("da3-base", "Depth Anything 3"): ("model.head.scratch.output_conv2_aux.1.2.weight",),
        ("umt5-xxl", "Hugging Face"): ("encoder.embed_tokens.weight", "lm_head.weight"),
    }
    without_use = surplus.get((name, naming.publisher), ())
    tensors = published(module, naming) | dict.fromkeys(without_use, torch.ones(2))
    assert bring(write_torch(tmp_path / "weights.pth", tensors), name=name) == [name]
    with torch.device("meta"):
        loaded = next(network for network in TINY if network.name == name).build()
    load(loaded, find(name))
    ours, begun = loaded.state_dict(), {key for key in module.state_dict() if naming.is_absent(key)}
    for key, value in module.state_dict().items():
        if key not in begun and key != "patch_embedding.weight":
            assert torch.equal(ours[key], value), key
    assert not any(value.is_meta for value in ours.values())


@pytest.mark.parametrize("form", ["distributed", "torch", "safetensors", "one alias"])
def test_a_reconstruction_network_is_whole_after_every_format(form, store, tmp_path):
    """Its depth head repeats one norm under four names, of which a file may hold any."""
    network = tiny_network("lyra2-reconstruction")
    tensors = {f"model.{name}": value.clone() for name, value in network.state_dict().items()}
    aliases = [name for name in tensors if re.search(r"output_conv2_aux\.[123]\.2\.", name)]
    assert len(aliases) == 6
    if form == "distributed":
        source = write_distributed(tmp_path / "recon", tensors)
    elif form == "torch":
        source = write_torch(tmp_path / "model.pt", {"model": tensors, "step": 3})
    else:
        dropped = [name for name in tensors if re.search(r"output_conv2_aux\.[012]\.2\.", name)]
        kept = {name: value for name, value in tensors.items() if form == "safetensors" or name not in dropped}
        source = tmp_path / "model.safetensors"
        save_file(kept, source)
    assert bring(source) == ["lyra2-reconstruction"]
    with torch.device("meta"):
        loaded = DepthAnything3(RECONSTRUCTION)
    load(loaded, find("lyra2-reconstruction"))
    assert same(loaded, network)


def test_a_reconstruction_network_without_a_norm_is_refused(store, tmp_path):
    network = tiny_network("lyra2-reconstruction")
    kept = {f"model.{name}": value for name, value in network.state_dict().items() if "_aux.0.2." not in name}
    lacking = {name: value for name, value in kept.items() if not re.search(r"_aux\.[123]\.2\.weight", name)}
    with pytest.raises(CheckpointError, match=r"missing: model\.da3\.head\.scratch\.output_conv2_aux\.0\.2\.weight"):
        bring(write_torch(tmp_path / "model.pt", lacking))


def test_wan_begins_with_new_layers_as_training_does(store, tmp_path):
    module = tiny_network("wan2.1-i2v-14b")
    bring(write_sharded(tmp_path / "wan", published(module, namings.WAN_I2V)))
    loaded = WorldTransformer(DENOISER)
    load(loaded, find("wan2.1-i2v-14b"))
    module.init_history_embeddings_from_base()
    ours, wanted = loaded.state_dict(), module.state_dict()
    random = [name for name in ours if "cam_encoder" in name or "buffer_encoder" in name]
    assert all(torch.equal(ours[name], wanted[name]) for name in ours if name not in random)
    std = DENOISER.width**-0.5
    for name in random:
        assert ours[name].abs().max() <= 3 * std
        assert ours[name].std() == pytest.approx(0.98 * std, rel=0.2)
    manifest = manifest_of("wan2.1-i2v-14b")
    assert sorted(manifest["begun at random"]) == sorted(random)
    assert len(manifest["begun as copies of the patch embedding"]) == 2 * len(DENOISER.layout.slots)


def test_numbers_in_eight_bits_become_exactly_the_same_in_sixteen(store, tmp_path):
    tensors = published(tiny_network("wan2.1-i2v-14b"), namings.WAN_I2V, "model.diffusion_model.")
    narrow = {name: value.to(torch.float8_e4m3fn) if value.dim() > 1 else value for name, value in tensors.items()}
    save_file(narrow, tmp_path / "wan_fp8.safetensors")
    bring(tmp_path / "wan_fp8.safetensors")
    weights = load_file(find("wan2.1-i2v-14b") / "weights-00001.safetensors")
    name = "blocks.1.ffn.0.weight"
    assert weights[name].dtype == torch.bfloat16
    assert torch.equal(weights[name].float(), narrow[f"model.diffusion_model.{name}"].float())
    assert weights["blocks.1.ffn.0.bias"].dtype == torch.float32
    assert manifest_of("wan2.1-i2v-14b")["formats in the file"] == ["float32", "float8_e4m3fn"]


def test_a_text_model_begins_blind_to_what_it_was_never_shown(store, tmp_path):
    module = tiny_network("wan2.1-t2v-1.3b")
    tensors = published(module, namings.WAN_T2V)
    assert tensors["patch_embedding.weight"].shape == (24, 16, 1, 2, 2)
    bring(write_torch(tmp_path / "wan.pth", tensors))
    stored_weight = load_file(find("wan2.1-t2v-1.3b") / "weights-00001.safetensors")["patch_embedding.weight"]
    assert torch.equal(stored_weight[:, :64], tensors["patch_embedding.weight"].flatten(1))
    assert not stored_weight[:, 64:].any()
    assert manifest_of("wan2.1-t2v-1.3b")["begun as zeros where the file has no columns"] == ["patch_embedding.weight"]


def test_a_network_is_loaded_strictly(store, tmp_path):
    bring(write_torch(tmp_path / "wan.pth", published(tiny_network("lyra2-denoiser"), namings.LYRA_DENOISER)))
    other = WorldTransformer(DENOISER.__class__(**{**vars(DENOISER), "depth": 3, "ffn": 41}))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(WeightsError, match=r"ffn\.0\.bias: \(40,\) instead of \(41,\).*missing: blocks\.2"):
        load(other, find("lyra2-denoiser"))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


# --- what is refused ------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it makes the folder that it names."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def refused(store, source, *words, name=None):
    """The import fails with these words, and the store is as empty as before."""
    with pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, words))) as caught:
        bring(source, name=name)
    assert "weights_only" not in str(caught.value), "torch's advice to open it all the same"
    assert stored() == []
    assert {path.name for path in store.glob("*")} <= {".lock"}
    return str(caught.value)


def good_tensors():
    return published(tiny_network("lyra2-denoiser"), namings.LYRA_DENOISER, "net.")


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    return path


def test_every_missing_surplus_and_mis_shaped_tensor_is_named(store, tmp_path):
    tensors = good_tensors()
    del tensors["net.head.head.bias"]
    tensors["net.blocks.0.ffn.0.bias"] = torch.zeros(3)
    tensors["net.blocks.0.ffn.0.scale_weight"] = torch.zeros(())
    tensors["net.blocks.1.ffn.0.bias"] = torch.zeros(40, dtype=torch.int64)
    message = refused(store, write_torch(tmp_path / "model.pth", tensors), "Lyra 2.0", "does not fit")
    for words in (
        "missing: net.head.head.bias",
        "surplus: net.blocks.0.ffn.0.scale_weight",
        "net.blocks.0.ffn.0.bias: (3,) instead of (40,)",
        "net.blocks.1.ffn.0.bias: torch.int64 instead of",
    ):
        assert words in message


def test_numbers_that_are_none_are_damage(store, tmp_path):
    for bad in (float("nan"), float("inf")):
        tensors = good_tensors()
        tensors["net.blocks.1.norm3.weight"][3] = bad
        refused(store, write_torch(tmp_path / "model.pth", tensors), "blocks.1.norm3.weight", "damaged")


@pytest.mark.parametrize("share", [0.999, 0.5, 0.01])
def test_files_that_are_cut_short_are_refused(share, store, tmp_path):
    tensors = good_tensors()
    refused(store, cut(write_torch(tmp_path / "model.pth", tensors), share), "model.pth", "download it again")
    save_file(tensors, tmp_path / "model.safetensors")
    refused(store, cut(tmp_path / "model.safetensors", share), "model.safetensors", "download it again")
    folder = write_distributed(tmp_path / "model", tensors)
    refused(store, cut(folder / "__0_0.distcp", share).parent, "__0_0.distcp", "download it again")
    folder = write_distributed(tmp_path / "other", tensors)
    refused(store, cut(folder / ".metadata", share).parent, ".metadata", "download it again")


def test_damaged_bytes_are_refused(store, tmp_path):
    tensors = good_tensors()
    refused(store, flip(write_torch(tmp_path / "model.pth", tensors), 100_000), "damaged", "download it again")
    save_file(tensors, tmp_path / "model.safetensors")
    refused(store, flip(tmp_path / "model.safetensors", 9), "damaged", "download it again")
    folder = write_distributed(tmp_path / "model", tensors)
    flip(folder / "__0_0.distcp", (folder / "__0_0.distcp").stat().st_size // 2)
    refused(store, folder, "net.", "damaged", "download it again")


@pytest.mark.parametrize("form", ["torch", "old torch", "safetensors", "index", "description", "data"])
def test_whatever_damage_does_to_a_file_is_said_as_such(form, tmp_path):
    """Random bytes changed: either the numbers come whole or the file is refused, never another error."""
    tensors, out = published(tiny_network("umt5-xxl"), namings.WAN_UMT5), tmp_path / "out"
    out.mkdir()
    if form in ("torch", "old torch"):
        torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=form == "torch")
        file = checkpoint = tmp_path / "a.pth"
    elif form == "safetensors":
        save_file(tensors, tmp_path / "a.safetensors")
        file = checkpoint = tmp_path / "a.safetensors"
    elif form == "index":
        (file,) = write_sharded(tmp_path / "a", tensors).glob("*.json")
        checkpoint = file
    else:
        checkpoint = write_distributed(tmp_path / "a", tensors)
        file = checkpoint / (".metadata" if form == "description" else "__0_0.distcp")
    whole, chance, refusals = file.read_bytes(), random.Random(form), 0
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 2, 5))):
            content[chance.randrange(min(len(content), 6000))] = chance.randrange(256)
        file.write_bytes(content)
        try:
            plan = plan_for((checkpoint,), TINY)
            if plan is not None:
                write_weights(plan.portions, out)
        except CheckpointError:
            refusals += 1
    assert refusals > 10


def test_a_file_of_something_else_is_refused(store, tmp_path):
    for name, content in (("a.pth", b"hello"), ("b.safetensors", b"hello"), ("c.pt", b""), ("d.pth", b"PK\x03\x04 no")):
        (tmp_path / name).write_bytes(content)
        refused(store, tmp_path / name, name)
    refused(store, write_torch(tmp_path / "e.pth", {"weight": torch.ones(3)}), "nothing that photowalk knows")
    refused(store, write_torch(tmp_path / "f.pth", [1, 2, 3]), "nothing that photowalk knows")
    refused(store, tmp_path / "absent.pth", "there is no")
    (tmp_path / "notes.txt").write_text("hello")
    refused(store, tmp_path / "notes.txt", "no weights that photowalk knows")
    good = write_torch(tmp_path / "good.pth", good_tensors())
    refused(store, good, "is not umt5-xxl", name="umt5-xxl")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_is_not_run(zipped, store, tmp_path):
    bomb = tmp_path / "boom"
    source = tmp_path / "model.pth"
    torch.save(good_tensors() | {"x": Bomb(bomb)}, source, _use_new_zipfile_serialization=zipped)
    refused(store, source, "refused", "mkdir")
    assert not bomb.exists()


@pytest.mark.filterwarnings("error")
def test_code_in_a_plain_pickle_is_not_run(store, tmp_path):
    bomb, source = tmp_path / "boom", tmp_path / "model.pth"
    source.write_bytes(pickle.dumps(Bomb(bomb)))  # torch itself warns of its protocol
    refused(store, source, "refused")
    assert not bomb.exists()


def test_code_in_a_distributed_checkpoint_is_not_run(store, tmp_path):
    folder, bomb = write_distributed(tmp_path / "model", good_tensors()), tmp_path / "boom"
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb(bomb)))
    refused(store, folder, "refused", "mkdir")
    description = pickle.dumps({"a": Bomb(bomb)}, protocol=0)
    (folder / ".metadata").write_bytes(description)
    refused(store, folder, "refused", "mkdir")
    shutil.rmtree(folder)
    write_distributed(folder, good_tensors())
    data = folder / "__0_0.distcp"
    torch.save(Bomb(bomb), tmp_path / "bomb.pt", _use_new_zipfile_serialization=False)
    content, instead = bytearray(data.read_bytes()), (tmp_path / "bomb.pt").read_bytes()
    content[: len(instead)] = instead
    data.write_bytes(content)
    refused(store, folder, "cannot be read")
    assert not bomb.exists()


def test_a_compressed_archive_is_refused_before_it_swells(store, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(10_000_000))
    refused(store, tmp_path / "model.pth", "compressed", "refused")


def test_a_tensor_that_claims_to_be_huge_is_refused(store, tmp_path):
    tensors = good_tensors()
    tensors["net.head.head.bias"] = torch.zeros(1).expand(10**9, 10**3)
    refused(store, write_torch(tmp_path / "model.pth", tensors), "net.head.head.bias: (1000000000, 1000) instead of")


@pytest.mark.parametrize("place", ["../outside.safetensors", "/etc/passwd", "..", "", 3])
def test_an_index_leads_nowhere_else(place, store, tmp_path):
    folder = write_sharded(tmp_path / "model", good_tensors())
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["net.head.head.bias"] = place
    index.write_text(json.dumps(content))
    refused(store, folder, "refused", "outside")


def test_a_distributed_checkpoint_leads_nowhere_else(store, tmp_path):
    folder = write_distributed(tmp_path / "model", good_tensors())
    (folder / "__0_0.distcp").rename(tmp_path / "__0_0.distcp")
    description = pickle.loads((folder / ".metadata").read_bytes())
    for piece in description.storage_data.values():
        piece.relative_path = "../__0_0.distcp"
    (folder / ".metadata").write_bytes(pickle.dumps(description))
    refused(store, folder, "outside")


def test_missing_shards_and_tensors_of_an_index_are_named(store, tmp_path):
    folder = write_sharded(tmp_path / "model", good_tensors())
    shard = next(folder.glob("*-00002-of-*"))
    moved = shard.rename(tmp_path / "shard")
    refused(store, folder, shard.name, "is missing")
    shutil.copy(next(folder.glob("*-00001-of-*")), shard)
    refused(store, folder, "is in")
    moved.rename(shard)
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        content["weight_map"]["net.blocks.7.gone"] = shard.name
        path.write_text(json.dumps(content))
    refused(store, folder, "net.blocks.7.gone")
    next(folder.glob("*.json")).write_text("[]")
    refused(store, folder, "no index")


def test_pieces_that_do_not_make_up_a_tensor_are_refused(store, tmp_path):
    folder = write_distributed(tmp_path / "model", good_tensors())
    description = pickle.loads((folder / ".metadata").read_bytes())
    description.state_dict_metadata["net.patch_embedding.weight"].chunks.clear()
    (folder / ".metadata").write_bytes(pickle.dumps(description))
    refused(store, folder, "does not hold all of net.patch_embedding.weight")


def test_a_failed_import_keeps_what_was_there(store, tmp_path):
    bring(write_torch(tmp_path / "good.pth", good_tensors()))
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    tensors = good_tensors()
    tensors["net.blocks.1.norm3.weight"][0] = float("nan")
    with pytest.raises(ValueError, match="damaged"):
        bring(write_torch(tmp_path / "bad.pth", tensors))
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_disk_that_fills_up_on_the_way_is_said(store, tmp_path):
    source = write_torch(tmp_path / "model.pth", good_tensors())
    with (
        pytest.raises(ValueError, match=r"lyra2-denoiser could not be written .* nothing of it was kept. Make room"),
        smallest_disk(source.stat().st_size // 2),
    ):
        bring(source)
    assert [path.name for path in store.iterdir()] == [".lock"]


@pytest.mark.parametrize("stage", ["hash of lyra2-denoiser", "lyra2-denoiser"])
def test_an_import_that_is_cancelled_leaves_nothing(store, tmp_path, stage):
    def cancel(name, done, total):
        if name == stage and 0 < done <= total:
            raise KeyboardInterrupt

    source = write_torch(tmp_path / "model.pth", good_tensors())
    with pytest.raises(KeyboardInterrupt):
        bring(source, on_step=cancel)
    assert [path.name for path in store.iterdir()] == [".lock"]
    bring(source)
    assert stored() == ["lyra2-denoiser"]


def test_a_licence_that_is_not_accepted_stops_everything(store, tmp_path):
    source = write_torch(tmp_path / "model.pth", good_tensors())
    asked = []
    with pytest.raises(ValueError, match="was not accepted; nothing was done"):
        import_weights([source], lambda licence: asked.append(licence) or False, networks=TINY)
    assert "research" in asked[0].terms
    assert stored() == []
    free = write_torch(tmp_path / "vae.pth", published(tiny_network("wan2.1-codec"), namings.WAN_CODEC))
    import_weights([free], lambda licence: False, networks=TINY)
    assert manifest_of("wan2.1-codec")["licence"]["accepted"] is None


def test_an_import_takes_turns_and_minds_the_disk(store, tmp_path, monkeypatch):
    source = write_torch(tmp_path / "model.pth", good_tensors())
    with new_entry("other", 0), pytest.raises(ValueError, match="another import"):
        bring(source)
    with pytest.raises(ValueError, match=r"large wants 1e\+09 GB .* free"), new_entry("large", 10**18):
        pass
    (store / ".importing-other").mkdir()  # as a killed import leaves it
    bring(source)
    assert {path.name for path in store.iterdir()} == {".lock", "lyra2-denoiser", "other"}


def test_a_folder_of_downloads_is_taken_as_a_whole(store, tmp_path):
    folder = tmp_path / "Lyra-2.0" / "checkpoints"
    write_distributed(folder / "model", good_tensors())
    for name, content in (
        ("vae/vae.pth", published(tiny_network("wan2.1-codec"), namings.WAN_CODEC)),
        ("vae/images_mean_std.pt", [torch.zeros(16), torch.ones(16)]),
        ("text_encoder/encoder.pth", published(tiny_network("umt5-xxl"), namings.WAN_UMT5)),
        ("text_encoder/negative_prompt.pt", {"t5_text_embeddings": torch.randn(1, 6, 7), "text": "ugly"}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        write_torch(folder / name, content)
    (folder / "model" / "config.json").write_text("{}")
    notes = []
    names = import_weights([tmp_path / "Lyra-2.0"], lambda licence: True, networks=TINY, on_note=notes.append)
    assert names == ["lyra2-denoiser", "umt5-xxl", "lyra2-negative-prompt", "wan2.1-codec"]
    assert sorted(names) == stored()
    assert any("passed over" in note and "images_mean_std.pt" in note for note in notes)
    features = load_file(find("lyra2-negative-prompt") / "weights-00001.safetensors")["features"]
    assert features.shape == (1, 6, 7)


# --- adaptations ----------------------------------------------------------------------------------------------------


def lora_of(layers, style):
    torch.manual_seed(4)
    tensors = {}
    for layer, (rows, columns) in layers.items():
        down, up, alpha = torch.randn(2, columns), torch.randn(rows, 2), torch.tensor(4.0)
        if style == "musubi":
            name = f"lora_unet_{layer.replace('.', '_')}"
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha}
        else:
            tensors |= {f"{style}{layer}.lora_A.weight": down, f"{style}{layer}.lora_B.weight": up}
            tensors[f"{style}{layer}.alpha"] = alpha
    return tensors


LAYERS = {"blocks.0.self_attn.q": (24, 24), "blocks.1.ffn.0": (40, 24), "blocks.1.cam_encoder": (24, 96)}


@pytest.mark.parametrize("style", ["", "net.", "diffusion_model.", "musubi"])
def test_adaptations_of_every_key_style_become_one(style, store, tmp_path):
    save_file(lora_of(LAYERS, style), tmp_path / "dmd_distillation.safetensors")
    extra = {"blocks.0.self_attn.k.diff": torch.ones(24, 24), "blocks.1.ffn.0.diff_b": torch.linspace(0, 1, 40)}
    save_file(lora_of(LAYERS, style) | extra, tmp_path / "my_style.safetensors")
    assert bring(tmp_path / "dmd_distillation.safetensors", tmp_path / "my_style.safetensors") == [
        "lyra2-lora-dmd",
        "lora-my_style",
    ]
    assert load_file(find("lyra2-lora-dmd") / "weights-00001.safetensors").keys() == lora_of(LAYERS, "").keys()
    assert manifest_of("lora-my_style")["left out"] == ["blocks.0.self_attn.k.diff"]
    assert manifest_of("lora-my_style")["licence"] is None
    converted, original = tiny_network("lyra2-denoiser"), tiny_network("lyra2-denoiser")
    merge_lora(converted, load_file(find("lora-my_style") / "weights-00001.safetensors"), 0.4)
    merge_lora(original, load_file(tmp_path / "my_style.safetensors"), 0.4)
    assert same(converted, original)
    assert not same(converted, tiny_network("lyra2-denoiser"))


def test_an_adaptation_cannot_take_the_place_of_something_else(store, tmp_path):
    path = tmp_path / "my style.safetensors"
    save_file(lora_of(LAYERS, ""), path)
    names = [bring(path, name=name)[0] for name in (None, "../up", "lyra2-denoiser", "lora-mine", "lyra2-lora-dmd")]
    assert names == ["lora-my_style", "lora-.._up", "lora-lyra2-denoiser", "lora-mine", "lyra2-lora-dmd"]
    assert sorted(names) == stored()


def test_an_adaptation_of_another_network_is_refused(store, tmp_path):
    for name, tensors, words in (
        ("a", lora_of({"blocks.9.self_attn.q": (24, 24)}, "net."), "no linear layer"),
        ("b", lora_of({"blocks.0.self_attn.q": (24, 25)}, "net."), "do not fit"),
        ("c", {"blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 24)}, "incomplete"),
        ("d", lora_of(LAYERS, "") | {"blocks.0.ffn.0.alpha": torch.ones(3)}, "alpha"),
    ):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        refused(store, tmp_path / f"{name}.safetensors", "LoRA", words)
