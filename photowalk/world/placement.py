"""Where the networks run and in which number format: the only file of the library that names devices."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Placement:
    device: torch.device
    dtype: torch.dtype  # of the networks' matrix products
    reason: str  # why this device and number format, for the log

    def autocast(self) -> torch.autocast:
        """Run matrix products in `dtype`; weights and everything else stay as they are."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def choose_placement(device: str | None = None) -> Placement:
    """The given device, else the GPU if torch sees one, else the CPU; bfloat16 wherever the hardware multiplies it."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        return Placement(chosen, torch.bfloat16, f"{torch.cuda.get_device_name(chosen)}, bfloat16")
    if _multiplies_bfloat16():
        return Placement(chosen, torch.bfloat16, "CPU with bfloat16 instructions")
    return Placement(chosen, torch.float32, "CPU without bfloat16 instructions, float32")


def _multiplies_bfloat16() -> bool:
    # These probes are private to torch and differ between its versions; one that is missing counts as "no".
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
