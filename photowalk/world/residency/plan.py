"""Which weights stay on the GPU, which wait in host memory, and in which number format: chosen by arithmetic alone.

Exact numbers come first: weights are streamed from host memory before they are made coarser, since copying them is
hidden behind the computation. It knows sizes in bytes and nothing of networks or devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Weights = Literal["bfloat16", "int8", "float8", "float8-matmul"]

GB = 10**9
RESERVE = GB  # for the driver, libraries and what the allocator cannot use
SLOTS = 2  # of a streamed block's size, on the GPU
HOST_SHARE = 0.8  # of the machine's memory that may hold weights that wait
PINNED_RATE, PAGED_RATE = 25 * GB, 5 * GB  # bytes a second over PCIe 4.0 x16: usual figures, not measured here


class PlanError(ValueError):
    """The networks do not fit: the text says how much is wanted."""


@dataclass(frozen=True)
class Footprint:
    """What large networks take of memory, in bytes, at one size of the frames; the denoiser's weights in bfloat16."""

    blocks: int  # of the denoiser
    step: int  # weights of a block that every pass of the denoiser reads
    once: int  # weights of a block that are read once in a chunk: keys and values of text and picture
    rest: int  # of the denoiser besides its blocks
    text: int
    image: int
    codec: int
    depth: int
    largest_visitor: int  # of the layers in which the text and picture encoders and the depth network visit
    sampling: int  # working memory of the denoiser, and what it is told of a chunk
    coding: int  # working memory of the codec
    seeing: int  # working memory of the depth network
    streams: int  # state of the codec's streams
    walk: int  # frames, depths and latents of a walk of a few chunks

    @property
    def visitors(self) -> int:
        return self.text + self.image + self.codec + self.depth


@dataclass(frozen=True)
class Plan:
    """`choose_plan` makes it; `residency.arrange` carries it out."""

    footprint: Footprint
    memory: int  # bytes of GPU memory that it was chosen for
    streamed: tuple[int, ...]  # blocks whose weights wait in host memory; the others stay on the GPU
    weights: Weights  # of the blocks
    visiting: bool  # encoders, codec and depth network are on the GPU only while they are used

    @property
    def peak(self) -> int:
        """Estimated bytes of GPU memory."""
        sizes, streamed = self.footprint, len(self.streamed)
        block = self._stored(sizes.step + sizes.once)
        kept = RESERVE + sizes.walk + sizes.rest + (sizes.blocks - streamed) * block
        kept += SLOTS * block if streamed else 0
        if self.visiting:
            coding = sizes.codec + sizes.streams + sizes.coding
            return kept + max(sizes.sampling, coding, sizes.seeing, sizes.largest_visitor)
        return kept + sizes.visitors + sizes.streams + max(sizes.sampling, sizes.coding, sizes.seeing)

    @property
    def host(self) -> int:
        """Bytes of host memory that the denoiser's waiting weights take. Those of visitors are views of their files."""
        return len(self.streamed) * self._stored(self.footprint.step + self.footprint.once)

    @property
    def copied_in_a_pass(self) -> int:
        """Bytes that travel in every pass of the denoiser, while it computes."""
        return len(self.streamed) * self._stored(self.footprint.step)

    @property
    def copied_in_a_chunk(self) -> int:
        """Bytes that are waited for once in a chunk, besides those of visitors."""
        return len(self.streamed) * self._stored(self.footprint.once)

    def described(self) -> str:
        """For people: what was chosen and what it will cost."""
        sizes, streamed = self.footprint, len(self.streamed)
        denoiser = sizes.rest + sizes.blocks * self._stored(sizes.step + sizes.once)
        lines = [
            f"GPU memory: {self.memory / GB:.1f} GB to use, about {self.peak / GB:.1f} GB planned",
            f"  denoiser: {denoiser / GB:.1f} GB, blocks in {self.weights}; {sizes.blocks - streamed} of "
            f"{sizes.blocks} blocks stay"
            + (f", {streamed} travel from {self.host / GB:.1f} GB of host memory" if streamed else ""),
            f"  text encoder {sizes.text / GB:.1f}, picture encoder {sizes.image / GB:.1f}, codec "
            f"{sizes.codec / GB:.1f}, depth {sizes.depth / GB:.1f} GB: "
            + ("there only while they are used" if self.visiting else "stay"),
            f"  working memory: sampling {sizes.sampling / GB:.1f}, codec {sizes.coding / GB:.1f} and its streams "
            f"{sizes.streams / GB:.1f}, depth {sizes.seeing / GB:.1f}, walk {sizes.walk / GB:.1f} GB",
        ]
        if streamed:
            seconds, wait = self.copied_in_a_pass / PINNED_RATE, self.copied_in_a_chunk / PINNED_RATE
            lines.append(
                f"  copies: {self.copied_in_a_pass / GB:.1f} GB in each pass of the denoiser, {seconds:.1f} s beside "
                f"its work; {self.copied_in_a_chunk / GB:.1f} GB, {wait:.1f} s of waiting, in each chunk"
            )
        if self.visiting:
            often, text = sizes.visitors - sizes.text + 2 * sizes.streams, sizes.text  # streams come and go back
            lines.append(
                f"  visits: {often / GB:.1f} GB, about {often / PAGED_RATE:.1f} s, in each chunk; {text / GB:.1f} GB, "
                f"about {text / PAGED_RATE:.1f} s, for each new prompt"
            )
        if len(lines) > 4:
            lines[-1] += " (at usual rates of PCIe 4.0)"
        return "\n".join(lines)

    def _stored(self, size: int) -> int:
        return size if self.weights == "bfloat16" else size // 2


