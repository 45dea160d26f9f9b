"""Largest and smallest values around every pixel, against torch's own pooling."""

import pytest
import torch
import torch.nn.functional as F

from photowalk.kernels.sliding import highest_around, lowest_around


@pytest.mark.parametrize("reach", [0, 1, 2, 3, 6, 20])
def test_squares_are_those_of_pooling(reach):
    planes = torch.randn(2, 3, 17, 29)
    side = 2 * reach + 1
    assert torch.equal(highest_around(planes, reach), F.max_pool2d(planes, side, 1, reach))
    assert torch.equal(lowest_around(planes, reach), -F.max_pool2d(-planes, side, 1, reach))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 6)])
def test_pictures_smaller_than_the_square_are_one_value(shape):
    planes = torch.randn(shape)
    assert torch.equal(highest_around(planes, 9), planes.max().expand(shape))
    assert torch.equal(lowest_around(planes, 9), planes.min().expand(shape))


def test_masks_grow_and_shrink():
    mask = torch.rand(40, 60) > 0.9
    grown = highest_around(mask, 2)
    assert grown.dtype == torch.bool
    assert torch.equal(grown, F.max_pool2d(mask[None].float(), 5, 1, 2)[0] > 0)
    assert torch.equal(lowest_around(~mask, 2), ~grown)
    assert lowest_around(torch.ones(3, 3, dtype=torch.bool), 1).all()  # what is outside does not count


def test_nan_wins_and_infinite_depth_is_a_number():
    planes = torch.zeros(5, 5)
    planes[0, 0], planes[4, 4] = torch.nan, torch.inf
    assert highest_around(planes, 1)[1, 1].isnan()
    assert lowest_around(planes, 1)[1, 1].isnan()
    assert highest_around(planes, 1)[3, 3] == torch.inf
    assert lowest_around(planes, 1)[3, 3] == 0
