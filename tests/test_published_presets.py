"""The published presets from the store, with tiny networks in the place of the 14B ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from checkpoint_files import DEPTH_ALONE
from tiny import tiny_preset
from tiny_published import HEIGHT, WIDTH, tiny_clip, tiny_denoiser, tiny_tokenizer, tiny_umt5, tiny_wan

from photowalk import load_preset
from photowalk.checkpoints.load import stored_shapes
from photowalk.cli import main
from photowalk.diffusion.few_step import FewStep
from photowalk.diffusion.unipc import UniPC
from photowalk.geometry.paths import forward
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.presets import depth_anything, published
from photowalk.world.placement import Placement
from photowalk.world.residency.plan import GB, Plan
from photowalk.world.residency.visiting import VisitingCodec

PLACEMENT = Placement(torch.device("cpu"), torch.bfloat16, "a test")
NAMES = ["lyra2-14b", "lyra2-14b-fast", "lyra2-14b-zoom", "lyra2-14b-zoom-fast"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store that holds tiny networks; the presets are told their sizes."""
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path))
    torch.manual_seed(0)
    denoiser = tiny_denoiser()
    networks = {
        "lyra2-denoiser": denoiser,
        "wan2.1-codec": tiny_wan(),
        "umt5-xxl": tiny_umt5(),
        "clip-vit-h": tiny_clip(),
    }
    for name, network in networks.items():
        kept = network.state_dict()
        put(tmp_path, name, {key: kept[key].bfloat16() for key in stored_shapes(network)})
    put(tmp_path, "lyra2-negative-prompt", {"t5_text_embeddings": torch.randn(512, 16).bfloat16()})
    for name in ("lyra2-lora-dmd", "lyra2-lora-realism", "lyra2-lora-detail"):
        layer = "blocks.0.self_attn.q"
        put(tmp_path, name, {f"{layer}.lora_A.weight": torch.randn(2, 32), f"{layer}.lora_B.weight": torch.ones(32, 2)})
    put(tmp_path, "umt5-tokenizer", {})
    tiny_tokenizer().save_pretrained(tmp_path / "umt5-tokenizer")
    config = replace(denoiser.config, text_length=512)
    monkeypatch.setattr(published, "lyra2_14b_denoiser", lambda: config)
    monkeypatch.setattr(published, "umt5_xxl_network", tiny_umt5)
    monkeypatch.setattr(published, "clip_vit_h_network", tiny_clip)
    monkeypatch.setattr(published, "wan_codec_network", tiny_wan)
    return tmp_path


def put(store, name, tensors):
    (store / name).mkdir()
    if tensors:
        save_file(tensors, store / name / "weights-00001.safetensors")
    (store / name / "manifest.json").write_text(json.dumps({"name": name}))


def test_a_chunk_is_made_with_weights_of_the_store(store):
    generator = load_preset("lyra2-14b-fast").build(PLACEMENT)
    assert isinstance(generator.sampler, FewStep)
    assert generator.config.guidance == 1
    assert next(generator.denoiser.parameters()).dtype == torch.bfloat16
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    state = generator.start(torch.rand(3, HEIGHT, WIDTH), depth=depth, focal_px=40.0, prompt="a hall of stone")
    cameras = forward(state.cameras[-1], 81, distance=0.2)[1:]
    state = generator.extend(state, cameras, "a forest", seed=1)
    assert state.video.shape == (81, 3, HEIGHT, WIDTH)
    assert state.video.isfinite().all()
    assert {tensor.dtype for tensor in state.encoder.values() if tensor.numel()} == {torch.bfloat16}


def test_a_plan_lays_the_stored_weights_out_and_changes_no_number(store):
    preset = load_preset("lyra2-14b-fast")  # with an adaptation, which is merged on the way
    needed = preset.footprint(HEIGHT, WIDTH, False)
    plan = Plan(needed, 24 * GB, (0, 1), "bfloat16", visiting=True)
    resident, planned = (preset.assemble(replace(PLACEMENT, plan=chosen)) for chosen in (None, plan))
    assert isinstance(planned.codec, VisitingCodec)
    states = []
    for generator in (resident, planned):
        photo = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
        state = generator.start(photo, depth=torch.full((HEIGHT, WIDTH), 2.0), focal_px=40.0, prompt="a hall of stone")
        states.append(generator.extend(state, forward(state.cameras[-1], 81, distance=0.2)[1:], "a forest", seed=1))
    assert torch.equal(states[0].video, states[1].video)
    assert torch.equal(states[0].latents, states[1].latents)


def test_a_bound_on_gpu_memory_does_nothing_where_there_is_none(store):
    notes = []
    load_preset("lyra2-14b-fast").build(replace(PLACEMENT, vram=24 * GB), on_note=notes.append)
    tiny_preset().build(replace(PLACEMENT, vram=24 * GB), on_note=notes.append)
    tiny_preset().build(PLACEMENT, on_note=notes.append)
    assert [note.partition(";")[0] for note in notes] == [
        "torch sees no GPU here",
        "tiny is small and needs no GPU memory to be set aside",
    ]


def test_presets_differ_in_steps_guidance_and_adaptations(store):
    built = {name: load_preset(name).build(PLACEMENT) for name in NAMES}
    assert [generator.sampler for generator in built.values()] == [UniPC(35), FewStep(4), UniPC(50), FewStep(4)]
    assert [generator.config.guidance for generator in built.values()] == [5.0, 1.0, 5.0, 1.0]
    weights = [generator.denoiser.blocks[0].self_attn.q.weight for generator in built.values()]
    assert all(not torch.equal(weights[i], weights[j]) for i in range(4) for j in range(i))
    others = [generator.denoiser.blocks[1].self_attn.q.weight for generator in built.values()]
    assert all(torch.equal(others[0], other) for other in others)
    assert built["lyra2-14b"].negative.shape == (1, 512, 16)


def test_depth_is_of_the_published_network_where_it_is_in_the_store(store, monkeypatch):
    monkeypatch.setattr(depth_anything, "DEPTH_ANYTHING", {"da3-base": lambda: DEPTH_ALONE})
    assert load_preset("lyra2-14b").build(PLACEMENT).depth.name == "nano"
    kept = DepthAnything3(DEPTH_ALONE)
    put(store, "da3-base", {name: kept.state_dict()[name].clone() for name in stored_shapes(kept)})
    built = load_preset("lyra2-14b").build(PLACEMENT)
    assert built.depth.name == "da3-base"
    assert next(built.depth.network.parameters()).dtype == torch.float32


@pytest.mark.parametrize("missing", ["lyra2-denoiser", "umt5-tokenizer", "lyra2-negative-prompt", "lyra2-lora-dmd"])
def test_what_is_missing_is_named_with_the_command_that_brings_it(store, missing):
    (store / missing / "manifest.json").unlink()
    with pytest.raises(ValueError, match=rf"{missing}.*photowalk weights get"):
        load_preset("lyra2-14b-fast").build(PLACEMENT)


def test_the_command_line_says_so_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path / "store"))
    Image.new("RGB", (96, 64), "grey").save(tmp_path / "photo.png")
    assert main(["generate", str(tmp_path / "photo.png"), "-o", str(tmp_path / "w"), "--preset", "lyra2-14b"]) == 2
    assert "photowalk weights get lyra2-14b" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_an_unknown_preset_names_those_that_there_are():
    with pytest.raises(ValueError, match="lyra2-14b-fast"):
        load_preset("lyra3")
