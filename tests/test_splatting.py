"""Forward splatting against readable torch twins, its axioms, and outputs of the published system."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from photowalk.geometry.cameras import Cameras
from photowalk.kernels.splatting import reliable_depth
from photowalk.scene.types import View
from photowalk.scene.warping import composite, ray_features, warp

HEIGHT, WIDTH = 10, 14
GOLDEN = Path(__file__).parent / "golden" / "splatting.safetensors"


def poses(count: int, seed: int, spread: float = 0.1) -> torch.Tensor:
    """Generic rigid camera_from_world [count, 4, 4] near the identity."""
    random = torch.Generator().manual_seed(seed)
    twist = torch.randn(count, 6, generator=random, dtype=torch.float64) * spread
    generator = torch.zeros(count, 4, 4, dtype=torch.float64)
    generator[:, [2, 0, 1], [1, 2, 0]] = twist[:, :3]
    generator[:, [1, 2, 0], [2, 0, 1]] = -twist[:, :3]
    generator[:, :3, 3] = twist[:, 3:]
    return torch.linalg.matrix_exp(generator).float()


def cameras(count: int, seed: int, height: int = HEIGHT, width: int = WIDTH, spread: float = 0.1) -> Cameras:
    return Cameras.from_fov(poses(count, seed, spread), 65.0, height, width)


def pictures(count: int, seed: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [count, 2, H, W] and depth [count, H, W] with a hole, sky and NaN."""
    random = torch.Generator().manual_seed(seed)
    values = torch.rand(count, 2, height, width, generator=random)
    depth = 1 + 2 * torch.rand(count, height, width, generator=random)
    depth[:, 1, 2], depth[:, 3, 4], depth[:, 5, 6] = 0, torch.inf, torch.nan
    return values, depth


def landings(depth, source: Cameras, target: Cameras, pixel_centre: float):
    """(row, column, x, y, z) of every point, x and y in units of pixel indices, in float64."""
    points = source.to(torch.float64).unproject(depth.double(), pixel_centre=pixel_centre)
    for i in range(depth.shape[0]):
        for j in range(depth.shape[1]):
            if depth[i, j] > 0 and depth[i, j].isfinite():
                pixel, z = target.to(torch.float64).project(points[i, j][None])
                if z[0] > 0:
                    yield i, j, float(pixel[0, 0]) - pixel_centre, float(pixel[0, 1]) - pixel_centre, float(z[0])


