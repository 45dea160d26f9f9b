"""Cameras as the network takes and gives them: nine numbers for each view, encoded to a token, decoded from one.

The nine numbers are the camera's centre, its rotation (world from camera) as a quaternion xyzw with w >= 0, and the
vertical and horizontal field of view in radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from photowalk.models.depth_anything3.backbone import EPSILON, Block, FeedForward
from photowalk.models.depth_anything3.quaternions import matrix_from_xyzw, xyzw_from_matrix

NUMBERS = 9
SMALLEST_BASELINE = 0.1  # of the normalisation of centres
SMALLEST_TANGENT = 1e-6


@dataclass(frozen=True)
class CameraEncoderConfig:
    width: int
    heads: int = 16
    depth: int = 4


class CameraEncoder(nn.Module):
    def __init__(self, config: CameraEncoderConfig) -> None:
        super().__init__()
        self.pose_branch = FeedForward(NUMBERS, config.width // 2, config.width)
        self.token_norm = nn.LayerNorm(config.width, EPSILON)
        self.trunk = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.trunk_norm = nn.LayerNorm(config.width, EPSILON)

    def forward(self, numbers: Tensor) -> Tensor:
        """[B, S, 9] -> [B, S, D]; every view sees every other."""
        tokens = self.token_norm(self.pose_branch(numbers))
        for block in self.trunk:
            tokens = block(tokens)
        return self.trunk_norm(tokens)


class CameraDecoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_qvec = nn.Linear(width, 4)
        self.fc_fov = nn.Sequential(nn.Linear(width, 2), nn.ReLU())

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, 9]; the quaternion is not normalised."""
        features = self.backbone(tokens.float())
        return torch.cat([self.fc_t(features), self.fc_qvec(features), self.fc_fov(features)], dim=-1)


def normalise_poses(camera_from_world: Tensor) -> Tensor:
    """[S, 4, 4] -> the same, seen from view 0 and with distances in units of the median distance from it. The median of
    an even number is the lower of the two in the middle: the weights were trained so."""
    based = camera_from_world @ rigid_inverse(camera_from_world[:1])
    centres = rigid_inverse(based)[:, :3, 3]
    unit = centres.norm(dim=-1).median().clamp_min(SMALLEST_BASELINE)
    scaled = based.clone()
    scaled[:, :3, 3] = based[:, :3, 3] / unit
    return scaled


def numbers_from_cameras(camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """[*, 4, 4], [*, 3, 3] -> [*, 9]"""
    world_from_camera = rigid_inverse(camera_from_world)
    quaternion = xyzw_from_matrix(world_from_camera[..., :3, :3])
    sides = intrinsics.new_tensor(size)
    angles = 2 * torch.atan(sides / 2 / intrinsics[..., [1, 0], [1, 0]])
    return torch.cat([world_from_camera[..., :3, 3], quaternion, angles], dim=-1)


def cameras_from_numbers(numbers: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[*, 9] -> camera_from_world [*, 4, 4] and intrinsics [*, 3, 3] in pixels of a picture of that size."""
    height, width = size
    world_from_camera = torch.eye(4, device=numbers.device, dtype=numbers.dtype).repeat(*numbers.shape[:-1], 1, 1)
    world_from_camera[..., :3, :3] = matrix_from_xyzw(numbers[..., 3:7])
    world_from_camera[..., :3, 3] = numbers[..., :3]
    tangents = (numbers[..., 7:] / 2).tan().clamp_min(SMALLEST_TANGENT)
    intrinsics = torch.zeros_like(world_from_camera[..., :3, :3])
    intrinsics[..., 0, 0], intrinsics[..., 1, 1] = width / 2 / tangents[..., 1], height / 2 / tangents[..., 0]
    intrinsics[..., 0, 2], intrinsics[..., 1, 2], intrinsics[..., 2, 2] = width / 2, height / 2, 1
    return rigid_inverse(world_from_camera), intrinsics


def rigid_inverse(rigid: Tensor) -> Tensor:
    """[*, 4, 4] -> [*, 4, 4]"""
    inverse = torch.zeros_like(rigid)
    inverse[..., :3, :3] = rigid[..., :3, :3].mT
    inverse[..., :3, 3] = -(rigid[..., :3, :3].mT @ rigid[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse
