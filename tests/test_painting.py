"""Painting of places against a twin in plain torch."""

import torch
from torch.nn.functional import grid_sample, normalize

from photowalk.kernels.painting import Painter
from photowalk.scene.surfaces import surface_of
from photowalk.synthetic import SyntheticWorld

SIZE = (48, 72)


def twin(places, normals, otherwise, clip):
    """Means of what views see within 2 % and two pixels' widths of the places, weighted by (cosine / distance)^4."""
    merits, light = torch.zeros(len(places)), torch.zeros(len(places), 3)
    for image, depth, camera in zip(clip.video, clip.depth, clip.cameras, strict=True):
        pixels, z = camera.project(places)
        rays = places - camera.centres
        cosine = -(normalize(rays, dim=-1) * normals).sum(-1)
        size = torch.tensor([camera.width, camera.height])
        inside = (z > 0) & ((pixels > 1) & (pixels < size - 1)).all(-1) & (cosine > 0.1)
        column, row = pixels.where(inside[:, None], 1).long().unbind(-1)
        width_of_pixel = depth[row, column] / camera.intrinsics[[0, 1], [0, 1]].mean()
        near = (depth[row, column] - z).abs() < 0.02 * depth[row, column] + 2 * width_of_pixel / cosine
        colour = grid_sample(image[None], (pixels / size * 2 - 1)[None, None], align_corners=False)[0, :, 0].T
        merit = torch.where(inside & near, cosine / rays.norm(dim=-1), 0) ** 4
        merits += merit
        light += merit[:, None] * colour
    return torch.where(merits[:, None] > 0, light / merits[:, None], otherwise)


def test_places_take_the_colours_of_the_views_that_see_them():
    world = SyntheticWorld.sample(7)
    clip = world.render(world.walk(13, 7, size=SIZE))[::3]
    view = clip.view(2)
    surface = surface_of(view.depth, view.camera)
    generator = torch.Generator().manual_seed(0)
    places = surface.points[surface.valid]
    places = places * (1 + 0.03 * torch.randn(len(places), 1, generator=generator))
    normals = -surface.normals[surface.valid]
    normals = normalize(normals + 0.3 * torch.randn(normals.shape, generator=generator), dim=-1)
    otherwise = torch.rand(len(places), 3, generator=generator)
    painter = Painter(places, normals)
    for image, depth, camera in zip(clip.video, clip.depth, clip.cameras, strict=True):
        painter.look(image, depth, camera.camera_from_world, camera.intrinsics)
    expected = twin(places, normals, otherwise, clip)
    unseen = (expected == otherwise).all(-1)
    assert 0.02 < float(unseen.float().mean()) < 0.9
    differs = (painter.colours(otherwise) - expected).abs().amax(-1) > 1e-3
    assert float(differs.float().mean()) < 1e-3  # a rounded last digit decides at a border


def test_places_that_nobody_looks_at_keep_their_colours():
    world = SyntheticWorld.sample(7)
    clip = world.render(world.walk(1, 7, size=SIZE))
    places = clip.cameras[0].centres - clip.cameras[0].world_from_camera[:3, 2] * torch.rand(100, 1)  # behind it
    painter, otherwise = Painter(places, torch.zeros(100, 3)), torch.rand(100, 3)
    assert torch.equal(painter.colours(otherwise), otherwise)
    painter.look(clip.video[0], clip.depth[0], clip.cameras[0].camera_from_world, clip.cameras[0].intrinsics)
    assert torch.equal(painter.colours(otherwise), otherwise)
