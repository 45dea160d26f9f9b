"""What a studio meets from people who mean it no good, each with its outcome; and that nothing sent makes it fail."""

import io
import socket
import struct
import threading
import time
import zipfile
import zlib

import numpy as np
import pytest
from studio import CHUNK_FRAMES, ONE_CHUNK, load_tiny, make_photo, serving

pytest.importorskip("fastapi", reason="the extra 'studio' is not installed")
import httpx
from fastapi.testclient import TestClient

from photowalk import World
from photowalk.studio import access, job_queue
from photowalk.studio.access import Access, choose_access
from photowalk.studio.api import create_app
from photowalk.studio.client import Client, RefusedError
from photowalk.studio.service import Studio
from photowalk.studio.viewer import Viewer
from photowalk.world.store import WorldStore

TOKENS = {"ann": "token-of-ann", "bob": "token-of-bob"}
ANN = {"authorization": "Bearer token-of-ann"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    return Studio(tmp_path_factory.mktemp("studio"), load_tiny, "tiny", threads=1)


@pytest.fixture(scope="module")
def http(studio):
    with TestClient(create_app(studio, Access(TOKENS)), base_url="http://localhost", headers=ANN) as http:
        yield http


@pytest.fixture(scope="module")
def world(http, tmp_path_factory):
    """The world of a photo, and a file beside the studio's folders that nobody may read."""
    client = Client("", http=http)
    made = client.create(make_photo(tmp_path_factory.mktemp("photo") / "room.png"))
    client.wait(made.job)
    return made.world.id


@pytest.fixture(scope="module")
def secret(studio):
    """A file that no request may ever read."""
    file = studio.root / "secret.json"
    file.write_text('{"path": [], "secret": "do not tell"}')
    return file


# ---- tokens


@pytest.mark.parametrize("token", [None, "", "token-of-an", "token-of-ann2", "Token-of-ann", "*", "\xe9"])
def test_nothing_is_told_without_a_valid_token(http, token):
    headers = {"authorization": "" if token is None else f"Bearer {token}".encode("latin-1")}
    for path in ("/api/worlds", "/api/jobs", "/api/me", "/api/events"):
        assert http.get(path, headers=headers).status_code == 401
    assert http.post("/api/worlds", headers=headers, files={"photo": b"x"}).status_code == 401


def test_health_needs_no_token(http):
    assert http.get("/api/health", headers={"authorization": ""}).json() == {"status": "ok"}


def test_tokens_are_kept_for_their_owner_only(tmp_path):
    first = choose_access(tmp_path, "0.0.0.0", ["ann", "bob"])
    assert choose_access(tmp_path, "0.0.0.0", ["ann"]).tokens["ann"] == first.tokens["ann"] != first.tokens["bob"]
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0
    assert choose_access(tmp_path, "127.0.0.1", []).open_to == "me"
    assert choose_access(tmp_path, "192.0.2.1", []).open_to is None
    with pytest.raises(ValueError, match="no user name"):
        choose_access(tmp_path, "127.0.0.1", ["../ann"])


def test_a_studio_without_tokens_answers_its_own_pages_only(studio):
    app = create_app(studio, Access({}, open_to="me"))
    http = TestClient(app, base_url="http://localhost:8008")
    assert http.get("/api/worlds").status_code == 200
    assert http.get("/api/worlds", headers={"host": "evil.example"}).status_code == 403  # rebound name
    assert http.get("/api/worlds", headers={"host": "["}).status_code == 403
    foreign = {"origin": "http://evil.example"}
    assert http.post("/api/jobs/0123456789abcdef/cancel", headers={"origin": "http://["}).status_code == 403
    assert http.post("/api/jobs/0123456789abcdef/cancel", headers=foreign).status_code == 403
    own = {"origin": "http://localhost:8008"}
    assert http.post("/api/jobs/0123456789abcdef/cancel", headers=own).status_code == 404


def test_the_viewer_opens_no_public_tunnel(studio):
    viewer = Viewer(studio)
    try:
        assert viewer._server.request_share_url() is None
    finally:
        viewer.close()


# ---- paths

TRAVERSALS = [
    "../secret.json",
    "..%2fsecret.json",
    "..%252f..%252fsecret.json",
    "....//secret.json",
    "%2e%2e/%2e%2e/%2e%2e/secret.json",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..\\secret.json",
    "world.json",
    "photo.png%00.txt",
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_files_are_looked_up_in_a_list_not_on_the_disk(http, world, secret, name):
    for path in (f"/api/worlds/{world}/files/{name}", f"/api/worlds/{name}", f"/api/worlds/{name}/files/photo.png"):
        answer = http.get(path)
        assert answer.status_code in (404, 405, 422)
        assert "do not tell" not in answer.text
        assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret.json", "SECRET", "secret.json", "C:\\x.npz", "a\0b", "~/.ssh/x"]
)
def test_a_path_to_walk_is_never_opened_as_a_file(http, world, secret, path):
    path = str(secret) if path == "SECRET" else path
    for call in ("plan", "extend"):
        answer = http.post(f"/api/worlds/{world}/{call}", json={"path": path})
        assert answer.status_code == 422
        assert "do not tell" not in answer.text


def test_the_name_of_an_upload_is_a_title_at_most(http, studio, tmp_path):
    photo = make_photo(tmp_path / "room.png").read_bytes()
    files = {"photo": ("../../../../tmp/evil.png", photo)}
    answer = http.post("/api/worlds", files=files, headers=ANN).json()
    assert answer["world"]["title"] == "evil"
    folder = studio.library.folder("ann", answer["world"]["id"])
    assert studio.root in folder.parents
    assert not list(tmp_path.parent.glob("**/evil.png"))


@pytest.mark.parametrize("path", ["forward 1000000", "wait 99999", "speed 0.000001, forward 1"])
def test_an_endless_walk_is_refused_at_once(http, world, path):
    started = time.monotonic()
    assert http.post(f"/api/worlds/{world}/extend", json={"path": path}).status_code == 422
    far = {"position": [1e6, 0, 0], "wxyz": [1, 0, 0, 0]}
    assert http.post(f"/api/worlds/{world}/extend", json={"keyframes": [far]}).status_code == 422
    assert time.monotonic() - started < 5


# ---- bombs and bodies


def png_of(width, height):
    """A PNG that says it has so many pixels."""

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (200_000, 1000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_bomb_is_not_decoded(http, size):
    started = time.monotonic()
    answer = http.post("/api/worlds", files={"photo": ("bomb.png", png_of(*size))})
    assert answer.status_code in (413, 422)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.7", b"\xff\xd8\xff", b"<svg/>"]
)
def test_what_is_no_photo_is_refused(http, content):
    assert http.post("/api/worlds", files={"photo": ("x.jpg", content)}).status_code == 422


def test_a_zip_bomb_is_not_unpacked(http, world):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w2c.npy", b"\0" * (200 << 20))
    assert len(bomb.getvalue()) < access.MAX_UPLOAD_BYTES
    answer = http.post(f"/api/worlds/{world}/paths", files={"file": ("path.npz", bomb.getvalue())})
    assert answer.status_code == 413
    assert "unpacks" in answer.json()["detail"]


def test_a_zip_with_names_of_other_places_writes_nothing_there(http, world, studio):
    bad = io.BytesIO()
    with zipfile.ZipFile(bad, "w") as archive:
        for name in ("../../cameras.txt", "/tmp/images.txt", "../secret.json"):
            archive.writestr(name, "# Camera list")
    there = {path for path in studio.root.rglob("*") if path.is_file()}
    answer = http.post(f"/api/worlds/{world}/paths", files={"file": ("model.zip", bad.getvalue())})
    assert answer.status_code == 422
    assert {path for path in studio.root.rglob("*") if path.is_file()} == there


def test_pickles_are_not_unpickled(http, world):
    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    content = io.BytesIO()
    np.savez(content, w2c=np.array([Evil()], dtype=object), intrinsics=np.eye(3)[None])
    answer = http.post(f"/api/worlds/{world}/paths", files={"file": ("path.npz", content.getvalue())})
    assert answer.status_code == 422


def test_bodies_are_limited_whether_or_not_they_say_how_long_they_are(http):
    long = b"{" + b" " * access.MAX_BODY_BYTES + b"}"
    assert http.post("/api/worlds/0123456789abcdef/undo", content=long).status_code == 413

    def dribble():
        for _ in range(20):
            yield b" " * (access.MAX_BODY_BYTES // 10)

    assert http.post("/api/worlds/0123456789abcdef/undo", content=dribble()).status_code == 413
    wrong = {"content-length": "1e9"}
    assert http.post("/api/jobs/0123456789abcdef/cancel", headers=wrong).status_code in (400, 413)


def test_a_slow_client_is_cut_off_and_keeps_nobody_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(access, "UPLOAD_SECONDS", 2.0)
    head = b"POST /api/worlds HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer token-of-ann\r\n"
    head += b"content-length: 1000\r\ncontent-type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    studio = Studio(tmp_path, load_tiny, "tiny")
    with serving(create_app(studio, Access(TOKENS)), studio) as address:
        slow = [socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10) for _ in range(20)]
        for connection in slow:
            connection.sendall(head)
        started = time.monotonic()
        assert httpx.get(f"{address}/api/worlds", headers=ANN).status_code == 200
        assert time.monotonic() - started < 2, "it is answered before the slow ones are cut off"
        assert b"408" in slow[0].recv(1000).split(b"\r\n")[0]
        for connection in slow:
            connection.close()


# ---- many and at once


def test_of_200_jobs_those_above_the_limit_are_refused(http, studio, world):
    statuses = [http.post(f"/api/worlds/{world}/extend", json={"path": ONE_CHUNK}).status_code for _ in range(200)]
    assert statuses.count(202) <= job_queue.MAX_WAITING + 60  # some were done meanwhile
    assert statuses.count(429) > 0
    assert set(statuses) == {202, 429}
    assert http.get("/api/worlds").status_code == 200
    for job in http.get("/api/jobs").json():
        http.post(f"/api/jobs/{job['id']}/cancel")
    deadline = time.monotonic() + 20
    while studio.queue.busy(world) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not studio.queue.busy(world)


def test_two_writers_do_not_meet(http, studio, world):
    client = Client("", http=http)
    store = WorldStore(studio.library.folder("ann", world))
    with store.locked():  # as another program would
        job = client.extend(world, ONE_CHUNK)
        with pytest.raises(RefusedError, match="being changed by another process"):
            client.wait(job)
    running = client.extend(world, f"left 10deg in {4 * CHUNK_FRAMES} frames")
    for call in (client.undo, client.redo, client.delete):
        with pytest.raises(RefusedError, match="cancel it first"):
            call(world)
    client.cancel(running.id)
    assert client.wait(running).state in ("cancelled", "done")
    World.open(store.folder).verify()


def test_many_threads_ask_for_everything_at_once(http, world):
    failures = []

    def ask(path):
        for _ in range(5):
            status = http.get(path).status_code
            if status >= 500:
                failures.append((path, status))

    paths = ["/api/worlds", f"/api/worlds/{world}", "/api/jobs", f"/api/worlds/{world}/frames/0.jpg", "/api/me"]
    threads = [threading.Thread(target=ask, args=(path,)) for path in paths * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# ---- whatever the document allows, and more


def test_nothing_that_schemathesis_thinks_of_makes_the_studio_fail(tmp_path):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    limits = settings(
        max_examples=6,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    seen = set()
    studio = Studio(tmp_path / "studio", load_tiny, "tiny", threads=1)
    with serving(create_app(studio, Access(TOKENS)), studio) as address, Client(address, "token-of-ann") as client:
        made = client.create(make_photo(tmp_path / "room.png"))
        client.wait(made.job)
        for found in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations():
            operation = found.ok()
            if not operation.path.endswith("/events"):  # those do not end
                limits(given(case=operation.as_strategy())(_sender(operation, made.world.id, seen)))()
    assert len(seen) > 20


def _sender(operation, world, seen):
    def send(case):
        if "world" in (case.path_parameters or {}) and operation.method != "delete":
            case.path_parameters["world"] = world
        answer = case.call(headers=ANN)
        assert answer.status_code < 500, (operation.label, case.body, answer.text)
        seen.add(operation.label)

    return send
