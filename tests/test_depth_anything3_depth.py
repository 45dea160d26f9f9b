"""Depth Anything 3 as a depth estimator: known cameras, scale from what memory knows, sky; and its choice by name."""

import json

import pytest
import torch
from checkpoint_files import DEPTH_ALONE, RECONSTRUCTION
from PIL import Image
from safetensors.torch import save_file
from tiny import tiny_preset

from photowalk import World
from photowalk.checkpoints.load import stored_shapes
from photowalk.geometry.cameras import Cameras
from photowalk.models.depth_anything3.network import DepthAnything3, DepthAnything3Config
from photowalk.perception.depth import DepthEstimate, NanoDepth
from photowalk.perception.depth_anything3 import DepthAnything3Depth
from photowalk.presets import depth_anything
from photowalk.world.placement import Placement
from photowalk.world.store import WorldStore

HEIGHT, WIDTH = 40, 60
PLACEMENT = Placement(torch.device("cpu"), torch.float32, "a test")


class Flat:
    """Knows that every picture shows a wall at 3 m, below a sky."""

    name = "flat"
    depth = torch.cat([torch.full((10, WIDTH), torch.inf), torch.full((HEIGHT - 10, WIDTH), 3.0)])

    def estimate_photo(self, photo, focal_px=None):
        return DepthEstimate(self.depth, 50.0 if focal_px is None else focal_px)

    def estimate_frames(self, video, cameras, known):
        raise AssertionError("only asked for photos")


