"""A hub of models on this computer: what the hub's client asks for when it downloads, with ranges and ways to fail."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000  # bytes; larger files are named by their SHA-256


class SmallHub:
    def __init__(self, repositories):
        self.repositories = repositories  # name -> path -> content
        self.damage = set()  # paths that come with a byte changed
        self.stall = {}  # path -> bytes after which nothing more comes
        self.refuse = set()  # repositories that want a licence to be accepted on their page
        self.requests = []  # path and range of every file that was asked for
        self.stopped = threading.Event()

    def listing(self, repository):
        return {
            "id": repository,
            "modelId": repository,
            "sha": REVISION,
            "siblings": [described(path, content) for path, content in self.repositories[repository].items()],
        }


def described(path, content):
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"rfilename": path, "size": len(content), "blobId": git}
    if len(content) > LARGE:
        large = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 100}
        entry |= {"lfs": large}
    return entry


@contextmanager
def running(hub):
    """The hub's address. It stops by itself at the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            if path.startswith("/api/models/"):
                self.answer_listing(path.removeprefix("/api/models/"))
            else:
                repository, _, rest = path[1:].partition("/resolve/")
                self.answer_file(repository, rest.partition("/")[2])

        def answer_listing(self, repository):
            if repository in hub.refuse:
                self.send_response(403)
                self.send_header("X-Error-Code", "GatedRepo")
                self.send_header("X-Error-Message", "Access to this model is restricted")
                self.end_headers()
                return
            body = json.dumps(hub.listing(repository)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def answer_file(self, repository, path):
            content = bytearray(hub.repositories[repository][path])
            if path in hub.damage:
                content[len(content) // 2] ^= 0xFF
            wanted = self.headers.get("Range")
            hub.requests.append((path, wanted))
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            end = hub.stall.get(path, len(content))
            self.wfile.write(content[start:end])
            self.wfile.flush()
            if end < len(content):
                hub.stopped.wait(30)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        hub.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
