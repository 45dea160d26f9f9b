"""Pictures, cameras and depths that the goldens give by formulas."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras


def stated_seed(pattern: str, rule: str) -> int:
    """The number that a golden's words name where `pattern` has its group."""
    found = re.search(pattern, rule)
    if found is None:
        raise ValueError(f"the golden states no seed by {pattern!r}: {rule}")
    return int(found[1])


def formula_video(seed: int, frames: Iterable[int], height: int, width: int) -> Tensor:
    """[F, 3, H, W] in [-1, 1]: waves of colour, as the goldens say."""
    random = np.random.RandomState(seed)
    a, b = random.uniform(0.5, 3, (3, 4)), random.uniform(0.5, 3, (3, 4))
    v, u = np.meshgrid(2 * np.pi * np.arange(height) / height, 2 * np.pi * np.arange(width) / width, indexing="ij")
    pictures = [
        [
            0.5 * np.sin(a[c, 0] * u + a[c, 1] * v + a[c, 2] * t / 16 + a[c, 3])
            + 0.35 * np.cos(b[c, 0] * u * v / np.pi + b[c, 1] * u + b[c, 2] * t / 16 + b[c, 3])
            for c in range(3)
        ]
        for t in frames
    ]
    return torch.from_numpy(np.array(pictures).astype(np.float32))


def formula_cameras(rule: str, frames: range, height: int, width: int) -> Cameras:
    seed, zoom = (float(n) for n in re.findall(r"seed (\d+), zoom ([\d.]+)", rule)[0])
    q = np.random.RandomState(int(seed)).uniform(0, 2 * np.pi, 6)
    t = np.array(frames, dtype=np.float64)
    s1, s2, s3 = (2 * np.pi * t / period for period in (173, 97, 61))
    yaw, pitch, roll = 0.26 * np.sin(s1 + q[0]), 0.10 * np.sin(s2 + q[1]), 0.05 * np.sin(s3 + q[2])
    centre = np.stack([0.60 * np.sin(s1 + q[3]), 0.30 * np.sin(s2 + q[4]), 0.55 * np.sin(s1 + q[5])], -1)
    rotation = _turn(1, yaw) @ _turn(0, pitch) @ _turn(2, roll)
    camera_from_world = np.tile(np.eye(4), (len(t), 1, 1))
    camera_from_world[:, :3, :3] = rotation.transpose(0, 2, 1)
    camera_from_world[:, :3, 3] = -np.einsum("fji,fj->fi", rotation, centre)
    wide = 1 + zoom * np.sin(t / 40)
    intrinsics = np.tile(np.eye(3), (len(t), 1, 1))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = 0.9 * width * wide, 0.88 * width * wide
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = width / 2, height / 2
    pose, lens = (torch.from_numpy(values.astype(np.float32)) for values in (camera_from_world, intrinsics))
    return Cameras(pose, lens, height, width)


def _turn(axis: int, angle: np.ndarray) -> np.ndarray:
    """Right-handed turns about an axis, [F, 3, 3]."""
    one, other = (axis + 1) % 3, (axis + 2) % 3
    turn = np.tile(np.eye(3), (len(angle), 1, 1))
    turn[:, one, one] = turn[:, other, other] = np.cos(angle)
    turn[:, one, other], turn[:, other, one] = -np.sin(angle), np.sin(angle)
    return turn


def room_depth(camera: Cameras, seed: int) -> Tensor:
    """[H, W] of a box room with a sphere in it, seen at integer pixels, with a little noise."""
    y, x = np.meshgrid(np.arange(camera.height), np.arange(camera.width), indexing="ij")
    pixels = np.stack([x, y, np.ones_like(x)], -1).astype(np.float64)
    pose, lens = camera.camera_from_world.double().numpy(), camera.intrinsics.double().numpy()
    world_from_camera = np.linalg.inv(pose)
    rays = pixels @ np.linalg.inv(lens).T @ world_from_camera[:3, :3].T
    origin = world_from_camera[:3, 3]
    low, high = np.array([-3, -2, -1.0]), np.array([3, 2, 7.0])
    with np.errstate(divide="ignore"):
        depth = np.where(rays > 0, (high - origin) / rays, (low - origin) / rays).min(-1)
    offset = origin - np.array([0.4, 0.2, 3.0])
    a, b, c = (rays**2).sum(-1), (rays * offset).sum(-1), (offset**2).sum() - 0.8**2
    inside = b**2 - a * c
    hit = (-b - np.sqrt(np.maximum(inside, 0))) / a
    depth = np.where((inside > 0) & (hit > 0), np.minimum(hit, depth), depth)
    noise = np.random.RandomState(seed).standard_normal(depth.shape)
    return torch.from_numpy((depth * (1 + 0.004 * noise)).astype(np.float32))
