"""Depth models of transformers as estimators, on a tiny untrained one of the real class."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("transformers")
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from photowalk.geometry.cameras import Cameras
from photowalk.perception.alignment import inverse_depth_scale
from photowalk.perception.depth import DepthEstimate
from photowalk.perception.transformers_depth import TransformersDepth

HEIGHT, WIDTH = 56, 84


class Slope:
    """Knows that every picture shows a floor from 4 m to 2 m."""

    depth = torch.linspace(4, 2, HEIGHT)[:, None].expand(HEIGHT, WIDTH)

    def estimate_photo(self, photo, focal_px=None):
        return DepthEstimate(self.depth, 70.0 if focal_px is None else focal_px)

    def estimate_frames(self, video, cameras, known):
        raise AssertionError("only asked for photos")


def network(kind):
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[1, 0.5],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        patch_size=14,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = DepthAnythingForDepthEstimation(config)
    torch.nn.init.constant_(made.head.conv3.bias, 0.3)  # by chance it would see nothing
    return made


def processor():
    return DPTImageProcessor(size={"height": HEIGHT, "width": WIDTH}, ensure_multiple_of=14)


@pytest.fixture(scope="module", params=["relative", "metric"])
def estimator(request):
    return TransformersDepth(network(request.param), processor(), Slope())


@pytest.fixture(scope="module")
def photo():
    return torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def test_a_photo_gets_depth_and_a_focal_length(estimator, photo):
    estimate = estimator.estimate_photo(photo)
    assert estimate.depth.shape == (HEIGHT, WIDTH)
    assert (estimate.depth > 0).all()
    assert estimate.focal_px == 70.0
    assert estimator.estimate_photo(photo, 50.0).focal_px == 50.0


def test_relative_depth_is_brought_to_metres(photo):
    estimate = TransformersDepth(network("relative"), processor(), Slope()).estimate_photo(photo)
    known = estimate.depth.isfinite()
    assert inverse_depth_scale(estimate.depth, Slope.depth) == pytest.approx(1.0, rel=1e-4)
    assert 1 < estimate.depth[known].median() < 8


def test_frames_follow_what_memory_knows(estimator, photo):
    alone = estimator.estimate_photo(photo).depth
    video, cameras = photo[None], Cameras.from_fov(torch.eye(4)[None], 60.0, HEIGHT, WIDTH)
    known = torch.where(alone.isfinite(), 3 * alone, 0.0)[None]
    torch.testing.assert_close(estimator.estimate_frames(video, cameras, known)[0], 3 * alone, rtol=1e-3, atol=1e-3)
    unknown = estimator.estimate_frames(video, cameras, torch.zeros_like(known))[0]
    torch.testing.assert_close(unknown, alone, rtol=1e-4, atol=1e-4)


def test_a_model_is_loaded_from_its_folder(tmp_path, photo):
    network("metric").save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    loaded = TransformersDepth.of(str(tmp_path), Slope(), torch.device("cpu"))
    expected = TransformersDepth(network("metric"), processor(), Slope()).estimate_photo(photo).depth
    torch.testing.assert_close(loaded.estimate_photo(photo).depth, expected)


def test_a_missing_model_says_how_to_fetch_it(tmp_path):
    with pytest.raises(ValueError, match="hf download"):
        TransformersDepth.of(str(tmp_path / "nowhere"), Slope(), torch.device("cpu"))


def test_the_scale_between_two_estimates_is_that_of_their_inverses():
    depth = torch.rand(20, 30) + 1
    assert inverse_depth_scale(depth, 2.5 * depth) == pytest.approx(2.5, rel=1e-4)
    holes = torch.where(torch.rand(20, 30) < 0.3, 0.0, 2.5 * depth)
    holes[0] = math.inf
    assert inverse_depth_scale(depth, holes) == pytest.approx(2.5, rel=1e-4)
    assert inverse_depth_scale(depth, torch.zeros_like(depth)) == 1.0
