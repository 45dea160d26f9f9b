"""Camera paths in files: reads what other tools write, writes .npz and transforms.json.

* `.npz` of the reference: `w2c` [F, 4, 4], `intrinsics` [F, 3, 3] in pixels of `image_height` x `image_width`.
* Studio `.json` (a list `path`): keyframes with `R` (quaternion xyzw) and `T`, camera to world, `fov` (vertical,
  degrees) and `timestamp` (the k-th stamp is the time of keyframe k + 1, the first keyframe has time 0; if the first
  stamp is 0, each is its own keyframe's; stamps that do not increase are replaced by equal steps). With `loop` the
  path returns to the first. It becomes a spline through the keyframes, 16 cameras for each of `duration_seconds`.
  (The reference's own B-spline passes by its keyframes; `up_dir`, `time` and `spline_order` are ignored.)
* Exported cameras `.json` (a list `cameras`): `start`, 3x4 rows, camera to world; the end of the shutter is ignored.
* `transforms.json` of nerfstudio and Blender (a list `frames`): `transform_matrix`, camera to world with OpenGL axes
  (y up, z back); `fl_x`, `fl_y`, `cx`, `cy`, `w`, `h` for all or per frame, or `camera_angle_x` in radians.
* RealEstate10K `.txt`: focal lengths and centre divided by the image size, 3x4 rows, camera from world.
* TUM `.txt`: `timestamp tx ty tz qx qy qz qw`, camera to world; no lens.
* COLMAP `images` and `cameras`, `.txt` or `.bin`, or their folder: camera from world, in the order of the image names.
  Of a lens with distortion the pinhole part is taken.

Where a file has no lens, or no image size, the caller's is taken. Poses are in the file's own world and unit:
`paths.reanchor` brings them to a photo. Nothing is unpickled. Every error is a PathError that names the file, what was
found and what is wanted.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photowalk.geometry import motions, paths
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import PathError

ENDINGS = (".npz", ".json", ".txt", ".bin")
MAX_BYTES = 1 << 29
MAX_POSES = 100_000
STUDIO_FPS = 16
_DAMAGE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    OverflowError,
    EOFError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
)
_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))

# COLMAP's camera models by id: name, number of parameters; the first parameters are (f, cx, cy) or (fx, fy, cx, cy)
FRAME_NAME = "frame_{:05d}.png"  # of the picture that belongs to a camera in files that name pictures
_COLMAP_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}
_ONE_FOCAL = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}


def is_path_file(text: str) -> bool:
    """Whether `text` means a file or folder rather than a sentence: by an ending, a slash, or because it is there."""
    looks = text.lower().endswith(ENDINGS) or "/" in text or "\\" in text or re.fullmatch(r"\S+\.[A-Za-z]\w*", text)
    return bool(text) and (bool(looks) or ("\n" not in text and len(os.fsencode(text)) < 256 and Path(text).exists()))


def read(file: str | Path, *, lens: Cameras, fewest: int = 2) -> Cameras:
    """A path file -> cameras [F >= fewest], float64; `lens`, one camera, stands in where the file has no lens or
    size."""
    file = Path(file)
    try:
        cameras = _read(file, lens.to("cpu", torch.float64))
    except PathError:
        raise
    except _DAMAGE as error:
        raise PathError(
            f"{file}: cannot be read as a path ({_reason(error)}); it may be damaged or cut short"
        ) from error
    if len(cameras) < fewest:
        raise PathError(f"{file}: holds {len(cameras)} pose(s), a path wants at least {fewest}")
    if len(cameras) > MAX_POSES:
        raise PathError(f"{file}: holds {len(cameras)} poses, more than {MAX_POSES}; thin it out")
    try:
        cameras.check(str(file))
    except ValueError as error:
        raise PathError(str(error)) from error
    pose = cameras.camera_from_world
    rigid = motions.motion(motions.nearest_rotation(pose[:, :3, :3]), pose[:, :3, 3])
    return replace(cameras, camera_from_world=rigid)


def write(file: str | Path, cameras: Cameras) -> None:
    """Cameras [F] -> `.npz` or `.json` (transforms.json), by the ending; read() gives them back."""
    file = Path(file)
    writers = {".npz": _write_npz, ".json": _write_transforms}
    if file.suffix.lower() not in writers:
        raise PathError(f"{file}: camera paths are written as .npz or .json, not '{file.suffix}'")
    partial = file.with_name(f".{file.name}.partial")
    try:
        writers[file.suffix.lower()](partial, cameras.check("the path to write").to("cpu"))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _read(file: Path, lens: Cameras) -> Cameras:
    if file.is_dir():
        return read_colmap(file)[1]
    if not file.is_file():
        raise PathError(f"{file}: no such file; a path is a preset, a file ({', '.join(ENDINGS)}) or a sentence")
    if file.stat().st_size > MAX_BYTES:
        raise PathError(f"{file}: is {file.stat().st_size >> 20} MiB, more than {MAX_BYTES >> 20} MiB; not a path")
    ending = file.suffix.lower()
    if ending == ".npz":
        return _read_npz(file)
    if ending == ".json":
        return _read_json(file, lens)
    if ending == ".bin":
        return read_colmap(file.parent)[1]
    if ending == ".txt":
        return _read_text(file, lens)
    raise PathError(f"{file}: unknown ending '{ending}'; known: {', '.join(ENDINGS)}")


def _reason(error: Exception) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__


def _read_npz(file: Path) -> Cameras:
    if not zipfile.is_zipfile(file):
        raise PathError(f"{file}: is no .npz archive, or is cut short")
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise PathError(f"{file}: unpacks to {size >> 20} MiB, more than {MAX_BYTES >> 20} MiB; not a path")
    with np.load(file, allow_pickle=False) as arrays:
        wanted = {"w2c", "intrinsics", "image_height", "image_width"}
        missing = wanted - set(arrays.files)
        if missing:
            raise PathError(
                f"{file}: lacks {sorted(missing)}; has {sorted(arrays.files)}, a path wants {sorted(wanted)}"
            )
        poses, intrinsics = (np.asarray(arrays[name], dtype=np.float64) for name in ("w2c", "intrinsics"))
        height, width = (int(arrays[name]) for name in ("image_height", "image_width"))
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or intrinsics.shape != (len(poses), 3, 3):
        raise PathError(
            f"{file}: w2c wants [F, 4, 4] and intrinsics [F, 3, 3], got {poses.shape} and {intrinsics.shape}"
        )
    return Cameras(torch.from_numpy(poses), torch.from_numpy(intrinsics), height, width)


def _write_npz(file: Path, cameras: Cameras) -> None:
    with file.open("wb") as stream:
        np.savez(
            stream,
            w2c=cameras.camera_from_world.numpy(),
            intrinsics=cameras.intrinsics.numpy(),
            image_height=cameras.height,
            image_width=cameras.width,
        )


def _read_json(file: Path, lens: Cameras) -> Cameras:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PathError(f"{file}: is not valid JSON ({error}); it may be cut short") from error
    readers = {"frames": _read_transforms, "path": _read_keyframes, "cameras": _read_exported}
    for key, reader in readers.items():
        if isinstance(content, dict) and isinstance(content.get(key), list):
            if not content[key]:
                raise PathError(f"{file}: holds 0 poses")
            return reader(content, lens)
    raise PathError(f"{file}: is no camera path; a .json path has a list under one of {sorted(readers)}")


def in_order(frames: list[dict]) -> list[dict]:
    """The frames of a transforms.json as they were taken: by the names of their pictures, where all have one, since
    converters list them in the order in which they found their poses."""
    if not all(isinstance(frame.get("file_path"), str) for frame in frames):
        return frames
    return sorted(frames, key=lambda frame: _natural(frame["file_path"]))


def _read_transforms(content: dict, lens: Cameras) -> Cameras:
    frames = in_order(content["frames"])
    poses = torch.tensor([frame["transform_matrix"] for frame in frames], dtype=torch.float64)
    if poses.shape[1:] == (3, 4):
        poses = motions.motion(poses[:, :, :3], poses[:, :, 3])
    cameras = [_transforms_lens({**content, **frame}, lens) for frame in frames]
    joined = _stack(cameras)
    return replace(joined, camera_from_world=_inverse(poses @ _OPENGL))


def _transforms_lens(values: dict, lens: Cameras) -> Cameras:
    width, height = int(values.get("w", lens.width)), int(values.get("h", lens.height))
    if "fl_x" in values:
        fx = float(values["fl_x"])
    elif "camera_angle_x" in values:
        fx = width / 2 / math.tan(float(values["camera_angle_x"]) / 2)
    else:
        return lens
    fy = float(values.get("fl_y", fx))
    return _pinhole(fx, fy, float(values.get("cx", width / 2)), float(values.get("cy", height / 2)), height, width)


def _write_transforms(file: Path, cameras: Cameras) -> None:
    poses = cameras.to(torch.float64).world_from_camera @ _OPENGL
    frames = []
    for index, (pose, intrinsics) in enumerate(zip(poses.tolist(), cameras.intrinsics.double().tolist())):
        (fx, _, cx), (_, fy, cy), _ = intrinsics
        named = {"file_path": FRAME_NAME.format(index), "transform_matrix": pose}
        frames.append({**named, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy})
    content = {"camera_model": "OPENCV", "w": cameras.width, "h": cameras.height, "frames": frames}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_keyframes(content: dict, lens: Cameras) -> Cameras:
    keys = content["path"] + (content["path"][:1] if content.get("loop") else [])
    quaternions = torch.tensor([key["R"] for key in keys], dtype=torch.float64)[:, [3, 0, 1, 2]]
    centres = torch.tensor([key["T"] for key in keys], dtype=torch.float64)
    poses = motions.inverse(motions.motion(_rotation(quaternions), centres))
    lenses = []
    for key in keys:
        focal = lens.height / 2 / math.tan(math.radians(float(key["fov"])) / 2)
        lenses.append(_pinhole(focal, focal, lens.width / 2, lens.height / 2, lens.height, lens.width))
    stops = replace(_stack(lenses), camera_from_world=poses).check("keyframes")
    knots = _knots([float(key.get("timestamp", 0)) for key in content["path"]], len(keys))
    seconds = float(content.get("duration_seconds", 5))
    frames = max(2, min(MAX_POSES, math.ceil(seconds * STUDIO_FPS)) + 1)
    return paths.keyframes(stops[0], frames, keys=stops[1:], times=knots[1:] / knots[-1])


def _knots(stamps: list[float], count: int) -> Tensor:
    """Time stamps of the keyframes -> times [count] of the spline's stops; one stop more where the path loops."""
    if stamps[0] > 0:
        knots = [0.0, *stamps][:count]
    else:
        knots = [*stamps, stamps[-1] + stamps[-1] / max(len(stamps) - 1, 1)][:count]
    times = torch.tensor(knots, dtype=torch.float64)
    return times if bool((times.diff() > 0).all()) else torch.arange(count, dtype=torch.float64)


