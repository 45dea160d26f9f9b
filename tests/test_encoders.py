import torch

from photowalk.models.byte_text import ByteText
from photowalk.models.image_tokens import ImageTokens


def text_encoder() -> ByteText:
    torch.manual_seed(0)
    return ByteText(ByteText.Config(width=16, heads=2, depth=1, length=12)).eval()


def test_text_is_zero_beyond_its_end():
    features = text_encoder().encode(["a red room", "", "caf\u00e9"])
    assert features.shape == (3, 12, 16)
    assert features[0, :10].abs().sum(-1).all()
    assert not features[0, 10:].any()
    assert not features[1].any()
    assert not features[2, 5:].any()  # the accent takes two bytes


def test_text_does_not_depend_on_its_neighbours():
    encoder = text_encoder()
    together, alone = encoder.encode(["a red room", "sky"]), encoder.encode(["sky"])
    torch.testing.assert_close(together[1:], alone)


def test_long_text_is_cut_between_characters():
    encoder = text_encoder()
    torch.testing.assert_close(encoder.encode(["01234567890\u00e9"]), encoder.encode(["01234567890"]))


def test_image_tokens_see_where_things_are():
    torch.manual_seed(0)
    encoder = ImageTokens(grid=(2, 3), seen_at=(64, 96)).eval()
    picture = torch.full((1, 3, 128, 192), 0.5)
    changed = picture.clone()
    changed[..., 64:, :48] = torch.rand(3, 64, 48)
    difference = (encoder.encode(changed) - encoder.encode(picture)).abs().mean(-1)[0]
    assert difference.shape == (7,)
    assert difference[1:].argmax() == 3  # second row, first column
    assert difference[0] > 0
