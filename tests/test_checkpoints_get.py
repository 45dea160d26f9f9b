"""Downloads from a hub on this computer: whole, broken off, damaged, refused; and the command line around the store."""

import errno
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkpoint_files import DENOISER, TINY, published, tiny_network, write_distributed
from disks import smallest_disk
from safetensors.torch import save
from small_hub import REVISION, SmallHub, running

from photowalk.checkpoints import namings
from photowalk.checkpoints.download import get
from photowalk.checkpoints.load import load
from photowalk.checkpoints.store import find, manifest_of, stored
from photowalk.cli import main
from photowalk.models.world_transformer import WorldTransformer

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

TOKENIZER = {
    "config.json": b"{}",
    "special_tokens_map.json": b'{"eos_token": "</s>"}',
    "tokenizer_config.json": b'{"model_max_length": 512}',
    "spiece.model": bytes(range(256)) * 100_000,
    "pytorch_model.bin": b"not asked for",
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return tmp_path / "store"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """With the tokenizer, a tiny codec and a tiny denoiser as they are published."""
    codec = io.BytesIO()
    torch.save(published(tiny_network("wan2.1-codec"), namings.WAN_CODEC), codec)
    folder = write_distributed(
        tmp_path / "model", published(tiny_network("lyra2-denoiser"), namings.LYRA_DENOISER, "net.")
    )
    lyra = {f"checkpoints/model/{path.name}": path.read_bytes() for path in folder.iterdir()}
    hub = SmallHub(
        {
            "google/umt5-xxl": TOKENIZER,
            "Wan-AI/Wan2.1-I2V-14B-480P": {"Wan2.1_VAE.pth": codec.getvalue(), "README.md": b"#"},
            "nvidia/Lyra-2.0": lyra | {"checkpoints/vae/vae.pth": b"not asked for"},
        }
    )
    with running(hub) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)  # HF_ENDPOINT, read when it was imported
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        hub.address = address
        yield hub


def fetch(name, accept=True):
    notes = []
    get(name, lambda licence: accept, networks=TINY, on_note=notes.append)
    return notes


def command(hub, *arguments, **options):
    environment = os.environ | {"HF_ENDPOINT": hub.address}
    call = [sys.executable, "-m", "photowalk", "weights", *arguments]
    return subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_download_says_what_it_is_and_ends_in_the_store(hub, store):
    notes = fetch("lyra2-denoiser")
    assert "the denoiser of Lyra 2.0" in notes[0]
    assert "2 file(s) of nvidia/Lyra-2.0" in notes[0]
    loaded = WorldTransformer(DENOISER)
    load(loaded, find("lyra2-denoiser"))
    wanted = tiny_network("lyra2-denoiser").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    manifest = manifest_of("lyra2-denoiser")
    assert (manifest["repository"], manifest["revision"]) == ("nvidia/Lyra-2.0", REVISION)
    assert manifest["licence"]["accepted"]
    assert not any((store / ".downloads").iterdir()), "downloads take no room once they are converted"
    assert fetch("lyra2-denoiser") == ["lyra2-denoiser is here already"]


def test_nothing_is_fetched_before_the_licence_is_accepted(hub, store):
    with pytest.raises(ValueError, match="was not accepted"):
        fetch("lyra2-denoiser", accept=False)
    assert hub.requests == []
    assert fetch("wan2.1-codec", accept=False), "a free licence is not asked for"


def test_a_file_that_came_damaged_is_deleted_and_comes_again(hub, store):
    hub.damage.add("Wan2.1_VAE.pth")
    with pytest.raises(ValueError, match="came damaged: its hash is not the hub's"):
        fetch("wan2.1-codec")
    assert stored() == []
    assert [path for path in store.rglob("*") if path.is_file()] == []
    hub.damage.clear()
    fetch("wan2.1-codec")
    assert stored() == ["wan2.1-codec"]
    assert [wanted for _, wanted in hub.requests] == [None, None]


def test_small_files_are_compared_too(hub, store):
    hub.damage.add("tokenizer_config.json")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json came damaged"):
        fetch("umt5-tokenizer")
    hub.damage.clear()
    fetch("umt5-tokenizer")
    assert (find("umt5-tokenizer") / "spiece.model").read_bytes() == TOKENIZER["spiece.model"]
    assert not (find("umt5-tokenizer") / "config.json").exists()


def test_a_download_that_is_killed_goes_on_where_it_was(hub, store):
    """The real command: the hub stalls, the program is killed, and called again."""
    hub.stall["spiece.model"] = 15_000_000
    first = command(hub, "get", "umt5-tokenizer")
    try:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > 10**6 for path in store.rglob("*.part")):
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline, "nothing came"
            time.sleep(0.05)
    finally:
        first.kill()
        first.communicate()
    (part,) = store.rglob("*.part")
    begun = part.stat().st_size
    hub.stall.clear()
    second = command(hub, "get", "umt5-tokenizer")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert "the tokenizer of UMT5-XXL" in said
    assert "25.6 MB in 3 file(s) of google/umt5-xxl, Apache-2.0" in said
    assert ("spiece.model", f"bytes={begun}-") in hub.requests
    assert (find("umt5-tokenizer") / "spiece.model").read_bytes() == TOKENIZER["spiece.model"]


