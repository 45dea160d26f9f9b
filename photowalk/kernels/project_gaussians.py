"""Gaussians to the ellipses that a pinhole camera sees of them (Zwicker et al. 2001), with the derivative by places,
rotations and sizes. One thread for each Gaussian."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

LOW_PASS = 0.3  # pixel^2 added to every footprint, as all 3DGS viewers do
FRUSTUM_MARGIN = 0.15  # of the image size; beyond it the linear projection would explode and is held

NEAR = 0.01  # world units

_LOW_PASS, _MARGIN, _NEAR = wp.constant(LOW_PASS), wp.constant(FRUSTUM_MARGIN), wp.constant(NEAR)


def in_view(
    means: Tensor, opacities: Tensor, pose: Tensor, intrinsics: Tensor, height: int, width: int, least: float
) -> Tensor:
    """Indices of the Gaussians with an opacity of at least `least` whose centre lies in front of the camera and not far
    outside the image: all others leave no trace in it, and are best left out before anything is computed of them."""
    lens = torch.eye(4).to(pose)
    lens[:3, :3] = intrinsics.detach()
    pixels_from_world = (lens.double() @ pose.detach().double()).float()
    shown = torch.empty(len(means), dtype=torch.bool, device=means.device)
    values = [value.detach().float().contiguous() for value in (means, opacities)]
    arguments = [wp.from_torch(values[0], dtype=wp.vec3), wp.from_torch(values[1])]
    arguments += [wp.from_torch(pixels_from_world[None], dtype=wp.mat44), float(height), float(width), least]
    device = device_of(means)
    load_kernel(_in_view, device)

    def launch(first: int, count: int) -> None:
        wp.launch(_in_view, count, [first, *arguments, wp.from_torch(shown)], device=device)

    parallel_over_first_axis(launch, len(means), means.device)
    return torch.nonzero(shown).squeeze(1)


def project(
    means: Tensor,
    rotations: Tensor,
    scales: Tensor,
    opacities: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    least: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaussians in front of the camera -> centres [N, 2] pixels, conics [N, 3] of the inverse covariance in 1/pixel^2,
    depths [N] along +Z, half extents [N, 2] pixels.

    means [N, 3]; rotations [N, 4] quaternions wxyz of any length but 0; scales [N, 3]; opacities [N]. The extent bounds
    where alpha >= `least`; neither it nor the camera has a gradient.
    """
    return _Project.apply(
        means, rotations, scales, opacities.detach(), camera_from_world, intrinsics, (height, width), least
    )


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, rotations, scales, opacities, pose, lens, size, least):
        tensors = [value.detach().float().contiguous() for value in (means, rotations, scales, opacities, pose, lens)]
        outputs = [tensors[0].new_empty(len(means), width) for width in (2, 3, 1, 2)]
        _launch(tensors, outputs, size, least)
        ctx.save_for_backward(*tensors)
        ctx.size, ctx.least = size, least
        centres, conics, depths, extents = outputs
        ctx.mark_non_differentiable(extents)
        return centres, conics, depths.squeeze(1), extents

    @staticmethod
    def backward(ctx, by_centres, by_conics, by_depths, _):
        tensors = ctx.saved_tensors
        by_inputs = [torch.zeros_like(value) for value in tensors[:3]]
        by_outputs = [value.contiguous() for value in (by_centres, by_conics, by_depths[:, None])]
        outputs = [torch.empty_like(value) for value in by_outputs]
        extents = torch.empty_like(by_centres)
        _launch(tensors, [*outputs, extents], ctx.size, ctx.least, (by_inputs, by_outputs))
        return *by_inputs, None, None, None, None, None


def _launch(
    tensors: list[Tensor],
    outputs: list[Tensor],
    size: tuple[int, int],
    least: float,
    gradients: tuple[list[Tensor], list[Tensor]] | None = None,
) -> None:
    """The kernel, or, with the gradients by the first three inputs and outputs, its adjoint."""
    *gaussians, pose, lens = tensors
    given = [*_arrays(gaussians), wp.from_torch(pose[None], dtype=wp.mat44), wp.from_torch(lens[None], dtype=wp.mat33)]
    given += [float(size[0]), float(size[1]), least]
    made = _arrays(outputs)
    by_inputs, by_outputs = map(_arrays, gradients or ([], []))
    adjoint = gradients is not None
    load_kernel(_project, device_of(pose))
    if adjoint:  # opacities, the camera and extents have none
        by_inputs, by_outputs = [0, *by_inputs, None, None, None, 0.0, 0.0, 0.0], [*by_outputs, None]

    def launch(first: int, count: int) -> None:
        inputs, device = [first, *given], device_of(pose)
        wp.launch(_project, count, inputs, made, by_inputs, by_outputs, device=device, adjoint=adjoint)

    parallel_over_first_axis(launch, len(gaussians[0]), pose.device)


