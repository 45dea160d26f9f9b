"""Reconstruction of a room that is known exactly."""

import math
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from rooms import ROOM, in_between, look, path, seen_from, walk

from photowalk.evaluate.images import psnr
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import look_at
from photowalk.reconstruct import closed_from_nearer, fit_colours, reconstruct, refine, write_preview
from photowalk.reconstruct.complete import close_gaps, complete
from photowalk.reconstruct.corrections import evenly_spread
from photowalk.reconstruct.fuse import Fused, add_view, drop_floaters, views_with_depth
from photowalk.reconstruct.landing import FreeSpace
from photowalk.reconstruct.lift import PixelAligned, lift
from photowalk.reconstruct.photometric import exposure_gain, ssim
from photowalk.reconstruct.simplify import neighbours, simplify
from photowalk.reconstruct.windows import batches
from photowalk.scene.render import render, visible
from photowalk.scene.surfaces import surface_of
from photowalk.scene.types import Clip, Scene, Splats, View


def test_views_in_between_look_like_the_room():
    clip = walk()
    scene = reconstruct([clip])
    assert scene.sky is None
    assert len(scene.splats) < 0.5 * clip.depth.numel()  # what frames agree on is described once
    cameras, truth = in_between(clip)
    rendered = render(scene.splats, cameras)
    assert psnr(rendered.image, truth).min() > 24
    assert rendered.alpha.mean() > 0.98


def test_a_close_up_of_the_first_view_shows_more_of_the_room():
    clip = walk(size=(32, 56))
    larger = clip.cameras.resized(128, 224)
    truth, depth = look(larger[0])
    close_up = View(F.avg_pool2d(truth[None], 2)[0], depth[::2, ::2], clip.cameras[0].resized(64, 112), 0)
    shown = {}
    for name, more in (("plain", None), ("closer", close_up)):
        scene = closed_from_nearer(reconstruct([clip], close_up=more))
        shown[name] = [psnr(render(scene.splats, larger[k]).image, look(larger[k])[0]) for k in (0, 4)]
    assert shown["closer"][0] > shown["plain"][0] + 1.5
    assert shown["closer"][1] > shown["plain"][1]


def test_normals_and_footprints_of_a_slanted_plane():
    camera = Cameras.from_fov(torch.eye(4), 60.0, 20, 30)
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 1.0]), dim=0)
    _, rays = camera.rays()
    depth = 2 / (rays @ normal) * rays[..., 2]
    surface = surface_of(depth, camera)
    assert surface.valid.all()
    assert torch.allclose(surface.normals, normal.expand(20, 30, 3), atol=1e-3)
    assert torch.allclose(surface.slant, rays @ normal, atol=1e-3)
    splats = lift(torch.rand(3, 20, 30), surface, camera, surface.valid)
    assert (splats.scales[:, 2] < 0.3 * splats.scales[:, 1]).all()


def test_ramps_between_surfaces_are_dropped_but_crisp_edges_stay():
    camera = Cameras.from_fov(torch.eye(4), 60.0, 20, 60)
    crisp = torch.full((20, 60), 4.0)
    crisp[:, :30] = 2
    assert surface_of(crisp, camera).valid.all()
    blurred = crisp.clone()
    blurred[:, 28:32] = torch.tensor([2.4, 2.8, 3.2, 3.6])
    valid = surface_of(blurred, camera).valid
    assert not valid[:, 29:31].any()
    assert valid[:, :27].all()
    assert valid[:, 34:].all()


def test_floaters_are_voted_out():
    clip = walk(5)
    scene = reconstruct([clip])
    some = scene.splats[::50]
    centre = clip.cameras.centres.mean(0)
    floating = Splats(centre + 0.4 * (some.means - centre), some.scales, some.rotations, some.opacities, some.colours)
    both = drop_floaters(Fused.of(Splats.cat([scene.splats, floating])), views_with_depth([clip])).splats
    assert len(scene.splats) <= len(both) + 5
    assert len(both) <= len(scene.splats) + 0.05 * len(floating)


