"""What the tests of exports share: a small place with corners that tell axes apart, and readers that are not ours."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from photowalk.export.contents import Contents
from photowalk.geometry.cameras import Cameras
from photowalk.scene.ground import level
from photowalk.scene.types import Mesh, Splats


def some_splats(count=50, degree=1, spread=1.0):
    generator = torch.Generator().manual_seed(1)
    return Splats(
        means=spread * torch.randn(count, 3, generator=generator),
        scales=0.01 + torch.rand(count, 3, generator=generator),
        rotations=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        opacities=torch.linspace(0.02, 0.99, count),
        colours=torch.rand(count, (degree + 1) ** 2, 3, generator=generator) - 0.5,
    )


def box(low, high, colour):
    """Twelve triangles that face outwards, or inwards where low and high are swapped."""
    corners = torch.tensor([[(low, high)[k >> axis & 1][axis] for axis in range(3)] for k in range(8)])
    quads = [(0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6)]
    faces = torch.tensor([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))])
    return Mesh(corners, faces, torch.tensor(colour).expand(8, 3), torch.zeros(12, dtype=torch.bool))


def walk(frames=5):
    """Cameras that go forward from the origin, and turn."""
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    poses[:, 2, 3] = -0.2 * torch.arange(frames)
    return Cameras.from_fov(poses.float(), 70.0, 48, 64)


def some_contents(name="Halle für Gäste", degree=1, **parts):
    cameras = walk()
    parts = {"splats": some_splats(degree=degree), **parts}
    return Contents(name, cameras, level(cameras[0], eye_height=1.5, metres=2.0), **parts)


def npm_tool(package, path):
    """A file of an npm package that .ci/run installs into .npm; where it is not there the test is skipped."""
    file = Path(__file__).parent.parent / ".npm" / "node_modules" / package / path
    if shutil.which("node") is None or not file.exists():
        pytest.skip(f"needs node and the npm package {package}")
    return str(file)


def splat_transform(source, target):
    """Convert by PlayCanvas' splat-transform."""
    tool = npm_tool("@playcanvas/splat-transform", "bin/cli.mjs")
    subprocess.run(["node", tool, "-q", "-w", str(source), str(target)], check=True, timeout=120)


def gltf_problems(file):
    """Messages of Khronos' validator as (severity, code, pointer); 0 is an error."""
    tool = npm_tool("gltf-validator", "index.js")
    script = (
        f"const content = require('fs').readFileSync({json.dumps(str(file))});"
        f"require({json.dumps(tool)}).validateBytes(new Uint8Array(content))"
        ".then(r => console.log(JSON.stringify(r.issues.messages)))"
    )
    said = subprocess.run(["node", "-e", script], check=True, capture_output=True, text=True, timeout=120).stdout
    return [(message["severity"], message["code"], message.get("pointer", "")) for message in json.loads(said)]


def order_of(found, expected):
    """For each expected point [N, 3] the index of the nearest of those found."""
    return np.linalg.norm(found[None] - expected[:, None], axis=-1).argmin(1)
