"""A studio around the tiny preset, for tests: started as it is for people, without a network."""

import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tiny import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_preset

ONE_CHUNK = f"left 10deg in {CHUNK_FRAMES} frames"
OTHER_CHUNK = f"right 10deg in {CHUNK_FRAMES} frames"


def load_tiny(name):
    """A preset loader; the process that generates imports it by name."""
    return tiny_preset()


def make_photo(path: Path, seed: int = 3, size=(192, 128)) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@contextmanager
def serving(app, studio, port=0):
    """The application on a port of this machine, in a thread: its address."""
    from photowalk.studio.serve import Server

    server = Server(app, studio)
    listening = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
        assert thread.is_alive(), "the server did not start"
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


__all__ = ["CHUNK_FRAMES", "HEIGHT", "ONE_CHUNK", "OTHER_CHUNK", "WIDTH", "load_tiny", "make_photo", "serving"]