def _read_exported(content: dict, lens: Cameras) -> Cameras:
    rows = torch.tensor([camera["start"] for camera in content["cameras"]], dtype=torch.float64)
    return _with_lens(_inverse(motions.motion(rows[:, :, :3], rows[:, :, 3])), lens)


def _read_text(file: Path, lens: Cameras) -> Cameras:
    text = _text(file)
    if file.name.lower() in ("images.txt", "cameras.txt") or re.match(r"# (Image|Camera) list", text):
        return read_colmap(file.parent)[1]
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and len(lines[0]) == 1:  # RealEstate10K begins with the address of its video
        lines = lines[1:]
    if not lines:
        raise PathError(f"{file}: holds 0 poses")
    wide = {len(line) for line in lines}
    if wide not in ({8}, {19}):
        raise PathError(
            f"{file}: lines have {sorted(wide)} numbers; wanted 8 (TUM: timestamp tx ty tz qx qy qz qw) "
            f"or 19 (RealEstate10K: timestamp, 4 lens numbers, 0 0, 12 of the pose); it may be cut short"
        )
    try:
        values = torch.tensor([[float(word) for word in line] for line in lines], dtype=torch.float64)
    except ValueError as error:
        raise PathError(f"{file}: {error}; wanted numbers") from error
    return _tum(values, lens) if wide == {8} else _realestate(values, lens)


