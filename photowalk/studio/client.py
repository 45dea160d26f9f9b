"""The HTTP API as Python: the same calls, the same types.

with Client("http://localhost:8008") as studio:
    made = studio.create("hall.jpg")
    studio.wait(made.job)
    job = studio.extend(made.world.id, path="forward 1, left 40deg")
    for state in studio.watch(job):
        print(state.progress.stage, state.progress.done, state.progress.total)
    studio.download(made.world.id, "walk.mp4", "walk.mp4")
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter

from photowalk.scene.images import write_atomically
from photowalk.studio import schemas

Model = TypeVar("Model", bound=BaseModel)


class RefusedError(ValueError):
    """The studio said no; the text says why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Client:
    def __init__(self, address: str, token: str | None = None, *, http: httpx.Client | None = None) -> None:
        """`http` replaces the connection, as tests do; `address` and `token` are then not used."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = http or httpx.Client(base_url=address, headers=headers, timeout=60)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def me(self) -> schemas.Me:
        return self._get("/me", schemas.Me)

    # ---- worlds

    def worlds(self) -> list[schemas.World]:
        return TypeAdapter(list[schemas.World]).validate_python(self._send("GET", "/worlds").json())

    def world(self, world: str) -> schemas.World:
        return self._get(f"/worlds/{world}", schemas.World)

    def create(
        self, photo: str | Path, *, title: str = "", prompt: str = "", seed: int = 0, fov_deg: float | None = None
    ) -> schemas.WorldJob:
        form = {"title": title, "prompt": prompt, "seed": str(seed)}
        if fov_deg is not None:
            form["fov_deg"] = str(fov_deg)
        with Path(photo).open("rb") as file:
            answer = self._send("POST", "/worlds", data=form, files={"photo": (Path(photo).name, file)})
        return schemas.WorldJob.model_validate(answer.json())

    def rename(self, world: str, title: str) -> schemas.World:
        answer = self._send("PATCH", f"/worlds/{world}", json={"title": title})
        return schemas.World.model_validate(answer.json())

    def delete(self, world: str) -> None:
        self._send("DELETE", f"/worlds/{world}")

    def correct(self, world: str, wish: schemas.CorrectRequest) -> schemas.Correction:
        return self._post(f"/worlds/{world}/correction", wish, schemas.Correction)

    def undo(self, world: str, count: int = 1) -> schemas.World:
        return self._post(f"/worlds/{world}/undo", schemas.CountRequest(count=count), schemas.World)

    def redo(self, world: str, count: int = 1) -> schemas.World:
        return self._post(f"/worlds/{world}/redo", schemas.CountRequest(count=count), schemas.World)

    def branch(self, world: str, at: int | None = None, title: str | None = None) -> schemas.World:
        return self._post(f"/worlds/{world}/branches", schemas.BranchRequest(at=at, title=title), schemas.World)

    # ---- walking

    def plan(self, world: str, path: str | None = None, keyframes: list[schemas.Pose] | None = None) -> schemas.Plan:
        return self.plan_walk(world, schemas.PathRequest(path=path, keyframes=keyframes or []))

    def plan_walk(self, world: str, wish: schemas.PathRequest) -> schemas.Plan:
        """As `plan`, with every option."""
        return self._post(f"/worlds/{world}/plan", wish, schemas.Plan)

    def expand(self, world: str, path: str, prompt: str = "") -> str:
        """A prompt written out for a walk, when it is there."""
        wish = schemas.ExpandRequest(path=path, prompt=prompt)
        written = self._post(f"/worlds/{world}/expand", wish, schemas.Expansion)
        return written.prompt or "" if written.job is None else self.wait(written.job).message

    def read_path(self, world: str, file: str | Path) -> list[schemas.Pose]:
        with Path(file).open("rb") as stream:
            answer = self._send("POST", f"/worlds/{world}/paths", files={"file": (Path(file).name, stream)})
        return TypeAdapter(list[schemas.Pose]).validate_python(answer.json())

    def extend(
        self,
        world: str,
        path: str | None = None,
        keyframes: list[schemas.Pose] | None = None,
        *,
        prompt: str | None = None,
        seed: int | None = None,
        steps: int | None = None,
    ) -> schemas.Job:
        wish = schemas.ExtendRequest(path=path, keyframes=keyframes or [], prompt=prompt, seed=seed, steps=steps)
        return self._post(f"/worlds/{world}/extend", wish, schemas.Job)

    def reroll(self, world: str, seed: int | None = None) -> schemas.Job:
        return self._post(f"/worlds/{world}/reroll", schemas.RerollRequest(seed=seed), schemas.Job)

    def go_on(self, world: str) -> schemas.Job:
        return self._post(f"/worlds/{world}/continue", None, schemas.Job)

    def recall(self, world: str, pose: schemas.Pose) -> schemas.Recall:
        return self._post(f"/worlds/{world}/recall", pose, schemas.Recall)

    # ---- jobs

    def jobs(self) -> list[schemas.Job]:
        return TypeAdapter(list[schemas.Job]).validate_python(self._send("GET", "/jobs").json())

    def job(self, job: str) -> schemas.Job:
        return self._get(f"/jobs/{job}", schemas.Job)

    def cancel(self, job: str) -> schemas.Job:
        return self._post(f"/jobs/{job}/cancel", None, schemas.Job)

    def resume(self, job: str) -> schemas.Job:
        return self._post(f"/jobs/{job}/resume", None, schemas.Job)

    def watch(self, job: schemas.Job) -> Iterator[schemas.Job]:
        """The job after every change, until it ends."""
        with self._http.stream("GET", f"/api/jobs/{job.id}/events", timeout=60) as answer:
            if answer.is_error:
                answer.read()
                _check(answer)
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield schemas.Job.model_validate_json(line.removeprefix("data: "))

    def wait(self, job: schemas.Job) -> schemas.Job:
        """The job when it has ended. Raises RefusedError if it failed."""
        for state in self.watch(job):
            job = state
        if job.state == "failed":
            raise RefusedError(422, job.message)
        return job

    # ---- files

    def reconstruct(self, world: str) -> schemas.Job:
        return self._post(f"/worlds/{world}/reconstruct", None, schemas.Job)

    def export(self, world: str, ending: str) -> schemas.Job:
        return self._post(f"/worlds/{world}/exports", schemas.ExportRequest(ending=ending), schemas.Job)

    def frame(self, world: str, frame: int) -> bytes:
        """JPEG."""
        return self._send("GET", f"/worlds/{world}/frames/{frame}.jpg").content

    def download(self, world: str, name: str, file: str | Path) -> None:
        """One of `World.files` into a file."""

        def write(partial: Path) -> None:
            with self._http.stream("GET", f"/api/worlds/{world}/files/{name}") as answer, partial.open("wb") as stream:
                if answer.is_error:
                    answer.read()
                    _check(answer)
                for block in answer.iter_bytes():
                    stream.write(block)

        write_atomically(file, write)

    def _get(self, path: str, answer: type[Model]) -> Model:
        return answer.model_validate(self._send("GET", path).json())

    def _post(self, path: str, body: BaseModel | None, answer: type[Model]) -> Model:
        content = None if body is None else body.model_dump(mode="json", exclude_unset=True)
        return answer.model_validate(self._send("POST", path, json=content).json())

    def _send(self, method: str, path: str, **content) -> httpx.Response:
        answer = self._http.request(method, f"/api{path}", **content)
        _check(answer)
        return answer


def _check(answer: httpx.Response) -> None:
    if answer.is_error:
        try:
            detail = str(answer.json()["detail"])
        except (json.JSONDecodeError, KeyError, TypeError):
            detail = answer.text
        raise RefusedError(answer.status_code, detail)
