"""Synthetic worlds: exact depth, the same world for the same seed, walks that are smooth, free and come back."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import torch

from photowalk.data.clips import find_clips, read_clip, validate
from photowalk.geometry.cameras import Cameras
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld, training_seeds
from photowalk.synthetic.chance import Chance
from photowalk.synthetic.places import BUILDERS, Kind
from photowalk.synthetic.render import render_depth
from photowalk.synthetic.solids import SHAPES, Shape, clearance, meet, normals
from photowalk.synthetic.textures import MATERIALS, SIDE, Painter, mip_pyramid
from photowalk.synthetic.worlds import FASTEST_TURN, LONGEST_STEP, STYLES

SIZE = (48, 84)
KINDS = list(BUILDERS)


@cache
def _world(kind: Kind) -> SyntheticWorld:
    return SyntheticWorld.sample(11, kind)


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return _world("room")


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(Chance(5))


def test_held_out_seeds_are_never_trained_on() -> None:
    assert len(HELD_OUT_SEEDS) == 20
    seeds = list(islice(training_seeds(min(HELD_OUT_SEEDS) - 3), 10))
    assert not set(seeds) & set(HELD_OUT_SEEDS)
    assert len(seeds) == 10


def test_a_seed_says_all(world: SyntheticWorld) -> None:
    again = SyntheticWorld.sample(11, "room")
    cameras = world.walk(5, 1, size=SIZE)
    assert torch.equal(cameras.camera_from_world, again.walk(5, 1, size=SIZE).camera_from_world)
    one, other = world.render(cameras), again.render(cameras)
    assert torch.equal(one.video, other.video)
    assert torch.equal(one.depth, other.depth)
    stranger = SyntheticWorld.sample(12, "room").render(cameras)
    assert (one.video - stranger.video).abs().mean() > 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_place(kind: Kind) -> None:
    world = _world(kind)
    clip = world.render(world.walk(2, 5, size=SIZE))
    assert clip.video.amin() >= 0
    assert clip.video.amax() <= 1
    assert clip.video.std() > 0.03  # something is to be seen
    assert 0.1 < clip.video.mean() < 0.8  # neither dark nor burnt out
    assert (clip.depth > 0).all()
    assert bool(clip.depth.isinf().any()) <= (world.place.walls is None)  # no sky indoors
    assert clip.prompt.startswith(("a ", "open land"))


def test_depth_of_a_bare_room_is_that_of_its_planes(world: SyntheticWorld) -> None:
    eye, width, length, height = 1.5, 2.0, 3.0, 2.6
    boxes = [((side * (width + 1), 0, 0), (1, 9, 9)) for side in (-1, 1)]
    boxes += [((0, 0, side * (length + 1)), (9, 9, 1)) for side in (-1, 1)]
    boxes += [((0, eye - height - 1, 0), (9, 1, 9))]
    bare = replace(
        world.place,
        eye=eye,
        shapes=torch.zeros(len(boxes), dtype=torch.long),
        centres=torch.tensor([centre for centre, _ in boxes], dtype=torch.float32),
        halves=torch.tensor([half for _, half in boxes], dtype=torch.float32),
        yaws=torch.zeros(len(boxes)),
    )
    camera = replace(world, place=bare).walk(1, 0, size=SIZE)[0]
    origin, forward = camera.centres, camera.unproject(torch.ones(SIZE)) - camera.centres
    ends = torch.tensor([[-width, width], [eye - height, eye], [-length, length]])
    distance = torch.where(forward > 0, ends[:, 1] - origin, ends[:, 0] - origin) / forward
    assert torch.allclose(render_depth(bare, camera), distance.amin(-1), rtol=1e-4)


def test_the_floor_lies_at_the_height_of_the_eyes() -> None:
    place = _world("street").place
    down = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # the gaze goes straight down
    depth = render_depth(place, Cameras.from_fov(down, 30, *SIZE))
    assert math.isclose(float(depth.median()), place.eye, abs_tol=1e-4)


@pytest.mark.parametrize("kind", ["room", "courtyard", "wood"])
def test_points_of_one_frame_lie_where_another_sees_them(kind: Kind) -> None:
    world = _world(kind)
    clip = world.render(world.walk(41, 2, size=(96, 168), style="onward")[::20])
    source, target = clip.cameras[0], clip.cameras[1]
    known = clip.depth[0].isfinite().flatten()
    points = source.unproject(clip.depth[0].nan_to_num(posinf=1)).flatten(0, 1)[known]
    pixels, depth = target.project(points)
    inside = (depth > 0.1) & (pixels >= 1).all(1) & (pixels < torch.tensor([167, 95])).all(1)
    column, row = pixels[inside].long().T
    error = (clip.depth[1][row, column] / depth[inside] - 1).abs()
    assert inside.float().mean() > 0.3
    assert error.median() < 0.02
    same = error < 0.01
    difference = clip.video[1][:, row, column] - clip.video[0].flatten(1)[:, known][:, inside]
    assert difference[:, same].abs().median() < 0.04


@pytest.mark.parametrize("style", sorted(set(STYLES)))
def test_walks_are_smooth_free_and_come_back(world: SyntheticWorld, style: str) -> None:
    cameras = world.walk(61, 9, size=SIZE, style=style)
    assert cameras.check().shape == (61,)
    assert cameras.centres.diff(dim=0).norm(dim=1).max() <= LONGEST_STEP + 1e-4
    forward = cameras.world_from_camera[:, :3, 2]
    turned = torch.linalg.cross(forward[1:], forward[:-1]).norm(dim=1)
    assert turned.max() <= math.sin(FASTEST_TURN) + 1e-3
    assert clearance(cameras.centres, world.place.centres, world.place.halves, world.place.yaws).min() > 0
    if style != "onward":
        assert torch.allclose(cameras.camera_from_world[0], cameras.camera_from_world[-1], atol=1e-4)


@pytest.mark.parametrize("frames", [8, 9])
def test_there_and_back_shows_the_same_frames(world: SyntheticWorld, frames: int) -> None:
    cameras = world.walk(frames, 3, size=SIZE, style="there_and_back").camera_from_world
    assert torch.equal(cameras, cameras.flip(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_meet_shapes_on_their_surface(shape: Shape) -> None:
    random = torch.Generator().manual_seed(1)
    origin = torch.tensor([2.5, -2.0, -4.0])
    directions = torch.nn.functional.normalize(torch.randn(4000, 3, generator=random) * 0.2 - origin / 5, dim=1)
    distance = meet(shape, origin, directions)
    hit = distance.isfinite()
    assert 0.05 < hit.float().mean() < 1
    points = origin + distance[hit, None] * directions[hit]
    assert points.abs().max() <= 1 + 1e-4
    kinds = torch.full((len(points),), SHAPES.index(shape))
    normal, axis = normals(kinds, points, torch.ones(len(points), 3))
    assert torch.allclose(normal.norm(dim=1), torch.ones(len(points)), atol=1e-5)
    assert axis.unique().numel() > 1
    if shape != "foliage":  # whose inner sides are seen through gaps
        assert ((normal * directions[hit]).sum(1) < 1e-3).all()
    assert meet(shape, torch.tensor([0.0, 9.0, 0.0]), torch.tensor([[0.0, 1.0, 0.0]])).isinf().all()  # behind


def test_rays_meet_a_ball_where_maths_says() -> None:
    directions = torch.tensor([[0.0, 0, 1], [0, 1, 0]])
    assert meet("ball", torch.tensor([0.0, 0, -3]), directions).tolist() == [2.0, math.inf]
    assert meet("cylinder", torch.tensor([0.0, -5, 0.5]), directions).tolist() == [math.inf, 4.0]
    assert meet("roof", torch.tensor([0.0, 0, -3]), directions).tolist() == [2.0, math.inf]


@pytest.mark.parametrize("material", sorted(MATERIALS))
def test_materials_can_be_painted(painter: Painter, material: str) -> None:
    for surface in dict.fromkeys(MATERIALS[material]):
        texture = surface(painter)
        assert texture.image.shape == (3, SIDE, SIDE)
        assert texture.image.amin() >= 0
        assert texture.image.amax() <= 1
        assert texture.metres is None or texture.metres > 0


def test_mip_levels_keep_the_mean() -> None:
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    rows, starts = mip_pyramid(images)
    assert len(starts) == 10
    assert torch.allclose(rows[starts[-1] :], images.mean((-1, -2)), atol=1e-4)


def test_cameras_may_come_from_anywhere(world: SyntheticWorld) -> None:
    pose = torch.eye(4).repeat(2, 1, 1)
    clip = world.render(Cameras.from_fov(pose, 70.0, *SIZE))
    assert torch.equal(clip.video[0], clip.video[1])


def test_the_command_writes_clips_and_a_sheet(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "clips"), "--worlds", "1", "--frames", "3", "--size", "32x56", "--processes", "1"]
    command = [sys.executable, "-m", "photowalk.synthetic", *arguments]
    subprocess.run([*command, "--sheet", str(tmp_path / "sheet.png")], check=True, timeout=200)
    (folder,) = find_clips(tmp_path / "clips")
    assert validate(folder) == []
    assert len(read_clip(folder)) == 3
    assert (tmp_path / "sheet.png").exists()
    written = (folder / "clip.safetensors").stat().st_mtime_ns
    subprocess.run(command, check=True, timeout=200)  # finds it complete
    assert (folder / "clip.safetensors").stat().st_mtime_ns == written