def _tum(values: Tensor, lens: Cameras) -> Cameras:
    rotation = _rotation(values[:, [7, 4, 5, 6]])
    return _with_lens(motions.inverse(motions.motion(rotation, values[:, 1:4])), lens)


def _realestate(values: Tensor, lens: Cameras) -> Cameras:
    rows = values[:, 7:].unflatten(1, (3, 4))
    size = torch.tensor([lens.width, lens.height], dtype=torch.float64)
    intrinsics = torch.zeros(len(values), 3, 3, dtype=torch.float64)
    intrinsics[:, [0, 1], [0, 1]] = values[:, 1:3] * size
    intrinsics[:, :2, 2] = values[:, 3:5] * size
    intrinsics[:, 2, 2] = 1
    return Cameras(motions.motion(rows[:, :, :3], rows[:, :, 3]), intrinsics, lens.height, lens.width)


def read_colmap(folder: Path) -> tuple[dict[int, str], Cameras]:
    """A COLMAP model's images by their numbers, in the order of their names, and their cameras [F], float64."""
    for ending, read_lenses, read_images in [
        (".bin", _colmap_lenses_binary, _colmap_images_binary),
        (".txt", _colmap_lenses_text, _colmap_images_text),
    ]:
        images, cameras = folder / f"images{ending}", folder / f"cameras{ending}"
        if images.is_file() and cameras.is_file():
            lenses = read_lenses(cameras)
            found = sorted(read_images(images), key=lambda image: _natural(image[1]))
            if not found:
                raise PathError(f"{images}: holds 0 poses")
            values = torch.tensor([numbers for _, _, numbers, _ in found], dtype=torch.float64)
            pose = motions.motion(_rotation(values[:, :4]), values[:, 4:])
            joined = _stack([lenses[camera] for *_, camera in found])
            return {index: name for index, name, *_ in found}, replace(joined, camera_from_world=pose)
    raise PathError(f"{folder}: a COLMAP folder wants images.txt and cameras.txt, or images.bin and cameras.bin")


