"""The training of the 14B denoiser from start to end, with tiny networks in the place of the published ones."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import rooms
from tiny_published import HEIGHT, WIDTH, tiny_clip, tiny_denoiser, tiny_tokenizer, tiny_umt5, tiny_wan

from photowalk.checkpoints.load import stored_shapes
from photowalk.data.clips import write_clip
from photowalk.presets import published
from photowalk.train import full_size
from photowalk.train.full_size import LYRA2_OBJECTIVE, train_full_size


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path / "store"))
    torch.manual_seed(0)
    networks = {
        "wan2.1-i2v-14b": tiny_denoiser(),
        "wan2.1-codec": tiny_wan(),
        "umt5-xxl": tiny_umt5(),
        "clip-vit-h": tiny_clip(),
    }
    for name, network in networks.items():
        folder, kept = tmp_path / "store" / name, network.state_dict()
        folder.mkdir(parents=True)
        save_file({key: kept[key].bfloat16() for key in stored_shapes(network)}, folder / "weights-00001.safetensors")
        (folder / "manifest.json").write_text(json.dumps({"name": name}))
    tiny_tokenizer().save_pretrained(tmp_path / "store" / "umt5-tokenizer")
    (tmp_path / "store" / "umt5-tokenizer" / "manifest.json").write_text(json.dumps({"name": "umt5-tokenizer"}))
    config = replace(networks["wan2.1-i2v-14b"].config, text_length=512)
    monkeypatch.setattr(published, "lyra2_14b_denoiser", lambda: config)
    monkeypatch.setattr(published, "umt5_xxl_network", tiny_umt5)
    monkeypatch.setattr(published, "clip_vit_h_network", tiny_clip)
    monkeypatch.setattr(published, "wan_codec_network", tiny_wan)
    small = replace(full_size.SIZES["lyra2-14b"], grid=(HEIGHT // 8, WIDTH // 8))
    monkeypatch.setitem(full_size.SIZES, "lyra2-14b", small)
    return tmp_path / "store"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "room"
    write_clip(folder, rooms.walk(161, (HEIGHT, WIDTH)), source="test", licence="CC0-1.0")
    return folder


@pytest.mark.parametrize("kind", ["first", "own"])
def test_it_begins_with_wan_and_learns_in_float32(store, clip, tmp_path, monkeypatch, kind):
    shares = {"first": 1.0, "own_past": 0.0} if kind == "first" else {"first": 0.0, "own_past": 1.0}
    monkeypatch.setattr(full_size, "LYRA2_OBJECTIVE", replace(LYRA2_OBJECTIVE, **shares))

    def small(published):
        return replace(published, max_steps=2, micro_batches=1, shard=1, log_every=1)

    (network,) = train_full_size("lyra2-14b", [clip], small, tmp_path / "work").values()
    found = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == [1, 2]
    assert all(math.isfinite(line["loss"]) for line in found)
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    wan = tiny_denoiser().state_dict().keys()
    assert network.state_dict().keys() == wan


def test_a_computer_without_enough_gpus_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"1 processes cannot hold .* shards of 8.*torchrun.*--dry-run"):
        train_full_size("lyra2-14b", [], lambda published: published, tmp_path)
    with pytest.raises(ValueError, match="no recipe to train 'huge' by"):
        train_full_size("huge", [], lambda published: published, tmp_path)
