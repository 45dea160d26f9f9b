"""Ray-casts a place in plain torch: exact depth, mip-mapped textures, one light with soft shadows, sky, fog."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import look_at
from photowalk.synthetic.places import Place
from photowalk.synthetic.solids import SHAPES, meet, normals, turn
from photowalk.synthetic.textures import SIDE

NEAR = 0.02  # metres
SHADOW_SIDE = 768  # texels of the map that the light sees
_CORNERS = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
_QUARTERS = torch.tensor([[0.125, 0.375], [0.375, -0.125], [-0.125, -0.375], [-0.375, 0.125]])  # pixels


@dataclass(frozen=True)
class Shadows:
    """What the light sees: the mean and the mean square of depth around each texel (variance shadow maps)."""

    camera: Cameras
    moments: Tensor  # [1, 2, SHADOW_SIDE, SHADOW_SIDE]
    middle: float  # metres that are taken off depth before squaring


def bake_shadows(place: Place) -> Shadows:
    """The shadows of a place, which do not depend on the viewer."""
    if place.lamp is None:
        target = torch.tensor([0.0, place.eye, (place.free[1] + place.free[2]) / 2])
        centre, fov_deg = target + 90 * place.sun, math.degrees(2 * math.atan(15 / 90))
    else:
        centre, fov_deg = place.lamp, 150.0
        target = centre + torch.tensor([0.0, 1.0, 0.0])
    camera = Cameras.from_fov(look_at(centre, target), fov_deg, SHADOW_SIDE, SHADOW_SIDE)
    directions = camera.unproject(torch.ones(SHADOW_SIDE, SHADOW_SIDE)) - centre
    depth, _ = _cast(place, camera, centre, directions.flatten(0, 1))
    depth = torch.where(depth.isinf(), depth[depth.isfinite()].amax(), depth).view(1, 1, SHADOW_SIDE, SHADOW_SIDE)
    middle = float(depth.median())
    moments = torch.cat([depth - middle, (depth - middle).square()], dim=1)
    return Shadows(camera, F.avg_pool2d(F.pad(moments, (3, 3, 3, 3), mode="replicate"), 7, 1), middle)


def render_frame(place: Place, shadows: Shadows, camera: Cameras) -> tuple[Tensor, Tensor]:
    """One camera [] -> picture [3, H, W] in [0, 1] and depth [H, W] at pixel centres, inf = sky.

    Pixels on edges are the mean of four rays.
    """
    size = (camera.height, camera.width)
    origin = camera.centres
    forward = camera.unproject(torch.ones(size)) - origin  # [H, W, 3], z-depth 1
    directions = forward.flatten(0, 1)
    depth, solid = _cast(place, camera, origin, directions)
    picture = _colours(place, shadows, camera, origin, directions, depth, solid)
    edges = _edges(depth.view(size), solid.view(size)).flatten().nonzero()[:, 0]
    if len(edges):
        right, down = (camera.world_from_camera[:3, i] / camera.intrinsics[i, i] for i in (0, 1))
        steps = _QUARTERS[:, :1] * right[:3] + _QUARTERS[:, 1:] * down[:3]
        rays = (directions[edges][None] + steps[:, None]).flatten(0, 1)
        depths, solids = _cast(place, camera, origin, rays, edges)
        picture[edges] = _colours(place, shadows, camera, origin, rays, depths, solids).view(4, -1, 3).mean(0)
    return picture.T.unflatten(1, size), depth.view(size)


def render_depth(place: Place, camera: Cameras) -> Tensor:
    """[H, W] depth alone."""
    size = (camera.height, camera.width)
    directions = camera.unproject(torch.ones(size)) - camera.centres
    return _cast(place, camera, camera.centres, directions.flatten(0, 1))[0].view(size)


def _edges(depth: Tensor, solid: Tensor) -> Tensor:
    """[H, W] on both sides of where another solid, or a fold of the same one, begins."""
    inverse = 1 / depth
    edges = torch.zeros_like(depth, dtype=torch.bool)
    for edge, near, which in ((edges, inverse, solid), (edges.T, inverse.T, solid.T)):
        differ = (which[1:] != which[:-1]) | ((near[1:] - near[:-1]).abs() > 0.04 * near[:-1])
        edge[1:] |= differ
        edge[:-1] |= differ
    return edges


def _cast(
    place: Place, camera: Cameras, origin: Tensor, directions: Tensor, pixels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Depth [P] (inf = sky) and solid [P] (the last is the floor) that each ray of z-depth 1 meets first.

    Rays belong to all pixels of the camera in order, or, four times over, to the given ones.
    """
    down = directions[:, 1]
    depth = (place.eye - origin[1]) / torch.where(down > 1e-6, down, -1.0)
    depth = torch.where(depth > 0, depth, math.inf)
    solid = torch.full_like(depth, len(place.centres), dtype=torch.long)
    for i, window, least in _windows(place, camera):
        rays = _rays_in(window, camera, pixels)
        rays = rays[depth[rays] > least]  # the others have met something nearer
        local_origin = turn(place.yaws[i], origin - place.centres[i]) / place.halves[i]
        local = turn(place.yaws[i], directions[rays]) / place.halves[i]
        distance = meet(SHAPES[place.shapes[i]], local_origin, local)
        nearer = (distance > NEAR) & (distance < depth[rays])
        depth[rays[nearer]] = distance[nearer]
        solid[rays[nearer]] = i
    return depth, solid


