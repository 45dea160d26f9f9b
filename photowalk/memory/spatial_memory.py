"""Spatial memory: earlier views, kept one by one and never fused, found again by what they would show.

Geometry only routes here: memory says which views matter for a camera, it does not draw. It knows nothing of codecs,
slots or padding; a caller with more slots than recalled views fills them itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photowalk.geometry.cameras import PIXEL_CENTRE, Cameras
from photowalk.memory.policies import Candidates, Policy
from photowalk.scene.types import View


@dataclass(frozen=True)
class Entry:
    view: View
    points: Tensor  # [N, 3] world points of every `point_stride`-th pixel, NaN = no point


@dataclass(frozen=True)
class SpatialMemory:
    """An immutable value: `remember` returns a new memory that shares all entries with the old one."""

    entries: tuple[Entry, ...] = ()
    point_stride: int = 4
    pixel_centre: float = PIXEL_CENTRE  # published: 0.0
    invalid_at_origin: bool = False  # published: pixels without depth become points at the world origin

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame indices in the order in which they were remembered."""
        return tuple(entry.view.frame for entry in self.entries)

    @property
    def candidates(self) -> Candidates:
        """Every remembered frame, as policies see it."""
        points = [entry.points for entry in self.entries]
        return Candidates(points, self.frames, self.point_stride, self.pixel_centre)

    def __getitem__(self, frame: int) -> View:
        """The view of that frame, the latest one if it was remembered twice."""
        for entry in reversed(self.entries):
            if entry.view.frame == frame:
                return entry.view
        raise KeyError(f"frame {frame} is not in memory, which holds {list(self.frames)}")

    def remember(self, views: Sequence[View]) -> SpatialMemory:
        """A memory that also holds `views`. Frames that it holds already stay as they are."""
        known = set(self.frames)
        fresh = [Entry(view, self._points(view)) for view in views if view.frame not in known]
        return replace(self, entries=self.entries + tuple(fresh))

    def recall(
        self,
        targets: Cameras,  # [V] views to be served together
        count: int,
        policy: Policy,
        *,
        candidates: Collection[int] | None = None,  # frame indices to choose among; None: all
    ) -> tuple[View, ...]:
        """At most `count` views that show what the targets will see, from the worst to the best."""
        chosen_from = tuple(e for e in self.entries if candidates is None or e.view.frame in candidates)
        if not chosen_from:
            return ()
        indices = policy.choose(replace(self, entries=chosen_from).candidates, targets, count)
        return tuple(chosen_from[i].view for i in indices)

    def _points(self, view: View) -> Tensor:
        stride, depth = self.point_stride, view.depth[:: self.point_stride, :: self.point_stride].float()
        rows = torch.arange(0, view.depth.shape[0], stride, device=depth.device) + self.pixel_centre
        columns = torch.arange(0, view.depth.shape[1], stride, device=depth.device) + self.pixel_centre
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        camera = view.camera.to(torch.float32)
        points = (pixels @ camera.intrinsics.inverse().mT) * depth[..., None]
        pose = camera.world_from_camera
        world = points @ pose[:3, :3].mT + pose[:3, 3]
        nowhere = 0.0 if self.invalid_at_origin else torch.nan
        return torch.where(((depth > 0) & depth.isfinite())[..., None], world, nowhere).flatten(0, 1)


EMPTY_MEMORY = SpatialMemory()
