"""Whether the studio keeps what it is meant to keep, each figure beside its limit. It takes about four minutes.

    python benchmarks/studio.py [--photo PHOTO] [--clients 8]

* The page is usable when a fresh Chromium without a GPU, sent to the link of a world of one chunk, shows the world in
  3D and its panels answer a click. The studio runs already. The median of three visits; the browser's own start is not
  counted.
* Answers: what `--clients` clients wait, who each ask for the world, its jobs, a frame and a plan four times a second
  while a chunk is generated.
* Software rendering: the splats of a walk of two chunks, about 200,000 of them, are opened in the same Chromium. The
  page gives itself fewer to draw; then the view is turned with the mouse for 8 seconds and the drawn frames are
  counted.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

from photowalk.export.ply import write_ply
from photowalk.reconstruct import reconstruct
from photowalk.reconstruct.lift import PixelAligned
from photowalk.studio import schemas
from photowalk.studio.client import Client
from photowalk.studio.library import Library
from photowalk.world.store import WorldStore

PHOTO = Path(__file__).parent.parent / "examples" / "photo" / "hall.jpg"
PORT = 8761
FLAGS = ["--no-sandbox", "--enable-unsafe-swiftshader"]  # as where there is no GPU: WebGL in software, pages without
USABLE_SECONDS, ANSWER_MS, FRAMES_A_SECOND = 3.0, 200.0, 5.0
TURNING_SECONDS = 8.0
SPLATS = 200_000
# Whether a tenth of the viewer's picture shows something of the world: it is empty where nothing was drawn.
DRAWN = """() => {
    const canvas = document.getElementById('scene').contentDocument?.querySelector('canvas[data-engine]');
    if (!canvas?.width) return false;
    const small = new OffscreenCanvas(64, 36).getContext('2d');
    small.drawImage(canvas, 0, 0, 64, 36);
    const pixels = small.getImageData(0, 0, 64, 36).data;
    return pixels.filter((value, i) => i % 4 === 3 && value > 0).length > 230;
}"""
COUNT_FRAMES = """() => {
    const inner = document.getElementById('scene').contentWindow;
    window.drawn = 0;
    const count = () => { window.drawn += 1; inner.requestAnimationFrame(count); };
    inner.requestAnimationFrame(count);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, studio(folder) as client:
        address = f"http://localhost:{PORT}"
        world = walk(client, options.photo)
        visits = [visit(address, world) for _ in range(3)]
        answer = median_answer(address, client, world, options.clients)
        splats, drawn, rate = turned_splats(address, folder, world)
    print()
    judge("page usable, seconds", statistics.median(visits), USABLE_SECONDS, smaller=True)
    judge("median answer while a chunk is generated, ms", answer, ANSWER_MS, smaller=True)
    print(f"of {splats:,} splats {drawn:,} are drawn in software")
    judge("frames a second while their view is turned, in software", rate, FRAMES_A_SECOND, smaller=False)


def judge(what: str, figure: float, limit: float, *, smaller: bool) -> None:
    met, side = (figure <= limit, "at most") if smaller else (figure >= limit, "at least")
    print(f"{what}: {figure:,.6g} (limit: {side} {limit:,g}): {'met' if met else 'MISSED'}")


@contextmanager
def studio(folder: str):
    """A client of a studio in a process of its own."""
    started = time.monotonic()
    command = [sys.executable, "-m", "photowalk", "studio", "--folder", folder, "--port", str(PORT), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
    client = Client(f"http://localhost:{PORT}")
    try:
        while True:
            try:
                client.me()
                break
            except httpx.TransportError as error:
                if time.monotonic() - started > 60:
                    raise SystemExit(f"the studio did not start: {error}") from error
            time.sleep(0.05)
        print(f"the studio answers {time.monotonic() - started:.1f} s after it was called")
        yield client
    finally:
        server.terminate()
        server.wait()


def walk(client: Client, photo: Path) -> str:
    started = time.monotonic()
    made = client.create(photo)
    client.wait(made.job)
    print(f"photo to points: {time.monotonic() - started:.1f} s, with the start of the generating process")
    started = time.monotonic()
    client.wait(client.extend(made.world.id, "forward 0.7, left 30deg"))
    print(f"one chunk alone: {time.monotonic() - started:.1f} s")
    return made.world.id


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def visit(address: str, world: str) -> float:
    """Seconds until the page is usable, for a browser that was never here."""
    with chromium() as page:
        started = time.monotonic()
        page.goto(f"{address}/#{world}")
        page.wait_for_function("document.getElementById('making').hidden && !document.getElementById('scene').hidden")
        shown = time.monotonic() - started
        page.frame_locator("#scene").get_by_role("tab", name="Plan").click()
        answered = time.monotonic() - started
        page.wait_for_function(DRAWN, polling=30)
        drawn = time.monotonic() - started
    print(
        f"  visit: panels shown after {shown:.2f} s, a click answered {answered:.2f} s, the world drawn {drawn:.2f} s"
    )
    return max(answered, drawn)


def median_answer(address: str, client: Client, world: str, clients: int) -> float:
    """Ask until a chunk is done; milliseconds."""
    job = client.extend(world, "right 60deg")
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
    return 1000 * max(statistics.median(taken) for taken in times.values())  # of every kind of request


def lift(folder: str, world: str) -> None:
    """Splats into the world's folder, sooner than the studio, which adds meshes and a rendered preview."""
    started = time.monotonic()
    store = WorldStore(Library(Path(folder)).folder("me", world))
    clips = (store.chunk(index).clip for index in range(len(store.manifest.chunks)))
    scene = reconstruct(clips, budget=SPLATS, lifter=PixelAligned())
    with store.new_scene() as made:
        write_ply(made / "splats.ply", scene.everything)
    print(f"{len(scene.everything):,} splats made in {time.monotonic() - started:.1f} s")


def turned_splats(address: str, folder: str, world: str) -> tuple[int, int, float]:
    """How many splats the world has, how many of them the page draws, and at how many frames a second."""
    lift(folder, world)
    with chromium() as page:
        page.goto(f"{address}/#{world}")
        viewer = page.frame_locator("#scene")
        viewer.get_by_label("Show", exact=True).first.click()
        viewer.get_by_role("option", name="Splats").click()
        told = viewer.get_by_text("splats are drawn").first.inner_text(timeout=60_000)
        drawn, there = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+\d", told)[:2])
        lessened: list[int] = []
        page.on("response", lambda answer: answer.url.endswith("/slower") and lessened.append(answer.json()["drawn"]))
        page.wait_for_timeout(8000)  # the page looks at its own frame rate every 4 seconds
        rate = turned(page)
    return there, min([drawn, *lessened]), rate


def turned(page: Page) -> float:
    """Frames a second while the view is turned with the mouse."""
    box = page.locator("#scene").bounding_box()
    assert box is not None
    middle = (box["x"] + 0.35 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.evaluate(COUNT_FRAMES)
    started = time.monotonic()
    while (seconds := time.monotonic() - started) < TURNING_SECONDS:
        page.mouse.move(middle[0] + 150 * math.sin(2 * seconds), middle[1] + 40 * math.sin(3 * seconds))
    frames = page.evaluate("window.drawn")
    page.mouse.up()
    return frames / seconds


if __name__ == "__main__":
    main()
