"""Depth that stands in the way of what earlier views saw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_preset

from photowalk.geometry import motions
from photowalk.geometry.cameras import Cameras
from photowalk.scene.free_space import out_of_the_way
from photowalk.scene.types import View

SIZE = HEIGHT, WIDTH = 24, 36


def camera(x: float = 0.0, z: float = 0.0, turned: float = 0.0) -> Cameras:
    """At (x, 0, z), turned to the left by degrees."""
    angle = torch.deg2rad(torch.tensor(-turned, dtype=torch.float64))
    rotation = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    placed = motions.motion(rotation.double(), torch.tensor([x, 0.0, z], dtype=torch.float64))
    return Cameras.from_fov(motions.inverse(placed).float(), 60.0, *SIZE)


def seen(depth: torch.Tensor, where: Cameras, frame: int = 0) -> View:
    return View(torch.zeros(3, *SIZE), depth, where, frame)


def wall(distance: float) -> torch.Tensor:
    return torch.full(SIZE, distance)


def moved(depth: torch.Tensor, where: Cameras, *views: View) -> torch.Tensor:
    return out_of_the_way(depth[None], where[None], views)[0]


def in_the_way(depth: torch.Tensor, where: Cameras, view: View, tolerance: float) -> torch.Tensor:
    """The twin: which pixels [H, W] stand before what the view saw, in the 3x3 pixels around."""
    pixels, far = view.camera.project(where.unproject(depth.clamp_max(1e6)))
    column, row = pixels.floor().long().unbind(-1)
    height, width = view.depth.shape
    inside = (far > 1e-4) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
    offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    around = [view.depth[(row + i).clamp(0, height - 1), (column + j).clamp(0, width - 1)] for i, j in offsets]
    nearest = torch.stack(around).amin(0)
    return inside & (far * (1 + tolerance) < nearest) & (depth > 0) & depth.isfinite()


def test_what_stands_before_a_wall_moves_to_it_and_what_stands_behind_it_stays():
    view = seen(wall(4.0), camera())
    torch.testing.assert_close(moved(wall(2.0), camera(), view), wall(4.0), rtol=0.005, atol=0)
    for distance in (3.8, 4.0, 9.0):
        assert moved(wall(distance), camera(), view).equal(wall(distance))


def test_the_sky_is_free_for_ever_and_the_unknown_says_nothing():
    assert moved(wall(2.0), camera(), seen(wall(torch.inf), camera())).isinf().all()
    for unknown in (0.0, torch.nan):
        assert moved(wall(2.0), camera(), seen(wall(unknown), camera())).equal(wall(2.0))
    for odd in (0.0, torch.inf):
        assert moved(wall(odd), camera(), seen(wall(4.0), camera())).equal(wall(odd))
    assert moved(wall(2.0), camera()).equal(wall(2.0))


def test_what_a_view_does_not_look_at_stays():
    beside = camera(turned=90.0)
    assert moved(wall(2.0), beside, seen(wall(4.0), camera())).equal(wall(2.0))


def test_what_leaves_the_picture_of_a_view_is_free():
    """Looked at from the side: points move along their rays until the view's picture ends or its wall is reached."""
    looks_left = camera(z=1.0, turned=60.0)
    view = seen(wall(6.0), camera())
    result = moved(wall(1.0), looks_left, view)
    assert in_the_way(wall(1.0), looks_left, view, 0.1).any()
    assert not in_the_way(result, looks_left, view, 0.1 + 1e-4).any()
    assert result.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_nothing_is_left_in_the_way_and_nothing_moves_that_was_not(seed):
    random = torch.Generator().manual_seed(seed)
    rough = torch.rand(3, *SIZE, generator=random)
    steps = torch.rand(4, generator=random).tolist()
    views = [seen(2 + 4 * rough[0], camera()), seen(1 + 8 * rough[1], camera(steps[0], steps[1], 30 * steps[2]), 1)]
    where = camera(-steps[1], steps[2], -40 * steps[3])
    depth = 0.5 + 6 * rough[2]
    result = moved(depth, where, *views)
    stood = torch.stack([in_the_way(depth, where, view, 0.1) for view in views]).any(0)
    stands = torch.stack([in_the_way(result, where, view, 0.1 + 1e-4) for view in views]).any(0)
    # points come to lie on rims of pixels, which rounding may give to either side
    assert float(stands.float().mean()) < 0.005
    assert float((result != depth)[~stood].float().mean()) < 0.005
    assert bool((result >= depth).all())


def test_a_walk_leaves_what_the_photo_showed_in_sight():
    """A far wall and most of it behind a near one, at whose distance the untrained network guesses what appears."""
    generator = tiny_preset().build()
    depth = torch.full((tiny.HEIGHT, tiny.WIDTH), 9.0)
    depth[:, 20:70] = 3.0
    photo = torch.rand(3, *depth.shape, generator=torch.Generator().manual_seed(0))
    state = generator.start(photo, depth=depth, focal_px=80.0)
    steps = torch.linspace(0, 1, tiny.CHUNK_FRAMES + 1)[1:].tolist()
    path = Cameras.cat([camera(step, step, 10 * step)[None] for step in steps])
    intrinsics = state.first.camera.intrinsics.expand(len(path), 3, 3)
    path = replace(path, intrinsics=intrinsics, height=tiny.HEIGHT, width=tiny.WIDTH)

    def hidden(witnesses: int) -> float:
        config = replace(generator.config, witnesses=witnesses)
        walked = replace(generator, config=config).extend(state, path, "", seed=1)
        views = [view for view in walked.views if view.frame > 0]
        return max(float(in_the_way(v.depth, v.camera, state.first, 0.1 + 1e-2).float().mean()) for v in views)

    assert hidden(0) > 0.02
    assert hidden(4) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA GPU")
def test_a_gpu_moves_the_same():
    view, where = seen(wall(6.0), camera()), camera(z=1.0, turned=60.0)
    on_gpu = View(view.image.cuda(), view.depth.cuda(), view.camera.to("cuda"), 0)
    result = out_of_the_way(wall(1.0)[None].cuda(), where[None].to("cuda"), [on_gpu])[0].cpu()
    torch.testing.assert_close(result, moved(wall(1.0), where, view), rtol=1e-3, atol=1e-3)
