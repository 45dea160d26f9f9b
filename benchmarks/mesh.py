"""How good is the mesh, and what does its sparse grid save?

python benchmarks/mesh.py [--worlds 3] [--generate]

Prints for an analytic room and for held-out synthetic worlds with exact depth: the distance from the mesh to the true
surface and back, the angle between their normals, and open edges where levels meet. Then memory and time on a street of
60 m against a dense grid of the finest cell. --generate walks the same ways with nano as well, from the first picture
and its depth alone, and judges the mesh of what it invents against the same truth.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import normalize

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import look_at
from photowalk.kernels.mesh_rays import RayCaster
from photowalk.presets import load_preset
from photowalk.reconstruct.meshing import sound_views
from photowalk.reconstruct.meshing.fusion import Field, fuse, looks_of, sizing_for
from photowalk.reconstruct.meshing.surface import extract
from photowalk.scene.surfaces import surface_of
from photowalk.scene.types import Mesh, View
from photowalk.synthetic import HELD_OUT_SEEDS, SyntheticWorld

JUDGED = 30.0  # metres from the cameras; what lies beyond is coarse on purpose
STREET_BYTES = 4 + 4 + 12  # of a cell: distance, weight, colour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--cells", type=int, default=400_000)
    parser.add_argument("--generate", action="store_true")
    options = parser.parse_args()
    judge("analytic room", *meshed(box_views((4.0, 1.5, 9.0), turning(12)), options.cells, finest=0.03))
    for seed in HELD_OUT_SEEDS[: options.worlds]:
        world = SyntheticWorld.sample(seed)
        views = views_of(world, seed)
        judge(f"{seed} {world.place.kind}", *meshed(views, options.cells))
        if options.generate:
            judge(f"{seed} generated", meshed(generated(world, seed), options.cells)[0], None, views)
    street()


def meshed(views: list[View], cells: int, finest: float | None = None) -> tuple[Mesh, Field, list[View]]:
    looks = looks_of(views)
    sizing, noise = sizing_for(looks, finest=finest, cells=cells)
    field = fuse(looks, sizing, noise)
    return extract(field), field, views


def judge(name: str, mesh: Mesh, field: Field | None, views: list[View]) -> None:
    """Truth is what the views saw: points with normals, from their exact depth."""
    points, normals, near = truth(views)
    faces = mesh.vertices[mesh.faces]
    centres = torch.stack([view.camera.centres for view in views])
    faces = faces[torch.cdist(faces.mean(1), centres).amin(1) < JUDGED]
    cross = torch.linalg.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    chosen = torch.multinomial(cross.norm(dim=1), 100_000, replacement=True)
    share = torch.distributions.Dirichlet(torch.ones(3)).sample((len(chosen),))
    on_mesh, mesh_normals = (faces[chosen] * share[..., None]).sum(1), normalize(cross[chosen], dim=1)
    back, _ = KDTree(points.numpy()).query(on_mesh.numpy())
    there, nearest = KDTree(on_mesh.numpy()).query(points.numpy())
    off = (points - on_mesh[nearest]) * mesh_normals[nearest]  # along the normal: samples lie apart
    to_plane = off.sum(1).abs()[there < 0.25]
    cosine = (normals * mesh_normals[nearest]).sum(1).clamp(-1, 1)
    angle = torch.rad2deg(cosine.arccos())
    line = (
        f"{name}: {len(mesh)} faces; truth to mesh {1000 * float(to_plane.median()):.1f} mm median, "
        f"{1000 * float(to_plane.mean()):.1f} mean, {100 * float((there < 0.25).mean()):.1f} % found; mesh to truth "
        f"{1000 * float(np.median(back)):.1f} mm median; normals {float(angle.median()):.1f} deg median; "
        f"near surfaces at {near:.1f} m"
    )
    if field is not None:
        line += f"; finest cell {1000 * field.grid.finest:.0f} mm, levels {field.grid.levels.bincount().tolist()}"
        line += f", {cracks(mesh, field)} cracks at level borders"
    print(line, flush=True)


def cracks(mesh: Mesh, field: Field) -> int:
    """Open edges where levels meet and all cells around are known; elsewhere an open edge bounds what was seen."""
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(dim=1).values
    distinct, count = torch.unique(edges, dim=0, return_counts=True)
    open_edges = distinct[count % 2 == 1]
    if len(open_edges) == 0:
        return 0
    middle = mesh.vertices[open_edges].mean(1).double()
    around = torch.cartesian_prod(*[torch.tensor([-1.6, -0.8, 0.0, 0.8, 1.6], dtype=torch.float64)] * 3)
    finest = field.grid.finest
    own = field.grid.find((middle / finest).floor().long())
    side = torch.where(own >= 0, field.grid.sides[own.clamp_min(0)], finest).double()[:, None, None]
    places = ((middle[:, None] + side * around) / finest).floor().long()
    cell = field.grid.find(places.flatten(0, 1)).view(len(middle), -1)
    known = (cell >= 0) & (field.weight[cell.clamp_min(0)] > 0)
    levels = field.grid.levels[cell.clamp_min(0)]
    return int((known.all(1) & (levels.amin(1) < levels.amax(1))).sum())


def truth(views: list[View]) -> tuple[Tensor, Tensor, float]:
    points, normals, near = [], [], []
    for view in views:
        surface = surface_of(view.depth, view.camera)
        chosen = surface.valid & (surface.slant > 0.1) & (view.depth < JUDGED)
        points.append(surface.points[chosen][::5])
        normals.append(-surface.normals[chosen][::5])
        near.append(view.depth[chosen].median())
    return torch.cat(points), torch.cat(normals), float(torch.stack(near).median())


def views_of(world: SyntheticWorld, seed: int, frames: int = 9) -> list[View]:
    cameras = world.walk(161, seed, size=(128, 224), style="onward")[:: max(1, 160 // (frames - 1))]
    clip = world.render(cameras)
    assert clip.depth is not None
    return [View(clip.video[i], clip.depth[i], clip.cameras[i], i) for i in range(len(clip))]


def generated(world: SyntheticWorld, seed: int) -> list[View]:
    """What nano makes of the first picture along the way of `views_of`: two chunks, every view with depth."""
    preset = load_preset("nano")
    generator = preset.build()
    cameras = world.walk(161, seed, size=(preset.height, preset.width), style="onward")
    first = world.render(cameras[:1])
    assert first.depth is not None
    focal_px = float(cameras.intrinsics[0, 0, 0])
    state = generator.start(
        first.video[0], focal_px=focal_px, depth=first.depth[0], camera=cameras[0], prompt=first.prompt
    )
    for start in range(1, len(cameras), preset.chunk_frames):
        state = generator.extend(state, cameras[start : start + preset.chunk_frames], first.prompt, seed=start)
    return list(sound_views(state.views))


def turning(count: int) -> list[tuple[Tensor, Tensor]]:
    angles = torch.arange(count) * 2 * torch.pi / count
    return [
        (torch.tensor([0.2, 0.1, 0.3]), torch.tensor([float(angle.sin()), 0.3, float(angle.cos())])) for angle in angles
    ]


def box_views(half: tuple[float, float, float], poses: list[tuple[Tensor, Tensor]], farthest: float = 40) -> list[View]:
    """Views from inside a box with exact depth; what is farther than `farthest` is sky."""
    views, extent = [], torch.tensor(half)
    for frame, (centre, gaze) in enumerate(poses):
        camera = Cameras.from_fov(look_at(centre, centre + gaze).float(), 90.0, 128, 224)
        rays = camera.unproject(torch.ones(128, 224)) - centre
        depth = ((extent * rays.sign() - centre) / rays).amin(-1)
        views.append(View(torch.rand(3, 128, 224), torch.where(depth > farthest, torch.inf, depth), camera, frame))
    return views


def street() -> None:
    """60 m walked between house fronts 14 m apart and 9 m high."""
    views, half = [], torch.tensor([7.0, 1.6, 1e6])
    for step in range(31):
        centre = torch.tensor([0.0, 0, 2.0 * step])
        pose = look_at(centre, centre + torch.tensor([0.4 * (-1) ** step, -0.1, 1.0])).float()
        camera = Cameras.from_fov(pose, 90.0, 128, 224)
        rays = camera.unproject(torch.ones(128, 224)) - centre
        to_front = (half[0] * rays[..., 0].sign() - centre[0]) / rays[..., 0]
        to_floor = torch.where(rays[..., 1] > 1e-6, half[1] / rays[..., 1].clamp_min(1e-6), torch.inf)
        depth = torch.minimum(to_front, to_floor)
        depth[(depth * rays[..., 1] < -7.4) | (depth > 40)] = torch.inf
        views.append(View(torch.rand(3, 128, 224), depth, camera, step))
    began = time.perf_counter()
    mesh, field, _ = meshed(views, 0, finest=0.04)
    seconds = time.perf_counter() - began
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    dense = float(((high - low) / field.grid.finest).ceil().prod())
    own = len(field.grid) * (STREET_BYTES + 8) + 16 * len(field.grid.block_keys)  # and their keys
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    few = torch.rand(200_000, 3) * (high - low) + low
    began = time.perf_counter()
    from photowalk.kernels.tsdf import fuse_places
    from photowalk.reconstruct.meshing.fusion import seen_surfaces

    fuse_places(few, torch.full((len(few),), 3 * field.grid.finest), seen_surfaces(looks_of(views)))
    dense_seconds = (time.perf_counter() - began) * dense / len(few)
    seen = RayCaster(mesh.vertices, mesh.faces).cast(
        torch.tensor([[0.0, 0, 30.0]]).expand(2, 3), torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    )
    assert bool((seen.distance - 7 < 0.1).all()), "the house fronts stand where they are"
    print(
        f"street of {float((high - low)[2]):.0f} m: {len(field.grid)} cells of {1000 * field.grid.finest:.0f} mm "
        f"and up, {own / 2**20:.0f} MiB, {seconds:.0f} s; the process peaked at {peak:.0f} MiB. "
        f"Dense: {dense:.3g} cells, {dense * STREET_BYTES / 2**20:.0f} MiB, {dense_seconds:.0f} s for fusion alone\n"
        f"{dense * STREET_BYTES / own:.1f} times less memory than a dense grid"
    )


if __name__ == "__main__":
    main()
