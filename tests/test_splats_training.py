"""The splat head at tiny size: what it is told, what its answers do, and that it learns."""

from dataclasses import replace

import pytest
import torch
from rooms import look, path, walk
from tiny import HEIGHT, WIDTH, tiny_preset
from worlds import make_world

from photowalk import World
from photowalk.data.clips import read_clip, write_clip
from photowalk.export.ply import read_splats
from photowalk.geometry.cameras import Cameras
from photowalk.kernels.rasterise import SH_DC
from photowalk.models.splat_head import EVIDENCE, Corrections, SplatHead
from photowalk.models.squeeze_features import SqueezeFeatures
from photowalk.reconstruct import reconstruct
from photowalk.reconstruct.learnt_lift import LearntLift, evidence
from photowalk.reconstruct.lift import PixelAligned, lift, shrink
from photowalk.scene.surfaces import surface_of
from photowalk.scene.types import Clip, View
from photowalk.train.generated_walks import walk_into
from photowalk.train.splats import (
    SplatRecipe,
    clip_of_world,
    draw_sample,
    scene_of,
    splat_losses,
    train_splats,
    worlds_under,
)
from photowalk.train.trainer import TrainingConfig
from photowalk.world.disk import WorldError
from photowalk.world.placement import Placement

TRAINING = TrainingConfig(minutes=1, learning_rate=2e-3, warmup_steps=1, average=0.9, max_steps=12, log_every=4)
CPU = Placement(torch.device("cpu"), torch.float32, "tests run there")
RECIPE = SplatRecipe(TRAINING, crop=(48, 64), strides=(4,), views=2)


def tiny_head(seed: int = 0) -> SplatHead:
    torch.manual_seed(seed)
    return SplatHead(SplatHead.Config(EVIDENCE, widths=(8, 8)))


def wall(depth: float = 2.0, height: int = 20, width: int = 30) -> View:
    camera = Cameras.from_fov(torch.eye(4), 60.0, height, width)
    torch.manual_seed(1)
    return View(torch.rand(3, height, width), torch.full((height, width), depth), camera, 0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "room", walk(17), source="a test", licence="CC0-1.0")
    return [folder / "room"]


@pytest.mark.parametrize("ratio", [1, 2])
def test_an_untrained_head_changes_nothing(ratio):
    cameras = path(3, height=37, width=51)  # sides that no power of two divides
    views = [View(*look(camera), camera, frame) for frame, camera in enumerate(cameras)]
    plain = reconstruct(views, lifter=PixelAligned(ratio))
    learnt = reconstruct(views, lifter=LearntLift(tiny_head(), ratio, blends=True))
    assert len(plain.splats) == len(learnt.splats)
    for name, value in vars(plain.splats).items():
        torch.testing.assert_close(getattr(learnt.splats, name), value, atol=1e-5, rtol=1e-5)


def test_corrections_do_what_they_say():
    view = wall()
    surface = surface_of(view.depth, view.camera)
    shape = view.depth.shape
    zero = Corrections(torch.zeros(shape), *(torch.zeros(*shape, 3) for _ in range(4)))
    plain = lift(view.image, surface, view.camera, surface.valid)
    corrected = lift(
        view.image,
        surface,
        view.camera,
        surface.valid,
        replace(
            zero,
            opacity=zero.opacity - 2,
            stretch=zero.stretch + torch.tensor([1.0, 0, 0]),
            shift=zero.shift + torch.tensor([0.0, 0, 3.0]),
            colour=zero.colour + torch.tensor([0.25, 0, 0]),
        ),
    )
    footprint = surface.footprint[surface.valid]
    torch.testing.assert_close(corrected.means[:, 2] - plain.means[:, 2], 3 * footprint)  # the wall's normal is +Z
    torch.testing.assert_close(corrected.scales[:, 0], plain.scales[:, 0] * torch.e)
    assert (corrected.opacities < plain.opacities).all()
    red = (corrected.colours - plain.colours)[:, 0] * SH_DC
    torch.testing.assert_close(red, torch.tensor([0.25, 0, 0]).expand_as(red), atol=1e-5, rtol=0)


