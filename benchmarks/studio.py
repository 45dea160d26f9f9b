"""How soon the studio's page is usable, and how fast it answers 8 clients while a chunk is generated.

    python benchmarks/studio.py [--photo PHOTO] [--clients 8] [--no-page]

The page is usable when its 3D view and panels answer, from a warm server to a fresh Chromium without a GPU, on a world
of one chunk. Requests are those that a page makes: the world, its jobs, a frame, a plan.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from photowalk.studio import schemas
from photowalk.studio.client import Client

PHOTO = Path(__file__).parent.parent / "examples" / "photo" / "hall.jpg"
PORT = 8761
FLAGS = ["--no-sandbox", "--enable-unsafe-swiftshader"]  # as where there is no GPU: WebGL in software, pages without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--no-page", action="store_true", help="where there is no Chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "photowalk", "studio", "--folder", folder, "--port", str(PORT), "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
        try:
            address = f"http://localhost:{PORT}"
            client = _connected(address)
            world = _walked(client, options.photo)
            page = None if options.no_page else _page_seconds(address, world)
            _answers(address, client, world, options.clients)
            if page is not None:
                print(f"page usable after {page:.2f} s (bound: 3 s)")
        finally:
            server.terminate()
            server.wait()


def _connected(address: str) -> Client:
    client = Client(address)
    deadline = time.monotonic() + 60
    while True:
        try:
            client.me()
            return client
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"the studio did not start: {error}") from error
        time.sleep(0.1)


def _walked(client: Client, photo: Path) -> str:
    started = time.monotonic()
    made = client.create(photo)
    client.wait(made.job)
    print(f"photo to point cloud: {time.monotonic() - started:.1f} s, with the start of the generating process")
    started = time.monotonic()
    client.wait(client.extend(made.world.id, "left 20deg"))
    print(f"one chunk alone: {time.monotonic() - started:.1f} s")
    return made.world.id


def _page_seconds(address: str, world: str) -> float:
    """The median of three visits by fresh browsers."""
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        for _ in range(3):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            started = time.monotonic()
            page.goto(f"{address}/#{world}")
            page.wait_for_function(
                "document.getElementById('making').hidden && !document.getElementById('scene').hidden"
            )
            page.frame_locator("#scene").get_by_role("tab", name="Plan").click()
            seconds.append(time.monotonic() - started)
            page.wait_for_timeout(8000)
            print(f"  visit: {seconds[-1]:.2f} s, {page.get_attribute('#scene', 'data-fps')} frames a second at rest")
            browser.close()
    return statistics.median(seconds)


def _answers(address: str, client: Client, world: str, clients: int) -> None:
    """Ask until the chunk is done, and print what answers took."""
    job = client.extend(world, "right 20deg")
    while client.job(job.id).state == "waiting":
        time.sleep(0.05)
    times: dict[str, list[float]] = {"world": [], "jobs": [], "frame": [], "plan": []}
    done = threading.Event()

    def ask() -> None:
        with Client(address) as own:
            requests = {
                "world": lambda: own.world(world),
                "jobs": own.jobs,
                "frame": lambda: own.frame(world, 40),
                "plan": lambda: own.plan(world, "forward 0.5"),
            }
            while not done.is_set():
                for name, request in requests.items():
                    started = time.monotonic()
                    request()
                    times[name].append(time.monotonic() - started)
                    time.sleep(0.25)  # as people do, or faster

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    state: schemas.Job = client.wait(job)
    done.set()
    for thread in threads:
        thread.join()
    print(f"one chunk with {clients} clients: {time.monotonic() - started:.1f} s, {state.state}")
    for name, taken in times.items():
        middle, slow = 1000 * statistics.median(taken), 1000 * sorted(taken)[int(0.95 * len(taken))]
        print(f"  {name:6} {len(taken):5} answers, median {middle:6.1f} ms, 95 % within {slow:.0f} ms")
    everything = [second for taken in times.values() for second in taken]
    print(f"median answer {1000 * statistics.median(everything):.1f} ms while a chunk is generated (bound: 200 ms)")


if __name__ == "__main__":
    main()
