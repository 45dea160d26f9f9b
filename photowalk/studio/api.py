"""The HTTP API: routes, and nothing behind them. `/docs` shows it, `/openapi.json` describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException as StarletteHTTPException

from photowalk.studio import schemas
from photowalk.studio.access import Access, Guard
from photowalk.studio.errors import StudioError
from photowalk.studio.schemas import Identifier
from photowalk.studio.service import Studio
from photowalk.world.disk import WorldBusyError

HEARTBEAT_SECONDS = 15.0
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": text}
    for status, text in {
        400: "not understood",
        401: "no valid token",
        403: "from a foreign page",
        404: "not there, or not yours",
        405: "the method does not fit",
        408: "the body did not arrive in time",
        409: "not now",
        413: "too large",
        422: "a wrong value",
        429: "too many",
    }.items()
}


_bearer = HTTPBearer(auto_error=False, description="The token that the studio printed when it started.")


def _user(request: Request, _: Annotated[object, Depends(_bearer)]) -> str:
    user = request.app.state.access.user(request)
    if user is None:
        raise HTTPException(401, "a token is needed; the studio printed a link with one when it started")
    return user


User = Annotated[str, Depends(_user)]


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
    app.include_router(_health())
    app.include_router(_routes(studio))
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


def _health() -> APIRouter:
    router = APIRouter()

    @router.get("/api/health", tags=["studio"], responses={403: _PROBLEMS[403]})
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return router


def _routes(studio: Studio) -> APIRouter:
    router = APIRouter(prefix="/api", responses=_PROBLEMS)

    @router.get("/me", tags=["studio"])
    def me(user: User) -> schemas.Me:
        return studio.me(user)

    # ---- worlds

    @router.get("/worlds", tags=["worlds"])
    def list_worlds(user: User) -> list[schemas.World]:
        return list(studio.library.worlds(user))

    @router.post("/worlds", status_code=202, tags=["worlds"])
    def create_world(
        user: User,
        photo: Annotated[UploadFile, File()],
        title: Annotated[str, Form(max_length=120)] = "",
        prompt: Annotated[schemas.Prompt, Form()] = "",
        seed: Annotated[schemas.Seed, Form()] = 0,
        fov_deg: Annotated[schemas.FovDeg | None, Form()] = None,
    ) -> schemas.WorldJob:
        """Make a world of a photo. It is ready when the job is done."""
        name = title.strip() or Path(photo.filename or "").stem[:120] or "A world"
        world, job = studio.create(user, photo.file, title=name, prompt=prompt, seed=seed, fov_deg=fov_deg)
        return schemas.WorldJob(world=world, job=job)

    @router.get("/worlds/{world}", tags=["worlds"])
    def get_world(user: User, world: Identifier) -> schemas.World:
        return studio.library.world(user, world)

    @router.patch("/worlds/{world}", tags=["worlds"])
    def rename_world(user: User, world: Identifier, wish: schemas.TitleRequest) -> schemas.World:
        studio.library.change(user, world, title=wish.title)
        return studio.library.world(user, world)

    @router.delete("/worlds/{world}", status_code=204, tags=["worlds"])
    def delete_world(user: User, world: Identifier) -> None:
        studio.delete(user, world)

    @router.post("/worlds/{world}/correction", tags=["worlds"])
    def correct_world(user: User, world: Identifier, wish: schemas.CorrectRequest) -> schemas.Correction:
        """Correct what was guessed from the photo; another lens needs a job."""
        job = studio.correct(user, world, wish)
        return schemas.Correction(world=studio.library.world(user, world), job=job)

    @router.post("/worlds/{world}/undo", tags=["history"])
    def undo(user: User, world: Identifier, wish: schemas.CountRequest) -> schemas.World:
        return studio.undo(user, world, wish.count)

    @router.post("/worlds/{world}/redo", tags=["history"])
    def redo(user: User, world: Identifier, wish: schemas.CountRequest) -> schemas.World:
        return studio.redo(user, world, wish.count)

    @router.post("/worlds/{world}/branches", status_code=201, tags=["history"])
    def branch(user: User, world: Identifier, wish: schemas.BranchRequest) -> schemas.World:
        """A new world that shares the chunks up to `at`."""
        return studio.branch(user, world, wish.at, wish.title)

    # ---- walking

    @router.post("/worlds/{world}/plan", tags=["walking"])
    def plan(user: User, world: Identifier, wish: schemas.PathRequest) -> schemas.Plan:
        """Where a path would lead, without going there."""
        return studio.plan(user, world, wish)

    @router.post("/worlds/{world}/paths", tags=["walking"])
    def read_path(user: User, world: Identifier, file: Annotated[UploadFile, File()]) -> list[schemas.Pose]:
        """A file of camera poses as keyframes to plan with."""
        return studio.read_path(user, world, file.file, file.filename or "")

    @router.post("/worlds/{world}/extend", status_code=202, tags=["walking"])
    def extend(user: User, world: Identifier, wish: schemas.ExtendRequest) -> schemas.Job:
        """Walk on. The path is planned from the last frame there is when the job's turn comes."""
        return studio.extend(user, world, wish)

    @router.post("/worlds/{world}/expand", tags=["walking"])
    def expand(user: User, world: Identifier, wish: schemas.ExpandRequest) -> schemas.Expansion:
        """Write a prompt out for a planned walk: at once, or by a job whose message it becomes."""
        return studio.expand(user, world, wish)

    @router.post("/worlds/{world}/continue", status_code=202, tags=["walking"])
    def go_on(user: User, world: Identifier) -> schemas.Job:
        """Finish a walk that was stopped."""
        return studio.go_on(user, world)

    @router.post("/worlds/{world}/recall", tags=["walking"])
    def recall(user: User, world: Identifier, pose: schemas.Pose) -> schemas.Recall:
        """What the memory sees from a pose."""
        return studio.recall(user, world, pose)

    @router.post("/worlds/{world}/reconstruct", status_code=202, tags=["files"])
    def reconstruct(user: User, world: Identifier) -> schemas.Job:
        return studio.reconstruct(user, world)

    @router.post("/worlds/{world}/exports", status_code=202, tags=["files"])
    def export(user: User, world: Identifier, wish: schemas.ExportRequest) -> schemas.Job:
        return studio.export(user, world, wish.ending)

    # ---- files

    @router.get("/worlds/{world}/frames/{frame}.jpg", tags=["files"], response_class=Response)
    def get_frame(user: User, world: Identifier, frame: int, key: str = "") -> Response:
        """Give the chunk's `key` to have the picture kept by the browser: with another key it is another picture."""
        picture = studio.scenery(user, world).picture(frame)
        kept = "private, max-age=31536000, immutable" if key else "private, no-cache"
        return Response(picture, media_type="image/jpeg", headers={"cache-control": kept})

    @router.get("/worlds/{world}/files/{name}", tags=["files"], response_class=FileResponse)
    def get_file(user: User, world: Identifier, name: str) -> FileResponse:
        """One of the world's `files`, whole or by range."""
        return FileResponse(studio.file(user, world, name), filename=name)

    # ---- jobs

    @router.get("/jobs", tags=["jobs"])
    def list_jobs(user: User) -> list[schemas.Job]:
        return studio.queue.jobs(user)

    @router.get("/jobs/{job}", tags=["jobs"])
    def get_job(user: User, job: Identifier) -> schemas.Job:
        return studio.queue.job(user, job)

    @router.post("/jobs/{job}/cancel", tags=["jobs"])
    def cancel_job(user: User, job: Identifier) -> schemas.Job:
        return studio.queue.cancel(user, job)

    @router.post("/jobs/{job}/resume", tags=["jobs"])
    def resume_job(user: User, job: Identifier) -> schemas.Job:
        return studio.queue.resume(user, job)

    @router.get("/jobs/{job}/preview.jpg", tags=["jobs"], response_class=Response)
    def get_preview(user: User, job: Identifier) -> Response:
        picture = studio.queue.preview(user, job)
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "no-store"})

    @router.get("/jobs/{job}/events", tags=["jobs"], response_class=StreamingResponse)
    async def watch_job(user: User, job: Identifier) -> StreamingResponse:
        """Server-sent events, each the job as it is now, until it ends."""
        studio.queue.job(user, job)
        return _stream(_job_events(studio, user, job))

    @router.get("/events", tags=["jobs"], response_class=StreamingResponse)
    async def watch_jobs(user: User) -> StreamingResponse:
        """Server-sent events, each the list of all your jobs as they are now."""
        return _stream(_all_events(studio, user))

    return router


