"""Recordings of other tools become clips: COLMAP, transforms.json, ViPE, and footage whose cameras are to be found."""

import json
import math

import numpy as np
import pytest
import rooms
import torch

from photowalk.cli import main
from photowalk.data.clips import read_clip
from photowalk.data.footage import FootageError
from photowalk.data.prepare import Cut, Finding, prepare
from photowalk.data.recordings import RecordingError, fitted, open_recording
from photowalk.data.solve import solve_cameras
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import look_at, quaternion_from_rotation
from photowalk.scene.images import write_png
from photowalk.scene.types import Clip
from photowalk.scene.videos import write_mp4
from photowalk.synthetic import SyntheticWorld

SIZE = (48, 64)


@pytest.fixture(scope="module")
def walk() -> Clip:
    return rooms.walk(5, SIZE)


def write_pictures(folder, video):
    folder.mkdir(parents=True)
    for index, image in enumerate(video):
        write_png(folder / f"frame{index + 1}.png", image)


def write_colmap(folder, clip, unit=1.0):
    """images/ and sparse/0/*.txt, with every 40th pixel's point as a landmark; lengths in `unit` metres."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    write_pictures(folder / "images", clip.video)
    (fx, _, cx), (_, fy, cy), _ = clip.cameras.intrinsics[0].tolist()
    model.joinpath("cameras.txt").write_text(f"# a lens\n7 PINHOLE {SIZE[1]} {SIZE[0]} {fx} {fy} {cx} {cy}\n")
    lines, points = [], []
    for index in reversed(range(len(clip))):
        pose = clip.cameras.camera_from_world[index]
        numbers = [*quaternion_from_rotation(pose[:3, :3]).tolist(), *(pose[:3, 3] / unit).tolist()]
        lines += [f"{index + 1} {' '.join(map(str, numbers))} 7 frame{index + 1}.png", ""]
        camera, depth = clip.cameras[index], clip.depth[index]
        seen = torch.zeros(SIZE, dtype=torch.bool)
        seen.view(-1)[20::40] = True
        seen &= torch.isfinite(depth) & (depth > 0)
        world = camera.unproject(torch.where(torch.isfinite(depth), depth, 1.0))[seen] / unit
        points += [(point.tolist(), index + 1) for point in world]
    model.joinpath("images.txt").write_text("\n".join(lines))
    rows = [f"{i + 1} {x} {y} {z} 9 9 9 0.5 {image} 0" for i, ((x, y, z), image) in enumerate(points)]
    model.joinpath("points3D.txt").write_text("\n".join(rows))


def same_cameras(a, b, atol=1e-4):
    assert (a.height, a.width) == (b.height, b.width)
    assert torch.allclose(a.camera_from_world.float(), b.camera_from_world.float(), atol=atol)
    assert torch.allclose(a.intrinsics.float(), b.intrinsics.float(), atol=1e-3)


def test_a_colmap_model_gives_back_its_cameras_pictures_and_landmarks(walk, tmp_path):
    write_colmap(tmp_path / "scene", walk)
    recording = open_recording(tmp_path / "scene")
    assert (recording.name, [file.name for file in recording.pictures][:2]) == ("scene", ["frame1.png", "frame2.png"])
    same_cameras(recording.cameras, walk.cameras)
    clip = recording.clip(range(5), *SIZE)
    assert (clip.video - walk.video).abs().max() < 1 / 255
    for index, points in enumerate(recording.landmarks):
        position, depth = walk.cameras[index].project(points)
        column, row = position.floor().long().unbind(-1)
        assert len(points) > 20
        assert torch.allclose(depth, walk.depth[index][row, column], rtol=1e-3)


def test_a_colmap_folder_becomes_clips_in_metres_with_depth(walk, tmp_path, capsys):
    write_colmap(tmp_path / "scene", walk, unit=7.0)
    main(["data", "prepare", str(tmp_path / "scene"), "-o", str(tmp_path / "clips"), "--size", "48x64", "--clip-frames",
          "3", "--prompt", "A hall", "--licence", "CC0-1.0"])  # fmt: skip
    folders = [tmp_path / "clips" / f"scene_{number:04d}" for number in (0, 1)]
    assert capsys.readouterr().out.split() == [str(folder) for folder in folders]
    clip = read_clip(folders[0])
    assert (len(clip), len(read_clip(folders[1]))) == (3, 2)
    assert clip.prompt.startswith("A hall. The camera ")
    sparse = torch.zeros_like(walk.depth[:3])
    sparse.view(3, -1)[:, 20::40] = walk.depth[:3].reshape(3, -1)[:, 20::40]
    at = (sparse > 0) & torch.isfinite(sparse) & torch.isfinite(clip.depth) & (clip.depth > 0)
    ratio = (clip.depth / sparse)[at]  # the metre is the estimator's guess, and the same for all
    assert at.sum() > 60
    assert ((ratio / ratio.median() - 1).abs() < 0.05).float().mean() > 0.8
    walked, true = (c.centres.diff(dim=0).norm(dim=-1).sum() for c in (clip.cameras, walk.cameras[:3]))
    assert walked / true == pytest.approx(float(ratio.median()), rel=0.05)


def write_transforms(folder, clip, **changes):
    write_pictures(folder / "images", clip.video)
    (fx, _, cx), (_, fy, cy), _ = clip.cameras.intrinsics[0].tolist()
    opengl = torch.diag(torch.tensor([1.0, -1, -1, 1]))
    frames = []
    for index, pose in enumerate(clip.cameras.world_from_camera @ opengl):
        np.save(folder / f"depth{index}.npy", clip.depth[index].numpy())
        frame = {"file_path": f"images/frame{index + 1}.png", "transform_matrix": pose.tolist()}
        frames.append(frame | {"depth_file_path": f"depth{index}.npy"} | changes)
    lens = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": SIZE[1], "h": SIZE[0]}
    (folder / "transforms.json").write_text(json.dumps(lens | {"frames": frames}))


def test_transforms_with_depth_become_clips(walk, tmp_path, capsys):
    write_transforms(tmp_path / "scene", walk)
    main(["data", "prepare", str(tmp_path / "scene"), "-o", str(tmp_path / "clips"), "--size", "48x64"])
    clip = read_clip(tmp_path / "clips" / "scene_0000")
    same_cameras(clip.cameras, walk.cameras)
    assert torch.equal(clip.depth, walk.depth.half().float())
    assert (clip.video - walk.video).abs().max() < 1 / 255


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"file_path": "../secret.png"}, "outside"), ({"file_path": "images/none.png"}, "not in")],
)
def test_pictures_that_are_not_in_the_folder_are_refused(walk, tmp_path, changes, reason):
    write_png(tmp_path / "secret.png", walk.video[0])
    write_transforms(tmp_path / "scene", walk, **changes)
    with pytest.raises(RecordingError, match=reason):
        open_recording(tmp_path / "scene")


def test_a_vipe_folder_becomes_clips(walk, tmp_path):
    root = tmp_path / "vipe"
    for kind in ("rgb", "pose", "intrinsics", "depth"):
        (root / kind).mkdir(parents=True)
    write_mp4(root / "rgb" / "a.mp4", walk.video)
    (fx, _, cx), (_, fy, cy), _ = walk.cameras.intrinsics[0].tolist()
    frames = np.arange(len(walk))
    np.savez(root / "pose" / "a.npz", inds=frames, data=walk.cameras.world_from_camera.numpy())
    np.savez(root / "intrinsics" / "a.npz", inds=frames, data=np.tile([fx, fy, cx, cy], (len(walk), 1)))
    np.savez(root / "depth" / "a.npz", inds=frames, data=walk.depth.numpy())
    main(["data", "prepare", str(root / "rgb" / "a.mp4"), "-o", str(tmp_path / "clips"), "--size", "48x64"])
    clip = read_clip(tmp_path / "clips" / "a_0000")
    same_cameras(clip.cameras, walk.cameras)
    assert torch.equal(clip.depth, walk.depth.half().float())


def test_a_cropped_picture_shows_points_where_its_lens_says(walk):
    camera = walk.cameras[0]
    cropped = fitted(camera, 24, 24)  # half the size, the sides cut off
    points = camera.unproject(torch.full(SIZE, 2.0))
    before, after = camera.project(points)[0], cropped.project(points)[0]
    assert torch.allclose(after, before / 2 - torch.tensor([4.0, 0.0]), atol=1e-3)


def test_what_is_no_recording_is_told(tmp_path, capsys):
    assert main(["data", "prepare", str(tmp_path / "nothing"), "-o", str(tmp_path / "clips")]) == 2
    assert "nothing" in capsys.readouterr().err
    pytest.importorskip("pycolmap")
    write_pictures(tmp_path / "grey", torch.full((3, 3, 64, 64), 0.5))
    names = [f"frame{index}.png" for index in (1, 2, 3)]
    (tmp_path / "work").mkdir()
    with pytest.raises(RecordingError, match="0 of 3 pictures found their place"):
        solve_cameras(tmp_path / "grey", names, tmp_path / "work", fov_x_deg=60)


@pytest.mark.parametrize("frames", [slice(2, 1), slice(3, 9)])
def test_footage_without_the_frames_that_are_wanted_says_so(walk, tmp_path, frames):
    write_mp4(tmp_path / "walk.mp4", walk.video[:3])
    with pytest.raises(FootageError, match="none of the frames that are wanted"):
        next(prepare(tmp_path / "walk.mp4", tmp_path / "clips", Cut(SIZE, frames), Finding(depth=pytest.fail)))


def test_cameras_of_footage_are_found(tmp_path):
    """Up to a similarity, whose scale is that of the depth estimator, the cameras that took the pictures."""
    pytest.importorskip("pycolmap")
    height, width, count = 240, 320, 10
    turns = torch.linspace(-0.5, 0.5, count)
    centres = torch.stack([1.2 * turns, -1.5 + 0.3 * turns**2, 0.4 * torch.sin(3 * turns)], dim=-1)
    truth = Cameras.from_fov(look_at(centres, torch.tensor([0.0, -1.0, 4.0]).expand(count, 3)), 60.0, height, width)
    clip = SyntheticWorld.sample(1).render(truth)
    write_mp4(tmp_path / "walk.mp4", clip.video)
    main(["data", "prepare", str(tmp_path / "walk.mp4"), "-o", str(tmp_path / "clips"), "--size", "96x128", "--fov",
          "70"])  # fmt: skip
    found = read_clip(tmp_path / "clips" / "walk_0000")
    assert len(found) == count
    fov = math.degrees(2 * math.atan(64 / float(found.cameras.intrinsics[0, 0, 0])))
    assert fov == pytest.approx(60, abs=3)
    turned, wanted = (c.relative_to(c[0]).camera_from_world[:, :3, :3] for c in (found.cameras, truth))
    assert (turned - wanted).abs().max() < 0.03
    here, there = (c.relative_to(c[0]).centres for c in (found.cameras, truth))
    scale = float((here * there).sum() / (there * there).sum())
    assert (here - scale * there).norm(dim=-1).max() < 0.1 * scale * float(there.norm(dim=-1).max())
    assert ((found.depth > 0) & torch.isfinite(found.depth)).float().mean() > 0.5
