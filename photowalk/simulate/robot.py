"""A robot on four driven wheels, and balls that fall, in MuJoCo on a height field.

The wheels of a side turn alike, so that it steers as a tracked vehicle does, and the front axle sways, so that all four
stand on uneven ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from photowalk.simulate.terrain import HOLE, Terrain

RADIUS = 0.22  # metres: the circle that holds the robot, seen from above
BALL = 0.06
DROP = 0.4  # metres above the ground from which balls fall
WHEEL, BREADTH = 0.09, 0.05  # radius of the wheels, half as much again as a step; and how broad they are
TRACK, BASE = 0.105, 0.095  # metres that the wheels are off the middle, to its sides and ahead and behind
CHASSIS = (0.11, 0.07, 0.03)  # half extents, around the height of the axles: higher up it would topple off steps
SWAY = 25  # degrees that the front axle turns against the chassis at most
WHEELS = ("front left", "rear left", "front right", "rear right")
SPEED, TURN = 0.6, 2.5  # metres and radians a second at most
AHEAD = 0.3  # metres along the route that it steers to
ARRIVED = 0.12  # metres from the route's end
PATIENCE = 5.0  # seconds without progress after which it is stuck


@dataclass(frozen=True)
class Moment:
    """One frame of the simulation. Metres, z up."""

    seconds: float
    robot: np.ndarray  # [4, 4] world_from_robot: x ahead, z up
    wheels: np.ndarray  # [4, 4, 4] world_from_wheel, in the order of WHEELS: y along the axle
    balls: np.ndarray  # [N, 3]
    to_go: float  # metres of the route


def drive(terrain: Terrain, route: np.ndarray, balls: np.ndarray, *, seconds: float, fps: float) -> Iterator[Moment]:
    """The robot follows the route [P, 2] while balls fall on the points [N, 2]. It ends where it arrives, is stuck or
    has fallen, but not before the balls had time to fall, and after `seconds` at the latest."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(_description(terrain, route, balls))  # ty: ignore[missing-attribute]
    lowest, highest = float(terrain.height.min()), float(terrain.height.max())
    model.hfield_data[:] = ((terrain.height.T - lowest) / max(highest - lowest, 1e-6)).ravel()
    data = mujoco.MjData(model)  # ty: ignore[missing-attribute]
    robot, wheels = model.body("robot").id, [model.body(wheel).id for wheel in WHEELS]
    of_balls = [model.body(f"ball{i}").id for i in range(len(balls))]
    steps = max(1, round(1 / fps / model.opt.timestep))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(route, axis=0), axis=1))])
    done, nearest, at = 0.0, 0, 0.0
    while data.time < seconds:
        for _ in range(steps):
            window = slice(nearest, int(np.searchsorted(along, along[nearest] + 1.0)) + 1)
            nearest += int(np.linalg.norm(route[window] - data.xpos[robot][:2], axis=1).argmin())
            target = route[min(int(np.searchsorted(along, along[nearest] + AHEAD)), len(route) - 1)]
            data.ctrl[:] = _steer(data.xpos[robot], data.xmat[robot].reshape(3, 3), target)
            mujoco.mj_step(model, data)  # ty: ignore[missing-attribute]
        poses = np.tile(np.eye(4), (1 + len(wheels), 1, 1))
        poses[:, :3, :3] = data.xmat[[robot, *wheels]].reshape(-1, 3, 3)
        poses[:, :3, 3] = data.xpos[[robot, *wheels]]
        if along[nearest] > done + 0.02:
            done, at = float(along[nearest]), float(data.time)
        to_go = float(along[-1] - along[nearest])
        yield Moment(float(data.time), poses[0], poses[1:], data.xpos[of_balls].reshape(-1, 3).copy(), to_go)
        arrived = np.linalg.norm(route[-1] - poses[0, :2, 3]) < ARRIVED
        if data.time > 2 and (arrived or data.time - at > PATIENCE or poses[0, 2, 3] < -HOLE / 2):
            return


def _steer(position: np.ndarray, axes: np.ndarray, target: np.ndarray) -> tuple[float, float, float, float]:
    """Speeds of the WHEELS, radians a second."""
    to, heading = target - position[:2], axes[:2, 0]
    error = float(np.arctan2(heading[0] * to[1] - heading[1] * to[0], heading @ to))
    speed, turn = SPEED * max(0.0, float(np.cos(error))), float(np.clip(4 * error, -TURN, TURN))
    left, right = (speed - turn * TRACK) / WHEEL, (speed + turn * TRACK) / WHEEL
    return left, left, right, right


def _description(terrain: Terrain, route: np.ndarray, balls: np.ndarray) -> str:
    """The scene in MuJoCo's own language."""
    half = (np.array(terrain.height.shape) - 1) * terrain.side / 2
    middle = terrain.origin + np.array(terrain.height.shape) * terrain.side / 2
    low, high = float(terrain.height.min()), float(terrain.height.max())
    columns, rows = terrain.height.shape
    ahead = route[min(len(route) - 1, 8)] - route[0]
    yaw = float(np.arctan2(ahead[1], ahead[0]))
    x, y, z = CHASSIS
    start = _lifted(terrain, route[0], 0.05 + WHEEL)
    front = "".join(_wheel(wheel, 0.0) for wheel in WHEELS if wheel.startswith("front"))
    rear = "".join(_wheel(wheel, -BASE) for wheel in WHEELS if wheel.startswith("rear"))
    motors = "".join(f'<velocity joint="{wheel}" kv="2" forcerange="-6 6"/>' for wheel in WHEELS)
    falling = "".join(
        f'<body name="ball{i}" pos="{_lifted(terrain, ball, DROP)}"><freejoint/>'
        f'<geom type="sphere" size="{BALL}" mass="0.1" condim="6" friction="0.8 0.01 0.01"/></body>'
        for i, ball in enumerate(balls)
    )
    return f"""<mujoco>
      <option timestep="0.004" integrator="implicitfast"/>
      <asset><hfield name="ground" nrow="{rows}" ncol="{columns}"
        size="{half[0]} {half[1]} {max(high - low, 1e-6)} 0.5"/></asset>
      <worldbody>
        <geom type="hfield" hfield="ground" pos="{middle[0]} {middle[1]} {low}" friction="1 0.01 0.001"/>
        <body name="robot" pos="{start}" euler="0 0 {np.degrees(yaw)}"><freejoint/>
          <geom type="box" size="{x} {y} {z}" mass="3"/>{rear}
          <body pos="{BASE} 0 0"><joint axis="1 0 0" limited="true" range="-{SWAY} {SWAY}" damping="0.05"/>
            <geom type="capsule" size="0.015 0.07" euler="90 0 0" mass="0.2"/>{front}</body>
        </body>
        {falling}
      </worldbody>
      <actuator>{motors}</actuator></mujoco>"""


def _wheel(name: str, ahead: float) -> str:
    """A wheel, `ahead` of the middle of the body that it is part of."""
    side = TRACK if name.endswith("left") else -TRACK
    return (
        f'<body name="{name}" pos="{ahead} {side} 0">'
        f'<joint name="{name}" axis="0 1 0" damping="0.001" armature="0.002"/>'
        f'<geom type="cylinder" size="{WHEEL} {BREADTH / 2}" euler="90 0 0" mass="0.3" friction="1.2 0.01 0.001"/>'
        "</body>"
    )


def _lifted(terrain: Terrain, point: np.ndarray, above: float) -> str:
    """A point [2] as x y z, `above` what the map has there."""
    x, y = terrain.place(point[None])[0]
    return f"{point[0]} {point[1]} {terrain.height[x, y] + above}"
