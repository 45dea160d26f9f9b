"""Synthetic worlds by their seeds: endless for training, twenty kept apart for judging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_euler
from photowalk.scene.types import Clip
from photowalk.synthetic.chance import Chance
from photowalk.synthetic.places import Kind, Place, sample_place
from photowalk.synthetic.render import render_frame

HELD_OUT_SEEDS = tuple(range(1_000_000, 1_000_020))  # never trained on

Style = Literal["there_and_back", "loop", "look_around", "onward"]
STYLES: tuple[Style, ...] = ("there_and_back", "there_and_back", "loop", "look_around", "onward")


def training_seeds(first: int = 0) -> Iterator[int]:
    """Endless seeds from `first` on, without those that are held out."""
    return (seed for seed in count(first) if seed not in HELD_OUT_SEEDS)


@dataclass(frozen=True)
class SyntheticWorld:
    seed: int
    place: Place

    @classmethod
    def sample(cls, seed: int, kind: Kind | None = None) -> SyntheticWorld:
        """The world of a seed; without a kind the seed chooses one."""
        return cls(seed, sample_place(seed, kind))

    def render(self, cameras: Cameras) -> Clip:
        """What the cameras [F] see, with exact depth in metres (inf = sky) and a caption."""
        frames = [render_frame(self.place, camera) for camera in cameras]
        pictures, depths = zip(*frames)
        return Clip(torch.stack(pictures), cameras, torch.stack(depths), self.place.caption)

    def walk(self, frames: int, seed: int, *, size: tuple[int, int], style: Style | None = None) -> Cameras:
        """A smooth walk [F] through the free space; its end lies where it began unless the style is "onward".

        1 to 3 cm and up to about 1 degree a frame. A walk there and back shows the same frames twice, exactly.
        """
        chance = Chance(seed * 7919 + 17)
        drawn = chance.choice(STYLES)
        style = style or drawn
        steps = torch.linspace(0, 1, frames // 2 + 1 if style == "there_and_back" else frames, dtype=torch.float64)
        centres, yaw, pitch = self._route(chance, steps, style, frames)
        if style == "there_and_back":
            centres, yaw, pitch = (torch.cat([v, v[: frames - len(v)].flip(0)]) for v in (centres, yaw, pitch))
        poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
        rotation = rotation_from_euler(yaw, pitch, torch.zeros_like(yaw))  # world from camera
        poses[:, :3, :3] = rotation.mT
        poses[:, :3, 3] = -(rotation.mT @ centres[..., None])[..., 0]
        return Cameras.from_fov(poses.float(), self.place.fov_deg, *size)

    def _route(self, chance: Chance, t: Tensor, style: Style, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Centres [S, 3], yaw [S] and pitch [S] in radians at the times t [S] in [0, 1]."""
        half_width, rear, front = self.place.free
        length = min(chance.between(0.008, 0.03) * len(t), 0.8 * (front - rear))
        start = chance.between(rear, max(rear + 0.1, front - length - 0.5))
        turn = 2 * torch.pi * t
        z, x = start + length * t, half_width * chance.between(-0.9, 0.9) * torch.sin(chance.between(1, 4) * t)
        yaw = chance.between(-0.8, 0.8) * t + chance.between(-0.25, 0.25) * torch.sin(turn * chance.between(0.3, 1))
        if style == "loop":
            z = start + length / 2 * (1 - torch.cos(turn))
            x, yaw = half_width * torch.sin(turn), chance.between(0.2, 0.7) * torch.sin(turn)
        if style == "look_around":
            z, x = start + 0.1 * torch.sin(turn), 0.1 * (1 - torch.cos(turn))
            yaw = chance.choice([-1, 1]) * min(0.9, 0.012 * frames) * torch.sin(turn)
        if chance.happens(0.25):
            yaw = yaw + chance.between(-1.2, 1.2)
        pitch = chance.between(-0.08, 0.08) + chance.between(-0.1, 0.1) * torch.sin(turn)
        y = 0.1 * chance.between(-1, 1) * torch.sin(turn)
        return torch.stack([x, y, z], dim=1), yaw, pitch
