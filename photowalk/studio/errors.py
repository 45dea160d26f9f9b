"""What the studio refuses, with the HTTP status that says so. The text says what was given, why not, and what to do."""

from __future__ import annotations


class StudioError(ValueError):
    status = 422


class NotFoundError(StudioError):
    status = 404


class ConflictError(StudioError):
    status = 409


class TooLargeError(StudioError):
    status = 413


class TooManyError(StudioError):
    status = 429
