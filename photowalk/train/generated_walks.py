"""Generated walks for training and judging splats: nano walks into the first frame of clips, along their own cameras.

    python -m photowalk.train.generated_walks CLIPS FOLDER [--count 8] [--every 4]

Worlds that are complete are skipped and others are continued, so the command may be stopped and called again.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from photowalk.data.clips import find_clips, read_clip
from photowalk.presets import load_preset
from photowalk.presets.preset import Preset
from photowalk.scene.images import write_png
from photowalk.scene.types import Clip
from photowalk.world.session import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--every", type=int, default=4, help="take every n-th clip, for more kinds of places")
    parser.add_argument("--preset", default="nano")
    options = parser.parse_args()
    preset = load_preset(options.preset)
    for folder in find_clips(options.clips)[:: options.every][: options.count]:
        print(walk_into(read_clip(folder), options.folder / folder.name, preset).folder, flush=True)


def walk_into(clip: Clip, folder: Path, preset: Preset) -> World:
    """The world in `folder`: `preset` walks from the first frame of `clip`, whose depth is given, along its cameras; as
    many whole chunks as there are. What an earlier call began is finished."""
    if (folder / "world.json").exists():
        world = World.open(folder)
        return world if world.manifest.job is None else world.extend()
    first, cameras = clip.view(0), clip.cameras.relative_to(clip.cameras[0])
    frames = (len(cameras) - 1) // preset.chunk_frames * preset.chunk_frames
    fov = 2 * math.degrees(math.atan(cameras.width / 2 / float(cameras.intrinsics[0, 0, 0])))
    with tempfile.TemporaryDirectory() as temporary:
        photo, depth = Path(temporary) / "photo.png", Path(temporary) / "depth.npy"
        write_png(photo, first.image)
        np.save(depth, first.depth.numpy())
        return World.create(
            photo,
            folder,
            path=cameras[1 : 1 + frames],
            prompt=clip.prompt,
            preset=preset,
            size=(cameras.height, cameras.width),
            depth=depth,
            fov_deg=fov,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
