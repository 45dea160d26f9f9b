"""A room that is known exactly: a textured box with a pillar in it, roofless if wanted, and a walk."""

import math

import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import look_at
from photowalk.scene.types import Clip

ROOM = torch.tensor([[-2.0, -1.2, -1.0], [2.0, 1.2, 5.0]])
PILLAR = torch.tensor([[-0.3, -1.2, 2.5], [0.3, 1.2, 3.0]])


def texture(points):
    x, y, z = points.unbind(-1)
    waves = [torch.sin(3 * x + 2 * y) * torch.cos(2 * z), torch.sin(4 * z - x + 3 * y), torch.cos(3 * y + x + z)]
    return (0.5 + 0.3 * torch.stack(waves, dim=-1)).clamp(0, 1)


def hits(origins, directions, box):
    """Distances [*] at which rays enter and leave a box."""
    times = (box[:, None, None, :] - origins) / directions
    return times.amin(0).amax(-1), times.amax(0).amin(-1)


def look(camera, roofless=False):
    """Image [3, H, W] and depth [H, W] of the room."""
    origin, directions = camera.rays()
    _, distance = hits(origin, directions, ROOM)
    enter, leave = hits(origin, directions, PILLAR)
    distance = torch.where((enter < leave) & (enter > 0), torch.minimum(enter, distance), distance)
    points = origin + distance[..., None] * directions
    depth = (points @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3])[..., 2]
    image = texture(points)
    if roofless:
        sky = points[..., 1] < ROOM[0, 1] + 1e-3
        depth = torch.where(sky, torch.inf, depth)
        image = torch.where(sky[..., None], torch.tensor([0.4, 0.6, 1.0]), image)
    return image.movedim(-1, 0), depth


def path(count, height=64, width=112):
    turns = torch.linspace(0, 1, count)
    centres = torch.stack([0.9 * torch.sin(2 * math.pi * turns), 0.2 * turns, 0.8 * turns], dim=-1)
    targets = torch.stack([0.5 * torch.sin(7 * turns), torch.zeros(count), torch.full((count,), 4.0)], dim=-1)
    return Cameras.from_fov(look_at(centres, targets), 75.0, height, width)


def walk(count=9, size=(64, 112), **options):
    return seen_from(path(count, *size), **options)


def seen_from(cameras, **options):
    images, depths = zip(*(look(camera, **options) for camera in cameras))
    return Clip(torch.stack(images), cameras, torch.stack(depths))


def in_between(clip):
    """Cameras half way between those of the walk."""
    cameras = path(2 * len(clip) - 1)[1::2]
    return cameras, torch.stack([look(camera)[0] for camera in cameras])