def test_views_of_long_ago_vote_floaters_out_that_no_later_view_sees_through():
    clip = walk(5)
    scene, views = reconstruct([clip]), views_with_depth([clip])
    some = scene.splats[::50]
    centre = clip.cameras.centres.mean(0)
    floating = Splats(centre + 0.4 * (some.means - centre), some.scales, some.rotations, some.opacities, some.colours)
    both = Fused.of(Splats.cat([scene.splats, floating]))
    left = drop_floaters(both, [], long_ago=[FreeSpace.of(view) for view in views]).splats
    assert len(left) >= 0.99 * len(scene.splats)
    assert len(left) <= len(scene.splats) + 0.05 * len(floating)


def test_exact_depth_is_not_scaled_view_by_view():
    """A low camera that looks along the floor: slopes are rendered half a pixel off, and must not shrink the views."""
    steps = torch.linspace(0, 1, 12)
    eyes = torch.stack([0.2 * torch.sin(4 * steps), 0.7 + 0 * steps, 3 * steps - 0.8], dim=-1)
    cameras = Cameras.from_fov(look_at(eyes, eyes + torch.tensor([0.0, 0.25, 1.0])), 60.0, 48, 72)
    fused = Fused.nothing()
    for frame, camera in enumerate(cameras):
        view = View(*look(camera), camera, frame)
        fused, added = add_view(fused, view)
        assert torch.equal(added.depth, view.depth)


def test_sky_goes_to_a_dome():
    clip = walk(5, roofless=True)
    scene = reconstruct([clip])
    assert scene.splats.means[:, 1].min() > ROOM[0, 1] - 0.05
    assert scene.sky is not None
    assert scene.sky.means.norm(dim=-1).min() > 10
    sky = torch.isinf(clip.depth[2])
    image = render(scene.everything, clip.cameras[2]).image
    error = (image - torch.tensor([0.4, 0.6, 1.0])[:, None, None]).abs().amax(0)[sky]
    assert error.median() < 0.02
    assert psnr(image, clip.video[2]) > 24


def test_a_closer_look_replaces_coarse_splats():
    far, near = path(2)
    near = Cameras(look_at(torch.tensor([1.2, 0.0, 3.8]), torch.tensor([1.2, 0.0, 5.0])), near.intrinsics, 64, 112)
    views = [View(*look(camera), camera, frame) for frame, camera in enumerate((far, near))]
    scene, without = reconstruct(views), reconstruct(views[:1])
    truth = look(near)[0]
    assert psnr(render(scene.splats, near).image, truth) > psnr(render(without.splats, near).image, truth) + 3


def test_budget_is_kept_and_the_picture_stays_alike():
    """Although it is reached again and again: of what was merged, fine splats are not added anew by every frame."""
    clip = walk(24)
    scene, whole = reconstruct([clip], budget=2000), reconstruct([clip])
    assert 1900 < len(scene.splats) <= 2000 < len(whole.splats) / 5
    cameras, truth = in_between(clip)
    fewer, all_ = (psnr(render(each.splats, cameras).image, truth).mean() for each in (scene, whole))
    assert fewer > all_ - 2.5


def test_merging_keeps_moments():
    splats = reconstruct([walk(2)]).splats[:500]
    one = simplify(splats, 1)
    weight = splats.opacities * splats.scales[:, 0] * splats.scales[:, 1]
    assert len(one) == 1
    assert torch.allclose(one.means[0], (weight[:, None] * splats.means).sum(0) / weight.sum(), atol=1e-3)


def test_frames_without_depth_are_passed_over_and_none_at_all_is_an_error():
    clip = walk(4)
    depth = clip.depth.clone()
    depth[1::2] = 0
    partial = Clip(clip.video, clip.cameras, depth)
    assert [view.frame for view in views_with_depth([partial, partial])] == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="no frame of this walk has depth"):
        reconstruct([Clip(clip.video, clip.cameras)])
    with pytest.raises(ValueError, match="all sky"):
        reconstruct([Clip(clip.video, clip.cameras, torch.full_like(depth, torch.inf))])


def test_preview_writes_a_video_and_a_picture(tmp_path):
    clip = walk(3)
    scene: Scene = reconstruct([clip])
    write_preview(scene, path(13), video=tmp_path / "preview.mp4", picture=tmp_path / "preview.png", every=2)
    assert (tmp_path / "preview.mp4").stat().st_size > 1000
    assert (tmp_path / "preview.png").stat().st_size > 1000


