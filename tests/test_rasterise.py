"""The rasteriser against a twin that composites every Gaussian at every pixel with plain torch."""

import math
from dataclasses import replace

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_quaternion
from photowalk.kernels.project_gaussians import LOW_PASS, project
from photowalk.kernels.rasterise import SH_DC, assign_tiles, evaluate_harmonics, harmonics_basis, list_by_sorting
from photowalk.kernels.rasterise_lanes import SIDE
from photowalk.kernels.rasterise_tiles import ALPHA_MINIMUM, composite, share_out
from photowalk.kernels.tile_lists import list_by_counting, nearest_first, touched_tiles
from photowalk.scene.render import footprints, render, render_normals, visible
from photowalk.scene.types import Splats


def twin(splats: Splats, camera: Cameras):
    """Sort all Gaussians by depth and blend them at all pixels: the definition, without tiles or early stops."""
    pose, intrinsics = camera.camera_from_world, camera.intrinsics
    in_camera = splats.means @ pose[:3, :3].T + pose[:3, 3]
    z = in_camera[:, 2]
    pixels, _ = camera.project(splats.means)
    axes = rotation_from_quaternion(splats.rotations) @ torch.diag_embed(splats.scales)
    zero = torch.zeros_like(z)
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    rows = [fx / z, zero, -fx * in_camera[:, 0] / z**2, zero, fy / z, -fy * in_camera[:, 1] / z**2]
    spread = torch.stack(rows, -1).view(-1, 2, 3) @ pose[:3, :3] @ axes
    inverse = torch.linalg.inv(spread @ spread.mT + LOW_PASS * torch.eye(2))
    y, x = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    offset = torch.stack([x, y], -1)[:, :, None] - pixels  # [H, W, N, 2]
    weight = torch.exp(-0.5 * torch.einsum("hwni,nij,hwnj->hwn", offset, inverse, offset))
    alpha = (splats.opacities * weight).clamp_max(0.999)
    alpha = torch.where((alpha < 1 / 255) | (z <= 0.01), 0, alpha)
    order = torch.argsort(z, stable=True)
    alpha, z = alpha[..., order], z[order]
    directions = torch.nn.functional.normalize(splats.means - camera.centres, dim=-1)
    colours = evaluate_harmonics(splats.colours, directions)[order]
    light = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha], -1), -1)
    contribution = alpha * light[..., :-1]
    total = contribution.sum(-1)
    crossed = (light[..., 1:] <= 0.5).float()
    median = torch.where(crossed.any(-1), z[crossed.argmax(-1)], 0)
    return (contribution @ colours).movedim(-1, 0), median, (contribution @ z) / total.clamp_min(1e-6), total


def scene(count=60, degree=1, seed=0, opacity=0.6):
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    means = uniform(count, 3) * torch.tensor([3.0, 2.0, 3.0]) + torch.tensor([-1.5, -1.0, 2.0])
    return Splats(
        means=means,
        scales=0.02 + 0.2 * uniform(count, 3),
        rotations=torch.nn.functional.normalize(uniform(count, 4) - 0.5, dim=-1),
        opacities=opacity * (0.1 + 0.9 * uniform(count)),
        colours=uniform(count, (degree + 1) ** 2, 3) - 0.3,
    )


def camera(height=37, width=50):
    pose = torch.eye(4)
    angle = 0.2
    pose[:3, :3] = torch.tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    pose[:3, 3] = torch.tensor([0.1, -0.1, 0.3])
    return Cameras.from_fov(pose, 70.0, height, width)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_image_depth_and_alpha_agree_with_the_twin(degree):
    splats = scene(degree=degree)
    rendered, (image, median, expected, alpha) = render(splats, camera()), twin(splats, camera())
    assert torch.allclose(rendered.image, image, atol=2e-5)
    assert torch.allclose(rendered.alpha, alpha, atol=2e-5)
    assert torch.allclose(rendered.expected_depth, expected, atol=2e-4)
    assert (rendered.depth - median).abs().gt(
        1e-4
    ).float().mean() < 0.002  # a crossing at exactly one half may go either way


