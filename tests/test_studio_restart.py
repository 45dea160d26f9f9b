"""A studio that is killed: every finished chunk is there, nothing is corrupt, and the walk goes on to the same frames.

PHOTOWALK_KILLS sets how often it is killed, PHOTOWALK_KILLS_SEED at which moments; continuous integration does it twice
a release 20 times:

    PHOTOWALK_KILLS=20 pytest -s tests/test_studio_restart.py
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
from studio import CHUNK_FRAMES, load_tiny, make_photo
from worlds import assert_same_world

pytest.importorskip("fastapi", reason="the extra 'studio' is not installed")
from photowalk import World
from photowalk.studio.client import Client
from photowalk.studio.library import Library

KILLS, SEED = int(os.environ.get("PHOTOWALK_KILLS", "2")), int(os.environ.get("PHOTOWALK_KILLS_SEED", "0"))
WALK = f"right 20deg in {4 * CHUNK_FRAMES} frames"
SERVE = """
import sys
from pathlib import Path
import uvicorn
from photowalk.studio.access import Access
from photowalk.studio.api import create_app
from photowalk.studio.service import Studio
from studio import load_tiny

if __name__ == "__main__":
    app = create_app(Studio(Path(sys.argv[1]), load_tiny, "tiny", threads=1), Access({}, open_to="me"))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error"))
    server.run()
"""


class Running:
    """A studio in a process of its own."""

    def __init__(self, script: Path, root: Path, port: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        self.process = subprocess.Popen([sys.executable, str(script), str(root), str(port)], env=environment)
        self.client = Client(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.client.me()
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the studio did not start")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "serve_tiny.py"
    file.write_text(SERVE)
    return file


def test_killed_at_random_moments(tmp_path, script, unused_port):
    """Walks of four chunks, one after the other, until there were enough kills; what waits then still waits."""
    torch.set_num_threads(1)
    chance, photo = random.Random(SEED), make_photo(tmp_path / "room.png")
    whole = World.create(photo, tmp_path / "whole", path=WALK, preset=load_tiny("tiny"))
    root = tmp_path / "studio"
    running = Running(script, root, unused_port)
    started, kills = time.monotonic(), 0
    while kills < KILLS:
        made = running.client.create(photo)
        running.client.wait(made.job)
        beside = running.client.branch(made.world.id).id
        job = running.client.extend(made.world.id, WALK)
        waiting = [running.client.extend(beside, WALK) for _ in range(2)]
        folder = Library(root).folder("me", made.world.id)
        finished = 1
        while kills < KILLS and running.client.job(job.id).state != "done":
            for _ in zip(range(chance.randrange(16)), running.client.watch(job)):
                pass  # moments are counted in steps of the work, whatever the machine's speed
            time.sleep(chance.uniform(0, 0.3))
            running.kill()
            kills += 1
            world = World.open(folder, whole.generator)
            world.verify()
            assert len(world.manifest.chunks) >= finished, "a finished chunk is gone"
            finished = len(world.manifest.chunks)
            print(f"kill {kills}: {finished - 1} of 4 chunks are there, all as they were written", flush=True)
            running = Running(script, root, unused_port)
            if waiting:
                states = {known.id: known.state for known in running.client.jobs()}
                assert states[made.job.id] == "done"
                assert states[waiting[0].id] in ("waiting", "running", "interrupted")  # its turn may have come
                assert states[waiting[1].id] == "waiting"
                for behind in reversed(waiting):
                    running.client.cancel(behind.id)
                assert {running.client.wait(behind).state for behind in waiting} == {"cancelled"}
                waiting = []
            offered = running.client.job(job.id)
            assert offered.state in ("interrupted", "waiting", "done")
            if offered.state == "interrupted":
                running.client.resume(job.id)
        assert running.client.wait(job).state == "done"
        assert_same_world(World.open(folder, whole.generator).state, whole.state)
    running.kill()
    print(f"{kills} kills in {time.monotonic() - started:.0f} s")


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
