"""Walk on in a world, take a step back, and start a second world from an earlier moment of the first.

python examples/02_continue_undo_branch.py WORLD NEW_WORLD
"""

import sys

from photowalk import World


def main(folder: str, new_folder: str) -> None:
    world = World.open(folder)
    frames = world.manifest.frames

    world.extend("left 20deg")
    print(f"walked on: {frames} -> {world.manifest.frames} frames")

    other = world.branch(new_folder)  # shares the files of the frames that both worlds have
    world.undo()
    print(f"undone: {world.folder} has {world.manifest.frames} frames, {other.folder} keeps {other.manifest.frames}")


if __name__ == "__main__":
    main(*sys.argv[1:])