def soft_twin(values, depth, sources: Cameras, target: Cameras, sharpness: float, pixel_centre: float):
    """Every point is shared among the four pixels around it by bilinear weight over (1 + z)^sharpness."""
    sums = torch.zeros(values.shape[1] + 2, HEIGHT, WIDTH, dtype=torch.float64)
    for v in range(len(sources)):
        for i, j, x, y, z in landings(depth[v], sources[v], target, pixel_centre):
            for to_x in range(int(x // 1), int(x // 1) + 2):
                for to_y in range(int(y // 1), int(y // 1) + 2):
                    if 0 <= to_x < WIDTH and 0 <= to_y < HEIGHT:
                        weight = (1 - abs(x - to_x)) * (1 - abs(y - to_y)) / (1 + z) ** sharpness
                        payload = torch.cat([values[v, :, i, j], torch.tensor([z, 1.0])]).double()
                        sums[:, to_y, to_x] += weight * payload
    return sums[:-1] / sums[-1], sums[-1] > 0


def group_sharpness(depth, sources: Cameras, targets: Cameras, pixel_centre: float) -> float:
    highest = max(
        z
        for source, d in zip(sources, depth)
        for target in targets
        for *_, z in landings(d, source, target, pixel_centre)
    )
    return 50 / float(torch.log1p(torch.tensor(highest, dtype=torch.float64)))


@pytest.mark.parametrize("pixel_centre", [0.0, 0.5])
def test_soft_splatting_matches_its_twin(pixel_centre):
    sources, targets = cameras(2, seed=1), cameras(3, seed=2)
    values, depth = pictures(2, seed=3)
    warped = warp(values, depth, sources, targets, pixel_centre=pixel_centre, group=2, background=-1.0)
    for group in ([0, 1], [2]):
        sharpness = group_sharpness(depth, sources, targets[group], pixel_centre)
        for t in group:
            expected, known = soft_twin(values, depth, sources, targets[t], sharpness, pixel_centre)
            assert torch.equal(warped.known[t], known)
            torch.testing.assert_close(
                warped.values[t][:, known].double(), expected[:-1][:, known], atol=1e-4, rtol=0
            )  # float32
            torch.testing.assert_close(warped.depth[t][known].double(), expected[-1][known], atol=1e-4, rtol=0)
            assert (warped.values[t][:, ~known] == -1).all()
            assert (warped.depth[t][~known] == 0).all()


def nearest_twin(values, depth, sources: Cameras, target: Cameras, pixel_centre: float):
    """Points cover squares; of the points within 2 % of the nearest, the earliest source, then the closest wins."""
    covering: dict[tuple[int, int], list] = {}
    for v in range(len(sources)):
        focal = float(target.intrinsics[0, 0] / sources[v].intrinsics[0, 0])
        for i, j, x, y, z in landings(depth[v], sources[v], target, pixel_centre):
            half = min(max(1.3 * focal * float(depth[v, i, j]) / z, 1.0), 4.0) / 2
            for to_y in range(HEIGHT):
                for to_x in range(WIDTH):
                    if abs(to_x - x) <= half and abs(to_y - y) <= half:
                        entry = (v, (x - to_x) ** 2 + (y - to_y) ** 2, z, values[v, :, i, j])
                        covering.setdefault((to_y, to_x), []).append(entry)
    picture = torch.zeros(values.shape[1], HEIGHT, WIDTH)
    found = torch.zeros(HEIGHT, WIDTH)
    for (to_y, to_x), entries in covering.items():
        front = min(z for _, _, z, _ in entries)
        _, _, z, value = min((e for e in entries if e[2] <= front * 1.02), key=lambda e: e[:2])
        picture[:, to_y, to_x], found[to_y, to_x] = value, z
    return picture, found


@pytest.mark.parametrize("seed", [1, 2])
def test_nearest_splatting_matches_its_twin(seed):
    sources, targets = cameras(2, seed=seed), cameras(2, seed=seed + 10)
    values, depth = pictures(2, seed=seed)
    warped = warp(values, depth, sources, targets, mode="nearest")
    for t in range(2):
        expected, found = nearest_twin(values, depth, sources, targets[t], 0.5)
        same = (warped.values[t] == expected).all(0) & ((warped.depth[t] - found).abs() < 1e-5)
        assert same.float().mean() > 0.98  # two points may be equally close to a pixel up to rounding


@pytest.mark.parametrize("mode", ["soft", "nearest"])
def test_the_same_camera_gives_the_picture_back(mode):
    camera = cameras(1, seed=4, height=24, width=32)
    values, _ = pictures(1, seed=5, height=24, width=32)
    depth = 2 + 0.3 * torch.linspace(0, 1, 32).expand(1, 24, 32)
    warped = warp(values, depth, camera, camera, mode=mode)
    assert warped.known.all()
    torch.testing.assert_close(warped.values, values, atol=2e-3, rtol=0)
    torch.testing.assert_close(warped.depth, depth, atol=1e-4, rtol=0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_moving_the_whole_world_changes_nothing(seed):
    sources, targets, motion = cameras(2, seed), cameras(2, seed + 1), poses(1, seed + 2, spread=1.0)[0].inverse()
    values, depth = pictures(2, seed)
    first = warp(values, depth, sources, targets)
    moved = [Cameras(c.camera_from_world @ motion, c.intrinsics, HEIGHT, WIDTH) for c in (sources, targets)]
    second = warp(values, depth, *moved)
    same = first.known & second.known & ((first.depth - second.depth).abs() < 1e-3)
    assert same.sum() >= 0.98 * first.known.sum()  # rims of one point may appear or go
    assert (first.values - second.values).abs().amax(1)[same].median() < 1e-4


def test_the_nearer_surface_wins_whatever_the_order():
    camera = cameras(1, seed=6)
    near, far = torch.full((2, 1, HEIGHT, WIDTH), 1.0), torch.full((2, 1, HEIGHT, WIDTH), 0.0)
    values = torch.cat([near[:1], far[:1]])
    depth = torch.stack([torch.full((HEIGHT, WIDTH), 1.0), torch.full((HEIGHT, WIDTH), 3.0)])
    sources = camera[[0, 0]]
    for order in ([0, 1], [1, 0]):
        warped = warp(values[order], depth[order], sources, camera, mode="nearest")
        assert (warped.values == 1).all()
        torch.testing.assert_close(warped.depth, depth[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("forward", [0.8, 1.8])  # of 2.0: magnified 1.5 and 9 times
def test_nearest_leaves_no_cracks_when_walking_up_to_a_turned_wall(forward):
    source = Cameras.from_fov(torch.eye(4)[None], 65.0, 40, 60)
    pose = poses(1, seed=8, spread=0.15 * (2.0 - forward) / 1.2)
    pose[:, 2, 3] -= forward
    target = Cameras.from_fov(pose, 40.0, 20, 30)
    warped = warp(torch.rand(1, 3, 40, 60), torch.full((1, 40, 60), 2.0), source, target, mode="nearest")
    assert warped.known.all()


def test_nearest_gives_the_same_bits_with_any_number_of_threads():
    sources, targets = cameras(3, seed=1, height=30, width=40), cameras(4, seed=2, height=30, width=40)
    values, depth = pictures(3, seed=3, height=30, width=40)
    threads, results = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(warp(values, depth, sources, targets, mode="nearest"))
    torch.set_num_threads(threads)
    assert torch.equal(results[0].values, results[1].values)
    assert torch.equal(results[0].depth, results[1].depth)


@pytest.mark.parametrize("mode", ["soft", "nearest"])
def test_any_number_of_channels_and_any_choice_of_targets(mode):
    sources, targets = cameras(1, seed=1), cameras(5, seed=2)
    values, depth = torch.rand(1, 7, HEIGHT, WIDTH), pictures(1, seed=3)[1]
    whole = warp(values, depth, sources, targets, mode=mode)
    for channels in (0, 1, 3, 4):
        part = warp(values[:, :channels], depth, sources, targets, mode=mode, built=[1, 4])
        torch.testing.assert_close(part.values, whole.values[[1, 4], :channels], atol=1e-6, rtol=0)
        torch.testing.assert_close(part.depth, whole.depth[[1, 4]], atol=1e-6, rtol=0)
        assert torch.equal(part.known, whole.known[[1, 4]])


def test_nothing_known_gives_nothing():
    camera = cameras(1, seed=1)
    for mode in ("soft", "nearest"):
        warped = warp(torch.rand(1, 3, HEIGHT, WIDTH), torch.zeros(1, HEIGHT, WIDTH), camera, camera, mode=mode)
        assert not warped.known.any()
        assert (warped.depth == 0).all()


def test_composite_prefers_the_earlier_view_of_one_surface_and_shows_sky_behind_it():
    camera = Cameras.from_fov(torch.eye(4), 65.0, 24, 32)
    wall = torch.full((24, 32), 2.0)
    wall[:6] = torch.inf
    first = View(torch.full((3, 24, 32), 0.25), wall, camera, 0)
    second = View(torch.full((3, 24, 32), 0.75), wall, camera, 8)
    seen = composite([first, second], camera[None])
    assert seen.known.all()
    assert seen.sky[0, :5].all()
    assert not seen.sky[0, 8:].any()
    assert (seen.source[0, 8:] == 0).all()
    torch.testing.assert_close(seen.video[0], first.image)
    torch.testing.assert_close(seen.depth[0, 8:], wall[8:])


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0]])
def test_views_of_several_sizes_are_seen_as_those_of_one(order):
    """Three walls: the nearest is seen, of two that are as near the earlier one, and sky where there is none."""
    camera = Cameras.from_fov(torch.eye(4), 65.0, 24, 32)
    views = []
    for colour, depth, columns, scale in ((0.2, 2.0, 12, 1), (0.5, 2.0, 20, 2), (0.8, 5.0, 28, 4)):
        wall = torch.full((24 * scale, 32 * scale), torch.inf)
        wall[:, : columns * scale] = depth
        view = View(torch.full((3, *wall.shape), colour), wall, camera.resized(*wall.shape), len(views))
        views.append(view)
    seen = composite([views[i] for i in order], camera[None])
    columns = torch.arange(32)
    first = 0 if order.index(0) < order.index(1) else 1
    colour = torch.where(columns < 12, [0.2, 0.5][first], torch.where(columns < 20, 0.5, 0.8))
    colour = torch.where(columns >= 28, [0.2, 0.5, 0.8][order[0]], colour)  # sky
    torch.testing.assert_close(seen.video[0], colour.expand(3, 24, 32))
    depth = torch.where(columns < 20, 2.0, torch.where(columns < 28, 5.0, torch.inf))
    torch.testing.assert_close(seen.depth[0], depth.expand(24, 32))
    assert (seen.source[0, :, 22] == order.index(2)).all()


def plane_depth(camera: Cameras, normal: torch.Tensor, offset: float) -> torch.Tensor:
    """Depth [H, W] along +Z of the world's plane normal . x = offset."""
    centre, directions = camera.rays()
    distance = (offset - centre @ normal) / (directions @ normal)
    points = centre + distance[..., None] * directions
    return points @ camera.camera_from_world[2, :3] + camera.camera_from_world[2, 3]


def plane_view(normal: torch.Tensor, offset: float, camera: Cameras, frame: int) -> View:
    return View(torch.full((3, 24, 32), 0.5), plane_depth(camera, normal, offset), camera, frame)


@pytest.mark.parametrize("seed", range(4))
def test_depth_of_a_plane_stays_exact_from_view_to_view(seed):
    """A composite of a composite of a composite: what is carried from frame to frame does not grow steps."""
    normal = torch.nn.functional.normalize(torch.tensor([0.5, -0.6, 1.0]) + 0.1 * seed, dim=0)
    path = cameras(4, seed, height=24, width=32, spread=0.06)
    view = plane_view(normal, 3.0, path[0], 0)
    for frame in range(1, 4):
        seen = composite([view], path[frame][None])
        view = View(seen.video[0], seen.depth[0], path[frame], frame)
    inside = torch.zeros(24, 32, dtype=torch.bool)
    inside[5:-5, 5:-5] = True
    kept = inside & (view.depth > 0)
    error = (view.depth / plane_depth(path[3], normal, 3.0) - 1).abs()[kept]
    assert kept.sum() > 0.9 * inside.sum()
    assert error.median() < 1e-4
    assert error.quantile(0.9) < 2e-3


def test_facets_do_not_bridge_two_surfaces():
    camera = Cameras.from_fov(torch.eye(4), 65.0, 24, 32)
    depth = torch.full((24, 32), 4.0)
    depth[8:16, 10:20] = 2.0
    moved = Cameras.from_fov(poses(1, 3, spread=0.05)[0], 65.0, 24, 32)
    seen = composite([View(torch.rand(3, 24, 32), depth, camera, 0)], moved[None])
    points = moved.unproject(torch.where(seen.depth[0] > 0, seen.depth[0], 1.0))[seen.depth[0] > 0]
    assert torch.minimum((points[:, 2] - 2).abs(), (points[:, 2] - 4).abs()).max() < 1e-3


def test_rays_come_in_blocks_and_are_those_of_the_cameras():
    path = cameras(2, seed=9, height=8, width=12)
    blocks = ray_features(path, 4)
    assert blocks.shape == (6 * 16, 2, 2, 3)
    origins, directions = path.rays()
    unfolded = torch.nn.functional.pixel_shuffle(blocks.transpose(0, 1), 4)  # [2, 6, 8, 12]
    torch.testing.assert_close(unfolded[:, 3:], directions.permute(0, 3, 1, 2))
    torch.testing.assert_close(unfolded[:, :3], origins[:, :, None, None].expand(2, 3, 8, 12))
    with pytest.raises(ValueError, match="divisible"):
        ray_features(path, 5)


def test_reliable_depth_is_that_of_its_window():
    depth = torch.full((8, 9), 2.0)
    depth[:, 6:] = 3.0
    steady = reliable_depth(depth, ratio=0.05)
    assert steady[2:-2, 2:4].all()
    assert not steady[:, 4:8].any()


def test_published_masks_and_warps():
    golden = load_file(GOLDEN)
    size = golden["depth"].shape[-2:]
    depth = golden["depth"][:, 0]
    reliable = reliable_depth(depth, ratio=0.05)
    assert torch.equal(reliable, golden["reliable_005"][:, 0].bool())
    clean = torch.where(reliable, depth, 0.0)
    sources = Cameras(golden["w2c"], golden["K"].expand(3, 3, 3), *size)
    targets = Cameras(golden["tgt_w2c"], golden["K"].expand(4, 3, 3), *size)
    published = {"pixel_centre": 0.0, "background": -1.0, "invalid_at_origin": True}
    together = warp(golden["rgb"], clean, sources, targets, group=4, **published)
    torch.testing.assert_close(together.values, golden["v012_clean_img"], atol=1e-5, rtol=0)
    torch.testing.assert_close(together.depth, golden["v012_clean_depth"], atol=1e-5, rtol=0)
    alone = warp(golden["rgb"][:1], clean[:1], sources[:1], targets, group=1, **published)
    torch.testing.assert_close(alone.values, golden["v0_clean_img_chunk1"], atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU")
@pytest.mark.parametrize("mode", ["soft", "nearest"])
def test_a_gpu_gives_the_same_warps_and_rays(mode):
    sources, targets = cameras(2, seed=1, height=60, width=80), cameras(20, seed=2, height=60, width=80)
    values, depth = pictures(2, seed=3, height=60, width=80)
    here = warp(values, depth, sources, targets, mode=mode)
    there = warp(values.cuda(), depth.cuda(), sources.to("cuda"), targets.to("cuda"), mode=mode)
    assert (here.known == there.known.cpu()).float().mean() > 0.999
    assert ((here.values - there.values.cpu()).abs() < 1e-3).float().mean() > 0.99
    assert ((here.depth - there.depth.cpu()).abs() < 1e-3).float().mean() > 0.99
    torch.testing.assert_close(ray_features(targets.to("cuda"), 4).cpu(), ray_features(targets, 4), atol=1e-5, rtol=0)