def test_threads_do_not_change_the_picture():
    splats, before = scene(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = render(splats, camera()).image
        torch.set_num_threads(3)
        assert torch.equal(render(splats, camera()).image, one)
    finally:
        torch.set_num_threads(before)


def test_gradients_agree_with_the_twin():
    names = ("means", "scales", "rotations", "opacities", "colours")
    weights = torch.randn(5, 37, 50, generator=torch.Generator().manual_seed(3))
    gradients = []
    for renderer in (lambda s: render(s, camera()), lambda s: twin(s, camera())):
        base = scene(count=40)
        leaves = [getattr(base, name).clone().requires_grad_() for name in names]
        out = renderer(Splats(*leaves))
        image, expected, alpha = (
            (out.image, out.expected_depth, out.alpha) if hasattr(out, "image") else (*out[::2], out[3])
        )
        loss = (weights[:3] * image).sum() + (weights[3] * expected * alpha.detach()).sum() + (weights[4] * alpha).sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for name, ours, theirs in zip(names, *gradients):
        assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max(), name


def test_an_opaque_wall_hides_what_is_behind_and_leaves_nothing_of_the_background():
    y, x = torch.meshgrid(torch.linspace(-3, 3, 61), torch.linspace(-3, 3, 61), indexing="ij")
    near = torch.stack([x, y, torch.full_like(x, 2.0)], -1).view(-1, 3)
    means = torch.cat([near + torch.tensor([0, 0, 1.0]), near])
    count = len(near)
    colours = torch.zeros(2 * count, 1, 3)
    colours[:count, 0, 0], colours[count:, 0, 1] = 0.5 / SH_DC, 0.5 / SH_DC
    quaternions = torch.tensor([1.0, 0, 0, 0]).expand(2 * count, 4)
    splats = Splats(means, torch.full((2 * count, 3), 0.1), quaternions, torch.full((2 * count,), 0.98), colours)
    rendered = render(splats, Cameras.from_fov(torch.eye(4), 60.0, 24, 32), background=torch.tensor([0.0, 0.0, 1.0]))
    assert (rendered.image - torch.tensor([0.5, 1.0, 0.5])[:, None, None]).abs().max() < 0.01
    assert (rendered.depth - 2).abs().max() < 1e-4
    assert rendered.alpha.min() > 0.99


def test_nothing_in_view_shows_the_background():
    splats = scene()
    behind = Splats(
        splats.means - torch.tensor([0, 0, 20.0]), splats.scales, splats.rotations, splats.opacities, splats.colours
    )
    rendered = render(behind, camera(), background=torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(rendered.image, torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(3, 37, 50))
    assert not rendered.depth.any()


def test_a_path_is_its_cameras_one_by_one():
    splats, one = scene(), camera()
    path = Cameras(one.camera_from_world.expand(2, 4, 4), one.intrinsics.expand(2, 3, 3), one.height, one.width)
    assert torch.equal(render(splats, path).image[1], render(splats, one).image)


def test_harmonics_are_orthonormal_and_bad_counts_refused():
    points = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    basis = harmonics_basis(points, 16)
    gram = 4 * math.pi * basis.T @ basis / len(points)
    assert torch.allclose(gram, torch.eye(16), atol=0.02)
    with pytest.raises(ValueError, match="1, 4, 9 or 16"):
        evaluate_harmonics(torch.zeros(2, 5, 3), points[:2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    splats = scene()
    on_gpu = Splats(
        *(getattr(splats, name).cuda() for name in ("means", "scales", "rotations", "opacities", "colours"))
    )
    assert torch.allclose(render(on_gpu, camera()).image.cpu(), render(splats, camera()).image, atol=1e-5)


def test_normals_of_a_tilted_wall_face_the_camera():
    y, x = torch.meshgrid(torch.linspace(-4, 4, 81), torch.linspace(-4, 4, 81), indexing="ij")
    angle = math.radians(30)  # about the x axis
    means = torch.stack([x, y * math.cos(angle), 4 + y * math.sin(angle)], dim=-1).view(-1, 3)
    count = len(means)
    wall = Splats(
        means=means,
        scales=torch.tensor([0.1, 0.1, 0.01]).expand(count, 3),
        rotations=torch.tensor([math.cos(angle / 2), math.sin(angle / 2), 0, 0]).expand(count, 4),
        opacities=torch.full((count,), 0.9),
        colours=torch.zeros(count, 1, 3),
    )
    normals = render_normals(wall, Cameras.from_fov(torch.eye(4), 50.0, 20, 30))
    expected = torch.tensor([0, math.sin(angle), -math.cos(angle)])
    assert torch.allclose(normals, expected[:, None, None].expand_as(normals), atol=1e-4)
    assert not render_normals(wall[means[:, 2] < 0], Cameras.from_fov(torch.eye(4), 50.0, 20, 30)).any()


def test_counting_lists_boxes_as_sorting_does():
    random = torch.Generator().manual_seed(2)
    low = torch.stack(
        [torch.randint(0, 9, (500,), generator=random), torch.randint(0, 6, (500,), generator=random)], -1
    )
    high = low + torch.randint(1, 4, (500, 2), generator=random)
    order = torch.randperm(500, generator=random).int()
    boxes = (order, low.int(), high.minimum(torch.tensor([9, 6])).int(), 9, 6)
    for counted, sorted_ in zip(list_by_counting(*boxes), list_by_sorting(*boxes), strict=True):
        assert torch.equal(counted, sorted_)


def test_boxes_touch_the_tiles_that_hold_a_part_of_them():
    random = torch.Generator().manual_seed(6)
    centres = torch.rand(300, 2, generator=random) * 80 - 20
    extents = torch.rand(300, 2, generator=random) * 9
    low, high, touching = touched_tiles(centres, extents, 5, 3, 8)
    tiles = torch.tensor([5, 3])
    first, last = ((centres - extents) / 8).floor().clamp_min(0), ((centres + extents) / 8).floor().minimum(tiles - 1)
    assert torch.equal(touching, (last >= first).all(-1))
    assert touching.any()
    assert not touching.all()
    assert torch.equal(low[touching], first[touching].int())
    assert torch.equal(high[touching], last[touching].int() + 1)


def test_the_nearest_come_first_and_equal_ones_in_their_order():
    depths = torch.tensor([2.0, 1e-3, 7e8, 2.0, 0.5, 2.0])
    assert nearest_first(depths, torch.tensor([0, 1, 2, 3, 5])).tolist() == [1, 0, 3, 5, 2]
    assert nearest_first(depths, torch.tensor([], dtype=torch.int64)).tolist() == []


def test_what_is_left_out_leaves_no_trace():
    splats, view = scene(count=2000), camera()
    random = torch.Generator().manual_seed(7)
    everywhere = replace(
        splats,
        means=8 * torch.randn(len(splats), 3, generator=random),
        opacities=torch.rand(len(splats), generator=random) ** 4,
    )
    kept = visible(everywhere, view)
    pixels, depth = view.project(everywhere.means[kept])
    assert 100 < len(kept) < 1000
    assert (depth > 0).all()
    assert (everywhere.opacities[kept] >= ALPHA_MINIMUM).all()
    pixels, depth = view.project(everywhere.means)
    inside = ((pixels > 0) & (pixels < torch.tensor([view.width, view.height]))).all(-1)
    shown = (depth > 0.01) & inside & (everywhere.opacities >= ALPHA_MINIMUM)
    assert set(torch.nonzero(shown).squeeze(1).tolist()) <= set(kept.tolist())


def test_gathering_is_the_adjoint_of_blending():
    splats, view = scene(opacity=0.99), camera()
    splats = splats[visible(splats, view)]
    covered = footprints(splats, view)
    colours = torch.rand(len(splats), 3).requires_grad_()
    values = torch.rand(view.height, view.width, 4) - 0.5
    (slope,) = torch.autograd.grad(covered.blend(colours)[0], colours, grad_outputs=values[..., :3])
    gathered = covered.gather(values)
    torch.testing.assert_close(gathered[:, :3], slope, rtol=1e-4, atol=1e-5)
    alpha = covered.blend(colours)[1]
    torch.testing.assert_close((gathered[:, 3]).sum(), (alpha * values[..., 3]).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("opacity", "size"), [(0.3, (37, 50)), (1.0, (37, 50)), (1.0, (3, 2))])
def test_lanes_of_a_register_give_what_threads_of_a_pixel_each_give(opacity, size):
    """On a CPU tiles of SIDE go to one kind of kernel and all others to the other."""
    splats, view = scene(count=300, opacity=opacity), camera(*size)
    splats = splats[visible(splats, view)]
    gaussians = (splats.means, splats.rotations, splats.scales, splats.opacities)
    shape = (view.height, view.width)
    centres, conics, depths, extents = project(
        *gaussians, view.camera_from_world, view.intrinsics, *shape, ALPHA_MINIMUM
    )
    random = torch.Generator().manual_seed(3)
    features = torch.cat([torch.rand(len(splats), 3, generator=random), depths[:, None]], 1)
    by_blended, by_transmittance = torch.rand(*shape, 4, generator=random) - 0.5, torch.rand(shape, generator=random)
    results = []
    for side in (SIDE, 16):
        tiles = assign_tiles(centres, extents, depths, *shape, side)
        inputs = [part.clone().requires_grad_() for part in (centres, conics, splats.opacities, features)]
        blended, transmittance, median = composite(*inputs, tiles)
        slopes = torch.autograd.grad([blended, transmittance], inputs, [by_blended, by_transmittance])
        shared = share_out(centres, conics, splats.opacities, by_blended, tiles)
        results.append((blended, transmittance, median, *slopes, shared))
    for lanes, threads in zip(*results, strict=True):
        assert threads.abs().max() > 0
        torch.testing.assert_close(lanes, threads, rtol=1e-4, atol=1e-5)


def test_rows_are_those_of_plain_indexing_and_masks_have_to_fit():
    splats = scene(count=9)
    mask = splats.opacities > splats.opacities.median()
    for index in (mask, torch.tensor([7, 0, 7]), slice(2, 5)):
        for name, values in vars(splats).items():
            assert torch.equal(getattr(splats[index], name), values[index])
    with pytest.raises(IndexError, match="a mask of 9 rows"):
        splats[mask[:4]]
