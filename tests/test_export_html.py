"""The page is opened from disk by a browser without network, looked at, and walked in."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser import browser
from exports import box, npm_tool, some_contents, walk
from PIL import Image

from photowalk.export.contents import Contents
from photowalk.export.formats import format_of
from photowalk.export.solid import solid_cells
from photowalk.geometry.cameras import Cameras
from photowalk.scene.ground import level
from photowalk.scene.render import render
from photowalk.scene.types import Mesh, Splats

HEIGHT, WIDTH, EYE = 160, 240, 1.5
FARTHEST_MEAN, FARTHEST_SHARE = 0.015, 0.03  # mean difference of a picture, and share of pixels that differ by a tenth


def room(splats_per_metre=9):
    """Splats on the inside of a room of 4 x 3 x 6 metres, chequered, with a pillar in it 2 m ahead and to the left."""
    half = torch.tensor([2.0, 1.5, 3.0])
    parts, colours = [], []
    steps = [torch.arange(-float(h), float(h), 1 / splats_per_metre) + 0.5 / splats_per_metre for h in half]
    for axis in range(3):
        a, b = (other for other in range(3) if other != axis)
        grid = torch.stack(torch.meshgrid(steps[a], steps[b], indexing="ij"), dim=-1).view(-1, 2)
        for side in (-1, 1):
            points = torch.empty(len(grid), 3)
            points[:, axis], points[:, a], points[:, b] = side * half[axis], grid[:, 0], grid[:, 1]
            chequer = (grid.floor().sum(1) % 2)[:, None]
            parts.append(points)
            colours.append(chequer * torch.tensor([0.9, 0.9, 0.8]) + (1 - chequer) * torch.rand(3).round() * 0.6)
    pillar = torch.stack(torch.meshgrid(*(torch.arange(-0.3, 0.31, 0.06),) * 2, steps[1], indexing="ij"), -1).view(
        -1, 3
    )
    parts.append(pillar[:, [0, 2, 1]] + torch.tensor([-1.0, 0, 1.0]))
    colours.append(torch.tensor([0.2, 0.5, 0.9]).expand(len(parts[-1]), 3))
    means, rgb = torch.cat(parts) + torch.tensor([0, 0, 2.0]), torch.cat(colours)
    return Splats(
        means,
        torch.full((len(means), 3), 0.5 / splats_per_metre) * torch.tensor([1.0, 0.7, 0.4]),
        torch.nn.functional.normalize(torch.randn(len(means), 4), dim=-1),
        torch.full((len(means),), 0.95),
        ((rgb - 0.5) / 0.28209479177387814)[:, None],
    )


@pytest.fixture(scope="module")
def contents():
    torch.manual_seed(3)
    poses = torch.eye(4).repeat(30, 1, 1)
    poses[:, 2, 3] = -0.03 * torch.arange(30)
    turn = torch.linspace(0, 0.5, 30)
    poses[:, 0, 0], poses[:, 0, 2], poses[:, 2, 0], poses[:, 2, 2] = turn.cos(), turn.sin(), -turn.sin(), turn.cos()
    cameras = Cameras.from_fov(poses, 75.0, HEIGHT, WIDTH)
    return Contents("Küche <&> „Diele“ </script>", cameras, level(cameras[0], eye_height=EYE), room())


@pytest.fixture(scope="module")
def opened():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def page(opened, contents, tmp_path_factory):
    file = tmp_path_factory.mktemp("pages") / "Über die Küche.html"
    format_of(file).write(file, contents)
    context = opened.new_context(viewport={"width": WIDTH, "height": HEIGHT}, offline=True, has_touch=True)
    tab, requests, errors = context.new_page(), [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(file.as_uri())
    tab.wait_for_function("document.getElementById('loading').hidden")
    yield tab
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "blob:"))] == []


def picture(page, frame):
    page.evaluate(f"photowalk.visit({frame}); photowalk.settled()")
    return settled(page)


def settled(page):
    page.evaluate("document.body.classList.add('bare')")
    page.evaluate("photowalk.settled()")
    seen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    page.evaluate("document.body.classList.remove('bare')")
    return seen / 255


def ours(contents, frame):
    return render(contents.splats, contents.cameras[frame]).image.permute(1, 2, 0).numpy()


def position(page):
    return np.array(page.evaluate("photowalk.position"))


def hold(page, *keys, until=lambda position: False):
    """Where one comes to from the start when keys are held, until something, or until one gets no further."""
    page.evaluate("photowalk.visit(0)")
    return hold_on(page, *keys, until=until)


def wait_for_frames(page):
    """A tenth of a second, and until two frames were drawn, which may take longer in software on a busy machine."""
    page.wait_for_timeout(100)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def hold_on(page, *keys, until=lambda position: False):
    for key in keys:
        page.keyboard.down(key)
    before, still = position(page), 0
    for _ in range(100):
        wait_for_frames(page)
        here = position(page)
        still = still + 1 if np.allclose(here, before, atol=0.005) else 0
        before = here
        if until(here) or still == 3:
            break
    for key in keys:
        page.keyboard.up(key)
    wait_for_frames(page)
    return position(page)


@pytest.mark.parametrize("frame", [0, 15, 29])
def test_pictures_are_those_of_our_renderer(page, contents, frame):
    expected = ours(contents, frame)
    assert expected.std() > 0.1
    difference = np.abs(expected - picture(page, frame))
    assert difference.mean() < FARTHEST_MEAN
    assert (difference.max(-1) > 0.1).mean() < FARTHEST_SHARE


def test_the_page_says_its_name_and_how_much_it_holds(page, contents):
    assert page.title() == contents.name
    assert page.evaluate("photowalk.splats") == len(contents.splats)
    assert page.evaluate("photowalk.frames") == 30
    assert page.locator("#headset").is_hidden()  # this browser has none


def test_keys_walk_and_turn(page):
    page.evaluate("photowalk.visit(0)")
    assert np.allclose(position(page), [0, EYE, 0], atol=1e-3)
    ahead = hold(page, "KeyW", until=lambda here: here[2] < -0.3)
    assert -1.5 < ahead[2] < -0.3
    assert abs(ahead[0]) < 0.01
    right = hold(page, "KeyD", until=lambda here: here[0] > 0.3)
    assert 0.3 < right[0] < 1.5
    assert abs(right[2]) < 0.01
    page.evaluate("photowalk.visit(0)")
    page.keyboard.down("ArrowLeft")
    for _ in range(4):  # at 1.5 radians a second, of which a frame counts a tenth at most
        wait_for_frames(page)
    page.keyboard.up("ArrowLeft")
    assert hold_on(page, "KeyW", until=lambda here: here[0] < -0.2)[0] < -0.2


@pytest.mark.parametrize("key", ["KeyW", "KeyD"])
def test_walls_stop_one(page, key):
    end = hold(page, key, "ShiftLeft")
    assert -1.9 < end[0] < 1.9
    assert -4.9 < end[2] < 0.9
    assert abs(end[1] - EYE) < 0.25  # on the floor
    wall = {"KeyW": 4.9 + end[2], "KeyD": 1.9 - end[0]}[key]
    assert wall < 0.6  # and at the wall


def test_a_pillar_stops_one_and_flying_does_not_mind(page):
    hold(page, "KeyA", until=lambda here: here[0] < -0.9)
    before_pillar = hold_on(page, "KeyW")
    assert -2.7 < before_pillar[2] < -2.1  # it begins 2.7 m ahead
    page.keyboard.press("KeyF")
    beyond = hold_on(page, "KeyW", until=lambda here: here[2] < -3.4)
    page.keyboard.press("KeyF")
    assert beyond[2] < -3.4


def test_mouse_looks_around(page):
    page.evaluate("photowalk.visit(0)")
    still = picture(page, 0)
    page.mouse.move(200, 150)
    page.mouse.down()
    page.mouse.move(70, 150, steps=4)
    page.mouse.up()
    page.evaluate("photowalk.settled()")
    page.evaluate("document.body.classList.add('bare')")
    turned = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")) / 255
    page.evaluate("document.body.classList.remove('bare')")
    moved = np.abs(turned - still).mean()
    assert moved > 0.03
    assert np.allclose(position(page), [0, EYE, 0], atol=1e-3)


def test_touch_on_the_left_walks(page):
    page.evaluate("photowalk.visit(0)")
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": 60, "y": 120}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": 60, "y": 80}]})
    page.wait_for_timeout(600)
    assert page.locator("#stick").is_visible()
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert position(page)[2] < -0.3
    assert page.locator("#stick").is_hidden()


def test_replay_goes_where_the_walk_went(page, contents):
    page.evaluate("photowalk.visit(0)")
    page.keyboard.press("KeyP")
    x, y, z = contents.cameras.centres[29].tolist()
    there = f"Math.hypot(photowalk.position[0] - {x}, photowalk.position[1] - {EYE - y}, photowalk.position[2] + {z})"
    page.wait_for_function(f"{there} < 2e-3")  # 30 frames take 1.9 s where the computer is idle


def test_the_lens_is_that_of_the_walk(opened, contents, tmp_path):
    """Where the walk zooms, so does the page; who takes over keeps the lens that they looked through."""
    intrinsics = contents.cameras.intrinsics.clone()
    intrinsics[:, [0, 1], [0, 1]] *= torch.linspace(1, 2, 30)[:, None]
    zooming = replace(contents, cameras=replace(contents.cameras, intrinsics=intrinsics))
    format_of("a.html").write(tmp_path / "a.html", zooming)
    tab = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    tab.goto((tmp_path / "a.html").as_uri())
    tab.wait_for_function("document.getElementById('loading').hidden")
    for frame in (29, 0):
        difference = np.abs(picture(tab, frame) - ours(zooming, frame))
        assert difference.mean() < FARTHEST_MEAN
    before = picture(tab, 29)
    tab.mouse.move(20, 150)
    tab.mouse.down()
    tab.mouse.move(30, 150)
    assert np.abs(settled(tab) - before).mean() > FARTHEST_MEAN  # it looks aside
    tab.mouse.move(20, 150)
    tab.mouse.up()
    assert np.abs(settled(tab) - before).mean() < FARTHEST_MEAN


def test_a_headset_shows_both_eyes_walks_and_turns(opened, contents, tmp_path):
    """In a headset that is emulated, as no machine that runs tests wears one."""
    emulator = npm_tool("iwer", "build/iwer.js")
    format_of("a.html").write(tmp_path / "a.html", contents)
    tab, errors = opened.new_page(viewport={"width": 400, "height": 200}), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.add_init_script(path=emulator)
    tab.add_init_script(
        "globalThis.headset = new IWER.XRDevice(IWER.metaQuest3, { stereoEnabled: true });"
        "headset.installRuntime({ forceInstall: true });"
    )
    tab.goto((tmp_path / "a.html").as_uri())
    tab.locator("#headset").click()
    tab.wait_for_function("headset.activeSession")
    tab.wait_for_timeout(1500)
    seen = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")) / 255
    left, right = seen[:, :200], seen[:, 200:]
    assert min(left.std(), right.std()) > 0.2
    assert 0.002 < np.abs(left - right).mean() < 0.2  # each eye has a picture of its own of the same place
    tab.evaluate("headset.controllers.left.updateAxes('thumbstick', 0, -1)")
    tab.wait_for_function("photowalk.position[2] < -0.2")
    tab.evaluate("headset.controllers.left.updateAxes('thumbstick', 0, 0)")
    tab.evaluate("headset.controllers.right.updateAxes('thumbstick', 1, 0)")
    tab.wait_for_timeout(500)
    tab.evaluate("headset.controllers.right.updateAxes('thumbstick', 0, 0)")
    before = position(tab)
    tab.evaluate("headset.controllers.left.updateAxes('thumbstick', 0, -1)")
    tab.wait_for_function(f"photowalk.position[0] > {before[0] + 0.1}")  # it goes where the turn points to
    tab.evaluate("headset.activeSession.end()")
    tab.wait_for_function("!headset.activeSession")
    tab.evaluate("photowalk.settled()")  # the page goes on without the headset
    assert errors == []


# ---- without a browser


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path, contents):
    format_of("a.html").write(tmp_path / "a.html", contents)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["a.html"]
    assert not re.search(r"""(src|href)\s*=|@import|url\(|import\s*\(|\bfrom\s+["']""", text)
    assert not re.search(r"https?://", text)
    assert text.count("</script>") == 6 - 1
    assert "{{" not in text
    assert len(text) < 40 * len(contents.splats) + 100_000


def test_solid_cells_agree_between_mesh_and_splats():
    mesh = box((-2.0, -1.5, -1.0), (2.0, 1.5, 5.0), (1.0, 1.0, 1.0))
    of_mesh = some_contents(collision=mesh)
    of_mesh = Contents("mesh", walk(), level(walk()[0], eye_height=1.5), None, mesh, mesh)
    torch.manual_seed(0)
    of_splats = Contents("splats", walk(), level(walk()[0], eye_height=1.5), room())
    grids = [solid_cells(one, torch.eye(3).double()) for one in (of_mesh, of_splats)]
    cell = grids[0].cell
    assert cell == grids[1].cell == pytest.approx(0.1 * 1.5 / 1.6)  # for one whose eyes are 1.5 m high
    assert grids[0].origin == grids[1].origin
    x, y, z = ((np.indices(grids[0].cells.shape) + 0.5) * cell).reshape(3, *grids[0].cells.shape)
    x, y, z = x + grids[0].origin[0], y + grids[0].origin[1], z + grids[0].origin[2]
    inside = (abs(x) < 1.85) & (y > -0.85) & (y < 4.85) & (z > 0.15) & (z < 2.85)
    near = (abs(x) < 2.2) & (y > -1.2) & (y < 5.2) & (z > -0.2) & (z < 3.2)
    assert not grids[0].cells[inside].any()
    assert not grids[0].cells[~near].any()
    middle = ((abs(x) < 1.8) & (y > -0.8) & (y < 4.8))[:, :, 0]
    ground = next(k for k in range(grids[0].cells.shape[2]) if z[0, 0, k] > 0)  # the floor is the face below this cell
    for grid in grids:
        assert grid.cells[:, :, ground - 1 : ground + 1].any(2)[middle].mean() > 0.85


def test_solid_cells_turn_with_the_axes():
    mesh = Mesh(
        *(getattr(box((0.5, -1.0, 1.0), (1.0, 0.0, 3.0), (1.0, 1, 1)), name) for name in ("vertices", "faces")),
        torch.ones(8, 3),
        torch.zeros(12, dtype=torch.bool),
    )
    contents = Contents("mesh", walk(), level(walk()[0], eye_height=1.5), None, mesh, mesh)
    for turn in (torch.eye(3).double(), torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).double()):
        solid = solid_cells(contents, turn)
        filled = np.argwhere(solid.cells)
        low, high = filled.min(0) * solid.cell + solid.origin, (filled.max(0) + 1) * solid.cell + solid.origin
        corners = torch.tensor([[0.5, 1.0, 1.5], [1.0, 3.0, 2.5]]).double() @ turn.T
        assert np.allclose(low, corners.amin(0), atol=solid.cell)
        assert np.allclose(high, corners.amax(0), atol=solid.cell)


def test_a_walk_of_half_a_kilometre_keeps_its_cells_in_bounds():
    poses = torch.eye(4).repeat(50, 1, 1)
    poses[:, 2, 3] = -10.0 * torch.arange(50)
    cameras = Cameras.from_fov(poses, 60.0, 48, 64)
    solid = solid_cells(Contents("road", cameras, level(cameras[0]), room()), torch.eye(3).double())
    assert solid.cells.size < 17_000_000
    assert solid.cell < 0.25
