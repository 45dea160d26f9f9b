"""Jobs, and their changes as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from photowalk.studio import schemas
from photowalk.studio.errors import StudioError
from photowalk.studio.routes.common import User, api_router
from photowalk.studio.schemas import Identifier
from photowalk.studio.service import Studio

HEARTBEAT_SECONDS = 15.0


def job_routes(studio: Studio) -> APIRouter:
    router = api_router()

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