def choose_plan(footprint: Footprint, memory: int, host: int, weights: Weights | None = None) -> Plan:
    """The quickest plan of exact weights for `memory` bytes on the GPU and a machine with `host` bytes, else of int8.

    Everything stays on the GPU if it fits; then encoders and codec visit; then as few blocks as must be are streamed.
    `weights` asks for a format. Raises PlanError that says what is wanted where nothing fits.
    """
    if weights is not None and weights not in get_args(Weights):
        raise PlanError(f"weights are kept as {', '.join(get_args(Weights))}, got {weights!r}")
    formats: tuple[Weights, ...] = ("bfloat16", "int8") if weights is None else (weights,)
    plans = [plan for each in formats for plan in _plans(footprint, memory, each)]
    fitting = [plan for plan in plans if plan.peak <= memory]
    for plan in fitting:
        if plan.host <= HOST_SHARE * host:
            return plan
    smallest = min(plans, key=lambda plan: plan.peak)
    if not fitting:
        raise PlanError(
            f"{memory / GB:.1f} GB of GPU memory are too few: at this size of the frames at least "
            f"{smallest.peak / GB:.1f} GB are wanted ({smallest.weights} weights that travel block by block); choose "
            "smaller frames with --size, or the preset nano"
        )
    least = min(fitting, key=lambda plan: plan.host)
    raise PlanError(
        f"with {memory / GB:.1f} GB of GPU memory, {least.host / GB:.1f} GB of weights wait in host memory, of which "
        f"this machine has {host / GB:.1f} GB; it wants {least.host / HOST_SHARE / GB:.0f} GB, or a larger GPU"
    )


def _plans(footprint: Footprint, memory: int, weights: Weights) -> list[Plan]:
    """From the quickest to the smallest."""
    plans = [Plan(footprint, memory, (), weights, visiting=False)]
    for count in range(0, footprint.blocks + 1, SLOTS):  # so that the first block's slot is free while the last works
        streamed = tuple(index * footprint.blocks // count for index in range(count))
        plans.append(Plan(footprint, memory, streamed, weights, visiting=True))
    return plans
