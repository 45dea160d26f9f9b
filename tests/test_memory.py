"""Spatial memory: what a camera would see of remembered frames, and which of them recall chooses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.visibility import coverage
from photowalk.memory.policies import Candidates, GreedyCoverage, MostOwned, RandomOwnership
from photowalk.memory.spatial_memory import SpatialMemory
from photowalk.scene.types import View

HEIGHT, WIDTH = 32, 48
GOLDEN = Path(__file__).parent / "golden" / "recall.safetensors"
PUBLISHED = GreedyCoverage(tolerance=0.1, relative_tolerance=0.0)


def looking(degrees: float) -> torch.Tensor:
    """camera_from_world of a camera at the origin, turned about the vertical."""
    angle = torch.deg2rad(torch.tensor(degrees))
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = angle.cos()
    pose[0, 2], pose[2, 0] = -angle.sin(), angle.sin()
    return pose


def cameras(*degrees: float) -> Cameras:
    return Cameras.from_fov(torch.stack([looking(d) for d in degrees]), 60.0, HEIGHT, WIDTH)


def view(frame: int, degrees: float, distance: float = 2.0) -> View:
    """A camera inside a ball: z-depth of a sphere around the origin."""
    camera = cameras(degrees)[0]
    rays = camera.unproject(torch.ones(HEIGHT, WIDTH)) - camera.centres
    return View(torch.full((3, HEIGHT, WIDTH), frame / 100), distance / rays.norm(dim=-1), camera, frame)


def frames(views) -> list[int]:
    return [view.frame for view in views]


def coverage_twin(points, targets: Cameras, stride, pixel_centre, tolerance, relative_tolerance):
    height, width = -(-HEIGHT // stride), -(-WIDTH // stride)
    covered = torch.zeros(len(points), len(targets), height, width, dtype=torch.bool)
    for v, target in enumerate(targets):
        landed = []
        for c, cloud in enumerate(points):
            pixels, depths = target.project(cloud)
            for pixel, z in zip(pixels, depths):
                if z > 0:
                    j, i = (round(float((p - pixel_centre) / stride)) for p in pixel)  # half to even
                    if 0 <= i < height and 0 <= j < width:
                        landed.append((c, i, j, float(z)))
        nearest: dict[tuple[int, int], float] = {}
        for _, i, j, z in landed:
            nearest[i, j] = min(z, nearest.get((i, j), float("inf")))
        for c, i, j, z in landed:
            covered[c, v, i, j] |= z <= nearest[i, j] * (1 + relative_tolerance) + tolerance
    return covered.flatten(1)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), centre=st.sampled_from([0.0, 0.5]), stride=st.sampled_from([3, 4]))
def test_coverage_matches_its_twin(seed, centre, stride):
    random = torch.Generator().manual_seed(seed)
    points = torch.randn(3, 60, 3, generator=random) * 2
    points[1, :5] = torch.nan
    targets = cameras(0.0, 35.0)
    kwargs = {"stride": stride, "pixel_centre": centre, "tolerance": 0.1, "relative_tolerance": 0.05}
    found = coverage(points, targets.camera_from_world, targets.intrinsics, (HEIGHT, WIDTH), **kwargs)
    expected = coverage_twin(points, targets, stride, centre, 0.1, 0.05)
    assert (found != expected).sum() <= 1  # a point may lie on the border of two cells


def test_coverage_does_not_hang_on_the_number_of_threads():
    points, targets = torch.randn(7, 500, 3) * 2, cameras(0.0)
    threads, found = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(Candidates(points, list(range(7)), 4).coverage(targets, tolerance=0.1))
    torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_published_recalls():
    golden = load_file(GOLDEN)
    targets = Cameras(golden["targets"], golden["K"].expand(3, 3, 3), *golden["size"].tolist())
    ids = golden["frame_ids"].tolist()
    points = golden["world_points"].flatten(1, 2)
    candidates = Candidates(points, ids, 4, pixel_centre=0.0)
    policies = [("cover", PUBLISHED, 5), ("cover_k3", PUBLISHED, 3), ("count", MostOwned(), 5)]
    for name, policy, count in [*policies, ("random_seed0", RandomOwnership(seed=0, drop=0.0), 5)]:
        for t in range(3):
            chosen = policy.choose(candidates, targets[t : t + 1], count)
            assert [ids[i] for i in chosen] == golden[f"{name}_{t}"].tolist(), name
    chosen = PUBLISHED.choose(candidates, targets[:2], 5)
    assert [ids[i] for i in chosen] == golden["cover_multiview_01"].tolist()
    chosen = PUBLISHED.choose(Candidates(points[:-2], ids[:-2], 4, pixel_centre=0.0), targets[:1], 5)
    assert [ids[i] for i in chosen] == golden["cover_skip2_0"].tolist()


def test_the_views_that_look_the_same_way_are_recalled_best_last():
    memory = SpatialMemory().remember([view(i * 8, degrees) for i, degrees in enumerate((0, 25, 90, 180, 270))])
    assert frames(memory.recall(cameras(5.0), 5, GreedyCoverage())) == [8, 0]
    assert frames(memory.recall(cameras(5.0), 1, GreedyCoverage())) == [0]
    assert frames(memory.recall(cameras(180.0), 5, GreedyCoverage())) == [24]


def test_the_newest_view_is_not_recalled_and_what_it_shows_counts_as_shown():
    memory = SpatialMemory().remember([view(0, 0), view(8, 90), view(16, 0)])
    assert frames(memory.recall(cameras(0.0), 5, GreedyCoverage())) == []
    assert frames(memory.recall(cameras(45.0), 5, GreedyCoverage())) == [8]


def test_the_photo_alone_is_recalled():
    memory = SpatialMemory().remember([view(0, 0)])
    assert frames(memory.recall(cameras(10.0), 5, GreedyCoverage())) == [0]


def test_hidden_views_are_not_recalled():
    """A nearer wall that another view saw hides what lies behind it."""
    memory = SpatialMemory().remember([view(0, 0, distance=3.0), view(8, 0, distance=1.0), view(16, 180)])
    assert frames(memory.recall(cameras(0.0), 5, GreedyCoverage())) == [8]


def test_remembering_again_refreshes_nothing_and_shares_everything():
    first = view(0, 0)
    memory = SpatialMemory().remember([first])
    more = memory.remember([view(0, 90), view(8, 10)])
    assert more[0] is first
    assert more.entries[0] is memory.entries[0]
    assert (memory.frames, more.frames) == ((0,), (0, 8))


def test_the_latest_duplicate_is_found():
    twice = [view(0, 0), view(0, 90)]
    assert SpatialMemory().remember(twice)[0] is twice[1]
    with pytest.raises(KeyError, match="frame 3"):
        SpatialMemory().remember(twice)[3]


def test_recall_among_candidates_only_and_from_an_empty_memory():
    memory = SpatialMemory().remember([view(0, 0), view(8, 5), view(16, 10), view(24, 180)])
    assert set(frames(memory.recall(cameras(5.0), 5, GreedyCoverage(), candidates=[0, 24]))) == {0}
    assert memory.recall(cameras(5.0), 5, GreedyCoverage(), candidates=[]) == ()
    assert SpatialMemory().recall(cameras(5.0), 5, GreedyCoverage()) == ()
    assert memory.recall(cameras(5.0), 0, GreedyCoverage()) == ()


def test_sky_and_unknown_depth_are_no_points():
    known = view(0, 0)
    depth = known.depth.clone()
    depth[:16], depth[16:24] = torch.inf, 0
    points = SpatialMemory().remember([View(known.image, depth, known.camera, 0)]).entries[0].points
    assert points.isnan().any(-1).sum() == 6 * 12
    published = SpatialMemory(invalid_at_origin=True).remember([View(known.image, depth, known.camera, 0)])
    assert (published.entries[0].points[: 6 * 12] == 0).all()


def test_points_lie_on_the_surface():
    for centre in (0.0, 0.5):
        seen = view(0, 30)
        points = SpatialMemory(pixel_centre=centre).remember([seen]).entries[0].points
        expected = seen.camera.unproject(seen.depth, pixel_centre=centre)[::4, ::4].flatten(0, 1)
        torch.testing.assert_close(points, expected)


def test_views_of_different_sizes_may_be_remembered_together():
    small = View(torch.zeros(3, 16, 24), torch.full((16, 24), 2.0), cameras(0.0)[0].resized(16, 24), 8)
    memory = SpatialMemory().remember([view(0, 90), small, view(16, 180)])
    assert frames(memory.recall(cameras(0.0), 5, GreedyCoverage())) == [8]


def test_random_recall_is_seeded_prefers_owners_and_sometimes_forgets():
    memory = SpatialMemory().remember([view(i * 8, degrees) for i, degrees in enumerate((0, 10, 90, 180, 270))])
    draws = [frames(memory.recall(cameras(5.0), 2, RandomOwnership(seed=s, drop=0.0))) for s in range(40)]
    assert draws[7] == frames(memory.recall(cameras(5.0), 2, RandomOwnership(seed=7, drop=0.0)))
    flat = [frame for draw in draws for frame in draw]
    assert flat.count(0) + flat.count(8) > 0.85 * len(flat)
    forgetful = [frames(memory.recall(cameras(5.0), 5, RandomOwnership(seed=s, drop=1.0))) for s in range(20)]
    whole = [frames(memory.recall(cameras(5.0), 5, RandomOwnership(seed=s, drop=0.0))) for s in range(20)]
    for kept, drawn in zip(forgetful, whole):
        assert len(kept) < len(drawn)
        assert kept == [frame for frame in drawn if frame in kept]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU")
def test_a_gpu_recalls_the_same_views():
    points, targets = list(torch.randn(6, 500, 3) * 2), cameras(0.0)
    here = Candidates(points, list(range(6)), 4).coverage(targets, tolerance=0.1)
    there = Candidates([cloud.cuda() for cloud in points], list(range(6)), 4).coverage(
        targets.to("cuda"), tolerance=0.1
    )
    assert (here != there.cpu()).sum() <= 2
