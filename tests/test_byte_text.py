"""The text encoder that reads bytes."""

import torch

from photowalk.models.byte_text import ByteText


def encoder() -> ByteText:
    torch.manual_seed(0)
    return ByteText(ByteText.Config(width=16, heads=2, depth=1, length=24)).eval()


def test_features_end_with_the_text_and_do_not_hang_on_the_neighbours():
    together = encoder().encode(["a hall", "", "ein Flur mit Bögen"])
    assert together.shape == (3, 24, 16)
    assert (together[0, :6].abs().sum(-1) > 0).all()
    assert (together[0, 6:] == 0).all()
    assert (together[1] == 0).all()
    torch.testing.assert_close(together[0], encoder().encode(["a hall"])[0], atol=1e-5, rtol=0)


def test_different_texts_differ_and_order_matters():
    hall, lahl = encoder().encode(["hall", "lahl"])
    assert (hall - lahl).abs().max() > 1e-3


def test_a_long_text_is_cut_between_characters():
    features = encoder().encode(["é" * 40])  # two bytes each
    torch.testing.assert_close(features, encoder().encode(["é" * 12]))
    odd = encoder().encode(["a" + "é" * 40])
    assert (odd[0, 23] == 0).all()
