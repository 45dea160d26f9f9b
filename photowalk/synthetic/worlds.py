"""Synthetic worlds by their seeds: endless for training, twenty kept apart for judging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_euler
from photowalk.scene.types import Clip
from photowalk.synthetic.chance import Chance
from photowalk.synthetic.places import Kind, Place, sample_place
from photowalk.synthetic.render import Shadows, bake_shadows, render_depth, render_frame
from photowalk.synthetic.solids import clearance

HELD_OUT_SEEDS = tuple(range(1_000_000, 1_000_020))  # never trained on

Style = Literal["there_and_back", "loop", "orbit", "look_around", "onward"]
STYLES: tuple[Style, ...] = ("there_and_back", "there_and_back", "loop", "orbit", "look_around", "onward")

BODY = 0.3  # metres that a walker keeps from everything
VIEW = 1.5  # metres of median depth that a walker likes to see
LONGEST_STEP, FASTEST_TURN = 0.05, 0.035  # metres and radians a frame
TRIES = 12
_GLANCE = (24, 42)  # size of the pictures that routes and exposure are judged by


def training_seeds(first: int = 0) -> Iterator[int]:
    """Endless seeds from `first` on, without those that are held out."""
    return (seed for seed in count(first) if seed not in HELD_OUT_SEEDS)


@dataclass(frozen=True)
class _Route:
    centres: Tensor  # [S, 3]
    yaw: Tensor  # [S] radians
    pitch: Tensor  # [S]
    roll: float


@dataclass(frozen=True)
class SyntheticWorld:
    seed: int
    place: Place
    shadows: Shadows

    @classmethod
    def sample(cls, seed: int, kind: Kind | None = None) -> SyntheticWorld:
        """The world of a seed; without a kind the seed chooses one. It is exposed as a camera would expose it."""
        place = sample_place(seed, kind)
        world = cls(seed, place, bake_shadows(place))
        video = world.render(world._glances_around()).video
        wanted = Chance(seed + 1).between(0.36, 0.54)
        return replace(world, place=replace(place, tint=place.tint * wanted / video.mean().clamp_min(0.05)))

    def render(self, cameras: Cameras) -> Clip:
        """What the cameras [F] see, with exact depth in metres (inf = sky) and a caption."""
        frames = [render_frame(self.place, self.shadows, camera) for camera in cameras]
        pictures, depths = zip(*frames)
        return Clip(torch.stack(pictures), cameras, torch.stack(depths), self.place.caption)

    def walk(self, frames: int, seed: int, *, size: tuple[int, int], style: Style | None = None) -> Cameras:
        """A smooth walk [F] through the free space; its end lies where it began unless the style is "onward".

        At most 5 cm and 2 degrees a frame. A walk there and back shows the same frames twice, exactly.
        """
        chance = Chance(seed * 7919 + 17)
        drawn = chance.choice(STYLES)
        style = style or drawn
        steps = (frames + 1) // 2 if style == "there_and_back" else frames
        best, most = None, -1.0
        for _ in range(TRIES):
            route = self._route(chance, steps, style)
            merit = self._merit(route)
            if merit > most:
                best, most = route, merit
            if most >= 1:
                break
        assert best is not None
        cameras = self._cameras(best, size)
        return cameras[[*range(steps), *range(frames - steps - 1, -1, -1)]] if style == "there_and_back" else cameras

    def _glances_around(self) -> Cameras:
        """Four small views from the middle of where to walk, and the one ahead again."""
        _, rear, front = self.place.free
        yaw = torch.tensor([0, 0, 0.5, 1, 1.5], dtype=torch.float64) * torch.pi
        centres = torch.tensor([[0, 0, (rear + front) / 2]], dtype=torch.float64).expand(5, 3)
        return self._cameras(_Route(centres, yaw, torch.zeros_like(yaw), 0.0), _GLANCE)

    def _cameras(self, route: _Route, size: tuple[int, int]) -> Cameras:
        rotation = rotation_from_euler(route.yaw, route.pitch, torch.full_like(route.yaw, route.roll))
        poses = torch.eye(4, dtype=torch.float64).repeat(len(route.yaw), 1, 1)
        poses[:, :3, :3] = rotation.mT
        poses[:, :3, 3] = -(rotation.mT @ route.centres[..., None])[..., 0]
        return Cameras.from_fov(poses.float(), self.place.fov_deg, *size)

    def _merit(self, route: _Route) -> float:
        """1 for a route that keeps clear of things and looks into the open, less for others."""
        place = self.place
        room = clearance(route.centres.float(), place.centres, place.halves, place.yaws).amin()
        glances = self._cameras(route, _GLANCE)[:: max(len(route.yaw) // 4, 1)]
        view = min(float(render_depth(place, camera).median()) for camera in glances)
        return min(float(room) / BODY, 1) * (1 if room < 0 else min(view / VIEW, 1))

    def _route(self, chance: Chance, steps: int, style: Style) -> _Route:
        half_width, rear, front = self.place.free
        t = torch.linspace(0, 1, steps, dtype=torch.float64)
        if style == "there_and_back":
            t = t * t * (3 - 2 * t)  # slow down before turning round
        turn = 2 * torch.pi * t
        length = min(chance.between(0.008, 0.033) * steps, 0.8 * (front - rear))
        start = chance.between(rear, max(rear + 0.1, front - length))
        z, x = start + length * t, half_width * chance.between(-0.9, 0.9) * torch.sin(chance.between(1, 4) * t)
        yaw = chance.between(-0.8, 0.8) * t + chance.between(-0.25, 0.25) * torch.sin(turn * chance.between(0.3, 1))
        if style == "loop":
            z = start + length / 4 * (1 - torch.cos(turn))
            x, yaw = half_width * torch.sin(turn), chance.between(0.2, 0.9) * torch.sin(turn)
        if style == "orbit":  # what lies `radius` ahead stays in the middle
            radius = chance.between(1.5, 3.5)
            yaw = chance.choice([-1, 1]) * min(0.6, (half_width + 0.3) / radius) * torch.sin(turn)
            z, x = start + radius * (1 - torch.cos(yaw)), -radius * torch.sin(yaw)
        if style == "look_around":
            z, x = start + 0.1 * torch.sin(turn), 0.1 * (1 - torch.cos(turn))
            yaw = chance.choice([-1, 1]) * chance.between(0.6, 1.6) * torch.sin(turn)
        y = 0.1 * chance.between(-1, 1) * torch.sin(turn)
        pitch = chance.between(-0.1, 0.1) * torch.sin(turn)
        centres = _slowed(torch.stack([x, y, z], dim=1), LONGEST_STEP)
        angles = _slowed(torch.stack([yaw, pitch], dim=1), FASTEST_TURN)
        facing = chance.between(-1.5, 1.5) if style != "orbit" and chance.happens(0.3) else 0.0
        return _Route(
            centres, angles[:, 0] + facing, angles[:, 1] + chance.between(-0.12, 0.05), chance.between(-0.02, 0.02)
        )


def _slowed(path: Tensor, most: float) -> Tensor:
    """The path [S, C] drawn in towards its beginning until no step is longer than `most`."""
    longest = float(path.diff(dim=0).norm(dim=1).max()) if len(path) > 1 else 0.0
    return path[:1] + (path - path[:1]) * min(1.0, most / max(longest, 1e-9))
