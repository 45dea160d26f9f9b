"""What all routes share: whose request it is, and which problems an answer may tell of."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.security import HTTPBearer

from photowalk.studio import schemas

PROBLEMS: dict[int | str, dict[str, Any]] = {
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


def api_router() -> APIRouter:
    """An empty one below /api."""
    return APIRouter(prefix="/api", responses=PROBLEMS)
