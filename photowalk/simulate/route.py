"""Where a robot should drive: along the walk while there is floor, and on to where there is more that was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from photowalk.simulate.terrain import Terrain

_AWAY, _INVENTED, _CLOSE = 0.5, 2.0, 4.0  # detour that a metre off the walk, invented floor or a tight spot is worth


@dataclass(frozen=True)
class Route:
    points: np.ndarray  # [P, 2] metres, from where the robot starts
    area: float  # square metres of free floor that can be reached from there


def plan_route(terrain: Terrain, path: np.ndarray, radius: float, wanted: float) -> Route:
    """A route for a robot of `radius`, with `wanted` metres on floor that was seen where there is so much; else one
    as long as that with the most of it, or as far as free floor goes. path [F, 2]: the walk.

    Raises ValueError if there is no free floor within a metre of the walk.
    """
    clearance = terrain.clearance()
    free = clearance > radius
    number = np.where(free, np.cumsum(free).reshape(free.shape) - 1, -1)
    places = np.argwhere(free)
    if len(places) == 0:
        raise ValueError("there is no free floor on this mesh for a robot to stand on")
    points = terrain.point(places)
    off = np.linalg.norm(points[:, None] - path[None, :: max(1, len(path) // 40)], axis=2).min(1)
    start = int(np.linalg.norm(points - path[0], axis=1).argmin())
    if np.linalg.norm(points[start] - path[0]) > 1:
        start = int(off.argmin())
        if off[start] > 1:
            raise ValueError("there is no free floor within a metre of the walk for a robot to stand on")
    pairs = [
        (number[:-1], number[1:], 1.0),
        (number[:, :-1], number[:, 1:], 1.0),
        (number[:-1, :-1], number[1:, 1:], math.sqrt(2)),
        (number[:-1, 1:], number[1:, :-1], math.sqrt(2)),
    ]
    both = [(a >= 0) & (b >= 0) for a, b, _ in pairs]
    one = np.concatenate([a[linked] for (a, _, _), linked in zip(pairs, both)])
    other = np.concatenate([b[linked] for (_, b, _), linked in zip(pairs, both)])
    length = np.concatenate(
        [np.full(int(linked.sum()), step * terrain.side) for (*_, step), linked in zip(pairs, both)]
    )
    close = np.clip(2 - clearance[free] / radius, 0, 1)  # robots cut corners
    dear = 1 + np.minimum(_AWAY * off, 2) + _INVENTED * terrain.invented[free] + _CLOSE * close

    def shortest(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        graph = coo_matrix((lengths, (one, other)), shape=(len(places),) * 2).tocsr()
        return dijkstra(graph, directed=False, indices=start, return_predecessors=True)

    away, _ = shortest(length)
    cost, before = shortest(length * (dear[one] + dear[other]) / 2)
    reached = np.isfinite(away)
    seen = _seen_on_the_way(points, terrain.invented[free], cost, before)
    far = reached & (away >= wanted)
    if (seen >= wanted).any():
        goal = int(np.where(seen >= wanted, cost, np.inf).argmin())
    elif far.any():
        goal = int(np.where(far, seen - 1e-3 * cost, -np.inf).argmax())
    else:
        goal = int(np.where(reached, away, -1).argmax())
    chain = [goal]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    area = float(reached.sum()) * terrain.side**2
    return Route(points[chain[::-1]], area)


def _seen_on_the_way(points: np.ndarray, invented: np.ndarray, cost: np.ndarray, before: np.ndarray) -> np.ndarray:
    """[N] metres of floor that was seen on the cheapest way to each place; 0 where there is none."""
    previous = np.maximum(before, 0)
    step = np.linalg.norm(points - points[previous], axis=1) * ~(invented | invented[previous]) * (before >= 0)
    seen = step.tolist()
    came_from = before.tolist()
    for place in cost.argsort(kind="stable").tolist():  # whoever comes before a place is cheaper than it
        if came_from[place] >= 0:
            seen[place] += seen[came_from[place]]
    return np.array(seen)
