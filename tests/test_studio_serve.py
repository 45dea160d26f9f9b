"""The studio as a command: the link it prints, who it lets in, what it opens, and how it ends."""

import os
import pickle
import re
import signal
import socket
import subprocess
import sys

import pytest
from studio import make_photo
from worlds import make_world

pytest.importorskip("viser", reason="the extra 'studio' is not installed")
import httpx

from photowalk.cli import main
from photowalk.studio import serve
from photowalk.world.disk import lock


def start(*arguments):
    """The process and the lines it printed up to the last link."""
    process = subprocess.Popen(
        [sys.executable, "-m", "photowalk", "studio", *arguments, "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    printed = ""
    while "http://" not in printed:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        printed += line
    return process, printed


def test_the_printed_link_lets_in_and_shows_a_world_where_it_lies_and_the_studio_ends_on_request(tmp_path):
    world = make_world(tmp_path / "walked", chunks=2)
    process, printed = start(str(world.folder), "--user", "ann", "--folder", str(tmp_path / "studio"))
    try:
        link = re.search(r"(http://localhost:\d+/)\?token=(\S+)#([0-9a-f]{16})", printed)
        address, token, identifier = link.groups()
        assert httpx.get(address).status_code == 401
        with httpx.Client(base_url=address, follow_redirects=True) as browser:
            assert "<title>photowalk studio</title>" in browser.get("/", params={"token": token}).text
            assert browser.get("/api/me").json()["user"] == "ann"
            summary = browser.get(f"/api/worlds/{identifier}").json()
            assert (summary["title"], summary["frames"], summary["ready"]) == ("walked", world.manifest.frames, True)
            assert browser.delete(f"/api/worlds/{identifier}").status_code == 204
            assert (world.folder / "world.json").exists(), "a world that lies elsewhere is only forgotten"
            for name in ("studio.js", "studio.css", "viewer.js", "viewer.css", "icon.svg"):
                assert browser.get(f"/static/{name}").status_code == 200
            assert browser.get("/static/../serve.py").status_code == 404
            page = browser.get("/scene/").text
            for name in re.findall(r'(?:href|fetch\()="?(client/[\w.]+)', page):
                assert browser.get(f"/scene/{name}").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (0, 130)


def test_the_studio_ends_in_order_while_a_world_is_being_read(tmp_path):
    world = make_world(tmp_path / "walked", chunks=2)
    process, printed = start(str(world.folder), "--user", "ann", "--folder", str(tmp_path / "studio"))
    try:
        address, token, identifier = re.search(r"(http://localhost:\d+/)\?token=(\S+)#([0-9a-f]{16})", printed).groups()
        with httpx.Client(base_url=address, follow_redirects=True, params={"token": token}) as browser:
            assert browser.get("/").status_code == 200
            assert browser.get(f"/api/worlds/{identifier}").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (0, 130), process.stderr.read()


def test_where_networks_lie_is_said_to_the_process_that_holds_them(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(serve, "serve", lambda root, **options: told.update(options))
    assert main(["studio", "--vram", "24", "--weights", "int8", "--compile", "--folder", str(tmp_path)]) == 0
    placement = pickle.loads(pickle.dumps(told["place"]))()
    assert (placement.vram, placement.weights, placement.compiled) == (24 * 10**9, "int8", True)


def test_what_cannot_be_served_says_why(tmp_path, capsys):
    root = ["--folder", str(tmp_path / "studio"), "--no-browser"]
    assert main(["studio", str(tmp_path / "none.jpg"), *root]) == 2
    assert "no photo or world" in capsys.readouterr().err
    assert main(["studio", "--preset", "huge", *root]) == 2
    assert "no preset 'huge'" in capsys.readouterr().err
    assert main(["studio", "--port", "99999", *root]) == 2
    assert "from 0 to 65535, got 99999" in capsys.readouterr().err
    (tmp_path / "studio").mkdir(exist_ok=True)
    with lock(tmp_path / "studio"):
        assert main(["studio", "--port", "0", *root]) == 2
    assert "served by another studio" in capsys.readouterr().err
    photo = make_photo(tmp_path / "room.png")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["studio", str(photo), "--port", str(taken.getsockname()[1]), *root]) == 2
    assert not list((tmp_path / "studio").glob("jobs/*")), "nothing is begun where nothing can be served"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["studio", "--port", str(taken.getsockname()[1]), *root]) == 2
    assert "choose another with --port" in capsys.readouterr().err
