import numpy as np
import pytest
import torch
from PIL import Image

from photowalk.scene.depth_files import DepthError, read_depth


def steps(height=32, width=64):
    """Metres that grow with the column, told apart to the millimetre."""
    return np.tile(1 + np.arange(width) / 100, (height, 1)).astype(np.float32)


def test_every_kind_of_file_gives_the_same_metres(tmp_path):
    np.save(tmp_path / "depth.npy", steps())
    np.savez(tmp_path / "named.npz", depth=steps(), other=np.zeros(3))
    np.savez(tmp_path / "only.npz", steps())
    Image.fromarray((steps() * 1000).round().astype(np.uint16)).save(tmp_path / "depth.png")
    Image.fromarray(steps()).save(tmp_path / "depth.tiff")
    for file in tmp_path.iterdir():
        depth = read_depth(file, 16, 32, photo_size=(320, 640))
        assert depth.dtype == torch.float32
        assert torch.allclose(depth, torch.from_numpy(steps()[1::2, 1::2]), atol=1e-4), file


def test_it_is_cropped_as_the_photo_is(tmp_path):
    np.save(tmp_path / "depth.npy", steps())
    square = read_depth(tmp_path / "depth.npy", 32, 32, photo_size=(32, 64))
    assert torch.equal(square, torch.from_numpy(steps()[:, 16:48]))


def test_sky_is_kept_and_nonsense_is_unknown(tmp_path):
    values = steps()
    values[0], values[1], values[2] = np.inf, np.nan, -1
    np.save(tmp_path / "depth.npy", values)
    depth = read_depth(tmp_path / "depth.npy", 32, 64, photo_size=(32, 64))
    assert depth[0].isinf().all()
    assert (depth[1:3] == 0).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("colour.npy", np.zeros((32, 64, 3)), r"wants one depth per pixel"),
        ("portrait.npy", steps(64, 32), r"64 rows of 32, the photo 32 of 64"),
        ("empty.npy", np.zeros((32, 64)), r"holds no depth"),
        ("pickle.npy", np.array([{}]), r"damaged"),
    ],
)
def test_wrong_arrays(tmp_path, name, content, message):
    np.save(tmp_path / name, content, allow_pickle=True)
    with pytest.raises(DepthError, match=message):
        read_depth(tmp_path / name, 16, 32, photo_size=(32, 64))


def test_wrong_files(tmp_path):
    Image.new("L", (64, 32)).save(tmp_path / "coarse.png")
    np.savez(tmp_path / "many.npz", a=steps(), b=steps())
    (tmp_path / "text.txt").write_text("far")
    (tmp_path / "short.npz").write_bytes(b"PK\x03\x04")
    for name, message in [
        ("coarse.png", "8-bit"),
        ("many.npz", "name the one"),
        ("text.txt", "no depth map"),
        ("short.npz", "damaged"),
        ("none.npy", "no file"),
    ]:
        with pytest.raises(DepthError, match=message):
            read_depth(tmp_path / name, 16, 32, photo_size=(32, 64))
