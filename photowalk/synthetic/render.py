"""Ray-casts a place in plain torch: exact depth, mip-mapped textures, one light, sky and fog. CPU or GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.synthetic.places import Place
from photowalk.synthetic.textures import SIDE

NEAR = 0.02  # metres
_CORNERS = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


@dataclass(frozen=True)
class _Hits:
    """What the ray of each of P pixels meets first."""

    depth: Tensor  # [P] along +Z, inf = sky
    solid: Tensor  # [P] index into the place's textures; the last is the floor


def render_frame(place: Place, camera: Cameras) -> tuple[Tensor, Tensor]:
    """One camera [] -> picture [3, H, W] in [0, 1] and depth [H, W], inf = sky."""
    origin = camera.centres
    directions = (camera.unproject(torch.ones(camera.height, camera.width)) - origin).flatten(0, 1)  # z-depth 1
    hits = _cast(place, camera, origin, directions)
    colour = _shade(place, camera, origin, directions, hits)
    sky = _sky(place, directions)
    picture = torch.where(hits.depth.isinf()[:, None], sky, colour) * place.tint
    picture = (picture / (1 + 0.25 * picture)).clamp(0, 1)  # highlights roll off as film does
    size = (camera.height, camera.width)
    return picture.T.unflatten(1, size), hits.depth.view(size)


def _turn(yaw: Tensor, points: Tensor) -> Tensor:
    """World [..., 3] to the axes of solids that stand turned by `yaw` [...] about the vertical."""
    cosine, sine = yaw.cos(), yaw.sin()
    x, y, z = points.unbind(-1)
    return torch.stack([cosine * x - sine * z, y.expand_as(x), sine * x + cosine * z], dim=-1)


def _cast(place: Place, camera: Cameras, origin: Tensor, directions: Tensor) -> _Hits:
    down = directions[:, 1]
    depth = torch.where(down > 1e-6, (place.eye - origin[1]) / down.clamp_min(1e-6), math.inf)
    floor = len(place.centres)
    solid = torch.full_like(depth, floor, dtype=torch.long)
    for i in range(floor):
        pixels = _pixels_of(place, i, camera)
        if pixels is None:
            continue
        meet = _meet_box if place.boxes[i] else _meet_ellipsoid
        local_origin = _turn(place.yaws[i], origin - place.centres[i]) / place.halves[i]
        local = _turn(place.yaws[i], directions[pixels]) / place.halves[i]
        distance = meet(local_origin, local)
        nearer = (distance > NEAR) & (distance < depth[pixels])
        depth[pixels] = torch.where(nearer, distance, depth[pixels])
        solid[pixels] = torch.where(nearer, i, solid[pixels])
    return _Hits(depth, solid)


def _pixels_of(place: Place, i: int, camera: Cameras) -> Tensor | slice | None:
    """Which pixels a solid can cover; None if it is not in view."""
    corners = _turn(-place.yaws[i], _CORNERS * place.halves[i]) + place.centres[i]
    pixels, depth = camera.project(corners)
    if bool((depth <= NEAR).all()):
        return None
    if bool((depth < 0.05).any()):
        return slice(None)
    left, top = (int(v) for v in pixels.amin(0).floor().clamp(-1, 1e6))
    right, bottom = (int(v) + 1 for v in pixels.amax(0).ceil().clamp(-1, 1e6))
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, camera.width), min(bottom, camera.height)
    if left >= right or top >= bottom:
        return None
    return (torch.arange(top, bottom)[:, None] * camera.width + torch.arange(left, right)).flatten()


def _meet_box(origin: Tensor, directions: Tensor) -> Tensor:
    """Where rays enter the cube [-1, 1]^3; inf where they miss it."""
    inverse = 1 / torch.where(directions.abs() < 1e-7, 1e-7, directions)
    one, other = (-1 - origin) * inverse, (1 - origin) * inverse
    enter, leave = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
    return torch.where((enter < leave) & (leave > 0), enter, math.inf)


def _meet_ellipsoid(origin: Tensor, directions: Tensor) -> Tensor:
    """Where rays enter the unit ball; inf where they miss it."""
    a, b, c = directions.square().sum(-1), directions @ origin, origin.square().sum() - 1
    root = b * b - a * c
    return torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, math.inf)


def _shade(place: Place, camera: Cameras, origin: Tensor, directions: Tensor, hits: _Hits) -> Tensor:
    """[P, 3] colours of what was hit; meaningless for the sky."""
    depth = torch.where(hits.depth.isinf(), 1.0, hits.depth)
    points = origin + depth[:, None] * directions
    yaw = F.pad(place.yaws, (0, 1))[hits.solid]
    centre = F.pad(place.centres, (0, 0, 0, 1))[hits.solid]
    local = _turn(yaw, points - centre)
    normal, axis = _normals(place, hits.solid, local)
    distance = depth * directions.norm(dim=1)
    world_normal = _turn(-yaw, normal)
    facing = (world_normal * directions).sum(1).abs() / directions.norm(dim=1)
    metres = place.metres[hits.solid, axis]
    texels = distance / camera.intrinsics[0, 0] / metres * SIDE / facing.clamp_min(0.08)
    offset = place.offsets[hits.solid, axis]
    across = torch.where(axis == 0, local[:, 2], local[:, 0]) / metres + offset[:, 0]
    along = torch.where(axis == 1, local[:, 2], local[:, 1]) / metres + offset[:, 1]
    colour = _sample_texture(place, place.textures[hits.solid, axis], across, along, texels)
    colour = colour * _light(place, points, world_normal)[:, None]
    clear = torch.exp(-place.fog * distance)[:, None]
    return colour * clear + place.horizon * (1 - clear)


def _normals(place: Place, solid: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    """Outward normals [P, 3] in the solids' axes and the axis [P] that each faces most, which chooses the texture."""
    halves = F.pad(place.halves, (0, 0, 0, 1), value=1.0)[solid]
    box, floor = F.pad(place.boxes, (0, 1), value=True)[solid], solid == len(place.centres)
    scaled = local / halves
    axis = torch.where(floor, 1, scaled.abs().argmax(1))
    square = F.one_hot(axis, 3) * scaled.gather(1, axis[:, None]).sign()
    square[floor] = torch.tensor([0.0, -1.0, 0.0])
    round_ = F.normalize(scaled / halves, dim=1)
    normal = torch.where(box[:, None], square, round_)
    return normal, torch.where(box, axis, normal.abs().argmax(1))


