"""Clips in shards and in the published dataset layout are found, read and checked as clip folders are."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from photowalk.cli import main
from photowalk.data.captions import CaptionError, read_captions
from photowalk.data.clips import ClipError, check_folder, count_frames, find_clips, read_clip, validate, write_clip
from photowalk.data.exr import ExrError, read_exr
from photowalk.data.shards import ShardError, write_shards
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import inverse
from photowalk.scene.types import Clip
from photowalk.scene.videos import write_mp4
from photowalk.train.depth import read_shots

FRAMES, HEIGHT, WIDTH = 5, 48, 80
CAPTIONS = "framepack-caption-qwen3-chunk-80-overlap-0"


def make_clip(seed: int = 0) -> Clip:
    random = torch.Generator().manual_seed(seed)
    poses = torch.eye(4).repeat(FRAMES, 1, 1)
    poses[:, 0, 3] = torch.arange(FRAMES) * 0.1
    depth = torch.rand(FRAMES, HEIGHT, WIDTH, generator=random).half().float() + 1
    coarse = torch.rand(FRAMES, 3, 3, 5, generator=random)
    video = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")
    return Clip((video * 255).round() / 255, Cameras.from_fov(poses, 70, HEIGHT, WIDTH), depth.half().float(), "a hall")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for i in range(3):
        write_clip(tmp_path / "clips" / f"walk_{i}", make_clip(i), source="a test", licence="CC0-1.0")
    assert len(write_shards(find_clips(tmp_path / "clips"), tmp_path / "shards", size=2.2e5)) == 2
    return tmp_path / "shards"


def test_clips_in_shards_are_those_of_the_folders(shards: Path, tmp_path: Path) -> None:
    packed = find_clips(shards)
    assert [path.name for path in packed] == ["walk_0", "walk_1", "walk_2"]
    for path, folder in zip(packed, find_clips(tmp_path / "clips")):
        one, other = read_clip(path), read_clip(folder)
        assert torch.equal(one.video, other.video)
        assert torch.equal(one.depth, other.depth)
        assert torch.equal(read_clip(path, slice(1, 3)).video, other.video[1:3])
        assert count_frames(path) == FRAMES
        assert validate(path) == []
    assert find_clips(packed[1]) == [packed[1]]
    assert len(read_shots(shards, FRAMES)) == 3  # training sees no difference


def test_webdataset_reads_the_shards(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset([str(path) for path in sorted(shards.glob("*.tar"))], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["walk_0", "walk_1", "walk_2"]
    assert all({"clip.json", "clip.safetensors"} <= sample.keys() for sample in samples)


def test_webdataset_writes_shards_that_are_read(shards: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "theirs").mkdir()
    folder = tmp_path / "clips" / "walk_1"
    with webdataset.TarWriter(str(tmp_path / "theirs" / "a.tar")) as writer:
        writer.write(
            {"__key__": "far", **{part: (folder / part).read_bytes() for part in ("clip.json", "clip.safetensors")}}
        )
    (path,) = find_clips(tmp_path / "theirs")
    assert torch.equal(read_clip(path).video, read_clip(folder).video)


def test_shards_that_tar_made_of_a_folder_are_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "walk", make_clip(), source="a test", licence="CC0-1.0")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for part in ("clip.json", "clip.safetensors"):
            archive.add(tmp_path / "walk" / part, f"./far.{part}")
    assert find_clips(tmp_path / "a.tar") == [tmp_path / "a.tar" / "far"]
    assert torch.equal(read_clip(tmp_path / "a.tar" / "far").video, make_clip().video)


def test_numbers_of_another_kind_in_a_shard_are_a_fault(tmp_path: Path) -> None:
    folder = tmp_path / "clips" / "walk"
    write_clip(folder, make_clip(), source="a test", licence="CC0-1.0")
    tensors = load_file(folder / "clip.safetensors")
    save_file(tensors | {"video": tensors["video"].float()}, folder / "clip.safetensors")
    (shard,) = write_shards([folder], tmp_path / "shards", size=1e9)
    with pytest.raises(ClipError, match=r"clips-000000.tar/walk: video in clip.safetensors is kept in F32, wanted"):
        check_folder(shard)


def test_the_command_line_packs_and_checks_shards(shards: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "shard", str(tmp_path / "clips"), "-o", str(tmp_path / "more"), "--megabytes", "0.22"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["data", "validate", str(tmp_path / "more")]) == 0
    assert "3 clips" in capsys.readouterr().out
    assert main(["data", "shard", str(tmp_path / "clips"), "-o", str(tmp_path / "more")]) == 2
    assert "already" in capsys.readouterr().err


def test_faults_of_shards_have_names(shards: Path, tmp_path: Path) -> None:
    first = sorted(shards.glob("*.tar"))[0]
    first.write_bytes(first.read_bytes()[:3000])
    with pytest.raises(ShardError, match=r"clips-000000.tar cannot be read"):
        find_clips(shards)
    write_clip(tmp_path / "other" / "walk_0", make_clip(), source="a test", licence="CC0-1.0")
    with pytest.raises(ShardError, match="two clips are called walk_0"):
        write_shards([*find_clips(tmp_path / "clips"), *find_clips(tmp_path / "other")], tmp_path / "new", size=1e9)


def exr(picture: np.ndarray, compression: str = "zip16", numbers: str = "half") -> bytes:
    """Written by FFmpeg, whose only grey channel is called Y."""
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream("exr", rate=1)
        stream.height, stream.width = picture.shape
        stream.pix_fmt, stream.options = "grayf32le", {"compression": compression, "format": numbers}
        frame = av.VideoFrame(picture.shape[1], picture.shape[0], "grayf32le")
        rows = np.zeros((picture.shape[0], frame.planes[0].line_size // 4), np.float32)
        rows[:, : picture.shape[1]] = picture
        frame.planes[0].update(rows.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue().replace(b"chlist\0\x13\0\0\0Y\0", b"chlist\0\x13\0\0\0Z\0", 1)


@pytest.mark.parametrize("compression", ["none", "zip1", "zip16"])
@pytest.mark.parametrize("numbers", ["half", "float"])
def test_exr_pictures_of_another_program_are_read(compression: str, numbers: str) -> None:
    picture = np.random.default_rng(0).random((37, 53)).astype(np.float16).astype(np.float32)
    picture[:20] = 3  # plain lines, which deflate well
    read = read_exr(exr(picture, compression, numbers), "Z")
    np.testing.assert_array_equal(read.astype(np.float32), picture)


def test_exr_pictures_that_cannot_be_read_say_why() -> None:
    whole = exr(np.ones((8, 8), np.float32))
    for data, why in (
        (b"P6 8 8 255", "no OpenEXR"),
        (whole[: len(whole) // 2], "damaged or cut short"),
        (exr(np.ones((8, 8), np.float32), "rle"), "compression 1"),
        (whole.replace(b"chlist\0\x13\0\0\0Z", b"chlist\0\x13\0\0\0A"), "no channel Z, only A"),
    ):
        with pytest.raises(ExrError, match=why):
            read_exr(data, "Z")


def write_published(root: Path, clip: Clip, name: str) -> None:
    for kind in ("rgb", "pose", "intrinsics", "depth", CAPTIONS):
        (root / kind).mkdir(parents=True, exist_ok=True)
    write_mp4(root / "rgb" / f"{name}.mp4", clip.video)
    inds = np.arange(len(clip))
    k = clip.cameras.intrinsics
    lenses = torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], dim=1).numpy()
    np.savez(root / "pose" / f"{name}.npz", inds=inds, data=inverse(clip.cameras.camera_from_world).numpy())
    np.savez(root / "intrinsics" / f"{name}.npz", inds=inds, data=lenses)
    with zipfile.ZipFile(root / "depth" / f"{name}.zip", "w") as archive:
        for i, layer in enumerate(clip.depth):
            archive.writestr(f"{i:05d}.exr", exr(layer.numpy()))
    chunks = {
        first: {"frame_range": (first, first + 2), "caption": text, "embedding": torch.zeros(2, 4).bfloat16()}
        for first, text in ((0, "a hall"), (2, "its end"))
    }
    (root / CAPTIONS / f"{name}.pkl").write_bytes(pickle.dumps(chunks))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    root = tmp_path / "dataset" / "part"
    write_published(root, make_clip(), "first")
    write_published(root, make_clip(1), "second")
    return root


def test_the_published_layout_is_read_as_it_is(published: Path) -> None:
    (path, _) = find_clips(published.parent)
    read, clip = read_clip(path), make_clip()
    assert validate(path) == []
    assert (read.video - clip.video).abs().mean() < 0.02  # H.264
    assert torch.equal(read.depth, clip.depth)
    torch.testing.assert_close(read.cameras.camera_from_world, clip.cameras.camera_from_world)
    torch.testing.assert_close(read.cameras.intrinsics, clip.cameras.intrinsics)
    assert (read.prompt, read_clip(path, slice(3, 5)).prompt) == ("a hall", "its end")
    assert read.captions == 2 * ("a hall",) + 3 * ("its end",)
    assert read_clip(path, slice(1, 4), (24, 24)).captions == ("a hall", "its end", "its end")
    assert torch.equal(read_clip(path, slice(3, 5)).depth, clip.depth[3:])
    assert len(read_shots(published.parent, FRAMES)) == 2


def test_a_video_is_cropped_and_resized_with_its_lens(published: Path) -> None:
    path = find_clips(published)[0]
    whole, small = read_clip(path), read_clip(path, size=(24, 24))
    assert small.video.shape == (FRAMES, 3, 24, 24)
    middle = torch.tensor([[0.0, 0.0, 2.0], [0.3, 0.1, 2.0]])
    (at_whole, _), (at_small, _) = whole.cameras[0].project(middle), small.cameras[0].project(middle)
    expected = (at_whole - torch.tensor([WIDTH / 2, HEIGHT / 2])) * 0.5 + 12
    torch.testing.assert_close(at_small, expected)
    write_clip(published / "kept", make_clip(), source="a test", licence="CC0-1.0")
    with pytest.raises(ClipError, match="prepare it in that size"):
        read_clip(published / "kept", size=(24, 24))


def test_clips_made_of_the_published_layout_keep_their_captions(published: Path, tmp_path: Path) -> None:
    clips = tmp_path / "kept"
    call = ["data", "prepare", str(published / "rgb" / "first.mp4"), "-o", str(clips), "--size", "24x40"]
    assert main([*call, "--frames", "1:5"]) == 0
    (path,) = find_clips(clips)
    assert read_clip(path).captions == ("a hall", "its end", "its end", "its end")


def test_a_filter_list_chooses_videos(published: Path) -> None:
    (published / "all_filter.lst").write_text("second.mp4\n")
    assert [path.stem for path in find_clips(published.parent)] == ["second"]
    (published / "all_filter.lst").unlink()
    (published.parent / "all_filter.lst").write_text("first\n")
    assert [path.stem for path in find_clips(published.parent)] == ["first"]


def no_poses(root: Path) -> None:
    (root / "pose" / "first.npz").unlink()


def bad_poses(root: Path) -> None:
    np.savez(root / "pose" / "first.npz", inds=np.arange(5), data=np.zeros((5, 3)))


def skewed_poses(root: Path) -> None:
    np.savez(root / "pose" / "first.npz", inds=np.arange(5), data=2 * np.eye(4)[None].repeat(5, 0))


def few_lenses(root: Path) -> None:
    np.savez(root / "intrinsics" / "first.npz", inds=np.arange(3), data=np.ones((3, 4)))


def damaged_depth(root: Path) -> None:
    (root / "depth" / "first.zip").write_bytes(b"PK")


def write_depth(root: Path, layers: dict[int, np.ndarray]) -> None:
    with zipfile.ZipFile(root / "depth" / "first.zip", "w") as archive:
        for frame, layer in layers.items():
            archive.writestr(f"{frame:05d}.exr", exr(layer))


def depth_with_a_gap(root: Path) -> None:
    write_depth(root, {frame: np.ones((HEIGHT, WIDTH), np.float32) for frame in (0, 1, 3, 4)})


def depth_with_a_gap_in_one_array(root: Path) -> None:
    (root / "depth" / "first.zip").unlink()
    layers = np.ones((4, HEIGHT, WIDTH), np.float32)
    np.savez(root / "depth" / "first.npz", inds=np.array([0, 1, 3, 4]), data=layers)


def smaller_depth(root: Path) -> None:
    write_depth(root, {frame: np.ones((HEIGHT // 2, WIDTH // 2), np.float32) for frame in range(FRAMES)})


def depth_in_millimetres(root: Path) -> None:
    (root / "depth" / "first.zip").unlink()
    layers = np.full((FRAMES, HEIGHT, WIDTH), 2500, np.uint16)
    np.savez(root / "depth" / "first.npz", inds=np.arange(FRAMES), data=layers)


def flat_depth(root: Path) -> None:
    (root / "depth" / "first.zip").unlink()
    np.savez(root / "depth" / "first.npz", inds=np.arange(FRAMES), data=np.ones(FRAMES))


def poses_with_a_gap(root: Path) -> None:
    np.savez(root / "pose" / "first.npz", inds=np.array([0, 1, 3, 4]), data=np.eye(4)[None].repeat(4, 0))


def poses_in_words(root: Path) -> None:
    np.savez(root / "pose" / "first.npz", inds=np.arange(5), data=np.full((5, 4, 4), "far"))


def damaged_video(root: Path) -> None:
    (root / "rgb" / "first.mp4").write_bytes(b"no video")


def short_video(root: Path) -> None:
    write_mp4(root / "rgb" / "first.mp4", make_clip().video[:3])


def damaged_captions(root: Path) -> None:
    (root / CAPTIONS / "first.pkl").write_bytes(b"\x80no")


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (no_poses, r"pose/first.npz wants inds"),
        (bad_poses, r"data \[T, 4, 4\]"),
        (few_lenses, "lacks frame 3"),
        (skewed_poses, "cameras"),
        (poses_with_a_gap, r"pose/first.npz lacks frame 2 \(1 in all\); wanted are all from 0 to 3"),
        (poses_in_words, r"pose/first.npz wants numbers"),
        (depth_with_a_gap, r"depth/first.zip lacks frame 2 \(1 in all\); wanted are all from 0 to 4"),
        (depth_with_a_gap_in_one_array, r"depth/first.npz lacks frame 2"),
        (smaller_depth, r"depth/first.zip has depth of \(24, 40\) in frame 0, the video \(48, 80\)"),
        (depth_in_millimetres, r"depth/first.npz has depth in uint16, wanted are metres"),
        (flat_depth, r"depth/first.npz wants inds \[T\] and data \[T, H, W\], got 5 and \(5,\)"),
        (damaged_depth, r"depth/first.zip wants depth of frames 0 to 4"),
        (damaged_video, r"rgb/first.mp4 cannot be read"),
        (short_video, "ends before frame 4"),
        (damaged_captions, "no captions"),
    ],
)
def test_faults_of_the_published_layout_have_names(published: Path, harm, fault: str) -> None:
    harm(published)
    with pytest.raises(ClipError, match=fault):
        check_folder(published)
    with pytest.raises(ClipError, match=fault):
        read_clip(published / "rgb" / "first.mp4")


class Trap:
    def __reduce__(self):
        return print, ("sprung",)


def test_pickled_captions_do_nothing_but_tell(tmp_path: Path, capsys) -> None:
    chunks = {80: {"caption": "later", "embedding": Trap()}, 0: {"caption": "first", "embedding": np.zeros(3)}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(chunks))
    assert read_captions(tmp_path / "a.pkl") == {0: "first", 80: "later"}
    assert capsys.readouterr().out == ""
    (tmp_path / "b.pkl").write_bytes(pickle.dumps([Trap()]))
    with pytest.raises(CaptionError, match="wants a dict"):
        read_captions(tmp_path / "b.pkl")


def test_depth_may_lie_in_one_array(published: Path) -> None:
    clip = make_clip()
    (published / "depth" / "first.zip").unlink()
    np.savez(published / "depth" / "first.npz", inds=np.arange(FRAMES), data=clip.depth.numpy())
    assert torch.equal(read_clip(published / "rgb" / "first.mp4").depth, clip.depth)
