"""Every format is written here by hand, from cameras whose poses are known, and read back."""

import json
import math
import struct

import numpy as np
import pytest
import torch

from photowalk.geometry import motions, path_files, paths
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import PathError


def lens():
    return Cameras.from_fov(torch.eye(4, dtype=torch.float64), 65.0, 60, 80)


@pytest.fixture
def cameras():
    """A path in a world of its own, that begins nowhere near the origin."""
    start = Cameras.from_fov(motions.look_at(torch.tensor([1.0, 2, 3]).double(), torch.zeros(3).double()), 65.0, 60, 80)
    return paths.PRESETS["walk"](start, 12, 4.0)


def poses_equal(found, expected, tolerance=1e-9):
    return torch.allclose(found.camera_from_world, expected.camera_from_world, rtol=0, atol=tolerance)


def lenses_equal(found, expected):
    return torch.allclose(found.intrinsics, expected.intrinsics, atol=1e-9) and (found.height, found.width) == (
        expected.height,
        expected.width,
    )


def xyzw(rotation):
    return motions.quaternion_from_rotation(rotation)[..., [1, 2, 3, 0]].tolist()


def write_tum(folder, cameras):
    pose = cameras.world_from_camera
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for index, (centre, turn) in enumerate(zip(pose[:, :3, 3].tolist(), xyzw(pose[:, :3, :3]))):
        lines.append(" ".join(str(value) for value in [index / 30, *centre, *turn]))
    (folder / "desk.txt").write_text("\n".join(lines))
    return folder / "desk.txt"


def write_realestate(folder, cameras):
    lines = ["https://example.org/video"]
    for pose, k in zip(cameras.camera_from_world, cameras.intrinsics):
        normalised = [k[0, 0] / 80, k[1, 1] / 60, k[0, 2] / 80, k[1, 2] / 60]
        lines.append(" ".join(str(float(value)) for value in [123, *normalised, 0, 0, *pose[:3].flatten()]))
    (folder / "clip.txt").write_text("\n".join(lines) + "\n")
    return folder / "clip.txt"


def colmap_order(cameras):
    """Rows (name, wxyz, t) in shuffled order of names that sort naturally, not alphabetically."""
    turns = motions.quaternion_from_rotation(cameras.camera_from_world[:, :3, :3]).tolist()
    rows = [
        (f"frame{i}.png", turn, t)
        for i, (turn, t) in enumerate(zip(turns, cameras.camera_from_world[:, :3, 3].tolist()))
    ]
    return rows[5:] + rows[:5]


def write_colmap_text(folder, cameras):
    k = cameras.intrinsics[0]
    (folder / "cameras.txt").write_text(
        f"# Camera list\n7 OPENCV 80 60 {k[0, 0]} {k[1, 1]} {k[0, 2]} {k[1, 2]} 0.1 0 0 0\n"
    )
    lines = ["# Image list"]
    for index, (name, turn, t) in enumerate(colmap_order(cameras)):
        lines += [" ".join(str(v) for v in [index + 1, *turn, *t, 7, name]), "1.0 2.0 -1" if index % 2 else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_colmap_binary(folder, cameras):
    k = cameras.intrinsics[0]
    content = struct.pack("<Q", 1) + struct.pack("<iiQQ4d", 7, 1, 80, 60, k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    (folder / "cameras.bin").write_bytes(content)
    content = struct.pack("<Q", len(cameras))
    for index, (name, turn, t) in enumerate(colmap_order(cameras)):
        content += struct.pack("<i7di", index + 1, *turn, *t, 7) + name.encode() + b"\0"
        content += struct.pack("<Q", 2) + struct.pack("<ddq", 1, 2, -1) * 2
    (folder / "images.bin").write_bytes(content)
    return folder / "images.bin"


def write_exported(folder, cameras):
    rows = [{"start": pose[:3].tolist(), "end": pose[:3].tolist()} for pose in cameras.world_from_camera]
    (folder / "cameras.json").write_text(json.dumps({"cameras": rows, "resolution": [80, 60], "fps": 16}))
    return folder / "cameras.json"


def write_ours(ending):
    def write(folder, cameras):
        path_files.write(folder / f"path{ending}", cameras)
        return folder / f"path{ending}"

    return write


FORMATS = [
    write_tum,
    write_realestate,
    write_colmap_text,
    write_colmap_binary,
    write_exported,
    write_ours(".npz"),
    write_ours(".json"),
]


@pytest.mark.parametrize("write", FORMATS)
def test_formats_give_back_the_cameras(write, cameras, tmp_path):
    file = write(tmp_path, cameras)
    found = path_files.read(file, lens=lens())
    assert path_files.is_path_file(str(file))
    assert poses_equal(found, cameras)
    assert lenses_equal(found, cameras)


@pytest.mark.parametrize("write", FORMATS)
def test_one_pose_is_too_few(write, cameras, tmp_path):
    with pytest.raises(PathError, match=r"holds 1 pose\(s\), a path wants at least 2"):
        path_files.read(write(tmp_path, cameras[:1]), lens=lens())


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.9])
def test_files_cut_short_are_named(write, share, cameras, tmp_path):
    """A cut either leaves a shorter path that is right as far as it goes, or is an error that names the file."""
    file = write(tmp_path, cameras)
    file = file / "images.txt" if file.is_dir() else file
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    if file.suffix == ".txt" and share > 0.1:
        assert 2 <= len(read_or_complaint(file)) < len(cameras) or file.name in read_or_complaint(file)
    else:
        assert file.name in read_or_complaint(file)


