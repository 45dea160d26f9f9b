"""Colours of places on a surface from a posed picture with depth, one thread for each run of places."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})

_HIDDEN = wp.constant(0.02)  # of the distance: what lies so far behind what a view saw is hidden from it
_PIXELS = wp.constant(2.0)  # on top of it, more on surfaces that are seen at a slant
_FLATTEST = wp.constant(0.1)  # cosine below which a surface is seen too flat to take its colour
_SHARPNESS = wp.constant(4.0)  # power of a view's merit: the best views of a place count, others hardly
_RUN = 64  # places per thread


class Painter:
    """Places on surfaces, and the colours that views gave them, weighted by how finely they saw them: how near, how
    frontal and in how many pixels."""

    def __init__(self, places: Tensor, normals: Tensor) -> None:
        """places [N, 3] and unit normals [N, 3], towards where surfaces are seen from."""
        self._places, self._normals = places.float().contiguous(), normals.float().contiguous()
        self._merit = torch.zeros(len(places), device=places.device)
        self._light = torch.zeros(len(places), 3, device=places.device)

    def look(self, image: Tensor, depth: Tensor, camera_from_world: Tensor, intrinsics: Tensor) -> None:
        """Take the colours of one view: image [3, H, W], depth [H, W] along +Z (what is not > 0 shows nothing)."""
        centre = -camera_from_world[:3, :3].T @ camera_from_world[:3, 3]
        view = [
            wp.mat44(*camera_from_world.flatten().tolist()),
            wp.mat33(*intrinsics.flatten().tolist()),
            wp.vec3(*centre.tolist()),
            wp.from_torch(depth.float().contiguous()),
            wp.from_torch(image.float().movedim(0, -1).contiguous(), dtype=wp.vec3),
        ]
        painted = [wp.from_torch(self._merit), wp.from_torch(self._light, dtype=wp.vec3)]
        where = [wp.from_torch(self._places, dtype=wp.vec3), wp.from_torch(self._normals, dtype=wp.vec3)]
        device = device_of(self._places)
        run = _RUN if device.is_cpu else 1

        def launch(first: int, count: int) -> None:
            wp.launch(_paint, count, [*where, *view, first, run, *painted], device=device)

        parallel_over_first_axis(launch, -(-len(self._places) // run), self._places.device)

    def colours(self, otherwise: Tensor) -> Tensor:
        """[N, 3] in [0, 1], those of `otherwise` [N, 3] where no view saw anything."""
        return torch.where(self._merit[:, None] > 0, self._light / self._merit.clamp_min(1e-30)[:, None], otherwise)


@wp.kernel
def _paint(
    places: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    pose: wp.mat44,
    lens: wp.mat33,
    centre: wp.vec3,
    depth: wp.array2d(dtype=wp.float32),
    image: wp.array2d(dtype=wp.vec3),
    first: int,
    run: int,
    merits: wp.array(dtype=wp.float32),
    light: wp.array(dtype=wp.vec3),
):
    block = first + wp.tid()
    focal = 0.5 * (lens[0, 0] + lens[1, 1])
    for n in range(block * run, wp.min(block * run + run, places.shape[0])):
        place = places[n]
        there = pose * wp.vec4(place[0], place[1], place[2], 1.0)
        z = there[2]
        if z > 0.0:
            x = there[0] / z * lens[0, 0] + lens[0, 2]
            y = there[1] / z * lens[1, 1] + lens[1, 2]
            if x > 1.0 and y > 1.0 and x < float(depth.shape[1] - 1) and y < float(depth.shape[0] - 1):
                ray = place - centre
                distance = wp.length(ray)
                slant = -wp.dot(ray, normals[n]) / wp.max(distance, 1.0e-9)
                seen = depth[int(y), int(x)]
                tolerance = seen * (_HIDDEN + _PIXELS / focal / wp.max(slant, _FLATTEST))
                if slant > _FLATTEST and wp.abs(seen - z) < tolerance:
                    merit = wp.pow(slant * focal / wp.max(distance, 1.0e-5), _SHARPNESS)
                    left = int(x - 0.5)
                    top = int(y - 0.5)
                    across = x - 0.5 - float(left)
                    down = y - 0.5 - float(top)
                    above = image[top, left] * (1.0 - across) + image[top, left + 1] * across
                    below = image[top + 1, left] * (1.0 - across) + image[top + 1, left + 1] * across
                    merits[n] = merits[n] + merit
                    light[n] = light[n] + merit * (above * (1.0 - down) + below * down)
