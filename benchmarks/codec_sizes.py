"""What a linear video code keeps at several sizes, and what the nano codec keeps in the walk: a table.

    python benchmarks/codec_sizes.py FOLDER [--pictures 12] [--fit-on FOLDER]

FOLDER holds photographs. A third of them is measured; the bases of the linear codes are fitted on the rest (or on the
pictures of --fit-on). "still" is one photograph, "moving" four frames that pan at 1 and 3 pixels a frame: a linear code
codes their four patches as one, the nano codec draws three of them from the fourth and its forerunner.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from photowalk.models.nano_codec import NanoCodec
from photowalk.models.weights import load_weights
from photowalk.train.moving_pictures import moving_picture, read_pictures

SIZE = (256, 448)
LINEAR_CODES = ((8, 16), (8, 24), (8, 32), (16, 64), (16, 96), (16, 128))  # pixels a latent row, channels
SPEEDS = (1.0, 3.0)
ROUNDS = (1, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit-on", type=Path)
    parser.add_argument("--pictures", type=int, default=12, help="measured")
    arguments = parser.parse_args()
    pictures = read_pictures([arguments.folder], *SIZE)
    measured = pictures[::3][: arguments.pictures]
    fitted = read_pictures([arguments.fit_on], *SIZE) if arguments.fit_on else pictures[1::3]
    random = torch.Generator().manual_seed(0)
    fitting = [moving_picture(picture, 4, SIZE, random) for picture in fitted]
    videos = {speed: [moving_picture(p, 17, SIZE, random, speed) for p in measured] for speed in (0.0, *SPEEDS)}
    print(f"{len(measured)} photographs at {SIZE[0]}x{SIZE[1]}, median PSNR in dB")
    print("| code | values a pixel, still | still | moving 1 px | moving 3 px |")
    print("|---|---|---|---|---|")
    for patch, channels in LINEAR_CODES:
        print(_linear_row(patch, channels, fitting, videos))
    print(_nano_rows(videos))


def _linear_row(patch: int, channels: int, fitting: list[Tensor], videos: dict[float, list[Tensor]]) -> str:
    still = _principal([video[:1] for video in fitting], patch, channels)
    moving = _principal(fitting, patch, channels)
    scores = [median(_psnr(_project(v[:1], still, patch), v[:1]) for v in videos[0.0])]
    scores += [median(_psnr(_project(v[1:5], moving, patch), v[1:5]) for v in videos[speed]) for speed in SPEEDS]
    return _row(f"linear, {patch} px, {channels} channels", channels / patch**2, scores)


def _nano_rows(videos: dict[float, list[Tensor]]) -> str:
    codec = NanoCodec(NanoCodec.Config())
    load_weights(codec, Path(__file__).parent.parent / "photowalk" / "weights" / "nano" / "codec.safetensors")
    scores = {rounds: [] for rounds in ROUNDS}
    for speed in (0.0, *SPEEDS):
        kept = [_rounds(codec, video) for video in videos[speed]]
        for rounds in ROUNDS:
            scores[rounds].append(median(score[rounds] for score in kept))
    name = f"nano, {codec.spatial_factor} px, {codec.channels} channels, round"
    return "\n".join(_row(f"{name} {n}", codec.channels / codec.spatial_factor**2, scores[n]) for n in ROUNDS)


@torch.inference_mode()
def _rounds(codec: NanoCodec, video: Tensor) -> dict[int, float]:
    """PSNR of video [F, 3, H, W] after coding it again and again, rounded to bytes between."""
    truth = video.transpose(0, 1)[None]
    current, scores = truth, {}
    for rounds in range(1, max(ROUNDS) + 1):
        decoded, _ = codec.decode(codec.encode(current, {})[0], {})
        current = (decoded.clamp(-1, 1) * 127.5).round() / 127.5
        scores[rounds] = _psnr(current, truth)
    return scores


def _groups(video: Tensor, patch: int) -> Tensor:
    """[F, 3, H, W] -> [patches, F * 3 * patch * patch]."""
    return F.pixel_unshuffle(video, patch).flatten(0, 1).flatten(1).T


def _principal(videos: list[Tensor], patch: int, channels: int) -> Tensor:
    scatter = sum(groups.T.double() @ groups.double() for groups in (_groups(video, patch) for video in videos))
    return torch.linalg.eigh(scatter).eigenvectors.flip(1).T[:channels].float()


def _project(video: Tensor, basis: Tensor, patch: int) -> Tensor:
    frames, _, height, width = video.shape
    kept = (_groups(video, patch) @ basis.T @ basis).T.unflatten(1, (height // patch, width // patch))
    return F.pixel_shuffle(kept.unflatten(0, (frames, -1)), patch)


def _psnr(got: Tensor, wanted: Tensor) -> float:
    """Of pictures in [-1, 1]."""
    return -10 * math.log10(float((got - wanted).square().mean()) / 4)


def _row(name: str, density: float, scores: list[float]) -> str:
    return f"| {name} | {density:.2f} | " + " | ".join(f"{score:.1f}" for score in scores) + " |"


if __name__ == "__main__":
    main()
