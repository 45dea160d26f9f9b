"""Make a world of a photo, walk in it, and save the walk as a video.

    python examples/01_walk_into_a_photo.py [PHOTO] [FOLDER]

Without arguments it walks into the example photo and leaves the world in out/example.
"""

import sys
from pathlib import Path

from photowalk import World

HERE = Path(__file__).parent


def main(photo: str = str(HERE / "photo" / "hall.jpg"), folder: str = "out/example", **options) -> None:
    # A path is a sentence, the name of a preset, or a file of camera poses; docs/paths.md has them all.
    path = "look left 15deg, forward 0.5, back to start"
    world = World.create(photo, folder, path=path, on_note=print, **options)  # options: prompt, seed, size, depth, ...
    facts = world.info()
    print(f"{facts['frames']} frames, walked {facts['cameras']['walked']:.2f} m: {world.folder / 'walk.mp4'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
