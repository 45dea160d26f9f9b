"""Captioners: the template, and Qwen3-VL on a tiny untrained network of the real class."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from photowalk.geometry import paths
from photowalk.geometry.cameras import Cameras
from photowalk.perception.captions import (
    CaptionScene,
    QwenCaptioner,
    TemplateCaptioner,
    describe_motion,
    motion_of,
    with_motion_of,
)
from photowalk.scene.types import Clip

HEIGHT, WIDTH = 64, 96
START = Cameras.from_fov(torch.eye(4), 60.0, HEIGHT, WIDTH)


def scene(cameras=None, hint="a hall of stone"):
    random = torch.Generator().manual_seed(1)
    photo, latest = torch.rand(2, 3, HEIGHT, WIDTH, generator=random)
    upcoming = torch.rand(4, 3, HEIGHT, WIDTH, generator=random)
    cameras = paths.forward(START, 9, distance=1.0) if cameras is None else cameras
    return CaptionScene(hint, photo, latest, upcoming, cameras, 2.0)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (paths.forward(START, 9, distance=1.0), "The camera moves forward."),
        (paths.backward(START, 9, distance=1.0), "The camera moves backward."),
        (paths.strafe(START, 9, distance=1.0), "The camera moves to the right."),
        (paths.strafe(START, 9, distance=-1.0), "The camera moves to the left."),
        (paths.crane(START, 9, distance=1.0), "The camera moves up."),
        (paths.turn(START, 9, yaw_deg=40), "The camera turns right."),
        (paths.turn(START, 9, yaw_deg=-40), "The camera turns left."),
        (paths.forward(START, 9, distance=0.01), "The camera hardly moves."),
        (paths.orbit(START, 9, depth=2.0, sweep_deg=40), "The camera moves forward and to the right and turns left."),
    ],
)
def test_motion_in_words(path, said):
    assert describe_motion(path, 2.0) == said


def test_motion_is_judged_from_where_the_path_begins():
    there = paths.turn(START, 9, yaw_deg=90)[-1]
    assert describe_motion(paths.forward(there, 9, distance=1.0), 2.0) == "The camera moves forward."


def test_a_prompt_follows_the_camera_of_another_clip():
    def clip(path: Cameras, depth: float) -> Clip:
        return Clip(torch.zeros(9, 3, HEIGHT, WIDTH), path, torch.full((9, HEIGHT, WIDTH), depth))

    back = clip(paths.backward(START, 9, distance=1.0), 2.0)
    assert motion_of(back) == "The camera moves backward."
    assert motion_of(clip(back.cameras, 200.0)) == "The camera hardly moves."
    for said in ("moves forward and to the right and turns left", "turns up", "hardly moves"):
        assert with_motion_of(back, f"A hall. The camera {said}.") == "A hall. The camera moves backward."
    for others in ("A hall.", "", "The camera on the table is old.", "The camera moves forward. A hall."):
        assert with_motion_of(back, others) == others


def test_the_template_keeps_the_users_words():
    assert TemplateCaptioner().caption(scene(hint=" A hall of stone. ")) == "A hall of stone. The camera moves forward."
    assert TemplateCaptioner().caption(scene(hint="")).endswith(" The camera moves forward.")
    assert len(TemplateCaptioner().caption(scene(hint="")).split()) > 8


@pytest.fixture(scope="module")
def qwen():
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLImageProcessorPil,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    tokenizer.chat_template = turns + "<|im_start|>assistant\n"
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
            "eos_token_id": ids["<|im_end|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Qwen3VLForConditionalGeneration(config)
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 1024, "longest_edge": 65536}
    )
    return QwenCaptioner(network, tokenizer, processor)


def test_the_model_is_shown_all_pictures_and_told_all_words(qwen):
    given = qwen.inputs(scene(hint="a red door"))
    text = qwen.tokenizer.decode(given["input_ids"][0])
    assert text.count("<|vision_start|>") == 6  # the photo, the latest frame, four on the way
    merged = int((given["image_grid_thw"].prod(-1) // 4).sum())
    assert text.count("<|image_pad|>") == merged == int(given["mm_token_type_ids"].sum())
    assert "a red door" in text
    assert "The camera moves forward." in text
    assert text.endswith("<|im_start|>assistant")


def test_the_model_writes_the_same_prompt_again_and_another_for_other_pictures(qwen):
    first = qwen.caption(scene())
    assert first == qwen.caption(scene())
    other = replace(scene(), photo=1 - scene().photo, latest=torch.zeros(3, HEIGHT, WIDTH), hint="a wood")
    assert qwen.caption(other) != first


def test_an_empty_answer_is_an_error(qwen, monkeypatch):
    end = qwen.tokenizer.eos_token_id
    monkeypatch.setattr(
        qwen.network, "generate", lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[end]])], dim=1)
    )
    with pytest.raises(ValueError, match="wrote nothing"):
        qwen.caption(scene())


def test_a_missing_model_says_how_to_fetch_it(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="hf download"):
        QwenCaptioner.of(str(tmp_path / "nowhere"), torch.device("cpu"))
