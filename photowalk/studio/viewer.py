"""The 3D viewer: viser behind the studio's own address, so that the same token guards both.

viser listens on this machine only, and shows something to connections that carry this process's key alone: those that
the studio passes on after it has looked at their token.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import secrets
import socket
import threading
from urllib.parse import parse_qs, urlsplit

import viser
import websockets
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from photowalk.studio.page import Page
from photowalk.studio.service import Studio


class Viewer:
    def __init__(self, studio: Studio) -> None:
        self._studio, self._key = studio, secrets.token_urlsafe(24)
        self._pages: dict[tuple[str, str], Page] = {}  # by user and the name that the browser gave its page
        self._clients: dict[int, tuple[str, str]] = {}
        self._lock = threading.Lock()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints an address that is of no use to anybody
            self._server = viser.ViserServer(host="127.0.0.1", port=_free_port(), verbose=False)
        # viser opens a public tunnel through somebody else's machine for whoever asks over its socket; nobody may here
        self._server.request_share_url = lambda verbose=True: None
        self._server.scene.set_up_direction("-y")
        # Nothing here is lit. Preparing the light of a surrounding takes seconds where there is no GPU.
        self._server.scene.configure_default_lights(enabled=False, cast_shadow=False)
        self._server.scene.configure_environment_map(None)
        self._server.on_client_connect(self._connected)
        self._server.on_client_disconnect(self._disconnected)

    def close(self) -> None:
        self._server.stop()

    def page(self, user: str, name: str) -> Page | None:
        with self._lock:
            return self._pages.get((user, name))

    async def pass_on(self, browser: WebSocket, user: str, page: str, world: str, software: bool) -> None:
        """Connect a browser whose token was looked at with viser, until either ends."""
        query = f"key={self._key}&user={user}&page={page}&world={world}&software={int(software)}"
        address = f"ws://127.0.0.1:{self._server.get_port()}/?{query}"
        wanted = [websockets.Subprotocol(name) for name in browser.scope.get("subprotocols", [])]
        async with websockets.connect(address, subprotocols=wanted or None, max_size=None, compression=None) as inner:
            await browser.accept(subprotocol=inner.subprotocol)
            pumps = [asyncio.create_task(_outward(inner, browser)), asyncio.create_task(_inward(browser, inner))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        if browser.client_state is WebSocketState.CONNECTED and browser.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError):
                await browser.close()

    def _connected(self, client: viser.ClientHandle) -> None:
        # viser tells a callback who connected, but not with which address; the connection itself knows
        connection = self._server._websock_server._live_connections.get(client.client_id)
        if connection is None or connection.request is None:
            return
        query = {name: values[0] for name, values in parse_qs(urlsplit(connection.request.path).query).items()}
        if not hmac.compare_digest(query.get("key", ""), self._key):
            client.add_notification("Not here", "Open the link that the studio printed when it started.")
            return
        name = (query["user"], query["page"])
        page = Page(client, self._studio, query["user"], query["world"], software=query["software"] == "1")
        with self._lock:
            before = self._pages.get(name)  # of a connection that was lost
            self._pages[name] = page
            self._clients[client.client_id] = name
        if before is not None:
            before.close()
        if client.client_id not in self._server.get_clients():
            self._disconnected(client)  # it left while its page was being built
            return
        page.show()

    def _disconnected(self, client: viser.ClientHandle) -> None:
        with self._lock:
            name = self._clients.pop(client.client_id, None)
            page = None if name is None or name in self._clients.values() else self._pages.pop(name, None)
        if page is not None:
            page.close()


async def _outward(inner: websockets.ClientConnection, browser: WebSocket) -> None:
    with contextlib.suppress(websockets.ConnectionClosed, WebSocketDisconnect, RuntimeError):
        async for message in inner:
            await (browser.send_bytes(message) if isinstance(message, bytes) else browser.send_text(message))


async def _inward(browser: WebSocket, inner: websockets.ClientConnection) -> None:
    with contextlib.suppress(websockets.ConnectionClosed, WebSocketDisconnect, RuntimeError):
        while True:
            message = await browser.receive()
            if message["type"] == "websocket.disconnect":
                return
            content = message.get("bytes")
            await inner.send(content if content is not None else message.get("text", ""))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
