"""The published text and picture encoders, against the classes of transformers that they wrap."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")
pytest.importorskip("ftfy")

from tiny_published import tiny_clip, tiny_tokenizer, tiny_umt5

from photowalk.models.clip_image import DEVIATION, MEAN, ClipImage
from photowalk.models.umt5_text import Umt5Text, clean, load_tokenizer


@pytest.fixture(scope="module")
def text():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Umt5Text(tiny_umt5(), tiny_tokenizer(), length=12)


@pytest.fixture(scope="module")
def image():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ClipImage(tiny_clip())


@torch.no_grad()
def test_features_are_those_of_the_words_alone_and_zero_after_them(text):
    features = text.encode(["a hall of stone", "forest"])
    assert features.shape == (2, 12, 16)
    for row, prompt, words in [(0, "a hall of stone", 5), (1, "forest", 2)]:
        tokens = text.tokenizer(prompt, return_tensors="pt")
        assert tokens["input_ids"].shape[1] == words  # and the end
        theirs = text.network(**{name: tokens[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
        torch.testing.assert_close(features[row, :words], theirs[0], atol=1e-5, rtol=0)
        assert (features[row, words:] == 0).all()


def test_a_text_has_the_same_features_in_any_company(text):
    alone = text.encode(["forest"])
    fresh = Umt5Text(text.network, text.tokenizer, length=12)
    assert torch.equal(fresh.encode(["a hall of stone", "forest", "forest"])[1:], alone.expand(2, -1, -1))
    for i in range(20):  # more texts than are kept
        fresh.encode([f"a {'hall ' * i}"])
    assert torch.equal(fresh.encode(["forest"]), alone)


def test_long_texts_are_cut_and_end_with_the_end(text):
    features = text.encode(["a hall of stone " * 10])
    assert features.shape == (1, 12, 16)
    assert (features != 0).any(-1).all()


@pytest.mark.parametrize(
    ("dirty", "tidy"),
    [
        ("  a \n\t hall\u3000of  stone ", "a hall of stone"),
        ("caf\u00c3\u00a9 &amp;amp; bar", "caf\u00e9 & bar"),
        ("&lt;b&gt;", "<b>"),
        ("", ""),
    ],
)
def test_texts_are_cleaned(dirty, tidy):
    assert clean(dirty) == tidy


def test_cleaning_happens_before_encoding(text):
    assert torch.equal(text.encode(["  a   hall "]), text.encode(["a hall"]))


def test_a_tokenizer_is_read_from_a_folder(text, tmp_path):
    text.tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again("a hall of stone")["input_ids"] == text.tokenizer("a hall of stone")["input_ids"]


@torch.no_grad()
def test_tokens_are_those_of_the_layer_before_the_last(image):
    pictures = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    tokens = image.encode(pictures)
    network = image.network
    squashed = F.interpolate(2 * pictures - 1, size=(28, 28), mode="bicubic", align_corners=False, antialias=False)
    pixels = ((squashed + 1) / 2 - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(DEVIATION).view(-1, 1, 1)
    hidden = network.pre_layrnorm(network.embeddings(pixels))
    for layer in network.encoder.layers[:-1]:
        hidden = layer(hidden, None)
    torch.testing.assert_close(tokens, hidden, atol=1e-5, rtol=0)
    assert tokens.shape == (2, 5, 16)


@torch.no_grad()
def test_encoders_keep_their_number_format_under_autocast(image, text):
    picture = torch.rand(1, 3, 32, 48)
    plain = image.encode(picture), text.encode(["a hall"])
    with torch.autocast("cpu", torch.bfloat16):
        fresh = Umt5Text(text.network, text.tokenizer, length=12)
        assert torch.equal(image.encode(picture), plain[0])
        assert torch.equal(fresh.encode(["a hall"]), plain[1])
