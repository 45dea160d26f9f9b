"""The published codec as a stream, against the class of diffusers that it wraps."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from tiny_published import tiny_wan

from photowalk.models.wan_codec import WanCodec

FRAMES = 13


@pytest.fixture(scope="module")
def codec():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WanCodec(tiny_wan())


@pytest.fixture(scope="module")
def video():
    return torch.rand(1, 3, FRAMES, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


def normalised(network, latents):
    mean, deviation = (
        torch.tensor(network.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
    )
    return (latents - mean) / deviation


@torch.no_grad()
def test_latents_are_those_of_diffusers(codec, video):
    latents, _ = codec.encode(video, {})
    theirs = codec.network.encode(video).latent_dist.mode()
    torch.testing.assert_close(latents, normalised(codec.network, theirs), atol=1e-5, rtol=0)
    assert latents.shape == (1, codec.channels, 4, 32 // codec.spatial_factor, 48 // codec.spatial_factor)


@torch.no_grad()
def test_pictures_are_those_of_diffusers_before_they_are_clamped(codec):
    latents = 30 * torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(2))
    video, _ = codec.decode(normalised(codec.network, latents), {})
    theirs = codec.network.decode(latents).sample
    torch.testing.assert_close(video.clamp(-1, 1), theirs, atol=1e-4, rtol=0)
    assert video.shape == (1, 3, 9, 32, 48)


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[1, 13], [5, 9, 13], [1, 5, 9, 13]])
def test_a_stream_in_pieces_is_the_whole_bit_for_bit(codec, video, cuts):
    whole, final = codec.encode(video, {})
    pieces, state, start = [], {}, 0
    for end in cuts:
        piece, state = codec.encode(video[:, :, start:end], state)
        pieces.append(piece)
        start = end
    assert torch.equal(torch.cat(pieces, dim=2), whole)
    assert state.keys() == final.keys()
    assert all(torch.equal(state[name], final[name]) for name in final)
    pictures, decoded = codec.decode(whole, {})
    first, middle = codec.decode(pieces[0], {})
    rest, end = codec.decode(whole[:, :, pieces[0].shape[2] :], middle)
    assert torch.equal(torch.cat([first, rest], dim=2), pictures)
    assert all(torch.equal(end[name], decoded[name]) for name in decoded)


@torch.no_grad()
def test_a_state_can_be_used_twice(codec, video):
    """Undo and branches go on from a state that other frames went on from already."""
    _, state = codec.encode(video[:, :, :5], {})
    once, _ = codec.encode(video[:, :, 5:9], state)
    codec.encode(video[:, :, 9:], state)
    again, _ = codec.encode(video[:, :, 5:9], state)
    assert torch.equal(once, again)


@torch.no_grad()
def test_pictures_encoded_together_are_each_as_alone(codec, video):
    pictures = video[0].transpose(0, 1)[:3, :, None]  # [3, 3, 1, H, W]
    together, _ = codec.encode(pictures, {})
    alone = torch.cat([codec.encode(picture[None], {})[0] for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


@torch.no_grad()
def test_constants_are_rounded_to_the_format_of_the_weights(video):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = WanCodec(tiny_wan().bfloat16())
    latents, _ = codec.encode(video[:, :, :1], {})
    moments = codec.network.quant_conv(codec.network.encoder(video[:, :, :1].bfloat16(), [None] * 99, [0]))
    mean = torch.tensor(codec.network.config["latents_mean"]).bfloat16().view(1, -1, 1, 1, 1)
    inverse = (1 / torch.tensor(codec.network.config["latents_std"])).bfloat16().view(1, -1, 1, 1, 1)
    assert latents.dtype == torch.bfloat16
    assert torch.equal(latents, (moments[:, :16] - mean) * inverse)


@pytest.mark.parametrize(
    ("frames", "height", "state"), [(2, 32, {}), (0, 32, {}), (1, 30, {}), (5, 32, {"000": torch.zeros(1)})]
)
def test_wrong_videos_are_refused(codec, frames, height, state):
    with pytest.raises(ValueError, match="the codec"):
        codec.encode(torch.zeros(1, 3, frames, height, 48), state)


def test_wrong_latents_are_refused(codec):
    with pytest.raises(ValueError, match="the codec decodes"):
        codec.decode(torch.zeros(1, 8, 1, 4, 6), {})


def test_a_codec_of_another_kind_is_refused():
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with pytest.raises(ValueError, match=r"Wan 2\.2"):
        WanCodec(AutoencoderKLWan(base_dim=4, num_res_blocks=1, patch_size=2, in_channels=12, out_channels=12))
