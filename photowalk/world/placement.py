"""Where the networks run and in which number format: the only file of the library that names devices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photowalk.models.savings import ALL_SAVINGS, Savings
from photowalk.parallel.team import Team
from photowalk.world.residency.plan import GB, Plan, Weights

CopyInWork = torch.cuda.Event | None  # None: it is done
_SMALLEST_PIECE = 2**22  # bytes of host memory
_MULTIPLIES_FLOAT8 = (8, 9)  # compute capability from which GPUs do


@dataclass(frozen=True)
class Placement:
    device: torch.device
    dtype: torch.dtype  # of the networks' matrix products
    reason: str  # why this device and number format, for the log
    vram: int | None = None  # bytes of GPU memory to use; None: there is no GPU, or what it has free
    weights: Weights | None = None  # format of the largest network's weights; None: as they are, if that fits
    plan: Plan | None = None  # what of the large networks is kept where; None: all on the device
    savings: Savings = ALL_SAVINGS  # work left out without changing a number
    branches_together: bool = False  # guidance runs its two branches as one batch, in twice the working memory
    compiled: bool = False  # the denoiser's blocks are compiled by torch.compile when they first run
    team: Team | None = None  # of processes that denoise together; None: this one is alone

    def autocast(self) -> torch.autocast:
        """Run matrix products in `dtype`; weights and everything else stay as they are."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def host(self) -> int:
        """Bytes of memory that the machine has besides its GPU."""
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def copies(self) -> Copies:
        return Copies(self.device)

    @property
    def waiting(self) -> torch.device:
        """Where what is large and seldom used is kept: the codec's streams."""
        return torch.device("cpu") if self.plan is not None and self.plan.visiting else self.device

    @property
    def memory(self) -> int | None:
        """Bytes of GPU memory that may be used; None without a GPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.mem_get_info(self.device)[0] if self.vram is None else self.vram


def choose_placement(
    device: str | None = None, *, vram_gb: float | None = None, weights: Weights | None = None
) -> Placement:
    """The given device, else the GPU if torch sees one, else the CPU; bfloat16 wherever the hardware multiplies it.
    Processes that torchrun started take a GPU each.

    `vram_gb` bounds what large networks take of a GPU, in 10^9 bytes. Raises ValueError if it is no such amount, and
    for products in float8 on a GPU that has none.
    """
    if vram_gb is not None and not 0 < vram_gb < 10_000:
        raise ValueError(f"GPU memory is given in GB, such as 24, got {vram_gb:g}")
    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    vram = None if vram_gb is None else int(vram_gb * GB)
    if chosen.type == "cuda":
        if weights == "float8-matmul" and torch.cuda.get_device_capability(chosen) < _MULTIPLIES_FLOAT8:
            raise ValueError(
                f"{torch.cuda.get_device_name(chosen)} does not multiply in float8, as Ada, Hopper and later GPUs do; "
                "--weights float8 keeps weights as small and multiplies in bfloat16"
            )
        reason = f"{torch.cuda.get_device_name(chosen)}, bfloat16"
        return Placement(chosen, torch.bfloat16, reason, vram, weights)
    if _multiplies_bfloat16():
        return Placement(chosen, torch.bfloat16, "CPU with bfloat16 instructions", vram, weights)
    return Placement(chosen, torch.float32, "CPU without bfloat16 instructions, float32", vram, weights)


class Copies:
    """Copies from host memory to a device that go on while the device computes; on a CPU they are done at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._queue = torch.cuda.Stream(device) if device.type == "cuda" else None

    def host_memory(self, size: int) -> list[Tensor]:
        """Pieces of uint8, in all at least `size` bytes, that the GPU can read while it computes.

        Their sizes are powers of two, to which torch would round a single piece up.
        """
        pieces, rest = [], -(-size // _SMALLEST_PIECE) * _SMALLEST_PIECE
        while rest:
            piece = 1 << (rest.bit_length() - 1)
            pieces.append(torch.empty(piece, dtype=torch.uint8, pin_memory=self._queue is not None))
            rest -= piece
        return pieces

    def begin(self, target: Tensor, pieces: Sequence[Tensor]) -> CopyInWork:
        """Fill `target` from the pieces, in order, once all that was asked of the device so far is done with it."""
        if self._queue is None:
            _fill(target, pieces)
            return None
        self._queue.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._queue):
            _fill(target, pieces)
            done = torch.cuda.Event()
            done.record(self._queue)
        return done

    def finish(self, copy: CopyInWork) -> None:
        """Let whatever is asked of the device from now on wait for a copy."""
        if copy is not None:
            torch.cuda.current_stream(self.device).wait_event(copy)


def _fill(target: Tensor, pieces: Sequence[Tensor]) -> None:
    first = 0
    for piece in pieces:
        target[first : first + len(piece)].copy_(piece, non_blocking=True)
        first += len(piece)


def _multiplies_bfloat16() -> bool:
    # These probes are private to torch and differ between its versions; one that is missing counts as "no".
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