def _sample_texture(place: Place, texture: Tensor, across: Tensor, along: Tensor, texels: Tensor) -> Tensor:
    """Trilinear: bilinear on the two mip levels whose texels are nearest to a pixel in size. [P, 3]"""
    level = texels.clamp_min(1e-3).log2().clamp(0, len(place.levels) - 1.001)
    colour = torch.zeros(len(across), 3)
    for step in (0, 1):
        mip = level.long() + step
        share = (1 - (level - mip).abs())[:, None]
        side = torch.full_like(mip, SIDE) >> mip
        first = place.levels[mip] + texture * side * side
        x, y = across * side - 0.5, along * side - 0.5
        for right in (0, 1):
            for below in (0, 1):
                column, row = x.floor() + right, y.floor() + below
                weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
                texel = first + (row.long() % side) * side + column.long() % side
                colour += share * weight[:, None] * place.texels[texel]
    return colour


def _light(place: Place, points: Tensor, normals: Tensor) -> Tensor:
    """[P] ambient, one light, and darkness gathering where things meet the floor."""
    if place.lamp is None:
        direct = 1.3 * (1 - place.ambient) * (normals @ place.sun).clamp_min(0)
    else:
        towards = place.lamp - points
        squared = towards.square().sum(1)
        direct = (normals * towards).sum(1).clamp_min(0) / squared.sqrt().clamp_min(0.3) / (1 + 0.15 * squared)
    contact = 1 - 0.35 * torch.exp(-(place.eye - points[:, 1]).clamp_min(0) / 0.25) * (normals[:, 1].abs() < 0.7)
    return (place.ambient + direct) * contact


def _sky(place: Place, directions: Tensor) -> Tensor:
    """[P, 3]: from the horizon to the zenith, with soft bands of cloud."""
    unit = F.normalize(directions, dim=1)
    height = (-unit[:, 1]).clamp(0, 1)
    angle = torch.atan2(unit[:, 0], unit[:, 2])
    bands = torch.sin(3 * angle + 9 * height) * torch.sin(7 * angle - 14 * height + 1) * torch.sin(23 * height + angle)
    mix = height.sqrt()[:, None]
    return place.horizon * (1 - mix) + place.zenith * mix + 0.06 * (bands * height)[:, None]
