"""Undo, redo and branch; plan a walk, go it, and ask memory what it sees."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, UploadFile

from photowalk.studio import schemas
from photowalk.studio.routes.common import User, api_router
from photowalk.studio.schemas import Identifier
from photowalk.studio.service import Studio


def walking_routes(studio: Studio) -> APIRouter:
    router = api_router()

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

    @router.post("/worlds/{world}/reroll", status_code=202, tags=["walking"])
    def reroll(user: User, world: Identifier, wish: schemas.RerollRequest) -> schemas.Job:
        """Undo the last chunk and make another one along its cameras."""
        return studio.reroll(user, world, wish.seed)

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

    return router