def _windows(place: Place, camera: Cameras) -> list[tuple[int, list[int], float]]:
    """The solids in view from near to far: index; left, top, right and bottom of the pixels that it can cover; least
    depth."""
    corners = turn(-place.yaws[:, None], _CORNERS * place.halves[:, None]) + place.centres[:, None]
    pixels, depth = camera.project(corners.flatten(0, 1))
    pixels, depth = pixels.view(-1, 8, 2), depth.view(-1, 8)
    last = torch.tensor([camera.width, camera.height])
    least, most = pixels.amin(1).floor() - 1, pixels.amax(1).ceil() + 1  # a pixel more for the rays of edges
    close = (depth < 0.05).any(1)[:, None]
    least = torch.where(close, 0.0, least.clamp_min(0))
    most = torch.where(close, last, torch.minimum(most, last))
    seen = (depth > NEAR).any(1) & (least < most).all(1)
    order = depth.amin(1).argsort()
    order = order[seen[order]]
    windows = torch.cat([least, most], dim=1)[order].long().tolist()
    return list(zip(order.tolist(), windows, depth.amin(1)[order].tolist()))


def _rays_in(window: list[int], camera: Cameras, pixels: Tensor | None) -> Tensor:
    left, top, right, bottom = window
    if pixels is None:
        return (torch.arange(top, bottom)[:, None] * camera.width + torch.arange(left, right)).flatten()
    row, column = pixels // camera.width, pixels % camera.width
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return inside.repeat(4).nonzero()[:, 0]


def _colours(
    place: Place, shadows: Shadows, camera: Cameras, origin: Tensor, directions: Tensor, depth: Tensor, solid: Tensor
) -> Tensor:
    """[P, 3] in [0, 1] as a camera would take them."""
    seen = depth.isfinite()
    picture = torch.empty(len(depth), 3)
    picture[~seen] = _sky(place, directions[~seen])
    picture[seen] = _shade(place, shadows, camera, origin, directions[seen], depth[seen], solid[seen])
    picture = picture * place.tint
    return (picture / (1 + 0.25 * picture)).clamp(0, 1)  # highlights roll off as film does


def _shade(
    place: Place, shadows: Shadows, camera: Cameras, origin: Tensor, directions: Tensor, depth: Tensor, solid: Tensor
) -> Tensor:
    points = origin + depth[:, None] * directions
    yaw = F.pad(place.yaws, (0, 1))[solid]
    local = turn(yaw, points - F.pad(place.centres, (0, 0, 0, 1))[solid])
    shape = F.pad(place.shapes, (0, 1))[solid]
    halves = F.pad(place.halves, (0, 0, 0, 1), value=1.0)[solid]
    normal, axis = normals(shape, local, halves)
    on_floor = solid == len(place.centres)
    normal[on_floor], axis[on_floor] = torch.tensor([0.0, -1.0, 0.0]), 1
    length = directions.norm(dim=1)
    world_normal = turn(-yaw, normal)
    facing = (world_normal * directions).sum(1).abs() / length
    metres = place.metres[solid, axis]  # [P, 2]
    texels = depth / camera.intrinsics[0, 0] / metres.amin(1) * SIDE / facing.clamp_min(0.05) ** 0.7
    across, along = torch.where(axis == 0, local[:, 2], local[:, 0]), torch.where(axis == 1, local[:, 2], local[:, 1])
    is_side = (shape == SHAPES.index("cylinder")) & (axis == 0)
    across = torch.where(is_side, torch.atan2(local[:, 2], local[:, 0]), across)
    offset = place.offsets[solid, axis]
    colour = _sample(
        place,
        place.textures[solid, axis],
        across / metres[:, 0] + offset[:, 0],
        along / metres[:, 1] + offset[:, 1],
        texels,
    )
    if place.walls is None:
        colour[on_floor] *= _patches(place, points[on_floor])
    within = (shape == SHAPES.index("foliage")) * 2 * (1 - (local / halves).norm(dim=1))  # the heart of a crown is dark
    light = _light(place, shadows, points, world_normal, on_floor, within)
    colour = colour * torch.maximum(light, place.glow[solid][:, None])
    clear = torch.exp(-place.fog * depth * length)[:, None]
    return colour * clear + place.horizon * (1 - clear)


