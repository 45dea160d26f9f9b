"""Ask a world's memory which of its frames show what a camera would see.

    python examples/03_what_memory_recalls.py WORLD

Geometry only routes: every remembered frame has a depth map, whose points are seen from the new camera; the frames that
together cover most of it are recalled, the best one last.
"""

import sys

from photowalk import World
from photowalk.geometry.path_language import plan
from photowalk.memory.policies import GreedyCoverage


def main(folder: str) -> None:
    state = World.open(folder).state
    print(f"{len(state.memory)} of {state.frames} frames are remembered")

    start = state.cameras[0]
    walk = plan("look left 30deg", start, start_of_walk=start, reference_depth=state.reference_depth)
    for index in range(0, len(walk.cameras), 20):
        views = state.memory.recall(walk.cameras[index : index + 1], count=3, policy=GreedyCoverage())
        print(f"turning left, step {index}: frames {[view.frame for view in views]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
