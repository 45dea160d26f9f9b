"""The features tell small changes of a picture from large ones."""

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.models.squeeze_features import SqueezeFeatures, feature_distance
from photowalk.presets.nano import nano_depth_network
from photowalk.world.placement import choose_placement


@pytest.fixture(scope="module")
def features() -> SqueezeFeatures:
    return nano_depth_network(choose_placement("cpu")).encoder


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return _picture(skimage.data.astronaut())


def _picture(pixels: np.ndarray) -> Tensor:
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(image, size=(192, 192), mode="bilinear", antialias=True)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    reach = torch.arange(-12, 13)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(image, (12, 12, 12, 12), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)


@torch.no_grad()
def _distance(features: SqueezeFeatures, first: Tensor, second: Tensor) -> float:
    return float(feature_distance(features(first), features(second)))


def test_sizes_line_up_with_the_picture(features):
    with torch.no_grad():
        maps = features(torch.rand(2, 3, 64, 112))
    assert [tuple(map_.shape) for map_ in maps] == [
        (2, width, 64 // stride, 112 // stride) for width, stride in zip(features.widths, features.strides, strict=True)
    ]


def test_more_blur_is_farther_away(features, photo):
    distances = [_distance(features, photo, _blurred(photo, sigma)) for sigma in (0.5, 1, 2, 4)]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_light_matters_less_than_blur_and_blur_less_than_another_photo(features, photo):
    brighter = _distance(features, photo, (photo * 1.1).clamp(0, 1))
    blurred = _distance(features, photo, _blurred(photo, 1))
    other = _distance(features, photo, _picture(skimage.data.coffee()))
    assert brighter < 0.5 * blurred
    assert blurred < 0.7 * other


def test_noise_is_seen(features, photo):
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    weak, strong = (_distance(features, photo, (photo + sigma / 255 * noise).clamp(0, 1)) for sigma in (8, 32))
    assert 0 < weak < 0.6 * strong


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 8, 64)])
def test_other_shapes_are_refused(features, shape):
    with pytest.raises(ValueError, match="features are made of images"):
        features(torch.rand(shape))
