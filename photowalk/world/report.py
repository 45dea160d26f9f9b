"""What a world folder holds, said as plain values."""

from __future__ import annotations

import math
from dataclasses import asdict

from photowalk.world.chunk_files import FRAMES_PER_SECOND
from photowalk.world.manifest import Manifest
from photowalk.world.store import WorldStore


def describe(store: WorldStore) -> dict:
    """What the world is, as plain values; lengths are in metres where the depth is."""
    manifest, cameras = store.manifest, store.cameras()
    metres = manifest.metres_per_unit or 1.0
    centres = metres * cameras.centres.double()
    focal = float(cameras.intrinsics[0, 0, 0])
    return {
        "folder": str(store.folder),
        "version": manifest.version,
        "preset": manifest.preset,
        "size": [manifest.height, manifest.width],
        "frames": manifest.frames,
        "seconds": manifest.frames / FRAMES_PER_SECOND,
        "seed": manifest.seed,
        "source": manifest.source,
        "chunks": [
            {name: value for name, value in asdict(entry).items() if name != "files"} for entry in manifest.chunks
        ],
        "cameras": {
            "focal_px": focal,
            "fov_deg": math.degrees(2 * math.atan(manifest.width / 2 / focal)),
            "walked": float(centres.diff(dim=0).norm(dim=-1).sum()),
            "farthest": float((centres - centres[0]).norm(dim=-1).max()),
            "from_start": float((centres[-1] - centres[0]).norm()),
        },
        "undone": len(manifest.undone),
        "memory": {"frames": sum(entry.depth_frames for entry in manifest.chunks)},
        "depth_network": manifest.depth_network or None,
        "scale": {
            "unit": "metre",
            "from": scale_from(manifest),
            "metres_per_unit": metres,
            "reference_depth": metres * manifest.reference_depth,
        },
        "up": manifest.up,
        "licences": manifest.licences,
        "interrupted": None if manifest.job is None else {**asdict(manifest.job), "to_go": manifest.chunks_to_go},
        "scene_frames": manifest.scene_frames,
    }


def scale_from(manifest: Manifest) -> str:
    """Where the length of a metre is known from, in words."""
    if manifest.metres_per_unit is not None:
        return "metres as they were corrected by hand"
    if "depth_sha256" in manifest.source:
        return "metres of the depth map that was given with the photo"
    return f"metres as the depth network {manifest.depth_network or f'of {manifest.preset}'} guesses them"