def network(config: DepthAnything3Config = RECONSTRUCTION, *, sky: float = -1.0) -> DepthAnything3:
    """Untrained, but every layer is heard; `sky` is the least score that its metric branch gives."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DepthAnything3(config).eval()
        for name, parameter in made.named_parameters():
            if name.endswith(("gamma", "token")):
                torch.nn.init.normal_(parameter, mean=0.5)
    if config.metric_head is not None:
        last = made.da3_metric.head.scratch.sky_output_conv2[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, sky)
    return made


def cameras(count: int) -> Cameras:
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, 0, 3] = torch.linspace(0, -1, count)
    return Cameras.from_fov(pose, 60, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def estimator() -> DepthAnything3Depth:
    return DepthAnything3Depth(network(), "da3-nested", Flat())


def test_a_photo_has_depth_and_a_lens(estimator: DepthAnything3Depth):
    photo = torch.rand(3, HEIGHT, WIDTH)
    free = estimator.estimate_photo(photo)
    assert free.depth.shape == (HEIGHT, WIDTH)
    assert bool((free.depth > 0).all())
    assert free.focal_px > 0
    known = estimator.estimate_photo(photo, 70.0)
    assert known.focal_px == pytest.approx(70.0)
    assert not torch.allclose(known.depth, free.depth)  # the lens is told to the network
    longer = estimator.estimate_photo(photo, 140.0)
    assert not torch.allclose(longer.depth, known.depth)


def test_frames_take_the_scale_of_what_is_known(estimator: DepthAnything3Depth):
    video = torch.rand(4, 3, HEIGHT, WIDTH)
    nothing = torch.zeros(4, HEIGHT, WIDTH)
    alone = estimator.estimate_frames(video, cameras(4), nothing)
    known = nothing.clone()
    known[1, 10:30, 10:40] = 2.5 * alone[1, 10:30, 10:40]
    depth = estimator.estimate_frames(video, cameras(4), known)
    torch.testing.assert_close(depth, 2.5 * alone, rtol=1e-3, atol=1e-3)


def test_frames_are_seen_together_and_from_where_they_are(estimator: DepthAnything3Depth):
    video, nothing = torch.rand(3, 3, HEIGHT, WIDTH), torch.zeros(3, HEIGHT, WIDTH)
    known = nothing + 2
    depth = estimator.estimate_frames(video, cameras(3), known)
    changed = video.clone()
    changed[2] = 1 - changed[2]
    assert not torch.allclose(estimator.estimate_frames(changed, cameras(3), known)[0], depth[0])
    elsewhere = cameras(3)
    elsewhere.camera_from_world[2, 2, 3] = -2
    assert not torch.allclose(estimator.estimate_frames(video, elsewhere, known)[0], depth[0])


def test_a_camera_that_stands_still_keeps_the_networks_metres(estimator: DepthAnything3Depth):
    still = cameras(3)
    still.camera_from_world[:, 0, 3] = 0
    video, nothing = torch.rand(1, 3, HEIGHT, WIDTH).expand(3, -1, -1, -1), torch.zeros(3, HEIGHT, WIDTH)
    depth = estimator.estimate_frames(video, still, nothing)
    photo = estimator.estimate_photo(video[0], float(still.intrinsics[0, 0, 0])).depth
    ratio = (depth[0] / photo).median()
    assert 0.5 < float(ratio) < 2


def test_sky_is_infinitely_far():
    cloudy = DepthAnything3Depth(network(sky=0.4), "da3-nested", Flat())
    assert bool(cloudy.estimate_photo(torch.rand(3, HEIGHT, WIDTH)).depth.isinf().all())
    frames = cloudy.estimate_frames(torch.rand(2, 3, HEIGHT, WIDTH), cameras(2), torch.zeros(2, HEIGHT, WIDTH))
    assert bool(frames.isinf().all())


def test_without_a_metric_branch_another_gives_metres_and_sky():
    relative = DepthAnything3Depth(network(DEPTH_ALONE), "da3-base", Flat())
    depth = relative.estimate_photo(torch.rand(3, HEIGHT, WIDTH)).depth
    assert depth.isinf().equal(Flat.depth.isinf())
    assert float(1 / (1 / depth[10:]).mean()) == pytest.approx(3.0, rel=0.3)
    known = torch.full((2, HEIGHT, WIDTH), 4.0)
    known[:, :10] = torch.inf
    frames = relative.estimate_frames(torch.rand(2, 3, HEIGHT, WIDTH), cameras(2), known)
    assert frames.isinf().equal(known.isinf())
    assert float(frames[:, 10:].median()) == pytest.approx(4.0, rel=0.3)


def test_wrong_shapes_are_refused(estimator: DepthAnything3Depth):
    with pytest.raises(ValueError, match="2 cameras"):
        estimator.estimate_frames(torch.rand(3, 3, HEIGHT, WIDTH), cameras(2), torch.zeros(3, HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=r"photo \[3, H, W\]"):
        estimator.estimate_photo(torch.rand(1, HEIGHT, WIDTH))


# --- by name --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOWALK_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(
        depth_anything,
        "DEPTH_ANYTHING",
        {"lyra2-reconstruction": lambda: RECONSTRUCTION, "da3-nested": lambda: RECONSTRUCTION},
    )
    return tmp_path


def put(store, name: str) -> None:
    (store / name).mkdir()
    made = network()
    kept = made.state_dict()
    save_file({key: kept[key].clone() for key in stored_shapes(made)}, store / name / "weights-00001.safetensors")
    (store / name / "manifest.json").write_text(json.dumps({"name": name}))


def test_the_most_capable_network_of_the_store_is_taken(store):
    assert depth_anything.stored_depth_anything() is None
    assert isinstance(depth_anything.depth_estimator("nano", PLACEMENT), NanoDepth)
    with pytest.raises(ValueError, match="photowalk weights get"):
        depth_anything.depth_estimator("da3", PLACEMENT)
    put(store, "da3-nested")
    assert depth_anything.depth_estimator("da3", PLACEMENT).name == "da3-nested"
    put(store, "lyra2-reconstruction")
    assert depth_anything.stored_depth_anything() == "lyra2-reconstruction"
    chosen = depth_anything.depth_estimator("da3", PLACEMENT)
    assert isinstance(chosen, DepthAnything3Depth)
    photo = torch.rand(3, HEIGHT, WIDTH)
    same = DepthAnything3Depth(network(), "da3-nested", Flat()).estimate_photo(photo, 70.0).depth
    torch.testing.assert_close(chosen.estimate_photo(photo, 70.0).depth, same)


def test_a_world_says_and_keeps_what_estimates_its_depth(store, tmp_path):
    put(store, "lyra2-reconstruction")
    Image.new("RGB", (96, 64), "grey").save(tmp_path / "photo.png")
    notes: list[str] = []
    world = World.create(
        tmp_path / "photo.png",
        tmp_path / "world",
        preset=tiny_preset(),
        depth_model="da3",
        fov_deg=60,
        on_note=notes.append,
    )
    assert notes == ["depth by lyra2-reconstruction"]
    facts = world.info()
    assert facts["depth_network"] == "lyra2-reconstruction"
    assert "NVIDIA" in facts["licences"]["depth network"]
    assert "lyra2-reconstruction" in facts["scale"]["from"]
    put(store, "da3-nested")
    (store / "lyra2-reconstruction" / "manifest.json").unlink()
    again = World(WorldStore(tmp_path / "world"), preset=tiny_preset())
    with pytest.raises(ValueError, match="lyra2-reconstruction"):  # not silently another one
        _ = again.generator
    own = World.create(tmp_path / "photo.png", tmp_path / "other", preset=tiny_preset(), fov_deg=60)
    assert own.info()["depth_network"] == "nano"


def test_half_precision_is_for_the_backbone_alone(estimator: DepthAnything3Depth):
    half = Placement(torch.device("cpu"), torch.bfloat16, "a test")
    torch.manual_seed(0)
    video, far = torch.rand(3, 3, HEIGHT, WIDTH), cameras(3)
    far.camera_from_world[:, 2, 3] += 1000.0  # a bfloat16 would lose the steps between them
    known = torch.full((3, HEIGHT, WIDTH), 4.0)
    whole = estimator.estimate_frames(video, far, known)
    with half.autocast():
        rounded = estimator.estimate_frames(video, far, known)
    assert rounded.dtype == torch.float32
    assert float((rounded / whole).log().abs().median()) < 0.03