def test_fitted_colours_bring_unseen_frames_closer_and_change_nothing_else():
    clip = walk(roofless=True)
    scene = reconstruct([clip])
    cameras, _ = in_between(clip)
    truth = seen_from(cameras, roofless=True).video
    told = []
    fitted = fit_colours(scene, [clip[:4], clip[4:]], frames=len(clip), on_step=lambda *step: told.append(step))
    before, after = (psnr(render(of.everything, cameras).image, truth).mean() for of in (scene, fitted))
    assert after > before + 2
    for old, new in ((scene.splats, fitted.splats), (scene.sky, fitted.sky)):
        kept = ("means", "scales", "rotations", "opacities")
        assert all(torch.equal(getattr(old, name), getattr(new, name)) for name in kept)
    assert told[-1] == (len(told), len(told))


def nearer(camera, times=3):
    """A camera at the same place with more pixels for what it sees."""
    intrinsics = camera.intrinsics.clone()
    intrinsics[:2] *= times
    return replace(camera, intrinsics=intrinsics, height=times * camera.height, width=times * camera.width)


@pytest.mark.parametrize("ratio", [1, 2])
def test_no_gaps_open_between_splats_in_a_picture_of_more_pixels(ratio):
    clip, lifter = walk(), PixelAligned(ratio)
    scene, camera = reconstruct([clip], lifter=lifter), nearer(clip.cameras[3])
    closed = closed_from_nearer(scene, ratio=ratio)
    before, after = (render(of.everything, camera).alpha for of in (scene, closed))
    assert float((before < 0.9).float().mean()) > 0.02
    assert float((after < 0.9).float().mean()) < 0.2 * float((before < 0.9).float().mean())
    refined = refine(lambda _: scene, lambda: [clip], frames=len(clip), steps=8, lifter=lifter)
    assert bool((refined.scene.splats.scales >= 0.999 * closed.splats.scales).all())


def test_fitted_colours_hardly_follow_a_frame_of_elsewhere_or_of_other_exposure():
    clip = walk()
    scene = reconstruct([clip])
    cameras, truth = in_between(clip)
    whole = fit_colours(scene, [clip], frames=len(clip))
    video = clip.video.clone()
    video[5] = 1 - video[5].flip(-1)
    video[2] *= 0.8
    spoilt = Clip(video, clip.cameras, clip.depth)
    fitted = fit_colours(scene, [spoilt], frames=len(clip))
    plain, best, after = (psnr(render(of.splats, cameras).image, truth).mean() for of in (scene, whole, fitted))
    assert best - 1 < after
    assert plain + 2 < after


def test_refining_brings_unseen_frames_closer():
    clip = walk()
    scene = reconstruct([clip], budget=6000)
    cameras, truth = in_between(clip)
    fitted = refine(lambda _: scene, lambda: [clip[:4], clip[4:]], frames=len(clip), steps=40).scene
    before, after = (psnr(render(of.splats, cameras).image, truth).mean() for of in (scene, fitted))
    assert len(fitted.splats) == len(scene.splats)
    assert after > before + 0.5


def test_refining_survives_a_frame_that_shows_no_splat():
    clip = walk()
    scene = reconstruct([clip[:4]], budget=2000)
    cameras = clip.cameras.camera_from_world.clone()
    cameras[-1] = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])) @ cameras[-1]
    turned_away = Clip(clip.video, replace(clip.cameras, camera_from_world=cameras), clip.depth)
    assert len(visible(scene.everything, turned_away.cameras[-1])) == 0
    fitted = refine(lambda _: scene, lambda: [turned_away], frames=len(clip), steps=2 * len(clip)).scene
    assert all(bool(value.isfinite().all()) for value in vars(fitted.splats).values())


def test_refining_is_not_led_astray_by_a_frame_of_elsewhere():
    clip = walk()
    video = clip.video.clone()
    video[4] = 1 - video[4].flip(-1)
    spoilt = Clip(video, clip.cameras, clip.depth)
    scene = reconstruct([clip], budget=6000)
    cameras, truth = in_between(clip)
    fitted = refine(lambda _: scene, lambda: [spoilt], frames=len(clip), steps=40).scene
    assert (
        psnr(render(fitted.splats, cameras).image, truth).mean()
        > psnr(render(scene.splats, cameras).image, truth).mean() - 0.3
    )