def _arrays(tensors: list[Tensor]) -> list[wp.array]:
    """[N, C] or [N] of floats as N vectors."""
    kinds = {1: wp.float32, 2: wp.vec2, 3: wp.vec3, 4: wp.vec4}
    widths = [tensor.shape[1] if tensor.ndim == 2 else 1 for tensor in tensors]
    return [
        wp.from_torch(tensor.view(-1) if width == 1 else tensor, dtype=kinds[width])
        for tensor, width in zip(tensors, widths, strict=True)
    ]


@wp.func
def _turned_back(quaternion: wp.vec4, direction: wp.vec3) -> wp.vec3:
    """A direction along the axes of a rotation, which is given as wxyz."""
    q = wp.normalize(quaternion)
    axis = wp.vec3(q[1], q[2], q[3])
    twice = 2.0 * wp.cross(direction, axis)
    return direction + q[0] * twice + wp.cross(twice, axis)


@wp.kernel
def _project(
    first: int,
    means: wp.array(dtype=wp.vec3),
    rotations: wp.array(dtype=wp.vec4),
    scales: wp.array(dtype=wp.vec3),
    opacities: wp.array(dtype=wp.float32),
    poses: wp.array(dtype=wp.mat44),
    lenses: wp.array(dtype=wp.mat33),
    height: float,
    width: float,
    least: float,
    centres: wp.array(dtype=wp.vec2),
    conics: wp.array(dtype=wp.vec3),
    depths: wp.array(dtype=wp.float32),
    extents: wp.array(dtype=wp.vec2),
):
    n = first + wp.tid()
    pose = poses[0]
    lens = lenses[0]
    mean = means[n]
    there = pose * wp.vec4(mean[0], mean[1], mean[2], 1.0)
    z = there[2]
    x = there[0] / z
    y = there[1] / z
    fx = lens[0, 0]
    fy = lens[1, 1]
    cx = lens[0, 2]
    cy = lens[1, 2]
    held_x = wp.clamp(x, (-_MARGIN * width - cx) / fx, (width + _MARGIN * width - cx) / fx)
    held_y = wp.clamp(y, (-_MARGIN * height - cy) / fy, (height + _MARGIN * height - cy) / fy)
    right = wp.vec3(pose[0, 0], pose[0, 1], pose[0, 2])
    down = wp.vec3(pose[1, 0], pose[1, 1], pose[1, 2])
    ahead = wp.vec3(pose[2, 0], pose[2, 1], pose[2, 2])
    # the pictures of the three axes of the Gaussian: across and down
    u = wp.cw_mul(scales[n], _turned_back(rotations[n], (fx / z) * (right - held_x * ahead)))
    v = wp.cw_mul(scales[n], _turned_back(rotations[n], (fy / z) * (down - held_y * ahead)))
    a = wp.dot(u, u) + _LOW_PASS
    b = wp.dot(u, v)
    c = wp.dot(v, v) + _LOW_PASS
    determinant = a * c - b * b
    centres[n] = wp.vec2(fx * x + cx, fy * y + cy)
    conics[n] = wp.vec3(c / determinant, -b / determinant, a / determinant)
    depths[n] = z
    radius = wp.sqrt(2.0 * wp.log(wp.max(opacities[n] / least, 1.000001)))  # 0 has no slope
    extents[n] = wp.vec2(radius * wp.sqrt(a), radius * wp.sqrt(c))


@wp.kernel(enable_backward=False)
def _in_view(
    first: int,
    means: wp.array(dtype=wp.vec3),
    opacities: wp.array(dtype=wp.float32),
    pixels_from_world: wp.array(dtype=wp.mat44),  # [1] to (column * depth, row * depth, depth, 1)
    height: float,
    width: float,
    least: float,
    shown: wp.array(dtype=wp.bool),
):
    n = first + wp.tid()
    seen = pixels_from_world[0] * wp.vec4(means[n][0], means[n][1], means[n][2], 1.0)
    z = seen[2]
    margin_x = 2.0 * _MARGIN * width
    margin_y = 2.0 * _MARGIN * height
    beside = seen[0] > -margin_x * z and seen[0] < (width + margin_x) * z
    above = seen[1] > -margin_y * z and seen[1] < (height + margin_y) * z
    shown[n] = z > _NEAR and beside and above and opacities[n] >= least
