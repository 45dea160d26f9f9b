"""Start the studio: everything in one process but the generating, on one address."""

from __future__ import annotations

import asyncio
import socket
import stat
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from photowalk.studio.access import Access, choose_access, is_loopback
from photowalk.studio.api import create_app
from photowalk.studio.errors import StudioError
from photowalk.studio.service import Studio
from photowalk.studio.site import create_site
from photowalk.studio.viewer import Viewer
from photowalk.studio.worker import Place
from photowalk.world.disk import WorldBusyError, lock

DEFAULT_PORT = 8008


@dataclass(frozen=True)
class Address:
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT


def create_studio_app(studio: Studio, access: Access) -> FastAPI:
    """The HTTP API and the pages."""
    app = create_app(studio, access)
    app.state.viewer = viewer = Viewer(studio)
    app.include_router(create_site(viewer))
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner(app):
            yield
            await asyncio.to_thread(viewer.close)

    app.router.lifespan_context = lifespan
    return app


def serve(
    root: Path,
    *,
    preset: str,
    place: Place,
    captioner: str,
    address: Address,
    users: list[str],
    opened: str | None,
    open_browser: bool,
) -> None:
    """Serve until interrupted. `opened`, a photo or a world folder, is shown first; `place`, which another process
    calls, says where the networks lie. Prints the links to open."""
    with _alone(root), _listen(address) as listening:
        access = choose_access(root, address.host, users)
        studio = Studio(root, preset=preset, place=place, captioner=captioner)
        studio.queue.prepare()
        first = "" if opened is None else _open(studio, next(iter(access.tokens), access.open_to or "me"), Path(opened))
        app = create_studio_app(studio, access)
        _tell(studio, access, address.host, listening.getsockname()[1], first, open_browser)
        Server(app, studio).run(sockets=[listening])


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two studios on one folder would run each other's jobs."""
    root.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(root))
        except WorldBusyError as error:
            raise StudioError(
                f"{root} is served by another studio; open the link that it printed, or choose another --folder"
            ) from error
        yield


def _tell(studio: Studio, access: Access, address: str, port: int, first: str, open_browser: bool) -> None:
    """Print the links to open, and open one."""
    host = "localhost" if is_loopback(address) else f"[{address}]" if ":" in address else address
    base = f"http://{host}:{port}/"
    fragment = f"#{first}" if first else ""
    links = {user: f"{base}?token={token}{fragment}" for user, token in access.tokens.items()}
    print(f"photowalk studio, worlds in {studio.root}")
    for user, link in (links or {"": base + fragment}).items():
        print(f"  open {link}" + (f"   (for {user})" if len(links) > 1 else ""), flush=True)
    if not is_loopback(address):
        print("  reachable by others: the connection is not encrypted; put a TLS proxy or an SSH tunnel before it")
    if open_browser:
        link = next(iter(links.values()), base + fragment)
        threading.Thread(target=_open_browser, args=(link,), daemon=True).start()


class Server(uvicorn.Server):
    """Ends the streams of events first, which otherwise would keep it from ending."""

    def __init__(self, app: FastAPI, studio: Studio) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            timeout_keep_alive=20,
            limit_concurrency=500,
            timeout_graceful_shutdown=3,
            ws_max_size=64 << 20,
            server_header=False,
        )
        super().__init__(config)
        self._queue = studio.queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._queue.leave()
        await super().shutdown(sockets)


def _open(studio: Studio, user: str, path: Path) -> str:
    """The world to show first: an existing folder is adopted, a photo becomes a new world."""
    if path.is_dir():
        world = studio.library.adopt(user, path)
        studio.warm(user, world)
        return world
    if not path.is_file():
        raise StudioError(f"there is no photo or world {path}; check the name")
    with path.open("rb") as photo:
        return studio.create(user, photo, title=path.stem[:120])[0].id


def _listen(address: Address) -> socket.socket:
    if not 0 <= address.port <= 65535:
        raise StudioError(f"a port is a number from 0 to 65535, got {address.port}; 0 takes a free one")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=128)
    except OSError as error:
        raise StudioError(
            f"port {address.port} of {address.host} cannot be used ({error.strerror}); "
            f"another studio may be running; choose another with --port, or 0 for a free one"
        ) from error


def _open_browser(link: str) -> None:
    time.sleep(0.5)
    webbrowser.open(link)
