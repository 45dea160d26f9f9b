"""A checkpoint that several processes wrote, each its share of every tensor, as the published one was: read in one."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import DENOISER, TINY, published, tiny_network

from photowalk.checkpoints import namings
from photowalk.checkpoints.importing import import_weights
from photowalk.checkpoints.load import load
from photowalk.checkpoints.store import find
from photowalk.models.world_transformer import WorldTransformer

RANKS = 2
WRITE = """
import os, sys
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[3], "RANK": sys.argv[4], "WORLD_SIZE": sys.argv[5]}
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (int(sys.argv[5]),))
tensors = torch.load(sys.argv[1], weights_only=True)
shared = {name: distribute_tensor(t, mesh, [Shard(0)]) if t.dim() else t for name, t in tensors.items()}
dcp.save(shared, checkpoint_id=sys.argv[2])
dist.barrier()  # one that leaves while the other still talks can be torn down with its threads running
dist.destroy_process_group()
os._exit(0)  # the file is whole: threads of the group that are still about would abort a plain exit
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_a_checkpoint_of_several_processes_is_read_in_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path / "store"))
    network = tiny_network("lyra2-denoiser")
    tensors = published(network, namings.LYRA_DENOISER, "net.") | {"net.accum_iteration": torch.tensor(7)}
    torch.save(tensors, tmp_path / "all.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    call = [sys.executable, "-c", WRITE, str(tmp_path / "all.pt"), str(tmp_path / "model"), port]
    ranks = [subprocess.Popen([*call, str(i), str(RANKS)], stderr=subprocess.PIPE, text=True) for i in range(RANKS)]
    try:
        said = [rank.communicate(timeout=90)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), said
    assert len(list((tmp_path / "model").glob("*.distcp"))) == RANKS
    import_weights([Path(tmp_path / "model")], lambda licence: True, networks=TINY, on_note=lambda note: None)
    loaded = WorldTransformer(DENOISER)
    load(loaded, find("lyra2-denoiser"))
    wanted = network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
