"""The 3D part of a page: points or splats of a world, the cameras of its walk, and the path that is planned.

It draws into one browser's scene. Everything is in the world's own coordinates (OpenCV: y down), so no pose is turned
on its way. Machines that draw in software get fewer points and splats: `budget` says how many.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import viser
from PIL import Image
from torch import Tensor

from photowalk.export.ply import read_splats
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import quaternion_from_rotation, rotation_from_quaternion
from photowalk.kernels.rasterise import SH_DC
from photowalk.reconstruct.simplify import simplify
from photowalk.studio import schemas
from photowalk.studio.horizon import Up
from photowalk.studio.keyframe_marks import COLOUR as PLANNED
from photowalk.studio.keyframe_marks import KeyframeMarks, fov_y_of
from photowalk.studio.scenery import Scenery

FREE, BLOCKED, WALKED, RECALLED = (94, 176, 255), (255, 82, 82), (150, 160, 178), (64, 224, 168)
_BY_DISTANCE = ((253, 231, 76), (122, 209, 81), (34, 168, 132), (42, 120, 142), (65, 68, 135), (68, 1, 84))
_WIDEST = math.radians(110)  # that the eye is opened to fit a wide frame into a narrow window


@dataclass(frozen=True)
class Budget:
    """How much a browser is given to draw."""

    points: int = 1_200_000
    splats: int = 1_000_000
    cameras: int = 40  # of a walk
    line: float = 1.5  # how thick lines are, in pixels of the screen

    def halved(self) -> Budget:
        return replace(self, points=max(self.points // 2, 12_000), splats=max(self.splats // 2, 3000))


SOFTWARE = Budget(points=24_000, splats=6000, cameras=12, line=2.5)


class Stage:
    def __init__(self, client: viser.ClientHandle, budget: Budget) -> None:
        self._client, self._scene, self.budget = client, client.scene, budget
        self._frustums: list[viser.CameraFrustumHandle] = []
        self._recalled: list[viser.CameraFrustumHandle] = []
        self._points: viser.PointCloudHandle | None = None
        self._splats: viser.GaussianSplatHandle | None = None
        self._flying = False
        self._path: list[viser.SceneNodeHandle] = []
        self._path_cameras: list[viser.CameraFrustumHandle] = []
        self._keyframes = KeyframeMarks(client.scene)
        self._up = np.array([0.0, -1.0, 0.0])
        self._thinning = 1.0
        self._grain = 0.01
        self._scale = 1.0  # the photo's reference depth: what sizes of marks are measured in

    # ---- the world

    def set_up(self, up: Up) -> None:
        """Which way is up, where the photo was taken with a tilted camera."""
        self._up = np.array(up)
        self._client.camera.up_direction = self._up

    def show_points(self, scenery: Scenery, chunks: tuple[int, int], size: float, *, by_depth: bool = False) -> int:
        """The points of chunks [first, last], in their own colours or by their distance; how many are drawn."""
        points, colours = scenery.cloud(*chunks)
        self._scale = scenery.manifest.reference_depth
        self._grain = scenery.grain
        self._thinning = min(2.0, math.sqrt(max(1.0, len(points) / self.budget.points)))
        points, colours = _thinned(self.budget.points, points, colours)
        if by_depth:
            colours = by_distance(points)
        self.hide_points()
        self._points = self._scene.add_point_cloud(
            "/points",
            points.numpy().astype(np.float32),
            colours.numpy(),
            point_size=self._point_size(size),
            point_shape="circle",
            point_shading="flat",
        )
        return len(points)

    def size_points(self, size: float) -> None:
        if self._points is not None:
            self._points.point_size = self._point_size(size)

    def _point_size(self, size: float) -> float:
        """As wide as points lie apart, at size 1; fewer points are drawn larger, so that surfaces stay closed."""
        return size * self._thinning * self._grain

    def hide_points(self) -> None:
        if self._points is not None:
            self._points.remove()
            self._points = None

    def show_splats(self, file: Path) -> tuple[int, int]:
        """The splats of a file: how many are drawn, how many there are."""
        splats = read_splats(file)
        count = len(splats)
        kept = simplify(splats, self.budget.splats)
        axes = rotation_from_quaternion(kept.rotations) * kept.scales[:, None, :]
        self.hide_splats()
        self._splats = self._scene.add_gaussian_splats(
            "/splats",
            kept.means.numpy(),
            (axes @ axes.mT).numpy(),
            (kept.colours[:, 0] * SH_DC + 0.5).clamp(0, 1).numpy(),
            kept.opacities[:, None].clamp(0, 1).numpy(),
        )
        return len(kept), count

    def hide_splats(self) -> None:
        if self._splats is not None:
            self._splats.remove()
            self._splats = None

    def show_cameras(self, scenery: Scenery, visible: bool) -> None:
        """Frustums along the walk, with pictures; the photo and the last frame are always among them."""
        for frustum in self._frustums:
            frustum.remove()
        self._frustums = []
        if not visible:
            return
        cameras = scenery.cameras
        every = max(8, -(-len(cameras) // self.budget.cameras))
        frames = sorted({0, len(cameras) - 1, *range(0, len(cameras), every)})
        for frame in frames:
            special = frame in (0, len(cameras) - 1)
            image = _thumbnail(scenery.picture(frame)) if special or frame % (4 * every) == 0 else None
            self._frustums.append(
                self._frustum(
                    f"/walk/{frame}",
                    cameras[frame],
                    scale=(0.018 if special else 0.012) * self._scale,
                    color=PLANNED if frame == len(cameras) - 1 else WALKED,
                    image=image,
                )
            )

    def mark_recalled(self, scenery: Scenery, frames: list[int]) -> None:
        for frustum in self._recalled:
            frustum.remove()
        self._recalled = [
            self._frustum(
                f"/recalled/{frame}",
                scenery.cameras[frame],
                scale=0.03 * self._scale,
                color=RECALLED,
                image=_thumbnail(scenery.picture(frame)),
            )
            for frame in frames
        ]
        self.declutter()

    def declutter(self) -> None:
        """Hide cameras that the eye is in, which would cover everything, and on a flight all that are planned."""
        eye = np.asarray(self._client.camera.position)
        near = 0.1 * self._scale
        ahead = math.inf if self._flying else 1
        walked = [(node, near) for node in (*self._frustums, *self._recalled)]
        keyframes = [(node, near * ahead) for node in self._keyframes.nodes]
        for node, radius in (*walked, *keyframes, *((node, 3 * near * ahead) for node in self._path_cameras)):
            clear = bool(np.linalg.norm(np.asarray(node.position) - eye) > radius)
            if node.visible != clear:
                node.visible = clear

    # ---- the plan

    def show_path(self, plan: schemas.Plan, lens: Cameras) -> None:
        """The planned walk: thin where it is free, red where it would run into something, frustums for its speed."""
        self.hide_path()
        centres = np.array([pose.position for pose in plan.poses])
        hits = np.array(plan.blocked)
        if len(centres) > 1:
            colours = np.where((hits[:-1] | hits[1:])[:, None], BLOCKED, FREE).astype(np.uint8)
            segments = np.stack([centres[:-1], centres[1:]], axis=1)
            lines = np.repeat(colours[:, None], 2, axis=1)
            self._path.append(
                self._scene.add_line_segments("/plan/line", segments, lines, thickness=3, thickness_units="screen")
            )
        every = max(4, len(centres) // 24)
        for index in sorted({*range(every, len(centres), every), len(centres) - 1}):
            pose = plan.poses[index]
            self._path_cameras.append(
                self._scene.add_camera_frustum(
                    f"/plan/{index}",
                    fov_y_of(pose, lens),
                    lens.width / lens.height,
                    scale=0.03 * self._scale,
                    thickness=self.budget.line,
                    thickness_units="screen",
                    color=BLOCKED if plan.blocked[index] else FREE,
                    position=pose.position,
                    wxyz=pose.wxyz,
                )
            )
        self.declutter()

    def hide_path(self) -> None:
        for node in (*self._path, *self._path_cameras):
            node.remove()
        self._path, self._path_cameras = [], []

    def show_keyframes(
        self,
        poses: Sequence[schemas.Pose],
        chosen: int,
        lens: Cameras,
        moved: Callable[[int, schemas.Pose], None],
        dropped: Callable[[], None],
    ) -> None:
        """As `KeyframeMarks.show`."""
        self._keyframes.show(poses, chosen, lens, self._scale, moved, dropped)
        self.declutter()

    def fly(self, flying: bool) -> None:
        """Whether the eye moves along the plan."""
        self._flying = flying
        self.declutter()

    # ---- the eye

    @property
    def pose(self) -> schemas.Pose:
        """Where the browser looks from."""
        camera = self._client.camera
        return schemas.Pose(position=tuple(map(float, camera.position)), wxyz=tuple(map(float, camera.wxyz)))

    def look_from(self, camera: Cameras, back: float = 0.0, *, orbit: float | None = None) -> None:
        """Put the eye at a camera [], or `back` times the reference depth behind it."""
        placed = camera.world_from_camera.double()
        forward = placed[:3, 2].numpy()
        up = -placed[:3, 1].numpy()
        position = placed[:3, 3].numpy() + back * self._scale * (0.3 * up - forward)
        distance = (1 + back) * self._scale if orbit is None else orbit
        with self._client.atomic():
            self._client.camera.min_orbit_distance = 0.001
            self._client.camera.up_direction = self._up
            self._client.camera.position = position
            self._client.camera.look_at = position + forward * distance
            self._client.camera.fov = self._fitting(camera)
            self._client.camera.near = 0.01 * self._scale
        self.declutter()
        self._client.flush()

    def _fitting(self, camera: Cameras) -> float:
        """How high the eye has to see, in radians, so that what the camera sees fits into the browser's picture."""
        high = camera.height / 2 / float(camera.intrinsics[1, 1])
        wide = camera.width / 2 / float(camera.intrinsics[0, 0])
        return min(2 * math.atan(max(high, wide / self._client.camera.aspect)), _WIDEST)

    @property
    def fov_deg(self) -> float:
        """How high the eye sees."""
        return math.degrees(self._client.camera.fov)

    def see(self, fov_deg: float) -> None:
        """Let the eye see so high; nothing else changes."""
        self._client.camera.fov = math.radians(fov_deg)

    def turn_on_the_spot(self) -> None:
        """First person: dragging turns the gaze instead of circling around what is looked at."""
        pose = self.pose
        forward = rotation_from_quaternion(torch.tensor(pose.wxyz, dtype=torch.float64))[:, 2].numpy()
        self._client.camera.look_at = np.array(pose.position) + 0.02 * self._scale * forward

    def circle(self) -> None:
        """Orbit around the point a reference depth ahead."""
        pose = self.pose
        forward = rotation_from_quaternion(torch.tensor(pose.wxyz, dtype=torch.float64))[:, 2].numpy()
        self._client.camera.look_at = np.array(pose.position) + self._scale * forward

    def _frustum(self, name: str, camera: Cameras, *, scale: float, color, image) -> viser.CameraFrustumHandle:
        placed = camera.world_from_camera.double()
        return self._scene.add_camera_frustum(
            name,
            _fov_y(camera),
            camera.width / camera.height,
            scale=scale,
            thickness=self.budget.line,
            thickness_units="screen",
            color=color,
            image=image,
            position=placed[:3, 3].numpy(),
            wxyz=quaternion_from_rotation(placed[:3, :3]).numpy(),
        )