def test_turns_are_about_the_splats_own_axes():
    view = wall()
    surface = surface_of(view.depth, view.camera)
    shape = view.depth.shape
    turn = torch.zeros(*shape, 3)
    turn[..., 0] = 2e-3  # half of it is the quaternion's imaginary part
    nothing = [torch.zeros(*shape, 3) for _ in range(2)]
    turned = lift(
        view.image, surface, view.camera, surface.valid, Corrections(torch.zeros(shape), nothing[0], turn, *nothing)
    )
    plain = lift(view.image, surface, view.camera, surface.valid)
    assert torch.allclose(turned.rotations.norm(dim=-1), torch.ones(len(turned)), atol=1e-5)
    angle = 2 * torch.acos((turned.rotations * plain.rotations).sum(-1).abs().double().clamp(max=1))
    assert torch.allclose(angle, torch.full_like(angle, 2e-3), atol=5e-4)


def test_a_quarter_of_the_splats_close_the_same_wall():
    view = wall(height=21, width=31)
    surface = surface_of(view.depth, view.camera)
    small, chosen = shrink(view, surface, surface.valid, 2)
    assert small.depth.shape == (11, 16)
    assert chosen.all()
    torch.testing.assert_close(small.depth, torch.full((11, 16), 2.0))
    splats = PixelAligned(2)(view, surface, surface.valid, ())
    assert len(splats) == 11 * 16
    fine = lift(view.image, surface, view.camera, surface.valid)
    assert splats.scales[:, 1].mean() / fine.scales[:, 1].mean() == pytest.approx(2, rel=0.08)


def test_no_splat_hangs_between_the_sides_of_an_edge():
    view = wall()
    view.depth[:, 15:] = 4.0  # the edge runs through blocks of 2x2
    small, _ = shrink(view, surface_of(view.depth, view.camera), torch.ones(20, 30, dtype=torch.bool), 2)
    assert set(small.depth.unique().tolist()) == {2.0, 4.0}


def test_evidence_tells_what_another_view_denies():
    view = wall()
    agreeing, nearer, sky = (replace(view, depth=torch.full_like(view.depth, depth)) for depth in (2.0, 1.0, torch.inf))
    surface = surface_of(view.depth, view.camera)
    sees, farther, different = evidence(view, surface, [agreeing])[11:14]
    assert (sees == 1).all()
    assert farther.abs().max() < 1e-3
    assert different.max() < 1e-3
    assert (evidence(view, surface, [nearer])[12] == 2).all()
    assert (evidence(view, surface, [sky])[12] == -2).all()
    away = replace(view, camera=replace(view.camera, camera_from_world=torch.diag(torch.tensor([-1.0, 1, -1, 1]))))
    assert (evidence(view, surface, [away])[11:] == 0).all()
    assert evidence(view, surface, []).shape == (EVIDENCE, 20, 30)


