"""Does nano keep a photo when the camera stands still?

    python benchmarks/identity.py PHOTO...

Generates one chunk without motion from each photo and prints the PSNR of its frames against the resized photo.
"""

from __future__ import annotations

import sys
from pathlib import Path

from photowalk.evaluate.images import psnr
from photowalk.presets import load_preset
from photowalk.scene.images import read_photo

WANTED = 24.0  # dB


def main() -> int:
    preset = load_preset("nano")
    generator = preset.build()
    worst = float("inf")
    for name in sys.argv[1:]:
        photo = read_photo(Path(name), preset.height, preset.width)
        start = generator.start(photo.image, focal_px=photo.focal_px)
        standing = start.cameras[[0] * preset.chunk_frames]
        frames = generator.extend(start, standing, "", seed=0).video[1:]
        figures = psnr(frames, photo.image)
        worst = min(worst, float(figures.min()))
        print(f"{name}: first {figures[0]:.1f} dB, last {figures[-1]:.1f} dB, worst {figures.min():.1f} dB", flush=True)
    print(f"worst frame of all: {worst:.1f} dB, wanted {WANTED:.0f} dB: {'pass' if worst >= WANTED else 'FAIL'}")
    return 0 if worst >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