def _fov_y(camera: Cameras) -> float:
    return 2 * math.atan(camera.height / 2 / float(camera.intrinsics[1, 1]))


def _thumbnail(picture: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(picture))
    image.draft("RGB", (160, 96))
    image.thumbnail((160, 160))
    return np.asarray(image)


def by_distance(points: Tensor) -> Tensor:
    """Colours, uint8 [N, 3], of points [N, 3] by how far from the photo's camera they are: yellow is near, violet far.

    Equal steps of colour are equal factors of distance; the nearest and the farthest twentieth are not told apart."""
    if len(points) == 0:
        return torch.zeros(0, 3, dtype=torch.uint8)
    far = points.norm(dim=-1).clamp_min(1e-6).log().numpy()
    low, high = np.quantile(far, (0.05, 0.95))
    share = np.clip((far - low) / max(high - low, 1e-6), 0, 1)
    steps = np.linspace(0, 1, len(_BY_DISTANCE))
    channels = [np.interp(share, steps, channel) for channel in zip(*_BY_DISTANCE)]
    return torch.from_numpy(np.stack(channels, axis=-1).round().astype(np.uint8))


def _thinned(budget: int, points: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    """An even share of the points; the same each time."""
    if len(points) <= budget:
        return points, colours
    kept = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:budget]
    return points[kept], colours[kept]