def test_samples_are_compared_with_frames_that_they_are_not_made_of(clips):
    clip = read_clip(clips[0])
    for seed in range(8):
        sample = draw_sample([clips], RECIPE, torch.Generator().manual_seed(seed))
        again = draw_sample([clips], RECIPE, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(sample.targets.video, again.targets.video)
        assert sample.views[0].depth.shape == (48, 64)
        places = set().union(*(places_of(view.camera[None]) for view in sample.views))
        assert not places & places_of(sample.targets.cameras)
        for view, beside in zip(sample.views, sample.beside):
            assert 1 <= len(beside) <= 2
            assert all(not torch.equal(other.camera.centres, view.camera.centres) for other in beside)
        if sample.fitted is not None:
            assert places <= places_of(sample.fitted.cameras)
            assert not places_of(sample.fitted.cameras) & places_of(sample.targets.cameras)
        assert scene_of(sample, PixelAligned(sample.ratio)).splats.means.isfinite().all()
    assert len(clip) == 17


def places_of(cameras):
    return {tuple((1000 * centre).round().int().tolist()) for centre in cameras.centres}


@pytest.mark.parametrize("ratio", [1, 2])
def test_fitted_samples_are_compared_as_worlds_keep_them(clips, ratio):
    """Closer to the frames, by colours that are fitted to others, and still a lesson for the whole head."""
    recipe = replace(RECIPE, fitted_share=1.0, coarse_share=float(ratio == 2), nearest=1.0)
    sample = draw_sample([clips], recipe, torch.Generator().manual_seed(3))
    head, features = tiny_head(), SqueezeFeatures()
    assert sample.fitted is not None
    assert sample.ratio == ratio
    plain = splat_losses(head, features, replace(sample, fitted=None), recipe)
    fitted = splat_losses(head, features, sample, recipe)
    assert fitted["psnr"] > plain["psnr"] + 0.3
    fitted["loss"].backward()
    gradients = [weight.grad for weight in head.parameters() if weight.grad is not None]  # the other ratio has none
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_walk_that_is_too_short_is_named(clips):
    with pytest.raises(ValueError, match="17 frames"):
        draw_sample([clips], replace(RECIPE, strides=(12,), views=3), torch.Generator().manual_seed(0))


def test_the_head_learns_and_goes_on(clips, tmp_path):
    torch.manual_seed(0)
    features, head = SqueezeFeatures(), tiny_head()
    sample = draw_sample([clips], RECIPE, torch.Generator().manual_seed(3))
    before = splat_losses(head, features, sample, RECIPE)
    train_splats(head, features, [clips], RECIPE, tmp_path, CPU)
    after = splat_losses(head, features, sample, RECIPE)
    assert after["loss"] < before["loss"]
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 3


def test_worlds_become_clips_once(tmp_path):
    make_world(tmp_path / "worlds" / "one", chunks=2)
    (world,) = worlds_under([tmp_path / "worlds"])
    folder = clip_of_world(world, tmp_path / "samples")
    written = (folder / "clip.json").stat().st_mtime_ns
    assert clip_of_world(world, tmp_path / "samples") == folder
    assert (folder / "clip.json").stat().st_mtime_ns == written
    clip = read_clip(folder)
    assert len(clip) == 9
    assert clip.depth is not None
    assert (clip.depth > 0).any(-1).any(-1).sum() == 3
    make_world(tmp_path / "elsewhere" / "worlds" / "one", chunks=1)
    (namesake,) = worlds_under([tmp_path / "elsewhere"])
    assert len(read_clip(clip_of_world(namesake, tmp_path / "samples"))) == 1
    with pytest.raises(ValueError, match="no worlds"):
        worlds_under([tmp_path / "samples"])


def test_a_world_of_nano_gets_corrected_splats_unless_told_otherwise(tmp_path):
    make_world(tmp_path / "world", chunks=2)
    world = World.open(tmp_path / "world")

    def splats(**options):
        world.reconstruct(mesh=False, **options)
        return read_splats(tmp_path / "world" / "scene" / "splats.ply")

    learnt, plain, quarter = splats(), splats(pixel_aligned=True), splats(pixel_aligned=True, down_ratio=2)
    assert (plain.opacities > 0.5).all()
    assert not torch.equal(learnt.opacities.unique(), plain.opacities.unique())
    assert len(quarter) < 0.7 * len(plain)
    assert len(splats(down_ratio=2)) < 0.8 * len(learnt)
    with pytest.raises(WorldError, match="1 or 2, got 3"):
        world.reconstruct(mesh=False, down_ratio=3)


def test_walks_are_generated_along_the_cameras_of_a_clip(tmp_path):
    cameras = path(17, HEIGHT, WIDTH)
    images, depths = zip(*(look(camera) for camera in cameras))
    clip = Clip(torch.stack(images), cameras, torch.stack(depths))
    world = walk_into(clip, tmp_path / "world", tiny_preset())
    assert world.manifest.frames == 17
    wanted = cameras.relative_to(cameras[0]).centres
    torch.testing.assert_close(world._store.cameras().centres, wanted, atol=1e-4, rtol=0)
    written = (tmp_path / "world" / "walk.mp4").stat().st_mtime_ns
    assert walk_into(clip, tmp_path / "world", tiny_preset()).manifest.frames == 17
    assert (tmp_path / "world" / "walk.mp4").stat().st_mtime_ns == written
