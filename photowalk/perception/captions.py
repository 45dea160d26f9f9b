"""Prompts written from what is known: the user's words, the pictures so far, and where the camera is about to go.

The default fills a template. A vision language model (Qwen3-VL of transformers) looks at the pictures: the photo, the
latest frame, and what is known of the place as the next cameras will see it, black where nobody has been.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras
from photowalk.scene.types import Clip

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration

MAX_NEW_TOKENS = 160
STILL = 0.05  # share of the reference depth below which a move is not worth a word
STEADY_DEG = 5.0
_MOTION = re.compile(r"The camera (hardly moves|(moves|turns) [a-z ]+)\.$")  # what `describe_motion` says
_IMAGE_MARK = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass(frozen=True)
class CaptionScene:
    """What a captioner may know. Pictures are [3, H, W] in [0, 1]."""

    hint: str  # the user's words; may be empty
    photo: Tensor
    latest: Tensor
    upcoming: Tensor  # [P, 3, H, W] what is known, seen by cameras on the way, black where nothing is known
    cameras: Cameras  # [F] the way
    reference_depth: float  # what distances are judged by


class Captioner(Protocol):
    def caption(self, scene: CaptionScene) -> str:
        """A prompt in English. Raises ValueError when none comes out."""
        ...


@dataclass(frozen=True)
class TemplateCaptioner:
    """The user's words, or those for any place, and how the camera moves. It does not look at pictures."""

    place: str = "A detailed, naturally lit place with consistent geometry and materials"

    def caption(self, scene: CaptionScene) -> str:
        words = scene.hint.strip().rstrip(".") or self.place
        return f"{words}. {describe_motion(scene.cameras, scene.reference_depth)}"


def load_captioner(name: str, device: torch.device) -> Captioner:
    """The captioner called template, or a Qwen3-VL model by its name on the hub or its folder. Raises ValueError."""
    return TemplateCaptioner() if name == "template" else QwenCaptioner.of(name, device)


def describe_motion(cameras: Cameras, reference_depth: float) -> str:
    """A sentence on the way from the first to the last of `cameras` [F]."""
    last = cameras[-1:].relative_to(cameras[0]).world_from_camera[0].double()
    right, down, ahead = (last[:3, 3] / reference_depth).tolist()
    gaze = last[:3, 2].tolist()
    yaw = math.degrees(math.atan2(gaze[0], gaze[2]))
    pitch = math.degrees(math.atan2(-gaze[1], math.hypot(gaze[0], gaze[2])))
    moves = [
        ("forward" if ahead > 0 else "backward", abs(ahead)),
        ("to the right" if right > 0 else "to the left", abs(right)),
        ("down" if down > 0 else "up", abs(down)),
    ]
    turns = [("right" if yaw > 0 else "left", abs(yaw)), ("up" if pitch > 0 else "down", abs(pitch))]
    moved = " and ".join(word for word, amount in moves if amount > STILL)
    turned = " and ".join(word for word, amount in turns if amount > STEADY_DEG)
    said = [f"moves {moved}" if moved else "", f"turns {turned}" if turned else ""]
    return f"The camera {' and '.join(filter(None, said)) or 'hardly moves'}."


def motion_of(clip: Clip) -> str:
    """A sentence on the way of the clip's camera, judged by the depth that is known."""
    known = clip.depth[(clip.depth > 0) & clip.depth.isfinite()] if clip.depth is not None else torch.zeros(0)
    return describe_motion(clip.cameras, float(known.median()) if len(known) else 1.0)


def with_motion_of(clip: Clip, prompt: str) -> str:
    """The prompt; if it ends with a sentence of `describe_motion`, with that of this clip instead."""
    return _MOTION.sub(motion_of(clip), prompt)


class QwenCaptioner:
    """Qwen3-VL writes the prompt; the same pictures and words always give the same prompt."""

    def __init__(
        self,
        network: Qwen3VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: BaseImageProcessor,
    ) -> None:
        self.network, self.tokenizer, self.image_processor = network.eval(), tokenizer, image_processor

    @classmethod
    def of(cls, name: str, device: torch.device) -> QwenCaptioner:
        """A model by its name on the hub, or a folder, in bfloat16. Nothing is downloaded. Raises ValueError."""
        from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

        try:
            tokenizer = cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(name, local_files_only=True))
            processor = Qwen2VLImageProcessorPil.from_pretrained(name, local_files_only=True)
            network = Qwen3VLForConditionalGeneration.from_pretrained(name, local_files_only=True, dtype=torch.bfloat16)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the captioner {name!r} cannot be loaded ({str(error).splitlines()[0]}); name a folder with a "
                f"Qwen3-VL model, or fetch one from the hub first with: hf download {name}"
            ) from error
        return cls(network.to(device), tokenizer, processor)

    @torch.inference_mode()
    def caption(self, scene: CaptionScene) -> str:
        inputs = self.inputs(scene)
        written = self.network.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answer = written[0, inputs["input_ids"].shape[1] :]
        text = str(self.tokenizer.decode(answer, skip_special_tokens=True)).strip()
        if not text:
            raise ValueError("the captioner wrote nothing; give a prompt of your own instead")
        return text

    def inputs(self, scene: CaptionScene) -> Mapping[str, Tensor]:
        """The one turn of the user as tokens and patches of the pictures."""
        pictures = [scene.photo, scene.latest, *scene.upcoming]
        pixels = [(picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu() for picture in pictures]
        patches = self.image_processor(images=pixels, return_tensors="pt")
        turn = [{"role": "user", "content": _instruction(scene)}]
        text = str(self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        merged = self.network.config.vision_config.spatial_merge_size**2
        first, *rest = text.split("<|image_pad|>")
        counts = (patches["image_grid_thw"].prod(-1) // merged).tolist()
        text = first + "".join("<|image_pad|>" * count + part for count, part in zip(counts, rest, strict=True))
        tokens = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        device, dtype = self.network.device, self.network.dtype
        return {
            "input_ids": tokens["input_ids"].to(device),
            "attention_mask": tokens["attention_mask"].to(device),
            "mm_token_type_ids": (tokens["input_ids"] == self.network.config.image_token_id).int().to(device),
            "pixel_values": patches["pixel_values"].to(device, dtype),
            "image_grid_thw": patches["image_grid_thw"].to(device),
        }


def _instruction(scene: CaptionScene) -> str:
    upcoming = len(scene.upcoming)
    lines = [
        "You write prompts for a video generator whose camera path is already decided.",
        f"Image 1, the starting photo: {_IMAGE_MARK} It settles what the place is: its architecture, materials, light, "
        "colours and mood must not change.",
        f"Image 2, the newest frame: {_IMAGE_MARK} It is what the camera sees now.",
        f"Images 3 to {2 + upcoming}, the next stretch of the way in order: {_IMAGE_MARK * upcoming} Each is what is "
        "already known there; black has never been seen.",
        f"The motion: {describe_motion(scene.cameras, scene.reference_depth)}",
        "Write one English prompt of 80 to 100 plain, concrete words: what is visible and where it stands, then what "
        "comes into view where nothing is known yet, invented to fit the starting photo, and how the camera moves. Do "
        "not speak of images, black or missing areas, these instructions, or doubts. Give the prompt only.",
    ]
    if scene.hint.strip():
        lines.append(f"What comes newly into view shows, as a natural part of the place: {scene.hint.strip()}")
    return "\n".join(lines)
