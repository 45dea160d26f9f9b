"""The one camera type: a single camera, a path and a batch are all `Cameras`.

Axes are OpenCV (x right, y down, z forward). Intrinsics are in pixels of a height x width image in which
pixel (0, 0) covers [0, 1) x [0, 1), so its centre is (0.5, 0.5) and the middle of the image is (width/2, height/2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PIXEL_CENTRE = 0.5


@dataclass(frozen=True)
class Cameras:
    camera_from_world: Tensor  # [*, 4, 4] rigid, OpenCV axes
    intrinsics: Tensor  # [*, 3, 3] pinhole, pixels
    height: int
    width: int

    def __post_init__(self) -> None:
        pose, intrinsics = self.camera_from_world, self.intrinsics
        if pose.shape[-2:] != (4, 4) or intrinsics.shape[-2:] != (3, 3) or pose.shape[:-2] != intrinsics.shape[:-2]:
            raise ValueError(
                f"cameras want camera_from_world [*, 4, 4] and intrinsics [*, 3, 3] with equal leading axes, "
                f"got {tuple(pose.shape)} and {tuple(intrinsics.shape)}"
            )
        if self.height < 1 or self.width < 1:
            raise ValueError(f"cameras want a positive image size, got {self.height}x{self.width}")

    @classmethod
    def from_fov(cls, pose: Tensor, fov_x_deg: float, height: int, width: int) -> Cameras:
        """Pinhole cameras at `pose` [*, 4, 4]; horizontal field of view in degrees, principal point in the middle."""
        focal = width / 2 / torch.tan(torch.deg2rad(torch.tensor(fov_x_deg, dtype=torch.float64)) / 2)
        intrinsics = torch.zeros(*pose.shape[:-2], 3, 3, dtype=pose.dtype, device=pose.device)
        intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = focal.to(pose.dtype)
        intrinsics[..., 0, 2], intrinsics[..., 1, 2], intrinsics[..., 2, 2] = width / 2, height / 2, 1
        return cls(pose, intrinsics, height, width)

    def check(self, what: str = "cameras") -> Cameras:
        """Self, if every camera is finite, rigid and has a positive focal length; else a ValueError that names the
        first bad one. Rotations may be off by 1e-3, as rounded text files are."""
        pose, intrinsics = self.camera_from_world.reshape(-1, 4, 4), self.intrinsics.reshape(-1, 3, 3)
        rotation = pose[:, :3, :3]
        identity = torch.eye(3, dtype=pose.dtype, device=pose.device)
        last_row = torch.tensor([0, 0, 0, 1], dtype=pose.dtype, device=pose.device)
        finite = pose.isfinite().all(-1).all(-1) & intrinsics.isfinite().all(-1).all(-1)
        rigid = ((rotation @ rotation.mT - identity).abs().amax((-1, -2)) < 1e-3) & (torch.linalg.det(rotation) > 0)
        rigid &= (pose[:, 3] - last_row).abs().amax(-1) < 1e-3
        lens = (intrinsics[:, [0, 1], [0, 1]] > 0).all(-1)
        for good, problem in [
            (finite, "has a number that is not finite (NaN or infinity)"),
            (
                rigid,
                "has a pose that is not rigid: the rotation must be orthonormal with determinant +1, "
                "the last row 0 0 0 1",
            ),
            (lens, "has a focal length that is not positive"),
        ]:
            if not bool(good.all()):
                index = int((~good).nonzero()[0, 0])
                raise ValueError(
                    f"{what}: camera {index} of {len(pose)} {problem}; give 4x4 camera_from_world "
                    f"matrices and 3x3 intrinsics in pixels"
                )
        return self

    @property
    def world_from_camera(self) -> Tensor:
        """[*, 4, 4], by the closed form for rigid motions."""
        rotation, translation = self.camera_from_world[..., :3, :3], self.camera_from_world[..., :3, 3:]
        inverse = torch.zeros_like(self.camera_from_world)
        inverse[..., :3, :3] = rotation.mT
        with self._all_digits():
            inverse[..., :3, 3:] = -rotation.mT @ translation
        inverse[..., 3, 3] = 1
        return inverse

    @property
    def centres(self) -> Tensor:
        """[*, 3] camera centres in the world."""
        return self.world_from_camera[..., :3, 3]

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.camera_from_world.shape[:-2])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> Cameras:
        return replace(self, camera_from_world=self.camera_from_world[index], intrinsics=self.intrinsics[index])

    def __iter__(self) -> Iterator[Cameras]:
        return (self[i] for i in range(len(self)))

    def to(self, *args, **kwargs) -> Cameras:
        return replace(
            self,
            camera_from_world=self.camera_from_world.to(*args, **kwargs),
            intrinsics=self.intrinsics.to(*args, **kwargs),
        )

    def equals(self, other: Cameras) -> bool:
        """Whether both are the same to the bit; they lie on one device."""
        return (
            (self.height, self.width) == (other.height, other.width)
            and torch.equal(self.camera_from_world, other.camera_from_world)
            and torch.equal(self.intrinsics, other.intrinsics)
        )

    @staticmethod
    def cat(parts: list[Cameras]) -> Cameras:
        """Join paths [F_i] of one image size along their first axis."""
        sizes = {(part.height, part.width) for part in parts}
        if len(sizes) != 1:
            raise ValueError(f"cameras of different image sizes cannot be joined: {sorted(sizes)}; use resized() first")
        return replace(
            parts[0],
            camera_from_world=torch.cat([part.camera_from_world for part in parts]),
            intrinsics=torch.cat([part.intrinsics for part in parts]),
        )

    def resized(self, height: int, width: int) -> Cameras:
        """The same cameras with images resampled to height x width: the only place that scales intrinsics."""
        scale = torch.tensor(
            [width / self.width, height / self.height, 1.0],
            dtype=self.intrinsics.dtype,
            device=self.intrinsics.device,
        )
        return replace(self, intrinsics=self.intrinsics * scale[:, None], height=height, width=width)

    def relative_to(self, reference: Cameras) -> Cameras:
        """The cameras seen from the frame of one `reference` camera: camera_from_reference."""
        with self._all_digits():
            return replace(self, camera_from_world=self.camera_from_world @ reference.world_from_camera)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points [*, N, 3] -> pixels [*, N, 2] and z-depth [*, N] (pixels are meaningless where depth <= 0)."""
        rotation, translation = self.camera_from_world[..., :3, :3], self.camera_from_world[..., None, :3, 3]
        in_camera = points @ rotation.mT + translation
        homogeneous = in_camera @ self.intrinsics.mT
        depth = in_camera[..., 2]
        return homogeneous[..., :2] / torch.where(depth == 0, torch.finfo(depth.dtype).tiny, depth)[..., None], depth

    def unproject(self, depth: Tensor, *, pixel_centre: float = PIXEL_CENTRE) -> Tensor:
        """Depth [*, H, W] along +Z -> world points [*, H, W, 3]; where depth is 0 the point is the camera centre."""
        points = self._pixel_rays(pixel_centre) * depth[..., None]
        rotation, translation = self.world_from_camera[..., :3, :3], self.world_from_camera[..., :3, 3]
        return torch.einsum("...ij,...hwj->...hwi", rotation, points) + translation[..., None, None, :]

    def rays(self, *, pixel_centre: float = PIXEL_CENTRE) -> tuple[Tensor, Tensor]:
        """World origins [*, 3] and unit directions [*, H, W, 3] of the rays through every pixel."""
        directions = torch.nn.functional.normalize(self._pixel_rays(pixel_centre), dim=-1)
        rotation = self.world_from_camera[..., :3, :3]
        return self.centres, torch.einsum("...ij,...hwj->...hwi", rotation, directions)

    def _all_digits(self) -> torch.autocast:
        """Poses are never rounded to the number format that networks may run in."""
        return torch.autocast(self.intrinsics.device.type, enabled=False)

    def _pixel_rays(self, pixel_centre: float) -> Tensor:
        """[*, H, W, 3] camera-space directions with z = 1."""
        rows = torch.arange(self.height, device=self.intrinsics.device).to(self.intrinsics.dtype) + pixel_centre
        columns = torch.arange(self.width, device=self.intrinsics.device).to(self.intrinsics.dtype) + pixel_centre
        focal, principal = self.intrinsics[..., [0, 1], [0, 1]], self.intrinsics[..., :2, 2]
        x = (columns - principal[..., :1]) / focal[..., :1]  # [*, W]
        y = (rows - principal[..., 1:]) / focal[..., 1:]  # [*, H]
        x, y = torch.broadcast_tensors(x[..., None, :], y[..., :, None])
        return torch.stack([x, y, torch.ones_like(x)], dim=-1)
