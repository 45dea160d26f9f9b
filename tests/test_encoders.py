import torch

from photowalk.models.image_tokens import ImageTokens
from photowalk.models.squeeze_features import SqueezeFeatures


def test_image_tokens_see_where_things_are():
    torch.manual_seed(0)
    encoder = ImageTokens(SqueezeFeatures(), grid=(2, 3), seen_at=(64, 96)).eval()
    picture = torch.full((1, 3, 128, 192), 0.5)
    changed = picture.clone()
    changed[..., 64:, :48] = torch.rand(3, 64, 48)
    difference = (encoder.encode(changed) - encoder.encode(picture)).abs().mean(-1)[0]
    assert difference.shape == (6,)
    assert difference.argmax() == 3  # second row, first column
