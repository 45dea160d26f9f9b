"""Other recordings of a place, made of one, and how unlike pictures look."""

from dataclasses import replace

import pytest
import rooms
import torch
from tiny import CHUNK_FRAMES, HEIGHT, WIDTH, tiny_preset

from photowalk.data.clips import write_clip
from photowalk.geometry import paths
from photowalk.geometry.cameras import Cameras
from photowalk.models.squeeze_features import SqueezeFeatures
from photowalk.perception.captions import motion_of
from photowalk.scene.types import Clip
from photowalk.scene.warping import composite
from photowalk.train.looks import Look, feature_error
from photowalk.train.objective import Objective
from photowalk.train.retakes import mirrored, retake
from photowalk.train.samples import prepare_samples
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "test")


def short_walk(frames: int = 9) -> Clip:
    cameras = rooms.path(frames, HEIGHT, WIDTH)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., 0, 2] += 5.0  # a lens that does not look through the middle
    return rooms.seen_from(Cameras(cameras.camera_from_world, intrinsics, HEIGHT, WIDTH))


def test_a_mirrored_walk_is_a_walk_through_a_mirrored_world():
    clip = short_walk()
    other = mirrored(clip)
    other.cameras.check()
    target = slice(len(clip) - 1, len(clip))
    seen, turned = (composite([one.view(0)], one.cameras[target]) for one in (clip, other))
    assert float(seen.known.float().mean()) > 0.5
    both = seen.known & turned.known.flip(-1)
    assert float(both.float().sum()) > 0.98 * float(seen.known.float().sum())
    apart = (seen.video - turned.video.flip(-1)).abs().amax(1)[both]
    assert float((apart < 0.02).float().mean()) > 0.98
    again = mirrored(other)
    for one, two in ((clip.cameras.camera_from_world, again.cameras.camera_from_world), (clip.video, again.video)):
        torch.testing.assert_close(one, two)


def test_a_retake_keeps_place_and_length_and_follows_from_its_chance():
    clip = short_walk()
    takes = [retake(clip, torch.Generator().manual_seed(seed)) for seed in range(8)]
    assert {len(take) for take in takes} == {len(clip)}
    paths = {tuple(take.cameras.centres.flatten().tolist()) for take in takes}
    assert len(paths) == 4  # mirrored or not, backwards or not
    assert all(float(take.video.min()) >= 0 and float(take.video.max()) <= 1 for take in takes)
    assert len({float(take.video.mean()) for take in takes}) == len(takes)
    again = retake(clip, torch.Generator().manual_seed(0))
    assert torch.equal(again.video, takes[0].video)


def test_a_retake_tells_of_its_own_way():
    cameras = paths.strafe(Cameras.from_fov(torch.eye(4), 75.0, HEIGHT, WIDTH), 5, distance=1.0)
    clip = replace(rooms.seen_from(cameras), prompt="A room. The camera moves to the right.")
    clip = replace(
        clip, captions=("A door.", "A door.", "A wall.", "A wall.", "A wall. The camera moves to the right.")
    )
    told = set()
    for seed in range(8):
        take = retake(clip, torch.Generator().manual_seed(seed))
        told.add((take.prompt, take.captions[0]))
        assert take.prompt == f"A room. {motion_of(take)}"
    left, right = (f"The camera moves to the {side}." for side in ("left", "right"))
    assert told == {
        (f"A room. {right}", "A door."),
        (f"A room. {left}", "A door."),  # mirrored
        (f"A room. {left}", f"A wall. {left}"),  # backwards
        (f"A room. {right}", f"A wall. {right}"),  # both
    }


def test_retakes_become_samples_beside_those_of_the_clip(tmp_path):
    clip = short_walk(CHUNK_FRAMES + 1)
    write_clip(tmp_path / "clips" / "walk", clip, source="test", licence="CC0-1.0")
    generator, clips = tiny_preset().build(CPU), [tmp_path / "clips" / "walk"]
    (plain,) = prepare_samples(clips, generator, Objective(), tmp_path / "samples")
    written = plain.stat().st_mtime_ns
    paths = prepare_samples(clips, generator, Objective(), tmp_path / "samples", retakes=2)
    assert [path.name for path in paths] == [f"{take}_0000.safetensors" for take in range(3)]
    assert paths[0] == plain
    assert plain.stat().st_mtime_ns == written
    assert prepare_samples(clips, generator, Objective(), tmp_path / "samples", retakes=1) == paths[:2]


def test_captions_are_one_for_each_frame():
    clip = replace(short_walk(3), captions=("a", "b", "c"))
    assert (clip[1:].captions, clip[[2, 0]].captions) == (("b", "c"), ("c", "a"))
    assert (clip.prompt_at(1), replace(clip, captions=(), prompt="all").prompt_at(1)) == ("b", "all")
    with pytest.raises(ValueError, match="3 frames wants a caption for each or none, got 1"):
        replace(clip, captions=("a",))


def test_pictures_look_as_unlike_as_their_features_differ():
    torch.manual_seed(0)
    features, truth = SqueezeFeatures().requires_grad_(False), torch.rand(1, 3, 64, 192)
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2)
    made = blurred.clone().requires_grad_()
    error = feature_error(features, made, truth)
    assert float(feature_error(features, truth, truth)) == 0
    assert float(error.detach()) > 2 * float(feature_error(features, 0.9 * truth + 0.1 * blurred, truth))
    error.backward()
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0
    half = torch.cat([truth[..., :96], blurred[..., 96:]], dim=-1)
    left = torch.zeros(1, 1, 4, 12)
    left[..., :2] = 1  # far from the blurred half
    assert float(feature_error(features, half, truth, left)) < 1e-6
    assert float(feature_error(features, half, truth, 1 - left)) > 0.1


def test_chunks_are_compared_by_the_pictures_of_their_latents():
    torch.manual_seed(0)
    codec = tiny_preset().build(CPU).codec
    look = Look(codec, SqueezeFeatures().requires_grad_(False), frames=4)
    clean = torch.randn(1, codec.channels, 4, 4, 6)
    weight = torch.ones(1, 1, 4, 4, 6)
    between = clean.clone()
    between[:, codec.config.picture_channels :] += 1  # says nothing of the pictures that end latent frames
    assert float(look.error(between, clean, weight)) == 0
    other = clean.clone()
    other[:, : codec.config.picture_channels] *= 0.5
    assert float(look.error(other, clean, weight)) > 0.05
