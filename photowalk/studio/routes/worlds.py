"""Make, list, rename, correct and delete worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile

from photowalk.studio import schemas
from photowalk.studio.routes.common import User, api_router
from photowalk.studio.schemas import Identifier
from photowalk.studio.service import Studio


def world_routes(studio: Studio) -> APIRouter:
    router = api_router()

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

    return router
