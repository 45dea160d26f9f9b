"""Cameras that are off are mended by what the frames show; those that are exact stay."""

from dataclasses import replace

import pytest
import torch
from rooms import in_between, path, walk

from photowalk.evaluate.images import psnr
from photowalk.geometry.motions import motion, rotation_from_vector
from photowalk.presets.nano import trained_splat_head
from photowalk.reconstruct import reconstruct, refine
from photowalk.reconstruct.camera_step import as_splats, lay_on, pixels_between
from photowalk.reconstruct.corrections import EXACT, Corrections, Track, frames_of, move_between
from photowalk.reconstruct.learnt_lift import LearntLift
from photowalk.reconstruct.lift import PixelAligned
from photowalk.scene.render import render


def shaken(cameras, seed=0, turn=0.02, shift=0.02):
    """The cameras, the first apart, each turned by some `turn` radians and moved by some `shift`."""
    generator = torch.Generator().manual_seed(seed)
    turns, shifts = (size * torch.randn(len(cameras), 3, generator=generator) for size in (turn, shift))
    turns[0], shifts[0] = 0, 0
    moves = motion(rotation_from_vector(turns), shifts)
    return replace(cameras, camera_from_world=moves @ cameras.camera_from_world)


@pytest.fixture(scope="module")
def exact():
    clip = walk(9)
    return clip, reconstruct([clip])


def test_a_camera_comes_back_to_where_its_picture_was_taken(exact):
    clip, scene = exact
    off = shaken(clip.cameras)
    for frame in (2, 6):
        truth = clip.cameras[frame]
        image, shown = as_splats(clip.view(frame), PixelAligned())
        laid, kept = (lay_on(scene.splats, start, image, shown=shown) for start in (off[frame], truth))
        assert pixels_between(truth, off[frame], scene.splats) > 0.7
        assert pixels_between(truth, laid, scene.splats) < 0.2
        assert pixels_between(truth, kept, scene.splats) < 0.15
        raw = lay_on(scene.splats, truth, clip.video[frame])
        assert pixels_between(truth, raw, scene.splats) < 0.8  # fresh splats look shifted


def test_a_picture_of_elsewhere_moves_no_camera(exact):
    clip, scene = exact
    camera, noise = clip.cameras[3], torch.rand(clip.video[3].shape, generator=torch.Generator().manual_seed(0))
    assert pixels_between(camera, lay_on(scene.splats, camera, noise), scene.splats) < 8
    behind = replace(camera, camera_from_world=torch.diag(torch.tensor([-1.0, 1, -1, 1])))
    assert lay_on(scene.splats[:0], behind, noise) is behind  # nothing is rendered


def test_refining_mends_cameras_that_are_off(exact):
    clip, scene = exact
    off = replace(clip, cameras=shaken(clip.cameras))[:7]
    made = refine(lambda clips: reconstruct(clips, budget=5000), lambda: [off[:4], off[4:]], frames=7, steps=8)
    cameras, truth = in_between(clip)
    blurred = render(reconstruct([off], budget=5000).splats, cameras).image
    mended = render(made.scene.splats, cameras).image
    assert psnr(mended, truth).mean() > psnr(blurred, truth).mean() + 1.5

    def error(cameras):
        return sum(pixels_between(clip.cameras[frame], cameras[frame], scene.splats) for frame in range(7)) / 7

    corrected = [made.corrections.camera(off.cameras[frame], frame) for frame in range(7)]
    assert error(corrected) < 0.6 * error(off.cameras)


def test_exact_cameras_stay_as_they_are(exact):
    clip, scene = exact
    kept = refine(lambda _: scene, lambda: [clip], frames=9, steps=2).corrections
    assert not kept.move_cameras
    assert kept.camera(clip.cameras[5], 5).camera_from_world.equal(clip.cameras[5].camera_from_world)


def test_a_splat_head_that_moves_splats_moves_no_camera(exact):
    """The scene and the single views are made by the same lifter, so what it does to both does not count."""
    clip, _ = exact
    head = LearntLift(trained_splat_head())
    scene = reconstruct([clip], lifter=head)
    for frame in (2, 6):
        image, shown = as_splats(clip.view(frame), head)
        kept = lay_on(scene.splats, clip.cameras[frame], image, shown=shown)
        assert pixels_between(clip.cameras[frame], kept, scene.splats) < EXACT


def test_gains_follow_the_exposure_of_frames():
    clip = walk(5)
    dark = clip.video.clone()
    dark[2:] *= 0.8
    made = refine(
        lambda _: reconstruct([clip], budget=3000), lambda: [replace(clip, video=dark)], frames=5, steps=10
    ).corrections
    assert torch.allclose(made.gains.at(4) / made.gains.at(0), torch.full((3,), 0.8), atol=0.04)


def test_corrections_lie_between_those_of_the_frames_before_and_after():
    track = Track.of({2: torch.tensor([1.0]), 6: torch.tensor([3.0])}, torch.zeros(1))
    assert [float(track.at(frame)) for frame in (0, 2, 3, 4.5, 6, 9)] == [1, 1, 1.5, 2.25, 3, 3]
    assert float(Track.of({}, torch.tensor([7.0])).at(3)) == 7
    cameras = path(3)
    off = shaken(cameras, turn=0.1, shift=0.3)
    moves = {f: move_between(cameras[f], off[f]) for f in range(3)}
    corrections = Corrections.of(moves, {})
    clip = walk(3)
    corrected = list(corrections.clips([clip[:1], clip[1:]]))
    poses = torch.cat([part.cameras.camera_from_world for part in corrected])
    assert torch.allclose(poses, off.camera_from_world, atol=1e-5)
    half = corrections.camera(cameras[1], 1.5)
    assert torch.allclose(move_between(cameras[1], half), (moves[1] + moves[2]) / 2, atol=1e-5)


def test_frames_come_with_their_numbers_whatever_the_clips():
    clip = walk(5)
    given = list(frames_of([clip[:2], clip[2:]], [0, 1, 3, 3, 4]))
    assert sorted(frame for frame, *_ in given) == [0, 1, 3, 3, 4]
    for frame, image, camera in given:
        assert torch.equal(image, clip.video[frame])
        assert torch.equal(camera.camera_from_world, clip.cameras[frame].camera_from_world)