def test_a_hub_that_refuses_or_is_silent_is_told_from_one_that_has_nothing(hub, store, monkeypatch):
    hub.refuse.add("nvidia/Lyra-2.0")
    with pytest.raises(ValueError, match=r"accept its terms at .*nvidia/Lyra-2\.0, log in"):
        fetch("lyra2-denoiser")
    with pytest.raises(ValueError, match=r"has no models_t5"):
        fetch("umt5-xxl")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"could not be fetched .* photowalk weights import"):
        fetch("wan2.1-codec")
    with pytest.raises(ValueError, match="no weights are called"):
        fetch("wan")
    assert stored() == []


@pytest.mark.parametrize("path", ["checkpoints/model/../../../outside", "/checkpoints/model/x"])
def test_the_hub_cannot_place_files_elsewhere(path, hub, store, monkeypatch):
    hub.repositories["nvidia/Lyra-2.0"][path] = b"x"
    monkeypatch.setattr("photowalk.checkpoints.download.fnmatch", lambda name, pattern: True)
    with pytest.raises(ValueError, match="outside of its folder; nothing was fetched"):
        fetch("lyra2-denoiser")
    assert hub.requests == []


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(hub, store, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("photowalk.checkpoints.download.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match="make room"):
        fetch("wan2.1-codec")
    assert hub.requests == []


def test_a_disk_that_fills_up_on_the_way_keeps_what_came(hub, store):
    with pytest.raises(OSError, match=f"Errno ({errno.ENOSPC}|{errno.EFBIG})"), smallest_disk(15_000_000):
        fetch("umt5-tokenizer")
    (part,) = store.rglob("*.part")
    begun = part.stat().st_size
    assert 0 < begun <= 15_000_000
    fetch("umt5-tokenizer")
    assert ("spiece.model", f"bytes={begun}-") in hub.requests
    assert stored() == ["umt5-tokenizer"]


# --- the command line -----------------------------------------------------------------------------------------------


def write_tokenizer(folder):
    folder.mkdir()
    for name in ("spiece.model", "tokenizer_config.json"):
        (folder / name).write_bytes(TOKENIZER[name][:100])
    return folder


def test_the_store_from_the_command_line(store, tmp_path, capsys):
    assert main(["weights", "list"]) == 0
    assert "photowalk weights get lyra2-14b" in capsys.readouterr().out
    assert main(["weights", "show", "umt5-tokenizer"]) == 0
    assert "fetch it with: photowalk weights get umt5-tokenizer" in capsys.readouterr().out
    assert main(["weights", "import", str(write_tokenizer(tmp_path / "tokenizer"))]) == 0
    assert main(["weights", "show", "umt5-tokenizer", "--verify"]) == 0
    said = capsys.readouterr().out
    assert "made from spiece.model" in said
    assert "every file is as it was written" in said
    assert main(["weights", "list"]) == 0
    assert "here" in capsys.readouterr().out
    (find("umt5-tokenizer") / "spiece.model").write_bytes(b"x")
    assert main(["weights", "show", "umt5-tokenizer", "--verify"]) == 2
    assert "has changed" in capsys.readouterr().err


def test_listing_does_not_wait_for_torch(store):
    code = "import sys; from photowalk.cli import main; main(['weights', 'list']); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("False")


def test_licences_are_asked_for_on_the_command_line(store, tmp_path, capsys, monkeypatch):
    prompt = tmp_path / "negative_prompt.pt"
    torch.save({"t5_text_embeddings": torch.ones(1, 3, 4096)}, prompt)
    assert main(["weights", "import", str(prompt)]) == 2
    said = capsys.readouterr().err
    assert "NVIDIA Internal Scientific Research" in said
    assert "no distribution" in said
    assert "was not accepted; nothing was done" in said
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert main(["weights", "import", str(prompt)]) == 2
    assert stored() == []
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    assert main(["weights", "import", str(prompt)]) == 0
    assert main(["weights", "import", str(prompt), "--accept-licence"]) == 0
    assert stored() == ["lyra2-negative-prompt"]


def test_a_preset_without_weights_says_which_command_brings_them(store, tmp_path, capsys):
    photo = Path(__file__).parent.parent / "examples" / "photo" / "hall.jpg"
    world = tmp_path / "world"
    assert main(["generate", str(photo), "-o", str(world), "--preset", "lyra2-14b"]) == 2
    said = capsys.readouterr().err
    assert "photowalk weights get lyra2-14b;" in said
    assert "photowalk weights import FILE_OR_FOLDER" in said
    assert not world.exists()


def test_a_published_adaptation_is_checked_against_the_full_size(store, tmp_path, capsys):
    for layer, rows, code in (("blocks.39.self_attn.q", 5120, 0), ("blocks.39.self_attn.q", 1536, 2)):
        tensors = {f"diffusion_model.{layer}.lora_down.weight": torch.ones(2, rows)}
        tensors[f"diffusion_model.{layer}.lora_up.weight"] = torch.ones(rows, 2)
        (tmp_path / "style.safetensors").write_bytes(save(tensors))
        assert main(["weights", "import", str(tmp_path / "style.safetensors")]) == code
    assert "do not fit" in capsys.readouterr().err
    assert stored() == ["lora-style"]
