"""The command line as scripts see it: exit codes, messages, files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from worlds import make_world

from photowalk.cli import main, parser

SMALL = ["--size", "64x96", "--path", "left 10deg"]


def save_photo(path, size=(192, 128), mode="RGB", **options):
    noise = torch.randint(0, 256, (8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    picture = Image.fromarray(noise.numpy()).resize(size, Image.Resampling.BICUBIC)
    (picture if mode == "RGB" else picture.convert(mode)).save(path, **options)
    return str(path)


@pytest.fixture
def photo(tmp_path):
    (tmp_path / "photos").mkdir()
    return save_photo(tmp_path / "photos" / "room.png")


def refused(capsys, arguments, *words):
    """The command ends with 2 and says so in one or two lines that hold `words`."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("photowalk: ")
    assert "Traceback" not in message
    assert all(word in message for word in words), message


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from photowalk.cli import main, parser\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("False")
    for command in ("generate", "extend", "undo", "redo", "branch", "info", "reconstruct", "export"):
        assert command in run.stdout


def test_the_contract_from_photo_to_files(tmp_path, photo, capsys):
    world = tmp_path / "world"
    assert main(["generate", photo, "-o", str(world), "--prompt", "a room", *SMALL]) == 0
    assert main(["extend", str(world), "--path", "back to start"]) == 0
    assert main(["branch", str(world), str(tmp_path / "branch"), "--at", "1"]) == 0
    assert main(["undo", str(world)]) == 0
    capsys.readouterr()
    assert main(["info", str(world), "--json", "--verify"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["frames"] == 81
    assert main(["info", str(tmp_path / "branch")]) == 0
    text = capsys.readouterr().out
    for words in ("81 frames", "left 10deg", '"a room"', "memory:", "scale:", "licence of the weights", "seed 1"):
        assert words in text
    files = [str(tmp_path / "walk.mp4"), str(tmp_path / "cameras.npz")]
    assert main(["export", str(world), *files]) == 0
    assert all(Path(file).exists() for file in files)


def bad_photos(folder):
    (folder / "text.jpg").write_text("a photo of a hall")
    (folder / "empty.png").write_bytes(b"")
    save_photo(folder / "whole.jpg", (640, 480))
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:3000])
    save_photo(folder / "pixel.png", (1, 1))
    Image.new("1", (20000, 20000)).save(folder / "huge.png")
    (folder / "folder.png").mkdir()
    return {
        "text.jpg": "not a picture",
        "empty.png": "empty",
        "truncated.jpg": "damaged or cut short",
        "pixel.png": "1x1 pixels",
        "huge.png": "too large",
        "folder.png": "is a folder",
        "missing.png": "no file",
    }


