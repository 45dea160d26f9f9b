"""The HTTP API: its routes joined, and what becomes of errors. `/docs` shows it, `/openapi.json` describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from photowalk.studio import schemas
from photowalk.studio.access import Access, Guard
from photowalk.studio.errors import StudioError
from photowalk.studio.routes.common import PROBLEMS, User
from photowalk.studio.routes.files import file_routes
from photowalk.studio.routes.jobs import job_routes
from photowalk.studio.routes.walking import walking_routes
from photowalk.studio.routes.worlds import world_routes
from photowalk.studio.service import Studio
from photowalk.world.disk import WorldBusyError


def create_app(studio: Studio, access: Access) -> FastAPI:
    """The application; its lifespan starts and stops the queue."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        studio.queue.start()
        yield
        await asyncio.to_thread(studio.queue.close)

    app = FastAPI(
        title="photowalk studio",
        version="1",
        description="One photo becomes a world to walk through.",
        lifespan=lifespan,
    )
    app.state.access = access
    app.add_middleware(Guard, access=access)
    app.include_router(_about(studio))
    for routes in (world_routes, walking_routes, file_routes, job_routes):
        app.include_router(routes(studio))
    for kind, handler in (
        (StudioError, _refused),
        (ValueError, _refused),
        (RequestValidationError, _invalid),
        (StarletteHTTPException, _http),
    ):
        app.add_exception_handler(kind, handler)
    return app


def _refused(_: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, StudioError) else 409 if isinstance(error, WorldBusyError) else 422
    return JSONResponse({"detail": str(error)}, status)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"][1:])
    return JSONResponse({"detail": f"{where}: {first['msg']}" if where else first["msg"]}, 422)


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return JSONResponse({"detail": str(error.detail)}, error.status_code, headers=error.headers)


def _about(studio: Studio) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/health", tags=["studio"], responses={403: PROBLEMS[403]})
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/me", tags=["studio"], responses=PROBLEMS)
    def me(user: User) -> schemas.Me:
        return studio.me(user)

    return router