def _stream(events: AsyncIterator[str]) -> StreamingResponse:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _job_events(studio: Studio, user: str, name: str) -> AsyncIterator[str]:
    last = ""
    async for _ in _changes(studio, user):
        try:
            job = studio.queue.job(user, name)
        except StudioError:
            return  # its world was deleted
        text = job.model_dump_json()
        yield f"data: {text}\n\n" if text != last else ": still here\n\n"
        last = text
        if job.state in (*schemas.FINISHED, "interrupted"):
            return


async def _all_events(studio: Studio, user: str) -> AsyncIterator[str]:
    last, adapter = "", TypeAdapter(list[schemas.Job])
    async for _ in _changes(studio, user):
        text = adapter.dump_json(studio.queue.jobs(user)).decode()
        yield f"data: {text}\n\n" if text != last else ": still here\n\n"
        last = text


async def _changes(studio: Studio, user: str) -> AsyncIterator[None]:
    """Now, after every change of the user's jobs, and now and then. Changes that come faster than they are taken are
    seen as one, so a slow client costs nothing."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell(whose: str) -> None:
        if whose in (user, "") and not loop.is_closed():
            loop.call_soon_threadsafe(changed.set)

    stop = studio.queue.watch(tell)
    try:
        while not studio.queue.closed:
            yield
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                continue
            changed.clear()
            await asyncio.sleep(0.05)
    finally:
        stop()
