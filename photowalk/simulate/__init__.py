"""Can one stand in a world? Balls fall on its floor and a small robot drives along the walk, in MuJoCo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.scene.ground import Ground, read_ground
from photowalk.scene.images import write_atomically
from photowalk.scene.mesh_files import read_mesh
from photowalk.scene.types import Mesh
from photowalk.scene.videos import write_mp4

WANTED = 5.0  # metres that the robot is to drive
WALKED = 3 * WANTED  # metres of the walk around which floor is looked for
BALLS = 8
FPS = 16.0
FILM_SIZE = (240, 400)
_FALLEN, _TIPPED = 0.5, 0.5  # metres below the ground; cosine between the chassis and up


@dataclass(frozen=True)
class Report:
    """What happened. Metres and square metres."""

    stays_on_floor: bool
    drove: float
    route: float
    arrived: bool  # at the route's end
    stuck: bool
    tipped: bool
    fell_through: bool
    balls: int
    balls_fell_through: int
    free_floor: float  # that the robot can reach
    invented_floor: float  # share of the floor under its route that nobody saw
    seen_route: float  # metres of its route on floor that was seen
    drove_seen: float  # of those, how many it drove
    seconds: float

    @property
    def passed(self) -> bool:
        """It stayed on the floor and drove WANTED metres, or to the end of the free floor."""
        return self.stays_on_floor and (self.drove >= WANTED - 0.2 or self.arrived)

    @property
    def passed_seen(self) -> bool:
        """It stayed on the floor and drove all of its route that somebody saw, which is not nothing."""
        return self.stays_on_floor and self.seen_route > 0.2 and self.drove_seen >= 0.95 * self.seen_route

    def lines(self) -> list[str]:
        """In words."""
        end = "arrived" if self.arrived else "stuck" if self.stuck else "tipped over" if self.tipped else "out of time"
        return [
            f"{'passed' if self.passed else 'failed'}: the robot drove {self.drove:.1f} m of {self.route:.1f} m in "
            f"{self.seconds:.0f} s and {'fell through' if self.fell_through else end}",
            f"{self.balls - self.balls_fell_through} of {self.balls} balls came to lie on the floor",
            f"{self.free_floor:.1f} m2 of free floor in reach, {100 * self.invented_floor:.0f} % of the route invented",
            f"on floor that was seen it drove {self.drove_seen:.1f} m of {self.seen_route:.1f} m",
        ]


def simulate_world(folder: str | Path, *, seconds: float = 60) -> Report:
    """Simulate WORLD/scene/collision.ply; writes scene/simulation.mp4 and scene/simulation.json.

    Raises ValueError where there is no mesh, or no floor to stand on.
    """
    from photowalk.world.store import WorldStore

    scene = Path(folder) / "scene"
    store = WorldStore(folder)
    cameras, manifest = store.cameras(), store.manifest
    up = None if manifest.up is None else torch.tensor(manifest.up, dtype=torch.float64)
    ground = read_ground(scene / "scene.json").corrected(cameras[0], up, manifest.metres_per_unit)
    collision, visual = read_mesh(scene / "collision.ply"), read_mesh(scene / "mesh.glb")
    report, frames = simulate(collision, ground, cameras, seconds=seconds, visual=visual)
    write_mp4(scene / "simulation.mp4", frames, fps=FPS)
    text = json.dumps({**asdict(report), "passed": report.passed, "passed_seen": report.passed_seen}, indent=1)
    write_atomically(scene / "simulation.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return report


def simulate(
    collision: Mesh, ground: Ground, cameras: Cameras, *, seconds: float = 60, visual: Mesh | None = None
) -> tuple[Report, Iterator[Tensor]]:
    """What happens on a collision mesh along the walk of `cameras` [F], and the frames of a film of it.

    The meshes are in the world's axes and unit, which `ground` brings to metres. Raises ValueError where there is no
    floor to stand on.
    """
    from photowalk.simulate.film import film
    from photowalk.simulate.robot import RADIUS, drive
    from photowalk.simulate.route import plan_route
    from photowalk.simulate.terrain import terrain_of

    if len(collision) == 0:
        raise ValueError("the collision mesh has no faces; make it again with: photowalk reconstruct WORLD")
    if not seconds > 0:
        raise ValueError(f"a simulation wants a positive number of seconds, got {seconds}")
    axes = _level(cameras[0], ground)
    origin = cameras[0].centres.double() @ axes.T
    path = ((cameras.centres.double() @ axes.T - origin) * ground.metres_per_unit)[:, :2].numpy()
    walked = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    path = path[walked <= WALKED]
    solid = _leveled(collision, axes, origin, ground)
    terrain = terrain_of(solid, path)
    route = plan_route(terrain, path, RADIUS, WANTED)
    moments = list(
        drive(terrain, route.points, _ball_spots(terrain, route.points, RADIUS + 0.12), seconds=seconds, fps=FPS)
    )
    report = _report(moments, route.points, route.area, terrain)
    shown = solid if visual is None else _leveled(visual, axes, origin, ground)
    return report, film(shown, moments, FILM_SIZE)


def _ball_spots(terrain, route: np.ndarray, off: float) -> np.ndarray:
    """Where balls fall [BALLS, 2]: along the route and `off` beside it, on the side with more room, so that none is
    caught between the robot and a wall."""
    at = np.linspace(0, len(route) - 1, BALLS + 2).round().astype(int)[1:-1]
    along = route[np.minimum(at + 3, len(route) - 1)] - route[np.maximum(at - 3, 0)]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.linalg.norm(along, axis=1), 1e-9)[:, None]
    sides = route[at] + off * np.stack([across, -across])  # [2, BALLS, 2]
    room = terrain.clearance()[tuple(np.moveaxis(terrain.place(sides.reshape(-1, 2)), 1, 0))].reshape(2, -1)
    return np.where((room[0] >= room[1])[:, None], sides[0], sides[1])


def _report(moments, route: np.ndarray, area: float, terrain) -> Report:
    from photowalk.simulate.robot import ARRIVED

    steps = np.linalg.norm(np.diff(route, axis=0), axis=1)
    length = float(steps.sum())
    last = moments[-1]
    places = np.stack([moment.robot[:2, 3] for moment in moments])
    at = terrain.place(places)
    below = np.array([moment.robot[2, 3] for moment in moments]) - terrain.height[at[:, 0], at[:, 1]] < -_FALLEN
    low = np.array([moment.robot[2, 3] for moment in moments]) < terrain.height.min() + _FALLEN
    fell = bool((below | (low & (terrain.height.min() < -1))).any())
    tipped = any(float(moment.robot[2, 2]) < _TIPPED for moment in moments)
    arrived = bool(np.linalg.norm(last.robot[:2, 3] - route[-1]) < ARRIVED)
    on = terrain.place(route)
    invented = terrain.invented[on[:, 0], on[:, 1]]
    seen = steps * ~(invented[:-1] | invented[1:])
    driven = np.clip(length - last.to_go - (steps.cumsum() - steps), 0, steps) / np.maximum(steps, 1e-9)
    fallen = int((last.balls[:, 2] < -1).sum())
    return Report(
        stays_on_floor=not fell and not tipped,
        drove=length - last.to_go,
        route=length,
        arrived=arrived,
        stuck=not arrived and not fell and not tipped and last.to_go > 0,
        tipped=tipped,
        fell_through=fell,
        balls=len(last.balls),
        balls_fell_through=fallen,
        free_floor=area,
        invented_floor=float(invented.mean()),
        seen_route=float(seen.sum()),
        drove_seen=float((seen * driven).sum()),
        seconds=last.seconds,
    )


def _level(first: Cameras, ground: Ground) -> Tensor:
    """Axes [3, 3]: ahead, left, up."""
    gaze = first.camera_from_world[2, :3].double()
    ahead = gaze - (gaze @ ground.up) * ground.up
    if float(ahead.norm()) < 1e-6:
        ahead = -first.camera_from_world[1, :3].double()
        ahead = ahead - (ahead @ ground.up) * ground.up
    ahead = ahead / ahead.norm()
    return torch.stack([ahead, torch.linalg.cross(ground.up, ahead), ground.up])


def _leveled(mesh: Mesh, axes: Tensor, origin: Tensor, ground: Ground) -> Mesh:
    """The mesh in metres, z up, the floor at 0, below the first camera (0, 0)."""
    foot = torch.tensor([origin[0], origin[1], ground.floor], dtype=torch.float64)
    vertices = (mesh.vertices.double() @ axes.T - foot) * ground.metres_per_unit
    return replace(mesh, vertices=vertices.float())