@pytest.mark.parametrize(("count", "frames"), [(5, 20), (20, 20), (7, 3), (1, 1)])
def test_frames_are_visited_evenly(count, frames):
    chosen = evenly_spread(count, frames, 0.9)
    assert len(chosen) == count
    assert all(0 <= frame < frames for frame in chosen)
    times = [chosen.count(frame) for frame in range(frames)]
    assert max(times) - min(times) <= 1


def test_views_of_other_exposure_and_scale_do_not_show():
    clip = walk()
    factors = 1 + 0.12 * torch.sin(torch.arange(len(clip)) * 2.0)
    factors[0] = 1
    video = (clip.video * factors[:, None, None, None]).clamp(0, 1)
    depth = clip.depth * (1 + 0.3 * (factors - 1))[:, None, None]
    cameras, truth = in_between(clip)
    drifting = render(reconstruct([Clip(video, clip.cameras, depth)]).splats, cameras).image
    assert psnr(drifting, truth).mean() > 24


def test_unknown_depth_may_be_nan():
    clip = walk(4)
    depth = clip.depth.clone()
    depth[1] = torch.nan
    depth[2, 10:20] = torch.nan
    depth[3, :5] = -1
    scene = reconstruct([Clip(clip.video, clip.cameras, depth)])
    assert all(bool(part.isfinite().all()) for part in vars(scene.splats).values())
    assert psnr(render(scene.splats, clip.cameras[0]).image, clip.video[0]) > 24
    with pytest.raises(ValueError, match="no frame of this walk has depth"):
        reconstruct([Clip(clip.video, clip.cameras, torch.full_like(depth, torch.nan))])


def still(count):
    one = path(1)
    return Cameras(one.camera_from_world.expand(count, 4, 4), one.intrinsics.expand(count, 3, 3), 64, 112)


def dolly(count):
    centres = torch.zeros(count, 3)
    centres[:, 2] = torch.linspace(0, 1.2, count)
    return Cameras.from_fov(look_at(centres, centres + torch.tensor([0, 0, 1.0])), 75.0, 64, 112)


def turn(count):
    angles = torch.linspace(0, 2 * math.pi, count)
    targets = torch.stack([angles.sin(), torch.zeros(count), angles.cos()], dim=-1)
    return Cameras.from_fov(look_at(torch.zeros(count, 3), targets), 75.0, 64, 112)


@pytest.mark.parametrize("cameras", [still(6), still(1), dolly(6), turn(16)], ids=["still", "one", "dolly", "turn"])
def test_paths_that_tell_nothing_of_depth_give_a_sane_scene(cameras):
    images, depths = zip(*(look(camera) for camera in cameras))
    scene = reconstruct([Clip(torch.stack(images), cameras, torch.stack(depths))])
    assert (scene.splats.means < ROOM[1] + 0.05).all()
    assert (scene.splats.means > ROOM[0] - 0.05).all()
    rendered = render(scene.splats, cameras)
    assert psnr(rendered.image, torch.stack(images)).min() > 25
    assert rendered.alpha.mean() > 0.98


def test_the_length_of_a_walk_costs_no_memory():
    """3,000 frames that exist only while they are read, 60 of them with depth, which makes several windows."""
    alive, most, made = set(), 0, 0
    cameras = path(9, 16, 24)
    shown = [look(camera) for camera in cameras]

    def clips():
        nonlocal most, made
        for _ in range(60):
            video = shown[made % 9][0].expand(50, 3, 16, 24)
            depth = torch.zeros(50, 16, 24)
            depth[49] = shown[made % 9][1]
            clip = Clip(video, cameras[[made % 9] * 50], depth)
            alive.add(made)
            weakref.finalize(clip, alive.discard, made)
            made += 1
            most = max(most, len(alive))
            yield clip
            del clip

    scene = reconstruct(clips(), budget=2000)
    assert made == 60
    assert most <= 3
    assert 100 < len(scene.splats) <= 2000


def test_holes_in_the_depth_are_filled_from_around_them():
    clip = walk(5)
    depth = clip.depth.clone()
    depth[:, 20:40, 60:80] = 0  # a blind spot that goes with the camera, as a depth camera's
    depth[:, :, :12] = 0
    scene = reconstruct([Clip(clip.video, clip.cameras, depth)])
    rendered = render(scene.splats, clip.cameras)
    assert rendered.alpha.mean() > 0.98
    assert psnr(rendered.image, clip.video).min() > 22


