"""Parts of the studio by themselves: keyframes that move together, viser's page unpacked, what older versions wrote."""

import json
import re

import pytest
import torch

pytest.importorskip("viser", reason="the extra 'studio' is not installed")

from photowalk.studio.keyframe_edits import place_along, pulled
from photowalk.studio.library import About, Library
from photowalk.studio.schemas import Pose
from photowalk.studio.stage import by_distance
from photowalk.studio.viewer_client import INDEX, ViewerClient, kind_of


def row(count):
    """Poses along x, a unit apart."""
    return [Pose(position=(float(x), 0, 0), wxyz=(1, 0, 0, 0)) for x in range(count)]


def test_neighbours_follow_a_keyframe_that_is_pulled_the_less_the_further_they_are():
    keys = row(6)
    raised = keys[2].model_copy(update={"position": (2.0, 1.0, 0.0)})
    heights = [pose.position[1] for pose in pulled(keys, 2, raised, 2)]
    assert heights[2] == 1
    assert heights[1] == heights[3] > heights[0] == heights[4] > 0
    assert heights[5] == 0
    assert [pose.position[1] for pose in pulled(keys, 2, raised, 0)] == [0, 0, 1, 0, 0, 0]


def test_a_keyframe_set_on_the_way_comes_between_those_the_way_leads_through():
    there = [Pose(position=(x / 10, 0, 0), wxyz=(1, 0, 0, 0)) for x in range(41)]
    path = [*there, *reversed(there)]  # which passes by every place twice
    keys = [there[10], there[40], there[10]]
    assert [place_along(keys, path, index) for index in (5, 20, 50, 75)] == [0, 1, 2, 3]


def test_points_are_coloured_by_their_distance_alone():
    directions = torch.nn.functional.normalize(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    distances = torch.logspace(0, 2, 100)
    red, green, _ = by_distance(directions * distances[:, None]).int().T
    assert (green.diff() <= 0).all()
    assert (red[0], green[0]) == (253, 231)
    assert (red[-1], green[-1]) == (68, 1)
    assert by_distance(torch.zeros(0, 3)).shape == (0, 3)


def test_the_viewers_page_is_unpacked_into_files_that_the_browser_can_keep():
    client = ViewerClient.of(INDEX.read_text(encoding="utf-8"))
    page = client.page.content.decode()
    kinds = {kind_of(name): file.content for name, file in client.files.items()}
    assert set(kinds) == {"text/css", "text/javascript", "application/wasm"}
    assert kinds["application/wasm"].startswith(b"\0asm")
    assert b"createRoot" in kinds["text/javascript"][-200:]
    assert kinds["text/css"].count(b"{") == kinds["text/css"].count(b"}") > 100
    assert set(re.findall(r"client/([\w.]+)", page)) == set(client.files)
    assert len(page) < 10_000
    assert page.index("/static/viewer.js") < page.index('type="module"'), "ours runs before the viewer's program"


def test_a_viewer_that_is_packed_in_another_way_is_served_as_it_is():
    index = "<html><head><script>all()</script></head><body></body></html>"
    client = ViewerClient.of(index)
    assert client.files == {}
    assert "<script>all()</script>" in client.page.content.decode()


def test_a_world_that_an_older_studio_said_more_about_still_opens(tmp_path):
    library = Library(tmp_path)
    world = library.add("ann", About("hall", 1.0))
    file = library.place("ann", world) / "about.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "roll_deg": 2.0, "pitch_deg": 0.0}))
    assert library.about("ann", world).title == "hall"
    library.change("ann", world, title="the hall")
    assert [found.title for found in library.worlds("ann")] == ["the hall"]
