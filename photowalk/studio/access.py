"""Who may do what: tokens, and what every request must satisfy before anything reads it.

Bound to this machine only, the studio asks for no token; it then answers only to requests that name this machine and
come from its own pages, so that no other page in the same browser can use it. Bound wider, every request but the
health check needs a token, sent as `Authorization: Bearer` or, by the studio's own pages, as a cookie.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from photowalk.scene.images import write_atomically
from photowalk.studio.errors import StudioError
from photowalk.studio.library import USER

COOKIE = "photowalk_token"
MAX_UPLOAD_BYTES = 64 << 20
MAX_BODY_BYTES = 1 << 20  # where no file is sent
UPLOAD_SECONDS = 120.0  # in which a body has to arrive
_UPLOADS = ("/api/worlds", "/paths")  # paths that end so take files


@dataclass(frozen=True)
class Access:
    tokens: dict[str, str]  # user -> token
    open_to: str | None = None  # the user of every request, where no token is asked for

    def user(self, connection: HTTPConnection) -> str | None:
        """Whose request it is; None where it has no valid token."""
        if self.open_to is not None:
            return self.open_to
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else connection.cookies.get(COOKIE, "")
        return self.user_of(given)

    def user_of(self, token: str) -> str | None:
        found = None
        for user, known in self.tokens.items():  # all of them, so that time tells nothing
            if hmac.compare_digest(known.encode(), token.encode()):
                found = user
        return found


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_access(root: Path, host: str, users: list[str]) -> Access:
    """No token for one user on this machine; else one for each user, kept in ROOT/tokens.json."""
    for user in users:
        if not USER.fullmatch(user):
            raise StudioError(f"'{user}' is no user name; give 1 to 32 of a-z, 0-9, - and _")
    if is_loopback(host) and not users:
        return Access({}, open_to="me")
    root.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
    file = root / "tokens.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    tokens = {user: known.get(user) or secrets.token_urlsafe(24) for user in users or ["me"]}

    def write(partial: Path) -> None:
        partial.write_text(json.dumps({**known, **tokens}, indent=1), encoding="utf-8")

    write_atomically(file, write)
    file.chmod(0o600)
    return Access(tokens)


class Guard:
    """Refuses, before the body is read, what comes from a foreign page, is too large, or does not arrive in time."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            status, text = refusal
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": text[:100]})
            else:
                await JSONResponse({"detail": text}, status)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, _limit(scope["path"]))
        replaced = False

        async def safely(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                if body.refused is not None:  # the answer would blame the body that was cut off here
                    replaced = True
                    status, text = body.refused
                    answer = JSONResponse({"detail": text}, status, headers={"connection": "close"})
                    await answer(scope, receive, send)
                    return
                headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
                message["headers"] = [*message.get("headers", []), *headers]
            if not replaced:
                await send(message)

        await self._app(scope, body, safely)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._access.open_to is not None and not is_loopback(_name_of(host)):
            return 403, f"this studio answers on this machine only, not as {host[:60]!r}"
        origin = headers.get(b"origin")
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is not None and origin.partition("://")[2] != host:
            return 403, "a page of another origin may not use the studio"
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > _limit(scope["path"]):
            return 413, f"a body of {length[:20]} bytes is more than the {_limit(scope['path'])} that are taken here"
        return None


class _Body:
    """`receive` that counts bytes and seconds until the body is complete, and breaks off where it is too much."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._bytes, self._complete = receive, limit, 0, False
        self._deadline = time.monotonic() + UPLOAD_SECONDS
        self.refused: tuple[int, str] | None = None

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._deadline - time.monotonic())
        except TimeoutError:
            self.refused = (408, f"the body did not arrive within {UPLOAD_SECONDS:.0f} seconds")
            raise ValueError(self.refused[1]) from None
        self._bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._bytes > self._limit:
            self.refused = (413, f"the body is longer than the {self._limit} bytes that are taken here")
            raise ValueError(self.refused[1])
        return message


def _limit(path: str) -> int:
    return MAX_UPLOAD_BYTES if path.rstrip("/").endswith(_UPLOADS) else MAX_BODY_BYTES


def _name_of(host: str) -> str:
    """The host without its port; "" of what is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that do not close
        return ""