def _patches(place: Place, points: Tensor) -> Tensor:
    """[P, 1] broad patches in which the ground is darker, so that its tiles do not show from afar."""
    texture = torch.full((len(points),), place.clouds)
    return (
        1.08
        - 0.3 * _sample(place, texture, points[:, 0] / 19, points[:, 2] / 23, torch.full((len(points),), 4.0))[:, :1]
    )


def _sample(place: Place, texture: Tensor, across: Tensor, along: Tensor, texels: Tensor) -> Tensor:
    """Trilinear: bilinear on the two mip levels whose texels are nearest to a pixel in size. [P, 3]"""
    level = texels.clamp_min(1e-3).log2().clamp(0, len(place.levels) - 1.001)
    colour = torch.zeros(len(across), 3)
    for step in (0, 1):
        mip = level.long() + step
        share = 1 - (level - mip).abs()
        side = torch.full_like(mip, SIDE) >> mip
        first = place.levels[mip] + texture * side * side
        x, y = across * side - 0.5, along * side - 0.5
        left, top = x.floor(), y.floor()
        part_x, part_y = x - left, y - top
        left, top, last = left.long(), top.long(), side - 1  # sides are powers of two: & wraps around
        for right in (0, 1):
            for below in (0, 1):
                weight = share * (part_x if right else 1 - part_x) * (part_y if below else 1 - part_y)
                texel = first + ((top + below) & last) * side + ((left + right) & last)
                colour += weight[:, None] * place.texels[texel]
    return colour


def _light(place: Place, shadows: Shadows, points: Tensor, normal: Tensor, on_floor: Tensor, within: Tensor) -> Tensor:
    """[P, 3]: sky and walls from all sides, one light, darkness gathering where things meet."""
    if place.lamp is None:
        direct = (normal @ place.sun).clamp_min(0)
    else:
        towards = place.lamp - points
        squared = towards.square().sum(1)
        direct = (normal * towards).sum(1).clamp_min(0) / squared.sqrt().clamp_min(0.3) / (1 + 0.08 * squared)
    direct = direct * _lit(shadows, points + 0.02 * normal)
    height = (place.eye - points[:, 1]).clamp_min(0)
    occluded = 0.35 * torch.exp(-height / 0.2) * (normal[:, 1].abs() < 0.7)
    if place.walls is not None:  # corners of rooms
        width, length, top = place.walls
        for gap, lies in ((width - points[:, 0].abs(), 0), (length - points[:, 2].abs(), 2), (top - height, 1)):
            occluded = occluded + 0.28 * torch.exp(-gap.clamp_min(0) / 0.3) * (normal[:, lies].abs() < 0.7)
    occluded = occluded + within
    occluded = torch.where(on_floor, occluded + _footprint(place, points), occluded)
    ambient = place.ambient * (1 - 0.2 * normal[:, 1:2]) * (1 - occluded.clamp_max(0.75))[:, None]
    return ambient + place.light * direct[:, None]


def _footprint(place: Place, points: Tensor) -> Tensor:
    """[P] how much of the light from above the solids around keep off the floor."""
    grid = (points[:, [0, 2]] / place.contact_reach)[None, None]
    return F.grid_sample(place.contact[None, None], grid, padding_mode="border", align_corners=False)[0, 0, 0]


def _lit(shadows: Shadows, points: Tensor) -> Tensor:
    """[P] share of the light that arrives, by Chebyshev's bound on the depths around; all of it outside the map."""
    pixels, depth = shadows.camera.project(points)
    grid = pixels / SHADOW_SIDE * 2 - 1
    inside = (depth > 0) & (grid.abs() < 0.98).all(1)
    grid = torch.where(inside[:, None], grid, 0.0)
    mean, square = F.grid_sample(shadows.moments, grid[None, None], align_corners=False)[0, :, 0]
    behind = depth - shadows.middle - mean
    variance = (square - mean * mean).clamp_min(2e-4)
    bound = ((variance / (variance + behind * behind) - 0.25) / 0.75).clamp(0, 1)
    return torch.where(inside & (behind > 0), bound, 1.0)


def _sky(place: Place, directions: Tensor) -> Tensor:
    """[P, 3]: from the horizon to the zenith, with clouds on a plane far above."""
    unit = F.normalize(directions, dim=1)
    height = (-unit[:, 1]).clamp(0, 1)
    clear = place.horizon + (place.zenith - place.horizon) * height.sqrt()[:, None]
    far = 0.35 / (height + 0.12)
    texture = torch.full_like(height, place.clouds, dtype=torch.long)
    cover = (
        _sample(place, texture, unit[:, 0] * far, unit[:, 2] * far, 1.5 * far)[:, :1]
        * (height * 6).clamp(0, 1)[:, None]
    )
    bright = 0.5 * place.horizon + 0.5 * place.light.clamp_max(1)
    return clear + (bright - clear) * 0.8 * cover
