import io

import numpy as np
import pytest
import torch
from disks import smallest_disk
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from photowalk.scene.images import PhotoError, from_bytes, read_photo, read_png, to_bytes, write_atomically, write_png


def gradient(height=64, width=96):
    """Red grows to the right, green downwards; blue is constant."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 60)], -1).astype(np.uint8)


def saved(tmp_path, picture, name="photo.png", **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


def test_plain_photo_is_kept(tmp_path):
    photo = read_photo(saved(tmp_path, Image.fromarray(gradient())), 64, 96)
    assert photo.image.shape == (3, 64, 96)
    assert torch.equal(to_bytes(photo.image), torch.from_numpy(gradient()).permute(2, 0, 1))
    assert (photo.original_height, photo.original_width, photo.focal_px) == (64, 96, None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_honoured(tmp_path, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that a camera held like this would have recorded
    upright = Image.fromarray(gradient())
    recorded = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, recorded, "photo.jpg", exif=exif, quality=98, subsampling=0)
    photo = read_photo(path, 64, 96)
    assert (photo.original_height, photo.original_width) == (64, 96)
    assert (photo.image - from_bytes(torch.from_numpy(gradient()).permute(2, 0, 1))).abs().mean() < 0.02


def test_colour_modes(tmp_path):
    rgb = Image.fromarray(gradient())
    expected = read_photo(saved(tmp_path, rgb), 64, 96).image
    cmyk = read_photo(saved(tmp_path, rgb.convert("CMYK"), "cmyk.jpg", quality=98), 64, 96).image
    assert (cmyk - expected).abs().mean() < 0.02
    palette = read_photo(saved(tmp_path, rgb.convert("P", palette=Image.Palette.ADAPTIVE), "p.png"), 64, 96).image
    assert (palette - expected).abs().mean() < 0.05
    grey = read_photo(saved(tmp_path, rgb.convert("L"), "grey.png"), 64, 96).image
    assert torch.equal(grey[0], grey[2])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_photos_colour_profile_is_heeded(tmp_path, mode):
    """A profile with red and green exchanged, made of that of sRGB by exchanging the names of its primaries."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = srgb.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    other = other.replace("sRGB".encode("utf-16-be"), "Left".encode("utf-16-be"))
    picture = Image.new(mode, (96, 64), (230, 60, 40, 255)[: len(mode)])
    seen = {}
    for name, profile in (("srgb", srgb), ("other", other), ("damaged", b"no profile")):
        picture.save(tmp_path / f"{name}.png", icc_profile=profile)
        seen[name] = (read_photo(tmp_path / f"{name}.png", 64, 96).image[:, 30, 40] * 255).tolist()
    assert seen["srgb"] == seen["damaged"] == pytest.approx([230, 60, 40], abs=1e-3)
    assert seen["other"] == pytest.approx([60, 230, 40], abs=3)


def test_sixteen_bit_greyscale_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    image = read_photo(saved(tmp_path, Image.fromarray(ramp), "deep.png"), 64, 96).image
    assert torch.allclose(image[1], torch.from_numpy(ramp / 65535).float(), atol=0.003)


def test_transparent_is_laid_over_white(tmp_path):
    rgba = np.dstack([gradient(), np.zeros((64, 96), np.uint8)])
    rgba[:32, :, 3] = 255
    image = read_photo(saved(tmp_path, Image.fromarray(rgba), "clear.png"), 64, 96).image
    assert (image[:, 40:] == 1).all()
    assert torch.equal(to_bytes(image[:, :20]), torch.from_numpy(gradient()[:20]).permute(2, 0, 1))


def test_crop_keeps_proportions_and_squash_keeps_everything(tmp_path):
    path = saved(tmp_path, Image.fromarray(gradient(64, 128)))
    cropped, squashed = read_photo(path, 64, 64).image, read_photo(path, 64, 64, fit="squash").image
    assert abs(cropped[0, 32, 0] - 0.25) < 0.02
    assert abs(cropped[0, 32, 63] - 0.75) < 0.02
    assert squashed[0, 32, 0] < 0.03
    assert squashed[0, 32, 63] > 0.97


def test_focal_length_from_exif(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 36  # a 36 mm lens on a 36 mm wide frame sees 2 atan(1/2)
    path = saved(tmp_path, Image.fromarray(gradient(64, 96)), "photo.jpg", exif=exif)
    assert read_photo(path, 32, 48).focal_px == pytest.approx(48, rel=1e-3)
    assert read_photo(path, 64, 64).focal_px == pytest.approx(96, rel=1e-3)  # cropping does not zoom


def test_resizing_does_not_alias(tmp_path):
    checks = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    image = read_photo(saved(tmp_path, Image.fromarray(checks)), 64, 64).image
    assert (image - 0.5).abs().max() < 0.02


def test_large_jpeg_is_read_frugally_and_bombs_are_refused(tmp_path):
    wide = saved(tmp_path, Image.new("RGB", (20000, 64), "red"), "wide.jpg")
    assert read_photo(wide, 64, 64).image[0].mean() > 0.95
    bomb = saved(tmp_path, Image.new("1", (20000, 20000)), "bomb.png")
    with pytest.raises(PhotoError, match=r"too large|million"):
        read_photo(bomb, 64, 64)
    with pytest.raises(PhotoError, match="million"):
        read_photo(saved(tmp_path, Image.new("1", (12000, 11000)), "big.png"), 64, 64)


def test_what_is_no_photo_is_refused_clearly(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    saved(tmp_path, Image.new("RGB", (1, 1)), "dot.png")
    cases = {
        "empty.png": "empty",
        "text.jpg": "not a picture",
        "cut.jpg": "cut short",
        "dot.png": "1x1.*at least",
        "missing.png": "no file",
        ".": "folder",
    }
    for name, words in cases.items():
        with pytest.raises(PhotoError, match=words):
            read_photo(tmp_path / name, 64, 64)


@given(st.integers(0, 255))
def test_bytes_round_trip(level):
    value = torch.tensor([level], dtype=torch.uint8)
    assert torch.equal(to_bytes(from_bytes(value)), value)


def test_png_round_trip_and_atomic_write(tmp_path):
    image = from_bytes(torch.randint(0, 256, (3, 17, 23), dtype=torch.uint8))
    write_png(tmp_path / "a.png", image)
    assert torch.equal(read_png(tmp_path / "a.png"), image)

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a.png", fail)
    with pytest.raises(OSError, match=r"a\.png"), smallest_disk(10):
        write_atomically(tmp_path / "a.png", lambda temporary: temporary.write_bytes(before))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