def read_or_complaint(file):
    try:
        return path_files.read(file, lens=lens())
    except PathError as error:
        return str(error)


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(("row", "value"), [(0, math.nan), (2, math.inf)])
def test_numbers_that_are_none_are_refused(write, row, value, cameras, tmp_path):
    pose = cameras.camera_from_world.clone()
    pose[6, row, 3] = value
    broken = Cameras(pose, cameras.intrinsics, 60, 80)
    if write in FORMATS[-2:]:
        with pytest.raises(ValueError, match="camera 6 of 12 has a number that is not finite"):
            write(tmp_path, broken)
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(PathError, match="of 12 has a number that is not finite"):
            path_files.read(write(tmp_path, broken), lens=lens())


def save_npz(file, **changes):
    arrays = {
        "w2c": np.tile(np.eye(4, dtype=np.float32), (5, 1, 1)),
        "intrinsics": np.tile(np.diag([50.0, 50.0, 1.0]), (5, 1, 1)),
        "image_height": 60,
        "image_width": 80,
    }
    arrays.update(changes)
    np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w2c": None}, "lacks \\['w2c'\\]"),
        ({"w2c": np.zeros((5, 4, 4))}, "camera 0 of 5 has a pose that is not rigid"),
        ({"w2c": np.zeros((0, 4, 4)), "intrinsics": np.zeros((0, 3, 3))}, "holds 0 pose"),
        ({"w2c": np.zeros((5, 3, 4))}, "w2c wants \\[F, 4, 4\\]"),
        ({"intrinsics": np.zeros((5, 3, 3))}, "focal length that is not positive"),
        ({"intrinsics": np.zeros((4, 3, 3))}, "intrinsics \\[F, 3, 3\\]"),
        ({"image_height": 0}, "positive image size"),
        ({"image_height": np.array([1, 2])}, "cannot be read as a path"),
        ({"w2c": np.array([{"a": 1}], dtype=object)}, "cannot be read as a path"),
    ],
)
def test_bad_npz_files_are_explained(changes, message, tmp_path):
    with pytest.raises(PathError, match=message) as error:
        path_files.read(save_npz(tmp_path / "walk.npz", **changes), lens=lens())
    assert "walk.npz" in str(error.value)


def test_an_npz_that_unpacks_to_something_absurd_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(path_files, "MAX_BYTES", 4096)
    np.savez_compressed(tmp_path / "bomb.npz", w2c=np.zeros((1000, 4, 4)))
    with pytest.raises(PathError, match="unpacks to"):
        path_files.read(tmp_path / "bomb.npz", lens=lens())


def keyframe(pose, stamp, fov=50.0):
    return {"R": xyzw(pose[:3, :3]), "T": pose[:3, 3].tolist(), "fov": fov, "timestamp": stamp, "up_dir": [0, -1, 0]}


def write_keyframes(folder, cameras, stamps, **options):
    keys = [keyframe(pose, stamp) for pose, stamp in zip(cameras.world_from_camera, stamps)]
    content = {"loop": False, "time": 0.0, "path": keys, "duration_seconds": 5.0, "spline_order": 3, **options}
    (folder / "studio.json").write_text(json.dumps(content))
    return folder / "studio.json"


