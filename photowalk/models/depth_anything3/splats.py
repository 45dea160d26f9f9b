"""From the raw numbers of the splat head to splats in the world, as the published weights were trained.

Four of its rules are odd and belong to the weights: depth along the optical axis is used as distance along the ray, the
depth of a coarser grid is that of the top left pixel, quaternions are turned in a mixed-up order, and means may fall
behind the camera. They are kept here and nowhere else; `tests/test_depth_anything3.py` holds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from photowalk.models.depth_anything3.quaternions import matrix_from_xyzw, xyzw_from_matrix

CHANNELS = 38  # 2 pixel offset, 3 scale, 4 quaternion, 27 harmonics, 1 depth offset, 1 opacity
SMALLEST, LARGEST = 1e-5, 30.0  # scale in tenths of a pixel
DEGREE_STRENGTHS = (1.0, 0.025, 0.00625)


@dataclass(frozen=True)
class PlacedSplats:
    """In the order view, row, column."""

    means: Tensor  # [N, 3]
    scales: Tensor  # [N, 3]; negative where a splat fell behind its camera
    rotations: Tensor  # [N, 4], wxyz; NaN where the network gave the zero quaternion
    opacities: Tensor  # [N] in [0, 1]
    harmonics: Tensor  # [N, 9, 3]


def place_splats(
    raw: Tensor,
    depth: Tensor,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    *,
    unit: float | Tensor = 1.0,
    scale_multiplier: float = 1.0,
) -> PlacedSplats:
    """raw [V, h, w, 38] and depth [V, H, W] of the network, with H, W whole multiples of h, w; world_from_camera
    [V, 4, 4]; intrinsics [V, 3, 3] in pixels of H x W; `unit` is the length of one world unit in the network's."""
    height, width = raw.shape[1:3]
    ratio = depth.shape[1] // height
    distance = depth[:, ::ratio, ::ratio] / unit + raw[..., 36] / unit
    lens = intrinsics * intrinsics.new_tensor([width / depth.shape[2], height / depth.shape[1], 1])[:, None]
    rotation = world_from_camera[:, :3, :3]
    directions = torch.einsum("vij,vhwj->vhwi", rotation, _rays(raw[..., :2], lens))
    means = world_from_camera[:, None, None, :3, 3] + directions * distance[..., None]
    pixel = 0.1 * (1 / lens[:, 0, 0] + 1 / lens[:, 1, 1])
    span = SMALLEST + (LARGEST * scale_multiplier - SMALLEST) * raw[..., 2:5].sigmoid()
    scales = span * (distance * pixel[:, None, None])[..., None]
    coefficients = raw[..., 9:36].unflatten(-1, (3, 9)).mT  # [V, h, w, 9, 3]
    turns = harmonics_rotation(rotation)[:, None, None]
    harmonics = turns @ (coefficients * _strengths(raw)[:, None])
    return PlacedSplats(
        means.flatten(0, 2),
        scales.flatten(0, 2),
        published_rotation(raw[..., 5:9], rotation[:, None, None]).flatten(0, 2),
        raw[..., 37].sigmoid().flatten(),
        harmonics.flatten(0, 2),
    )


def published_rotation(raw: Tensor, world_from_camera: Tensor) -> Tensor:
    """Raw quaternions [*, 4] and rotations [*, 3, 3] -> [*, 4], to be read as wxyz. This is no change of frame: the
    numbers are rolled by one before they are turned, and the turned xyzw are read as wxyz. The weights know it so."""
    unit = raw / (raw.norm(dim=-1, keepdim=True) + 1e-8)
    return xyzw_from_matrix(world_from_camera @ matrix_from_xyzw(unit.roll(1, dims=-1)))


def harmonics_rotation(rotation: Tensor) -> Tensor:
    """[*, 3, 3] -> [*, 9, 9] that turns coefficients of real spherical harmonics up to degree 2 with the world."""
    first = torch.stack([-_axis(rotation, 1), _axis(rotation, 2), -_axis(rotation, 0)])
    first = first.to(rotation)
    forms = _second_degree(rotation)
    turned = torch.einsum("...ji,kjl,...lm->...kim", rotation, forms, rotation)
    result = rotation.new_zeros(*rotation.shape[:-2], 9, 9)
    result[..., 0, 0] = 1
    result[..., 1:4, 1:4] = first @ rotation @ first.mT
    result[..., 4:, 4:] = torch.einsum("...kim,nim->...kn", turned, forms)
    return result


def _axis(like: Tensor, index: int) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)[index]


def _second_degree(like: Tensor) -> Tensor:
    """[5, 3, 3] orthonormal symmetric forms of the harmonics xy, -yz, 2z2-x2-y2, -xz, x2-y2."""
    forms = like.new_zeros(5, 3, 3)
    half, sixth = 0.5**0.5, 6**-0.5
    forms[0, 0, 1] = forms[0, 1, 0] = half
    forms[1, 1, 2] = forms[1, 2, 1] = -half
    forms[2] = torch.diag(like.new_tensor([-sixth, -sixth, 2 * sixth]))
    forms[3, 0, 2] = forms[3, 2, 0] = -half
    forms[4] = torch.diag(like.new_tensor([half, -half, 0]))
    return forms


def _strengths(like: Tensor) -> Tensor:
    return like.new_tensor([s for degree, s in enumerate(DEGREE_STRENGTHS) for _ in range(2 * degree + 1)])


def _rays(offset: Tensor, lens: Tensor) -> Tensor:
    """Unit directions [V, h, w, 3] through pixels that are moved by offset [V, h, w, 2] pixels."""
    height, width = offset.shape[1:3]
    y, x = torch.meshgrid(*(torch.arange(n, device=offset.device) + 0.5 for n in (height, width)), indexing="ij")
    focal, principal = lens[:, None, None, [0, 1], [0, 1]], lens[:, None, None, :2, 2]
    plane = (torch.stack([x, y], dim=-1) + offset - principal) / focal
    return torch.nn.functional.normalize(torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1), dim=-1)