def test_bad_photos_are_refused_and_leave_nothing(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name, word in bad_photos(tmp_path / "photos").items():
        refused(capsys, ["generate", tmp_path / "photos" / name, "-o", tmp_path / "world"], name, word)
        assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_unusual_photos_are_read(tmp_path):
    save_photo(tmp_path / "cmyk.jpg", mode="CMYK")
    save_photo(tmp_path / "transparent.png", mode="RGBA")
    Image.fromarray(np.full((128, 192), 40000, np.uint16)).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save_photo(tmp_path / "turned.jpg", (128, 192), exif=exif)
    from photowalk import World

    for name in ("cmyk.jpg", "transparent.png", "deep.png", "turned.jpg"):
        world = World.create(tmp_path / name, tmp_path / f"world of {name}", size=(64, 96))
        assert world.manifest.frames == 1


def test_bad_options_of_generate(tmp_path, photo, capsys):
    generate = ["generate", photo, "-o", tmp_path / "world"]
    (tmp_path / "depth.npy").write_bytes(b"")
    for options, words in [
        (["--preset", "huge"], ["huge", "nano"]),
        (["--size", "1x1"], ["1x1"]),
        (["--size", "70x101"], ["70x101"]),
        (["--fov", "0"], ["field of view", "0"]),
        (["--fov", "nan"], ["field of view", "nan"]),
        (["--depth", tmp_path / "none.npy"], ["none.npy"]),
        (["--depth", tmp_path / "depth.npy"], ["depth.npy"]),
    ]:
        refused(capsys, [*generate, *options], *words)
    with pytest.raises(SystemExit, match="2"):
        main(["generate", photo, "-o", str(tmp_path / "world"), "--size", "big"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.npy", "photos"]


def pose_files(folder):
    poses = np.tile(np.eye(4), (3, 1, 1))
    lens = np.tile(np.array([[50.0, 0, 48], [0, 50, 32], [0, 0, 1]]), (3, 1, 1))
    nan, singular = poses.copy(), poses.copy()
    nan[1, 0, 3] = np.nan
    singular[2, :3, :3] = 0
    for name, values in [("nan", nan), ("singular", singular), ("one", poses[:1]), ("none", poses[:0])]:
        np.savez(folder / f"{name}.npz", w2c=values, intrinsics=lens[: len(values)], image_height=64, image_width=96)
    (folder / "short.npz").write_bytes((folder / "nan.npz").read_bytes()[:200])
    return {"nan": "not finite", "singular": "not rigid", "one": "1 pose", "none": "0 pose", "short": "cut short"}


def test_bad_paths_are_refused_and_change_nothing(tmp_path, photo, capsys):
    for path, words in {
        "": ["empty"],
        "  ": ["empty"],
        ",": ["empty"],
        "left": ["left"],
        "fly 3": ["fly", "forward"],
        "forwad 3": ["forward"],
        "orbitleft": ["orbit_left"],
        "none.npz": ["none.npz"],
        "forward 1e9": ["1e9"],
    }.items():
        refused(capsys, ["generate", photo, "-o", tmp_path / "world", "--size", "64x96", "--path", path], *words)
        assert [entry.name for entry in tmp_path.iterdir()] == ["photos"], path
    make_world(tmp_path / "world", chunks=2)
    before = (tmp_path / "world" / "world.json").read_text()
    for name, word in pose_files(tmp_path).items():
        refused(capsys, ["extend", tmp_path / "world", "--path", tmp_path / f"{name}.npz"], name, word)
    refused(capsys, ["extend", tmp_path / "world"], "no interrupted walk")
    assert (tmp_path / "world" / "world.json").read_text() == before


def test_bad_worlds_are_refused(tmp_path, photo, capsys):
    world = tmp_path / "world"
    make_world(world, chunks=3)
    refused(capsys, ["generate", photo, "-o", world], "exists already")
    refused(capsys, ["branch", world, world], "exists already")
    refused(capsys, ["branch", world, tmp_path / "new", "--at", "9"], "no chunk 9")
    refused(capsys, ["undo", world, "3"], "3 cannot be undone")
    refused(capsys, ["undo", world, "0"], "0 cannot be undone")
    refused(capsys, ["export", world, tmp_path / "a.obj"], ".obj", ".ply")
    refused(capsys, ["export", world, tmp_path / "a.ply"], "photowalk reconstruct")
    for command in ("info", "extend", "undo", "reconstruct"):
        refused(capsys, [command, tmp_path / "nothing"], "no folder")
        refused(capsys, [command, tmp_path / "photos"], "not a world")
    (world / "chunks" / "0002" / "latents.safetensors").unlink()
    refused(capsys, ["extend", world, "--path", "left 10deg"], "chunks/0002", f"photowalk undo {world} 1")
    refused(capsys, ["info", world, "--verify"], "latents.safetensors is missing")
    assert main(["undo", str(world)]) == 0
    manifest = world / "world.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    refused(capsys, ["info", world], "version 99", "version 1")


def signalled(arguments, when, sent):
    """Start the command, send it a signal as soon as `when()`, and wait for its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    code = (  # who was started in the background of a script ignores SIGINT, and so would the command
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from photowalk.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        while process.poll() is None and not when():
            time.sleep(0.01)
        assert process.poll() is None, "the command ended before it could be signalled"
        process.send_signal(sent)
        _, errors = process.communicate()
        return process.returncode, errors.decode()


def test_a_walk_that_was_killed_and_cancelled_continues_to_the_same_files(tmp_path, photo):
    """Killed while the first chunk is being written, cancelled while the second is being made, then finished."""
    options = ["--size", "64x64", "--path", "left 10deg in 160 frames"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    writing = (broken / "chunks" / ".0001.partial").exists
    assert signalled(["generate", photo, "-o", broken, *options], writing, signal.SIGKILL)[0] == -signal.SIGKILL
    code, errors = signalled(["extend", broken], (broken / "chunks" / "0001").exists, signal.SIGINT)
    assert code in (130, -signal.SIGINT)  # Python may die of the signal after its last word, which shells call 130 too
    assert errors.strip().endswith("cancelled; what was finished is kept, what was in work is not")
    assert "Traceback" not in errors
    assert main(["generate", photo, "-o", str(broken), *options]) == 0
    assert main(["generate", photo, "-o", str(whole), *options]) == 0
    assert main(["info", str(broken), "--verify"]) == 0
    kept = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(kept) == 3 * 7 + len(["world.json", "photo.png", "walk.mp4", "close_up.png"])
    for file in kept:
        assert (whole / file).read_bytes() == (broken / file).read_bytes(), file


@pytest.mark.parametrize(("text", "count"), [("500k", 500_000), ("2M", 2_000_000), ("1234", 1234), ("all", None)])
def test_splats_are_counted_in_words(text, count):
    assert parser().parse_args(["reconstruct", "world", "--splats", text]).splats == count


@pytest.mark.parametrize("wrong", [["--splats", "0"], ["--splats", "many"], ["--refine", "-1"], ["--refine", "1.5"]])
def test_wrong_counts_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["reconstruct", "world", *wrong])
    assert wrong[1] in capsys.readouterr().err
