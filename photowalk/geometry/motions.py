"""Rigid motions as 4x4 matrices, and similarities (Sim(3)). Knows nothing of images or intrinsics.

A motion `b_from_a` [*, 4, 4] takes points of frame a to frame b; motions compose by matrix product, right to left.
Axes are OpenCV (x right, y down, z forward), angles are radians unless a name says `deg`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras

_DOWN = (0.0, 1.0, 0.0)


def motion(rotation: Tensor, translation: Tensor) -> Tensor:
    """rotation [*, 3, 3] and translation [*, 3] -> [*, 4, 4]."""
    leading = np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])  # torch loads all of sympy for its own
    result = torch.zeros(*leading, 4, 4, dtype=rotation.dtype, device=rotation.device)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = translation
    result[..., 3, 3] = 1
    return result


def compose(*motions: Tensor) -> Tensor:
    """compose(c_from_b, b_from_a) -> c_from_a."""
    result = motions[0]
    for right in motions[1:]:
        result = result @ right
    return result


def inverse(rigid: Tensor) -> Tensor:
    """[*, 4, 4] -> [*, 4, 4] by the closed form [R^T | -R^T t]."""
    transposed = rigid[..., :3, :3].mT
    return motion(transposed, -(transposed @ rigid[..., :3, 3:])[..., 0])


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rotation vectors [*, 3] (axis times angle) -> [*, 3, 3]: Rodrigues' formula, exact at angle 0."""
    angle = vector.norm(dim=-1)[..., None, None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    # sin(a)/a and (1 - cos(a))/a^2 = (sin(a/2)/(a/2))^2 / 2 without cancellation; torch.sinc(x) is sin(pi x)/(pi x)
    first = torch.sinc(angle / torch.pi)
    second = torch.sinc(angle / (2 * torch.pi)) ** 2 / 2
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + first * cross + second * (cross @ cross)


def vector_from_rotation(rotation: Tensor) -> Tensor:
    """[*, 3, 3] -> rotation vectors [*, 3] with angle in [0, pi]; accurate near 0 and near pi (through quaternions)."""
    quaternion = quaternion_from_rotation(rotation)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    length = imaginary.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(length, real)
    small = length < torch.finfo(rotation.dtype).tiny
    return imaginary * torch.where(small, torch.full_like(angle, 2.0), angle / length.masked_fill(small, 1.0))


def rotation_from_euler(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """world_from_camera rotation [*, 3, 3] of a camera that turned right by `yaw`, then tilted its gaze up by `pitch`,
    then rolled clockwise by `roll` (as the photographer sees it): R_y(yaw) R_x(pitch) R_z(roll)."""
    zero = torch.zeros_like(yaw)
    turns = [torch.stack(v, -1) for v in ([zero, yaw, zero], [pitch, zero, zero], [zero, zero, roll])]
    return compose(*(rotation_from_vector(turn) for turn in turns))


def euler_from_rotation(rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The (yaw, pitch, roll) [*] of `rotation_from_euler`, pitch in [-pi/2, pi/2]."""
    forward = rotation[..., :, 2]
    level = torch.hypot(forward[..., 0], forward[..., 2])
    pitch = torch.atan2(-forward[..., 1], level)
    yaw = torch.atan2(forward[..., 0], forward[..., 2])
    unrolled = rotation_from_euler(yaw, pitch, torch.zeros_like(yaw)).mT @ rotation
    return yaw, pitch, torch.atan2(unrolled[..., 1, 0], unrolled[..., 0, 0])


def look_at(centre: Tensor, target: Tensor, down: Tensor | None = None) -> Tensor:
    """camera_from_world [*, 4, 4] of cameras at `centre` [*, 3] that look at `target` [*, 3].

    `down` [3] is the world's down (default +y). Looking exactly along it, the image's right is any level direction;
    a target at the centre is an error.
    """
    gaze = target - centre
    distance = gaze.norm(dim=-1, keepdim=True)
    if not bool((distance > 0).all()):
        raise ValueError("look_at wants a target away from the camera centre, got the same point")
    forward = gaze / distance
    vertical = (torch.tensor(_DOWN) if down is None else down).to(forward).expand_as(forward)
    right = torch.linalg.cross(vertical, forward)
    # straight up or down: take the axis least along the gaze instead of the vertical
    spare = torch.nn.functional.one_hot(forward.abs().argmin(-1), 3).to(forward)
    steep = right.norm(dim=-1, keepdim=True) < 1e-6 * vertical.norm(dim=-1, keepdim=True)
    right = torch.nn.functional.normalize(torch.where(steep, torch.linalg.cross(spare, forward), right), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    return motion(rotation, -(rotation @ centre[..., None])[..., 0])


def quaternion_from_rotation(rotation: Tensor) -> Tensor:
    """[*, 3, 3] -> unit quaternions wxyz [*, 4] with w >= 0.

    The largest of the four candidate rows of the 4x4 matrix 4 q q^T is normalised (Shepperd's method), so no
    division by something small happens.
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = [
        [1 + xx + yy + zz, wx, wy, wz],
        [wx, 1 + xx - yy - zz, xy, xz],
        [wy, xy, 1 - xx + yy - zz, yz],
        [wz, xz, yz, 1 - xx - yy + zz],
    ]
    outer = torch.stack([torch.stack(row, -1) for row in rows], -2)
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = torch.take_along_dim(outer, best[..., None, None], dim=-2)[..., 0, :]
    quaternion = torch.nn.functional.normalize(chosen, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def rotation_from_quaternion(quaternion: Tensor) -> Tensor:
    """Quaternions wxyz [*, 4] of any length but 0 -> [*, 3, 3]."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation nearest to `matrix` [*, 3, 3] in the Frobenius norm (orthogonal Procrustes, by SVD)."""
    u, _, vh = torch.linalg.svd(matrix)
    signs = torch.ones_like(u[..., 0])
    signs[..., 2] = torch.linalg.det(u @ vh).sign()
    return (u * signs[..., None, :]) @ vh


def geodesic_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle [*] in [0, pi] between the rotations of a and b ([*, 3, 3] or [*, 4, 4]); accurate for tiny angles."""
    return vector_from_rotation(a[..., :3, :3].mT @ b[..., :3, :3]).norm(dim=-1)


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Rotations [*, 3, 3] on the shortest arc from a (share 0) to b (share 1); share [*]."""
    return a @ rotation_from_vector(vector_from_rotation(a.mT @ b) * share[..., None])


def interpolate(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """camera_from_world [*, 4, 4] between a and b: camera centres linearly, rotations by slerp; share [*]."""
    start, end = inverse(a), inverse(b)
    centre = torch.lerp(start[..., :3, 3], end[..., :3, 3], share[..., None])
    return inverse(motion(slerp(start[..., :3, :3], end[..., :3, :3], share), centre))


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: Tensor  # [] > 0
    rotation: Tensor  # [3, 3]
    translation: Tensor  # [3]

    @classmethod
    def identity(cls, dtype: torch.dtype = torch.float64) -> Similarity:
        return cls(torch.ones((), dtype=dtype), torch.eye(3, dtype=dtype), torch.zeros(3, dtype=dtype))

    @classmethod
    def fit(cls, source: Tensor, target: Tensor, weights: Tensor | None = None) -> Similarity:
        """The similarity with the least sum of weights * |target - S(source)|^2; points [N, 3], weights [N] >= 0.

        Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
        equations 38 to 43, with weighted moments. Points that coincide have no scale and are refused; points on one
        line leave the rotation about it undetermined.
        """
        if source.shape != target.shape or source.ndim != 2 or source.shape[-1] != 3 or len(source) < 2:
            raise ValueError(
                f"a similarity wants two equal sets [N >= 2, 3], got {tuple(source.shape)} and {tuple(target.shape)}"
            )
        weights = torch.ones_like(source[:, 0]) if weights is None else weights
        if not bool((weights >= 0).all()) or not bool(weights.sum() > 0):
            raise ValueError("a similarity wants weights >= 0 that are not all 0")
        weights = (weights / weights.sum())[:, None]
        source_mean, target_mean = (weights * source).sum(0), (weights * target).sum(0)
        a, b = source - source_mean, target - target_mean
        variance = (weights * a * a).sum()
        if not bool(variance > torch.finfo(source.dtype).eps ** 2 * (1 + source_mean.square().sum())):
            raise ValueError("the source points coincide, so no scale can be fitted; give points that are apart")
        u, spread, vh = torch.linalg.svd((weights * b).mT @ a)
        signs = torch.ones(3, dtype=source.dtype, device=source.device)
        signs[2] = torch.linalg.det(u @ vh).sign()
        rotation = (u * signs) @ vh
        scale = (spread * signs).sum() / variance
        return cls(scale, rotation, target_mean - scale * rotation @ source_mean)

    def __call__(self, points: Tensor) -> Tensor:
        """[*, 3] -> [*, 3]."""
        return self.scale * points @ self.rotation.mT + self.translation

    def inverse(self) -> Similarity:
        rotation = self.rotation.mT
        return Similarity(1 / self.scale, rotation, -(rotation @ self.translation) / self.scale)

    def __matmul__(self, other: Similarity) -> Similarity:
        """First `other`, then this one."""
        return Similarity(self.scale * other.scale, self.rotation @ other.rotation, self(other.translation))

    def cameras(self, cameras: Cameras) -> Cameras:
        """The cameras of the moved world: same images, z-depth times `scale`."""
        pose = cameras.world_from_camera
        moved = motion(self.rotation @ pose[..., :3, :3], self(pose[..., :3, 3]))
        return Cameras(inverse(moved), cameras.intrinsics, cameras.height, cameras.width)