def test_lines_without_depth_are_closed_but_holes_and_edges_are_not():
    plane = 1 / (0.5 + 0.002 * torch.arange(30.0)[:, None] + 0.004 * torch.arange(40.0))
    depth = plane.clone()
    depth[5, :8], depth[:, 9:11] = 0, 0
    assert torch.allclose(close_gaps(depth), plane)
    depth[12:20, 20:30] = 0
    closed = close_gaps(depth)
    assert (closed[14:18, 22:28] == 0).all()
    assert torch.equal(closed[depth > 0], depth[depth > 0])
    edge = torch.full((8, 9), 2.0)
    edge[:, 4], edge[:, 5:] = 0, 4
    assert torch.equal(close_gaps(edge), edge)
    sky = torch.full((8, 9), torch.inf)
    sky[4] = 0
    assert torch.equal(close_gaps(sky), sky)


def test_no_more_is_merged_than_must_be_and_plain_places_first():
    splats = reconstruct([walk(2)]).splats
    grey = (splats.means[:, 0] > 0)[:, None, None]
    splats = Splats(*(getattr(splats, name) for name in ("means", "scales", "rotations", "opacities")),
                    torch.where(grey, 0.1, splats.colours))  # fmt: skip
    budget = int(0.8 * len(splats))
    group = neighbours(splats, budget, splats.scales[:, 1], torch.ones(len(splats)))
    assert budget - 8 < int(group.max()) + 1 <= budget
    merged = torch.bincount(group)[group] > 1
    assert merged[grey.flatten()].float().mean() > 2 * merged[~grey.flatten()].float().mean()


def test_what_has_gaps_is_merged_last():
    """Leaves before a sky: one splat for several would hide what is seen between them."""
    apart = torch.linspace(0, 1, 33)
    dense, sparse = (torch.cartesian_prod(side, side) for side in (apart, apart[::2]))
    places = torch.cat([dense, sparse + torch.tensor([4.0, 0.0])])
    count, gaps = len(places), torch.arange(len(places)) >= len(dense)
    splats = Splats(
        torch.cat([places, torch.ones(count, 1)], dim=-1),
        (apart[1] / 2 * torch.tensor([1.0, 1.0, 0.15])).expand(count, 3),
        torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4),
        torch.full((count,), 0.98),
        torch.zeros(count, 1, 3),
    )
    group = neighbours(splats, count // 2, 2 * splats.scales[:, 1], torch.ones(count))
    merged = torch.bincount(group)[group] > 1
    assert not merged[gaps].any()
    assert merged[~gaps].float().mean() > 0.6


def test_speckles_of_another_exposure_are_blended_in():
    """A place that was seen in turns through a screen of dots: each view adds what the one before did not show."""
    clip = walk(1)
    count = 8
    depth = clip.depth.expand(count, -1, -1).clone()
    dots = torch.rand(depth.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.5
    depth[0, dots], depth[1:, ~dots] = 0, 0
    video = clip.video.expand(count, -1, -1, -1).clone()
    video[0] *= 0.9
    cameras = clip.cameras[[0] * count]
    scene = reconstruct([Clip(video, cameras, depth)])
    picture = render(scene.splats, cameras[0]).image
    difference = (picture - clip.video[0]).mean(0)
    assert (difference[dots].mean() - difference[~dots].mean()).abs() < 0.02


def test_what_is_known_stays_when_depth_is_completed():
    depth = torch.rand(13, 22, generator=torch.Generator().manual_seed(0)) + 1
    known = depth > 1.8
    completed = complete(depth, known)
    assert torch.allclose(completed[known], depth[known])
    assert completed.min() >= depth[known].min() - 1e-5
    assert completed.max() <= depth[known].max() + 1e-5
    assert not complete(depth, torch.zeros_like(known)).any()


def test_structural_similarity_and_gain_by_axioms():
    picture = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ssim(picture, picture), torch.ones(2))
    assert (ssim(picture, 1 - picture) < 0).all()
    colours = 0.1 + 0.4 * picture.flatten(2)[0].T
    gain = torch.tensor([1.1, 0.9, 1.3])
    assert torch.allclose(exposure_gain(colours * gain, colours), gain)
    assert torch.equal(exposure_gain(colours[:20] * gain, colours[:20]), torch.ones(3))  # too few to tell


def test_a_stream_is_batched_whole_and_in_order():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []
