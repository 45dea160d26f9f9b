import pytest
import torch

from photowalk.models.block_motion import block_motion, pictures_between, sample
from photowalk.models.nano_codec import NanoCodec

CONFIG = NanoCodec.Config(spatial_factor=8, picture_channels=24, between_channels=4)


@pytest.fixture
def codec():
    torch.manual_seed(0)
    codec = NanoCodec(CONFIG)
    codec.picture_basis.copy_(torch.linalg.qr(torch.randn(192, 24))[0].T)
    codec.between_basis.copy_(torch.linalg.qr(torch.randn(72, 4))[0].T)
    codec.mean.copy_(torch.randn(28) * 0.1)
    codec.deviation.copy_(torch.rand(28) + 0.5)
    return codec


def smooth_video(frames: int, step: float = 1.0) -> torch.Tensor:
    """[1, 3, frames, 48, 64] of soft blobs that move `step` pixels a frame to the left."""
    torch.manual_seed(1)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 32) * 2 - 1, size=(48, 128), mode="bicubic")
    motion = torch.zeros(1, 2, 48, 128)
    motion[:, 0] = 1
    return torch.stack([sample(wide, motion * step * i)[..., 16:80] for i in range(frames)], dim=2)


def test_cut_stream_gives_the_same_numbers(codec):
    video = smooth_video(13)
    whole, end = codec.encode(video, {})
    first, state = codec.encode(video[:, :, :5], {})
    second, state = codec.encode(video[:, :, 5:], state)
    assert torch.equal(whole, torch.cat([first, second], dim=2))
    assert torch.equal(end["picture"], state["picture"])

    decoded, _ = codec.decode(whole, {})
    first, state = codec.decode(whole[:, :, :1], {})
    second, state = codec.decode(whole[:, :, 1:3], state)
    third, _ = codec.decode(whole[:, :, 3:], state)
    assert torch.equal(decoded, torch.cat([first, second, third], dim=2))
    assert decoded.shape == video.shape


def test_coding_again_loses_nothing(codec):
    latents, _ = codec.encode(smooth_video(9), {})
    once, _ = codec.decode(latents, {})
    again, _ = codec.encode(once, {})
    torch.testing.assert_close(again, latents, atol=1e-4, rtol=1e-4)


def test_still_scene_stays_as_good_as_its_first_frame(codec):
    still = smooth_video(1).expand(-1, -1, 9, -1, -1)
    video, _ = codec.decode(codec.encode(still, {})[0], {})
    errors = (video - still).square().mean((0, 1, 3, 4))
    assert (errors <= errors[0] * 1.001).all()


def test_first_frame_has_no_corrections(codec):
    latents, _ = codec.encode(smooth_video(1), {})
    silent = -codec.mean[24:] / codec.deviation[24:]
    torch.testing.assert_close(latents[0, 24:, 0], silent[:, None, None].expand(-1, 6, 8))


def test_block_motion_finds_a_shift():
    video = smooth_video(5, step=1.5)
    motion = block_motion(video[:, :, 0], video[:, :, 4], 8)
    assert (motion[0, 0, 1:-1, 1:-1].median() - 6).abs() < 0.3
    assert motion[0, 1].median().abs() < 0.3
    drawn = pictures_between(video[:, :, 0], video[:, :, 4], motion, 3)
    ghosted = pictures_between(video[:, :, 0], video[:, :, 4], motion * 0, 3)
    truth = video[:, :, 1:4]
    inside = (..., slice(8, -8), slice(8, -8))
    assert (drawn - truth)[inside].square().mean() < 0.1 * (ghosted - truth)[inside].square().mean()


@pytest.mark.parametrize(
    ("shape", "state"),
    [((1, 3, 4, 48, 64), {}), ((1, 3, 5, 48, 60), {}), ((1, 1, 5, 48, 64), {}), ((1, 3, 5, 48, 64), {"picture": 0})],
)
def test_wrong_videos_are_named(codec, shape, state):
    with pytest.raises(ValueError, match="the codec"):
        codec.encode(torch.zeros(shape), state)


def test_wrong_latents_are_named(codec):
    with pytest.raises(ValueError, match="decodes latents"):
        codec.decode(torch.zeros(1, 5, 2, 6, 8), {})
