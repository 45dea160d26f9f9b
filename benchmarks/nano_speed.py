"""Seconds that nano takes for one chunk of 80 frames, all included, and where they go.

python benchmarks/nano_speed.py [PHOTO]
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path

from photowalk.geometry.paths import PRESETS
from photowalk.presets import load_preset
from photowalk.scene.images import read_photo
from photowalk.world.progress import Progress

EXAMPLE = Path(__file__).parent.parent / "examples" / "photo" / "hall.jpg"


def main() -> None:
    preset = load_preset("nano")
    started = time.perf_counter()
    generator = preset.build()
    file, times = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE, generator.config.close_up
    photo = read_photo(file, preset.height, preset.width)
    close_up = read_photo(file, times * preset.height, times * preset.width).image
    print(f"load                {time.perf_counter() - started:6.2f} s")
    started = time.perf_counter()
    state = generator.start(photo.image, focal_px=photo.focal_px, close_up=close_up)
    print(f"start               {time.perf_counter() - started:6.2f} s")
    for chunk in range(2):  # the first one also compiles kernels
        stages: dict[str, float] = defaultdict(float)
        clock = [time.perf_counter(), ""]

        def on_step(progress: Progress, stages: dict[str, float] = stages, clock: list = clock) -> None:
            now = time.perf_counter()
            stages[clock[1]] += now - clock[0]
            clock[:] = [now, progress.stage]

        path = PRESETS["forward"](state.cameras[-1], preset.chunk_frames + 1, state.reference_depth)
        started = time.perf_counter()
        state = generator.extend(state, path[1:], "", seed=chunk, on_step=on_step)
        total = time.perf_counter() - started
        for stage, seconds in stages.items():
            print(f"  {stage or 'before':18s}{seconds:6.2f} s")
    print(f"one chunk of {preset.chunk_frames} frames: {total:.2f} s")


if __name__ == "__main__":
    main()
