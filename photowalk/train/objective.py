"""What the denoiser is trained for: which past it is shown, which noise, and which error counts.

It knows no files, networks or loops. What generation must share with training (hole masks in the idle mask channels,
inverse depth scaled by the scene's own median in the correspondence) belongs to `ConditioningConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from photowalk.diffusion.flow import TIMESTEPS, TrainingSchedule, clean_estimate, velocity_target
from photowalk.memory.policies import Forgetful, Policy, RandomOwnership
from photowalk.models.history_layout import HistoryLayout

Kind = Literal["plain", "first", "own"]  # a chunk behind a true past, the first chunk, one behind a past drawn again
PUBLISHED_TRAINABLE = ("self_attn.", "cam_encoder.", "buffer_encoder.", "clean_patch_embeddings.", "patch_embedding.")


@dataclass(frozen=True)
class Objective:
    """Each field with why it is as it is. `as_released()` is what the published code does, slips included."""

    # Share of samples whose past the denoiser drew itself (self-augmentation), so that it meets its own errors in
    # training. It is a share of all samples; the published 0.7 is of every second step only, 0.35 of all.
    own_past: float = 0.5
    # Share of samples that begin a world, with the photo alone in memory. Ours has first chunks among the plain ones.
    first: float = 0.0
    every: int = 1  # only each n-th step draws the two kinds above, the others are plain
    # Largest noise level from which the past is drawn again, in one step: what it shows must still be what follows.
    own_noise: float = 0.5
    # Whether frames before the part drawn again also come back from the codec, the photo too, though in a walk the
    # photo stays as it is and later frames have their detail restored.
    worn_history: bool = False
    # Logarithms of the noise levels given to recalled latents: mean and deviation. Ours gets worn views from walks'
    # own past instead.
    recall_noise: tuple[float, float] | None = None
    # Whether a clip's chunks begin at a random frame; at frame 0 a clip of n chunks has only n alignments.
    random_starts: bool = True
    # Whether training remembers and recalls as generation does. Otherwise frames of the clip's future are recalled,
    # which no walk can, drawn by chance instead of by what they cover.
    matched_recall: bool = True
    forget: float = 0.1  # how often some of the recalled views are dropped, so that empty slots are known too
    memory_stride: int = 8  # where recall is not matched: every n-th frame is remembered,
    memory_gap: int = 16  # but none so close to the chunk
    # Largest relative error given to depth, smooth over the frame: in a walk depth is estimated, never exact.
    depth_noise: float = 0.06
    # Share of samples without their prompt, for guidance. Without guidance it would only take the prompt away.
    text_dropout: float = 0.0
    # "clean": squared error of the clean latents, the same at every noise level, so that the step from pure noise
    # counts; for few steps. "velocity": of the velocity, weighted by a bell that is zero there.
    error: Literal["clean", "velocity"] = "clean"
    hole_weight: float = 4.0  # how much more invented places count than warped ones, which are most of a frame
    # How much the error of features of the pictures counts beside it (`train/looks.py`), for nano's latents only.
    look: float = 0.0
    # Parts of parameter names that learn; empty: all. The published list is undone before training begins.
    trainable: tuple[str, ...] = ()
    # Whether weights are kept in float32 beside the bfloat16 that computes. In bfloat16 a step of the published size
    # is less than half the distance to the next number for most weights, and they stay where they are.
    master_weights: bool = True

    @classmethod
    def as_released(cls) -> Objective:
        return cls(
            own_past=0.7,
            first=0.3,
            every=2,
            worn_history=True,
            recall_noise=(-3.0, 2.0),
            random_starts=False,
            matched_recall=False,
            depth_noise=0.0,
            text_dropout=0.2,
            error="velocity",
            hole_weight=1.0,
            master_weights=False,
        )

    def kind(self, step: int, chance: float) -> Kind:
        """The kind of sample that a step takes; `chance` is uniform in [0, 1)."""
        if step % self.every:
            return "plain"
        if chance <= self.first and self.first:
            return "first"
        return "own" if chance < self.first + self.own_past else "plain"

    def draw_kind(self, kinds: Sequence[Kind], random: torch.Generator) -> Kind:
        """The kind of a sample whose step is unknown; plain, if it is none of `kinds`, those there are."""
        step = int(torch.randint(self.every, (), generator=random))
        kind = self.kind(step, float(torch.rand((), generator=random)))
        return kind if kind in kinds else "plain"

    def remembered(self, kind: Kind, frames: int, first: int, chunk: int, stride: int) -> list[int]:
        """Frames of a clip that memory holds when the chunk from frame `first` on is made. `stride` is generation's."""
        if kind == "first":
            return [0]
        if self.matched_recall:
            return [0, *range(stride, first, stride)]
        near = range(first - self.memory_gap, first + chunk + self.memory_gap)
        return [i for i in range(self.memory_stride, frames, self.memory_stride) if i not in near]

    def recall(self, policy: Policy | None, seed: int) -> Policy | None:
        """How training chooses among them; `policy` is generation's, None where it recalls nothing."""
        if not self.matched_recall:
            return RandomOwnership(seed, self.forget)
        return None if policy is None else Forgetful(policy, seed, self.forget)

    def own_level(self, uniform: Tensor, schedule: TrainingSchedule) -> Tensor:
        """The noise level from which the past is drawn again, [B] for places [B] in the schedule: a share of it, as
        the nearest entry of the schedule's table."""
        level, _ = schedule.at(uniform)
        timestep = (level * TIMESTEPS * self.own_noise).floor().clamp_min(1)
        table = schedule.sigmas * TIMESTEPS
        return schedule.sigmas[(table[None] - timestep[:, None]).abs().argmin(1)]

    def recall_levels(self, uniform: Tensor) -> Tensor:
        """Noise levels of recalled latents for uniform chance, both [*]; log-normal."""
        if self.recall_noise is None:
            return torch.zeros_like(uniform)
        mean, deviation = self.recall_noise
        return torch.exp(mean + deviation * torch.special.ndtri(uniform.double())).float()

    def freeze(self, network: nn.Module) -> None:
        """Let only the parameters learn that `trainable` names. Raises ValueError if it names none."""
        names = [name for name, _ in network.named_parameters() if any(part in name for part in self.trainable)]
        if self.trainable and not names:
            raise ValueError(f"no parameter of the network has one of {', '.join(self.trainable)} in its name")
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not self.trainable or name in names)


def corrupted(history: Tensor, layout: HistoryLayout, noise: Tensor, levels: Tensor) -> Tensor:
    """History latents [B, C, T_old, h, w] with noise [B, C, K, h, w] of `levels` [B, K] on the recalled ones."""
    history = history.clone()
    history[:, :, recalled_frames(layout)] += noise * levels[:, None, :, None, None]
    return history


def recalled_frames(layout: HistoryLayout) -> list[int]:
    """Which of the packed frames are recalled ones."""
    return [i for segment in layout.segments(1, 1) if segment.kind == "space" for i in segment.frames]


def prediction_error(
    objective: Objective,
    velocity: Tensor,  # [B, C, T, h, w] as the network says
    noisy: Tensor,
    clean: Tensor,
    noise: Tensor,
    sigma: Tensor,  # [B]
    weight: Tensor,  # [B] of the noise level
) -> Tensor:
    """[B, C, T, h, w]; its mean is the loss, where nothing else is weighted."""
    if objective.error == "velocity":
        return weight.view(-1, 1, 1, 1, 1) * (velocity - velocity_target(clean, noise)).square()
    return (clean_estimate(noisy, velocity, sigma) - clean).square()
