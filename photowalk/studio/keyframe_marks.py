"""Keyframes in the scene: a frustum for each, and handles at the one that is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import viser

from photowalk.geometry.cameras import Cameras
from photowalk.studio import planning, schemas

COLOUR = (255, 196, 74)
_AT_HOME = {"position": (0.0, 0.0, 0.0), "wxyz": (1.0, 0.0, 0.0, 0.0)}


def fov_y_of(pose: schemas.Pose, lens: Cameras) -> float:
    """How high a camera at `pose` sees, in radians; `lens`, a camera [], stands in where the pose does not say."""
    half = planning.half_width(lens) if pose.fov_deg is None else planning.half_tangent(pose.fov_deg)
    return 2 * math.atan(half * lens.height / lens.width)


class KeyframeMarks:
    def __init__(self, scene: viser.SceneApi) -> None:
        self._scene = scene
        self.nodes: list[viser.SceneNodeHandle] = []

    def show(
        self,
        poses: Sequence[schemas.Pose],
        chosen: int,
        lens: Cameras,
        scale: float,
        moved: Callable[[int, schemas.Pose], None],
        dropped: Callable[[], None],
    ) -> None:
        """`moved` is told where the handles pull the chosen one, `dropped` when they let go; `scale` sizes marks."""
        for node in self.nodes:
            node.remove()
        self.nodes = []
        for index, pose in enumerate(poses):
            if index != chosen:
                self.nodes.append(self._frustum(f"{index}", pose, lens, scale, False))
                continue
            gizmo = self._scene.add_transform_controls(
                f"/keyframes/{index}", scale=0.15 * scale, position=pose.position, wxyz=pose.wxyz, depth_test=False
            )
            at_home = pose.model_copy(update=_AT_HOME)  # it goes with its handles
            self._frustum(f"{index}/camera", at_home, lens, scale, True)
            self.nodes.append(gizmo)

            @gizmo.on_update
            def _(_, gizmo=gizmo, index=index, pose=pose) -> None:
                position, wxyz = tuple(map(float, gizmo.position)), tuple(map(float, gizmo.wxyz))
                moved(index, schemas.Pose(position=position, wxyz=wxyz, fov_deg=pose.fov_deg))

            gizmo.on_drag_end(lambda _: dropped())

    def _frustum(
        self, name: str, pose: schemas.Pose, lens: Cameras, scale: float, chosen: bool
    ) -> viser.CameraFrustumHandle:
        return self._scene.add_camera_frustum(
            f"/keyframes/{name}",
            fov_y_of(pose, lens),
            lens.width / lens.height,
            scale=0.05 * scale,
            thickness=3 if chosen else 2,
            thickness_units="screen",
            color=COLOUR,
            variant="filled" if chosen else "wireframe",
            position=pose.position,
            wxyz=pose.wxyz,
        )
