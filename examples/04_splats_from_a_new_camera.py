"""Turn a walk into splats and look at them from a camera that the walk never had.

python examples/04_splats_from_a_new_camera.py WORLD PICTURE.png
"""

import sys

from photowalk import World
from photowalk.geometry.path_language import plan
from photowalk.reconstruct import reconstruct
from photowalk.scene.images import write_png
from photowalk.scene.render import render


def main(folder: str, picture: str) -> None:
    state = World.open(folder).state
    splats = reconstruct([chunk.clip for chunk in state.chunks]).everything
    print(f"{len(splats)} splats from {state.frames} frames")

    start = state.cameras[0]
    aside = plan("right 0.1, up 0.1", start, start_of_walk=start, reference_depth=state.reference_depth).cameras[-1]
    write_png(picture, render(splats, aside).image.clamp(0, 1))
    print(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
