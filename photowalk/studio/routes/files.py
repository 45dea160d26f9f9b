"""Make splats and files of a world; its frames and files."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from photowalk.studio import schemas
from photowalk.studio.routes.common import User, api_router
from photowalk.studio.schemas import Identifier
from photowalk.studio.service import Studio


def file_routes(studio: Studio) -> APIRouter:
    router = api_router()

    @router.post("/worlds/{world}/reconstruct", status_code=202, tags=["files"])
    def reconstruct(user: User, world: Identifier) -> schemas.Job:
        return studio.reconstruct(user, world)

    @router.post("/worlds/{world}/exports", status_code=202, tags=["files"])
    def export(user: User, world: Identifier, wish: schemas.ExportRequest) -> schemas.Job:
        return studio.export(user, world, wish.ending)

    @router.get("/worlds/{world}/frames/{frame}.jpg", tags=["files"], response_class=Response)
    def get_frame(user: User, world: Identifier, frame: int, key: str = "") -> Response:
        """Give the chunk's `key` to have the picture kept by the browser: with another key it is another picture."""
        picture = studio.picture(user, world, frame)
        kept = "private, max-age=31536000, immutable" if key else "private, no-cache"
        return Response(picture, media_type="image/jpeg", headers={"cache-control": kept})

    @router.get("/worlds/{world}/files/{name}", tags=["files"], response_class=FileResponse)
    def get_file(user: User, world: Identifier, name: str) -> FileResponse:
        """One of the world's `files`, whole or by range."""
        return FileResponse(studio.file(user, world, name), filename=name)

    return router
