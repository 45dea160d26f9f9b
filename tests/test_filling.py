"""Holes of pictures take what lies beside them before what lies above and below."""

import torch

from photowalk.scene.filling import fill_along_rows, fill_smoothly
from photowalk.world.preview import PreviewConfig, _filled


def sky_over_ground() -> tuple[torch.Tensor, torch.Tensor]:
    """A picture [1, 3, 64, 112], bright above and dark below, whose right third is unknown."""
    picture = torch.zeros(1, 3, 64, 112)
    picture[:, :, :32] = 1.0
    known = torch.ones(1, 1, 64, 112)
    known[..., 75:] = 0
    return picture, known


def test_sky_continues_as_sky_and_ground_as_ground():
    truth, known = sky_over_ground()
    along, smoothly = fill_along_rows(truth * known, known, 8), fill_smoothly(truth * known, known)
    far = (slice(None), slice(None), slice(None), slice(100, None))
    assert float((along - truth)[far].abs().mean()) < 0.1
    assert float((along - truth)[far].abs().mean()) < 0.5 * float((smoothly - truth)[far].abs().mean())


def test_known_pixels_stay_and_even_pictures_stay_even():
    truth, known = sky_over_ground()
    filled = fill_along_rows(truth * known, known, 8)
    assert torch.equal(filled[known.expand_as(filled) > 0], truth[known.expand_as(filled) > 0])
    even = torch.full_like(truth, 0.3)
    for unknown in (
        known,
        known.flip(-1),
        (torch.rand(known.shape, generator=torch.Generator().manual_seed(0)) > 0.9).float(),
    ):
        torch.testing.assert_close(fill_along_rows(even * unknown, unknown, 8), even)
    assert not fill_along_rows(even * 0, known * 0, 8).any()


def test_rows_without_any_known_pixel_take_what_is_above_or_below():
    picture, known = torch.zeros(1, 3, 64, 112), torch.zeros(1, 1, 64, 112)
    picture[:, :, :16], known[:, :, :16] = 0.7, 1
    torch.testing.assert_close(fill_along_rows(picture, known, 8), torch.full_like(picture, 0.7))


def test_holes_are_filled_as_the_configuration_says():
    truth, known = sky_over_ground()
    video = truth * known
    config = {"warp_from": "latest", "pixel_centre": 0.5}
    assert torch.equal(_filled(video, known, PreviewConfig(fill_holes=False, **config)), video)
    assert torch.equal(_filled(video, known, PreviewConfig(fill_holes=True, **config)), fill_smoothly(video, known))
    wide = PreviewConfig(fill_holes=True, fill_wide=8, **config)
    assert torch.equal(_filled(video, known, wide), fill_along_rows(video, known, 8))