def _natural(name: str) -> list:
    """Sorting key in which frame 10 comes after frame 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _colmap_lens(model: str, width: int, height: int, params: list[float]) -> Cameras:
    focals = params[:1] * 2 if model in _ONE_FOCAL else params[:2]
    centre = params[1:3] if model in _ONE_FOCAL else params[2:4]
    return _pinhole(*focals, *centre, height, width)


def _colmap_lenses_text(file: Path) -> dict[int, Cameras]:
    known = dict(_COLMAP_MODELS.values())
    lenses = {}
    for line in _text(file).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        index, model, width, height, *params = line.split()
        if len(params) != known.get(model):
            raise PathError(f"{file}: camera {index} is a {model} with {len(params)} parameters; known: {known}")
        lenses[int(index)] = _colmap_lens(model, int(width), int(height), [float(p) for p in params])
    return lenses


def _colmap_images_text(file: Path) -> Iterator[tuple[int, str, list[float], int]]:
    lines = [line for line in _text(file).splitlines() if not line.startswith("#")]
    while lines and not lines[-1].strip():
        lines.pop()
    for line in lines[::2]:  # every second line lists the image's points
        index, *numbers, camera, name = line.split(maxsplit=9)
        yield int(index), name, [float(number) for number in numbers], int(camera)


def _colmap_lenses_binary(file: Path) -> dict[int, Cameras]:
    content = file.read_bytes()
    (count,), at = struct.unpack_from("<Q", content), 8
    lenses = {}
    for _ in range(count):
        index, model, width, height = struct.unpack_from("<iiQQ", content, at)
        if model not in _COLMAP_MODELS:
            raise PathError(f"{file}: camera model {model} is unknown; known: {_COLMAP_MODELS}")
        name, size = _COLMAP_MODELS[model]
        lenses[index] = _colmap_lens(name, width, height, list(struct.unpack_from(f"<{size}d", content, at + 24)))
        at += 24 + 8 * size
    return lenses


def _colmap_images_binary(file: Path) -> Iterator[tuple[int, str, list[float], int]]:
    content = file.read_bytes()
    (count,), at = struct.unpack_from("<Q", content), 8
    for _ in range(count):
        index, *numbers, camera = struct.unpack_from("<i7di", content, at)
        at += 64
        end = content.index(b"\0", at)
        name = content[at:end].decode("utf-8", "replace")
        (points,) = struct.unpack_from("<Q", content, end + 1)
        at = end + 9 + 24 * points
        yield index, name, numbers, camera


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PathError(f"{file}: is not a text file ({error.reason} at byte {error.start})") from error


def _rotation(quaternions: Tensor) -> Tensor:
    """wxyz [F, 4] of about unit length -> [F, 3, 3]."""
    length = quaternions.norm(dim=-1)
    if bool((length < 0.5).any()):
        raise ValueError(
            f"quaternion {int((length < 0.5).nonzero()[0, 0])} has length {float(length.min()):.3g}, not 1"
        )
    return motions.rotation_from_quaternion(quaternions)


def _inverse(poses: Tensor) -> Tensor:
    """Inverse of file poses [F, 4, 4] that need not be rigid, so that check() can still tell."""
    if not bool(poses.isfinite().all()):
        return poses
    return torch.linalg.inv_ex(poses).inverse


def _pinhole(fx: float, fy: float, cx: float, cy: float, height: int, width: int) -> Cameras:
    intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    return Cameras(torch.eye(4, dtype=torch.float64), intrinsics, height, width)


def _with_lens(poses: Tensor, lens: Cameras) -> Cameras:
    return Cameras(poses, lens.intrinsics.repeat(len(poses), 1, 1), lens.height, lens.width)


def _stack(cameras: list[Cameras]) -> Cameras:
    """Single cameras -> [F], brought to the image size of the first."""
    first = cameras[0]
    same = [camera.resized(first.height, first.width) for camera in cameras]
    return replace(
        first,
        camera_from_world=torch.stack([camera.camera_from_world for camera in same]),
        intrinsics=torch.stack([camera.intrinsics for camera in same]),
    )
