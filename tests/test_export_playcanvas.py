"""The engine of SuperSplat draws our files: what it shows is what our renderer shows."""

import functools
import http.server
import io
import json
import shutil
import threading

import numpy as np
import pytest
import torch
from browser import browser
from exports import npm_tool
from PIL import Image
from test_export_html import room

from photowalk.export.contents import Contents
from photowalk.export.conventions import RUB_FROM_RDF, Y_UP_FROM_Z_UP
from photowalk.export.formats import format_of
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import motion
from photowalk.scene.ground import level
from photowalk.scene.render import render

HEIGHT, WIDTH = 240, 360
FARTHEST_MEAN, FARTHEST_SHARE = 0.025, 0.03  # mean difference of a picture, and share of pixels that differ by a tenth
SORTINGS, LOOKS = 20, 5  # how often the camera is sent there, and how often the picture is looked at each time
FOV_DEG = 75.0
PAGE = """<!doctype html><body style="margin:0"><canvas id="view"></canvas><script type="module">
import * as pc from "./playcanvas.mjs";
const { file, width, height, fov } = SETTINGS, canvas = document.getElementById("view");
const app = new pc.Application(canvas, { graphicsDeviceOptions: { antialias: false } });
app.setCanvasFillMode(pc.FILLMODE_NONE, width, height);
app.setCanvasResolution(pc.RESOLUTION_FIXED, width, height);
app.start();
const camera = new pc.Entity();
camera.addComponent("camera", { clearColor: new pc.Color(0, 0, 0), fov, nearClip: 0.01, toneMapping: pc.TONEMAP_NONE });
app.root.addChild(camera);
const kind = file.endsWith(".glb") ? "container" : "gsplat", asset = new pc.Asset("world", kind, { url: file });
app.assets.add(asset);
asset.ready(() => {
  const entity = kind === "container" ? asset.resource.instantiateRenderEntity() : new pc.Entity();
  if (kind === "gsplat") entity.addComponent("gsplat", { asset });
  app.root.addChild(entity);
  globalThis.go = (pose) => {
    const matrix = new pc.Mat4();
    matrix.data.set(pose);
    camera.setPosition(matrix.getTranslation());
    camera.setRotation(new pc.Quat().setFromMat4(matrix));
  };
});
app.assets.load(asset);
</script>"""


@pytest.fixture(scope="module")
def contents():
    torch.manual_seed(3)
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[1, :3, 3] = torch.tensor([0.3, 0.1, -0.5])
    turn = torch.tensor(0.5)
    poses[2, :3, :3] = torch.tensor([[turn.cos(), 0, turn.sin()], [0, 1, 0], [-turn.sin(), 0, turn.cos()]])
    cameras = Cameras.from_fov(poses, FOV_DEG, HEIGHT, WIDTH)
    upward = torch.tensor([0.1, -1.0, -0.05])
    return Contents("room", cameras, level(cameras[0], upward, eye_height=1.5), room())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder and the address it is served at, for browsers load no modules from disk."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(npm_tool("playcanvas", "build/playcanvas.mjs"), folder)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})


def world_poses(contents):
    """Where the cameras are in the axes of .ply, looking along -z as the engine's do."""
    return contents.cameras.world_from_camera.double() @ motion(RUB_FROM_RDF, torch.zeros(3).double())


def upright_poses(contents):
    """Where they are in the axes of .glb."""
    upright = motion(Y_UP_FROM_Z_UP, torch.zeros(3).double()) @ contents.level_from_world
    return upright @ world_poses(contents)


@pytest.mark.parametrize(("file", "poses"), [("room.ply", world_poses), ("room.glb", upright_poses)])
def test_its_pictures_are_ours(contents, served, page, file, poses):
    folder, address = served
    format_of(file).write(folder / file, contents)
    focal = float(contents.cameras.intrinsics[0, 1, 1])
    fov = 2 * np.degrees(np.arctan(HEIGHT / 2 / focal))
    settings = {"file": file, "width": WIDTH, "height": HEIGHT, "fov": fov}
    (folder / "page.html").write_text(PAGE.replace("SETTINGS", json.dumps(settings)))
    page.goto(f"{address}/page.html")
    page.wait_for_function("typeof globalThis.go === 'function'")
    for camera, pose in zip(contents.cameras, poses(contents)):
        there, elsewhere = pose.T.flatten().tolist(), torch.eye(4).flatten().tolist()
        ours = render(contents.splats, camera).image.permute(1, 2, 0).numpy()
        for look in range(SORTINGS * LOOKS):
            if look % LOOKS == 0:
                page.evaluate(f"go({elsewhere})")  # a camera that moves while splats are sorted may not be heeded
                page.wait_for_timeout(200)
                page.evaluate(f"go({there})")
            page.wait_for_timeout(200)
            theirs = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")) / 255
            difference = np.abs(ours - theirs)
            if difference.mean() < FARTHEST_MEAN:
                break
        assert theirs.std() > 0.1
        assert difference.mean() < FARTHEST_MEAN
        assert (difference.max(-1) > 0.1).mean() < FARTHEST_SHARE
