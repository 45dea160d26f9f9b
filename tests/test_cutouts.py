"""Things and mountains that are put into training pictures."""

from __future__ import annotations

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.scene.types import View
from photowalk.train.cutouts import RANGE, with_evening, with_mountains, with_opening, with_thing

HEIGHT, WIDTH = 64, 96


def _open_land() -> View:
    """A floor 1.5 m below the eyes, and sky."""
    camera = Cameras.from_fov(torch.eye(4), 70.0, HEIGHT, WIDTH)
    below = torch.arange(HEIGHT)[:, None] + 0.5 - HEIGHT / 2
    depth = torch.where(below > 0, 1.5 * camera.intrinsics[1, 1] / below, torch.inf).expand(HEIGHT, WIDTH)
    return View(torch.full((3, HEIGHT, WIDTH), 0.5), depth, camera, 0)


TEXTURE = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("put", [with_thing, with_mountains])
def test_what_is_put_in_hides_and_is_never_behind(put) -> None:
    view, changed = _open_land(), 0
    for seed in range(10):
        after = put(view, TEXTURE, torch.Generator().manual_seed(seed))
        assert bool((after.depth <= view.depth).all())
        assert bool((after.depth > 0).all())
        touched = torch.nn.functional.max_pool2d((after.depth != view.depth).float()[None], 3, 1, 1)[0] > 0
        assert torch.equal(after.image[:, ~touched], view.image[:, ~touched])
        changed += bool(touched.any())
    assert changed >= 5


def test_mountains_stand_in_the_sky_only() -> None:
    view = _open_land()
    after = with_mountains(view, TEXTURE, torch.Generator().manual_seed(2))
    new = after.depth != view.depth
    assert bool(view.depth[new].isinf().all())
    assert float(after.depth[new].min()) >= RANGE[0]
    assert bool(after.depth[0].isinf().all())


def test_a_thing_stands_on_the_ground() -> None:
    """Its foot is where the ground is as far away."""
    view = _open_land()
    for seed in range(10):
        after = with_thing(view, TEXTURE, torch.Generator().manual_seed(seed))
        new = after.depth != view.depth
        if bool(new.any()):
            lowest = int(new.any(1).nonzero()[-1])
            ground = float(view.depth[lowest, 0])
            assert float(after.depth[new].max()) <= 1.6 * ground


def test_one_sees_through_some_things() -> None:
    """In a row of them something of what is behind lies between two parts of the thing."""
    view, hollow = _open_land(), 0
    for seed in range(30):
        new = with_thing(view, TEXTURE, torch.Generator().manual_seed(seed)).depth != view.depth
        between = (new.cumsum(1) > 0) & (new.flip(1).cumsum(1).flip(1) > 0)
        hollow += int((between & ~new).sum()) > 20
    assert 3 <= hollow <= 25


def test_through_an_opening_one_sees_what_is_farther() -> None:
    """Inside lies the other view at one scale, behind the wall; around it nothing has changed."""
    land, opened = _open_land(), 0
    wall = View(torch.full((3, HEIGHT, WIDTH), 0.2), torch.full((HEIGHT, WIDTH), 4.0), land.camera, 0)
    for seed in range(10):
        after = with_opening(wall, land, torch.Generator().manual_seed(seed))
        inside = after.depth != wall.depth
        assert bool((after.depth[inside] > wall.depth[inside]).all())
        ratio = (after.depth / land.depth)[inside & land.depth.isfinite()]
        assert len(ratio) == 0 or float(ratio.std()) < 1e-4 * float(ratio.mean())
        touched = torch.nn.functional.max_pool2d(inside.float()[None], 3, 1, 1)[0] > 0
        assert torch.equal(after.image[:, ~touched], wall.image[:, ~touched])
        opened += bool(inside.any())
    assert opened >= 5


def test_nothing_opens_in_the_sky() -> None:
    land = _open_land()
    sky = View(land.image, torch.full_like(land.depth, torch.inf), land.camera, 0)
    assert with_opening(sky, land, torch.Generator().manual_seed(0)) is sky


def test_where_there_is_no_sky_nothing_stands_in_it() -> None:
    view = _open_land()
    indoors = View(view.image, view.depth.clamp_max(5), view.camera, 0)
    assert with_mountains(indoors, TEXTURE, torch.Generator().manual_seed(0)) is indoors
    assert with_evening(indoors, torch.Generator().manual_seed(0)) is indoors


def test_an_evening_sky_replaces_the_sky_and_darkens_the_land() -> None:
    view = _open_land()
    after = with_evening(view, torch.Generator().manual_seed(0))
    assert torch.equal(after.depth, view.depth)
    assert float((after.image[:, : HEIGHT // 2 - 2] - 0.5).abs().mean()) > 0.05
    land = after.image[:, HEIGHT // 2 + 2 :]
    assert float(land.max()) <= 0.55
    assert float(land.std()) < 1e-5
