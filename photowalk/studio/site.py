"""The pages: the shell around the viewer, the way in with a token, and what the shell asks of its viewer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response, WebSocket
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from pydantic import Field

from photowalk.studio import schemas
from photowalk.studio.access import COOKIE, Access
from photowalk.studio.errors import NotFoundError
from photowalk.studio.routes.common import User
from photowalk.studio.viewer import Viewer
from photowalk.studio.viewer_client import INDEX, Asset, ViewerClient, kind_of

STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("studio", "talk", "scene", "strip", "branches", "jobs", "viewer")
_ASSETS = {f"{name}.js": "text/javascript" for name in _SCRIPTS}
_ASSETS |= {"studio.css": "text/css", "viewer.css": "text/css", "icon.svg": "image/svg+xml"}
_MONTH = 30 * 24 * 3600


class Look(schemas.Value):
    frame: Annotated[int, Field(ge=0, le=10_000_000)]


def create_site(viewer: Viewer) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def index(request: Request, token: Annotated[str | None, Query(max_length=200)] = None) -> Response:
        access: Access = request.app.state.access
        if token is not None and access.open_to is None:
            if access.user_of(token) is None:
                return _locked("This link's token is not valid any more.")
            answer = RedirectResponse("/", 303)
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, token, max_age=_MONTH, httponly=True, samesite="strict", secure=secure)
            return answer
        if access.user(request) is None:
            return _locked("This studio wants a token.")
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    @router.get("/static/{name}")
    def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404, "there is no such file")
        return FileResponse(STATIC / name, media_type=_ASSETS[name], headers={"cache-control": "no-cache"})

    @router.get("/scene/")
    def scene(user: User, request: Request) -> Response:
        return _answer(request, _client().page, "text/html", "private, max-age=3600")

    @router.get("/scene/client/{name}")
    def client(user: User, request: Request, name: str) -> Response:
        file = _client().files.get(name)
        if file is None:
            raise HTTPException(404, "there is no such file")
        return _answer(request, file, kind_of(name), "private, max-age=31536000, immutable")

    @router.websocket("/scene/{page}/{world}/{drawing}")
    async def socket(browser: WebSocket, page: str, world: str, drawing: str) -> None:
        user = browser.app.state.access.user(browser)
        if user is None or not page.isalnum() or len(page) > 40 or not world.isalnum():
            await browser.close(1008)
            return
        await viewer.pass_on(browser, user, page, world, drawing == "software")

    @router.get("/scene/{page}/there")
    def there(user: User, page: str) -> bool:
        return viewer.page(user, page) is not None

    @router.post("/scene/{page}/look", status_code=204)
    def look(user: User, page: str, wish: Look) -> None:
        _page(viewer, user, page).look_at_frame(wish.frame)

    @router.post("/scene/{page}/slower")
    def slower(user: User, page: str) -> dict[str, int]:
        """The browser does not keep up: draw less."""
        return {"drawn": _page(viewer, user, page).draw_less()}

    @router.post("/scene/{page}/keyframes", status_code=204)
    def take_keyframes(user: User, page: str, poses: Annotated[list[schemas.Pose], Field(max_length=200)]) -> None:
        _page(viewer, user, page).take_keyframes(poses)

    @router.post("/scene/{page}/refresh", status_code=204)
    def refresh(user: User, page: str) -> None:
        _page(viewer, user, page).refresh()

    return router


def _page(viewer: Viewer, user: str, name: str):
    page = viewer.page(user, name)
    if page is None:
        raise NotFoundError("there is no such page of yours; load it again")
    return page


@cache
def _client() -> ViewerClient:
    return ViewerClient.of(INDEX.read_text(encoding="utf-8"))


def _answer(request: Request, file: Asset, kind: str, kept: str) -> Response:
    headers = {"cache-control": kept, "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, media_type=kind, headers={**headers, "content-encoding": "gzip"})
    return Response(file.content, media_type=kind, headers=headers)


def _locked(text: str) -> Response:
    page = (STATIC / "locked.html").read_text(encoding="utf-8").replace("{text}", text)
    return HTMLResponse(page, 401)
