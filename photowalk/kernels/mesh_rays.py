"""What rays meet on a triangle mesh, through Warp's bounding volume hierarchy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import warp as wp
from torch import Tensor

from photowalk.kernels.launch import device_of, load_kernel, parallel_over_first_axis

wp.set_module_options({"enable_backward": False})


@dataclass(frozen=True)
class Hits:
    distance: Tensor  # [R] in lengths of the direction, inf where nothing is met
    face: Tensor  # [R] int32, -1 where nothing is met
    weights: Tensor  # [R, 3] of the face's corners


@wp.kernel
def _cast_kernel(
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    first: int,
    run: int,  # rays per thread
    last: int,
    distance: wp.array(dtype=wp.float32),
    face: wp.array(dtype=wp.int32),
    weights: wp.array(dtype=wp.vec3),
):
    block = wp.tid()
    for n in range(first + block * run, wp.min(first + block * run + run, last)):
        length = wp.length(directions[n])
        if length > 0.0:
            hit = wp.mesh_query_ray(mesh, origins[n], directions[n] / length, 1.0e9)
            if hit.result:  # ty: ignore[missing-attribute]
                distance[n] = hit.t / length  # ty: ignore[missing-attribute]
                face[n] = hit.face  # ty: ignore[missing-attribute]
                weights[n] = wp.vec3(hit.u, hit.v, 1.0 - hit.u - hit.v)  # ty: ignore[missing-attribute]


class RayCaster:
    """A mesh, ready to be asked. vertices [V, 3], faces [T, 3] with T > 0."""

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        self._device = device_of(vertices)
        self._points = wp.from_torch(vertices.float().contiguous(), dtype=wp.vec3)
        self._indices = wp.from_torch(faces.int().flatten().contiguous())
        self._mesh = wp.Mesh(self._points, self._indices)

    def cast(self, origins: Tensor, directions: Tensor) -> Hits:
        """Rays from origins [R, 3] along directions [R, 3] of any length."""
        count = len(directions)
        origins, directions = origins.float().contiguous(), directions.float().contiguous()
        distance = torch.full((count,), torch.inf, device=directions.device)
        face = torch.full((count,), -1, dtype=torch.int32, device=directions.device)
        weights = torch.zeros(count, 3, device=directions.device)
        inputs = [wp.from_torch(origins, dtype=wp.vec3), wp.from_torch(directions, dtype=wp.vec3)]
        outputs = [wp.from_torch(distance), wp.from_torch(face), wp.from_torch(weights, dtype=wp.vec3)]
        load_kernel(_cast_kernel, self._device)

        def launch(first: int, rays: int) -> None:
            run = max(rays, 1) if self._device.is_cpu else 1
            limits = [first, run, first + rays]
            inputs_and_limits = [self._mesh.id, *inputs, *limits]
            wp.launch(_cast_kernel, -(-rays // run), [*inputs_and_limits, *outputs], device=self._device)

        parallel_over_first_axis(launch, count, directions.device)
        return Hits(distance, face, weights)
