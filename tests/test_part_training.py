"""Codec and detail stage learn from data of their own making, at tiny size."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from photowalk.data.clips import write_clip
from photowalk.geometry.cameras import Cameras
from photowalk.models.detail import DetailNetwork
from photowalk.models.nano_codec import NanoCodec
from photowalk.models.squeeze_features import SqueezeFeatures
from photowalk.scene.images import read_png, to_bytes, write_png
from photowalk.scene.types import Clip
from photowalk.synthetic import SyntheticWorld
from photowalk.train.codec import CodecRecipe, train_codec
from photowalk.train.depth import DepthRecipe, Shots, draw_sample, shots_of_worlds
from photowalk.train.detail import DetailRecipe, DetailRules, build_samples, prepare_samples, train_detail
from photowalk.train.moving_pictures import moving_picture
from photowalk.train.trainer import TrainingConfig
from photowalk.world.placement import Placement
from photowalk.world.preview import PreviewConfig

SMALL_CODEC = NanoCodec.Config(spatial_factor=8, picture_channels=24, between_channels=4)
RULES = DetailRules(PreviewConfig("latest and recalled", True, 0.5), chunk_frames=4, kept_frames=2)


def soft_picture(seed: int, height: int = 64, width: int = 96) -> torch.Tensor:
    torch.manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)


def sliding_clip(frames: int) -> Clip:
    """A wall two metres away, passed sideways."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    poses[:, 0, 3] = -0.02 * torch.arange(frames)
    wall = soft_picture(3, 48, 128)
    video = torch.stack([wall[:, :, i : i + 64] for i in range(frames)])
    cameras = Cameras.from_fov(poses, math.degrees(2 * math.atan(0.32)), 48, 64)  # one pixel a frame
    return Clip(video, cameras, torch.full((frames, 48, 64), 2.0))


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(4):
        write_png(folder / f"{i}.png", soft_picture(i))
    return train_codec(CodecRecipe((folder,), height=32, width=48, groups=1), SMALL_CODEC)


def test_fitted_codec_has_orthonormal_bases_and_unit_latents(codec):
    for basis in (codec.picture_basis, codec.between_basis):
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-4, rtol=0)
    video = moving_picture(soft_picture(9), 9, (32, 48), torch.Generator().manual_seed(0))
    latents, _ = codec.encode(video.transpose(0, 1)[None], {})
    decoded, _ = codec.decode(latents, {})
    assert 0.2 < latents[:, :, 1:].std() < 4
    error = (decoded - video.transpose(0, 1)[None]).square().mean((0, 1, 3, 4))
    assert (error[::4] < 0.02 * video.square().mean()).all()


def test_a_codec_needs_pictures(tmp_path):
    with pytest.raises(ValueError, match="no pictures"):
        train_codec(CodecRecipe((tmp_path,)), SMALL_CODEC)


def test_moving_picture_has_the_speed_it_is_asked_for():
    still = moving_picture(soft_picture(1), 3, (32, 48), torch.Generator().manual_seed(0), speed=0.0)
    torch.testing.assert_close(still[2], still[0])
    moving = moving_picture(soft_picture(1), 3, (32, 48), torch.Generator().manual_seed(0), speed=2.0)
    assert (moving[2] - moving[0]).abs().mean() > 0.02


def test_detail_samples_hold_true_frames_beside_warps(codec):
    clip = sliding_clip(9)
    samples = list(build_samples(clip, codec, RULES))
    assert len(samples) == 2
    for sample in samples:
        assert sample["truth"].shape == sample["warped"].shape == sample["decoded"].shape == (2, 3, 48, 64)
        assert sample["known"].shape == (2, 1, 48, 64)
        known = sample["known"] > 0
        assert known.float().mean() > 0.6
        error = ((sample["warped"] - sample["truth"]).abs() * known).sum() / known.sum() / 3
        assert error < 0.1


def test_detail_stage_trains_on_its_samples(codec, tmp_path):
    write_clip(tmp_path / "clip", sliding_clip(9), source="test", licence="CC0-1.0")
    samples = prepare_samples([tmp_path / "clip"], codec, RULES, tmp_path / "samples")
    assert len(samples) == 2
    network = DetailNetwork(DetailNetwork.Config(widths=(8, 12)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training = TrainingConfig(minutes=1, learning_rate=1e-3, max_steps=3, picture_every=3)
    recipe = DetailRecipe(training, RULES, crop=(32, 48), batch=2)
    placement = Placement(torch.device("cpu"), torch.float32, "test")
    train_detail(network, SqueezeFeatures(), samples, recipe, tmp_path / "run", placement)
    assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
    shown = read_png(tmp_path / "run/pictures/0000003.png")  # decoded, warped, restored, true
    assert shown.shape == (3, 4 * 32, 2 * 48)


def test_clips_of_one_name_have_detail_samples_of_their_own(codec, tmp_path):
    clip = sliding_clip(9)
    folders = [tmp_path / parent / "clip" for parent in ("one", "other")]
    for folder, video in zip(folders, (clip.video, 1 - clip.video)):
        write_clip(folder, replace(clip, video=video), source="test", licence="CC0-1.0")
    both = prepare_samples(folders, codec, RULES, tmp_path / "samples")
    assert len(set(both)) == 4
    assert not torch.equal(load_file(both[0])["truth"], load_file(both[2])["truth"])
    assert prepare_samples(folders[1:], codec, RULES, tmp_path / "samples") == both[2:]


def test_training_the_detail_stage_needs_samples(tmp_path):
    recipe = DetailRecipe(TrainingConfig(minutes=1, learning_rate=1e-3), RULES)
    placement = Placement(torch.device("cpu"), torch.float32, "test")
    network = DetailNetwork(DetailNetwork.Config(widths=(8,)))
    with pytest.raises(ValueError, match="prepare_samples"):
        train_detail(network, SqueezeFeatures(), [], recipe, tmp_path, placement)


def test_a_sky_is_put_behind_things_and_depth_stays(tmp_path):
    video, depth = torch.zeros(1, 3, 64, 96), torch.full((1, 64, 96), 2.0)
    depth[:, :32] = math.inf
    cameras = Cameras.from_fov(torch.eye(4)[None], 60, 64, 96)
    shots = [Shots(to_bytes(video), depth.half(), cameras)]
    training = TrainingConfig(1, 1e-3)
    recipe = DepthRecipe(
        (), training, smallest_crop=1.0, sky_share=1.0, most_things=0, mountain_share=0, evening_share=0
    )
    bright = [torch.ones(3, 40, 60)]
    sample = draw_sample(shots, bright, (64, 96), recipe, torch.Generator().manual_seed(0))
    plain = draw_sample(shots, bright, (64, 96), replace(recipe, sky_share=0.0), torch.Generator().manual_seed(0))
    assert torch.equal(sample.depth, plain.depth)
    assert sample.image[:, :30].mean() > 0.5 + plain.image[:, :30].mean()
    assert sample.image[:, 34:].mean() < 0.2


def test_depth_has_worlds_without_end(monkeypatch):
    monkeypatch.setattr(SyntheticWorld, "sample", cache(SyntheticWorld.sample))  # that a seed is a world has its test
    one, again, other = (shots_of_worlds(torch.Generator().manual_seed(seed), worlds=1, frames=1) for seed in (0, 0, 1))
    assert torch.equal(one[0].video, again[0].video)
    assert not torch.equal(one[0].video, other[0].video)
    assert one[0].depth.shape == one[0].video[:, 0].shape