@pytest.mark.parametrize("stamps", [[1.25, 2.5, 3.75, 5.0], [0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
def test_studio_keyframes_become_a_spline_through_them(stamps, cameras, tmp_path):
    keys = cameras[::3]
    found = path_files.read(write_keyframes(tmp_path, keys, stamps, duration_seconds=6 / 16), lens=lens())
    assert len(found) == 7
    assert poses_equal(found[::2], keys, 1e-6)
    assert float(found.intrinsics[0, 1, 1]) == pytest.approx(30 / math.tan(math.radians(25)))


def test_studio_time_stamps_are_honoured(cameras, tmp_path):
    found = path_files.read(
        write_keyframes(tmp_path, cameras[:3], [1.0, 4.0, 9.0], duration_seconds=4 / 16), lens=lens()
    )
    assert poses_equal(found[[0, 1, 4]], cameras[:3], 1e-6)


def test_a_studio_loop_ends_where_it_began(cameras, tmp_path):
    found = path_files.read(write_keyframes(tmp_path, cameras[:9:3], [1.0, 2.0, 3.0], loop=True), lens=lens())
    assert len(found) == 81
    assert poses_equal(found[-1], found[0])


def test_frames_of_transforms_are_walked_in_the_order_of_their_pictures(tmp_path):
    path_files.write(tmp_path / "walk.json", walk := Cameras.cat([lens()[None]] * 12))
    walk.camera_from_world[:, 0, 3] = torch.arange(12)
    path_files.write(tmp_path / "walk.json", walk)
    content = json.loads((tmp_path / "walk.json").read_text())
    for index, frame in enumerate(content["frames"]):
        frame["file_path"] = f"images/{index}.png"
    content["frames"] = content["frames"][1::2] + content["frames"][::2]
    (tmp_path / "walk.json").write_text(json.dumps(content))
    found = path_files.read(tmp_path / "walk.json", lens=lens())
    torch.testing.assert_close(found.camera_from_world, walk.camera_from_world.double())


def test_blender_transforms_have_a_lens_by_angle_and_opengl_axes(tmp_path):
    content = {"camera_angle_x": math.pi / 2, "frames": [{"transform_matrix": np.eye(4).tolist()}] * 2}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    found = path_files.read(tmp_path / "transforms.json", lens=lens())
    assert found.intrinsics[0, 0, 0] == pytest.approx(40)
    assert found.world_from_camera[0, :3, :3].diagonal().tolist() == [1, -1, -1]  # looks along -z, y up


def test_images_of_several_sizes_share_the_first_ones_size(cameras, tmp_path):
    path_files.write(tmp_path / "transforms.json", cameras)
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["frames"][3] |= {"w": 160, "h": 120, "fl_x": 100, "fl_y": 100, "cx": 80, "cy": 60}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    found = path_files.read(tmp_path / "transforms.json", lens=lens())
    assert found.intrinsics[3, :2].tolist() == [[50, 0, 40], [0, 50, 30]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("walk.json", b'{"frames": [', "not valid JSON.*cut short"),
        ("walk.json", b"[1, 2]", "is no camera path"),
        ("walk.json", b'{"frames": [{"pose": 1}, {"pose": 2}]}', "missing 'transform_matrix'"),
        ("walk.json", b'{"frames": [{"transform_matrix": [[1, 2], [3]]}, {"transform_matrix": 2}]}', "cannot be read"),
        ("walk.json", b'{"path": []}', "holds 0 pose"),
        ("walk.json", b'{"frames": [{"transform_matrix": null}, {}]}', "cannot be read"),
        ("walk.txt", b"", "holds 0 pose"),
        ("walk.txt", b"\xff\xfe\x00\x81", "is not a text file"),
        ("walk.txt", b"a b c\nd e f\n", "lines have \\[3\\] numbers; wanted 8 .TUM"),
        ("walk.txt", b"0 1 1 1 0 0 0 one\n" * 3, "could not convert"),
        ("walk.txt", b"0 1 1 1 0 0 0 0\n" * 3, "quaternion 0 has length 0"),
        ("walk.npz", b"PK\x03\x04 cut", "no .npz archive"),
        ("walk.csv", b"1,2", "unknown ending '.csv'; known: .npz, .json, .txt, .bin"),
        ("images.bin", b"\x05", "wants images.txt and cameras.txt"),
    ],
)
def test_bad_files_are_explained(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PathError, match=message):
        path_files.read(tmp_path / name, lens=lens())


def test_colmap_with_an_unknown_lens_is_explained(cameras, tmp_path):
    write_colmap_text(tmp_path, cameras)
    (tmp_path / "cameras.txt").write_text("7 WEIRD 80 60 1 2 3\n")
    with pytest.raises(PathError, match="camera 7 is a WEIRD with 3 parameters"):
        path_files.read(tmp_path, lens=lens())


def test_rounded_rotations_are_made_rigid(cameras, tmp_path):
    path_files.write(tmp_path / "path.npz", cameras)
    rough = (cameras.camera_from_world * 1e4).round() / 1e4
    save_npz(tmp_path / "path.npz", w2c=rough.numpy(), intrinsics=cameras.intrinsics.numpy())
    found = path_files.read(tmp_path / "path.npz", lens=lens()).camera_from_world[:, :3, :3]
    assert torch.allclose(found @ found.mT, torch.eye(3, dtype=torch.float64), atol=1e-12)


def test_writing_knows_its_endings_and_leaves_nothing_behind(cameras, tmp_path):
    with pytest.raises(PathError, match=r"written as \.npz or \.json, not '\.txt'"):
        path_files.write(tmp_path / "path.txt", cameras)
    path_files.write(tmp_path / "path.npz", cameras)
    assert [file.name for file in tmp_path.iterdir()] == ["path.npz"]


@pytest.mark.parametrize("text", ["walk", "forward 2", "left 2.5 deg, back to start", "forward 0.5m", ""])
def test_sentences_are_no_files(text):
    assert not path_files.is_path_file(text)
