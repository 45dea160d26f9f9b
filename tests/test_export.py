import numpy as np
import pytest
import torch

from photowalk.export.ply import SplatFileError, read_splats, write_ply
from photowalk.scene.types import Splats

NAMES = ("means", "scales", "rotations", "opacities", "colours")


def some_splats(count=50, degree=1):
    generator = torch.Generator().manual_seed(1)
    return Splats(
        means=torch.randn(count, 3, generator=generator),
        scales=0.01 + torch.rand(count, 3, generator=generator),
        rotations=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        opacities=0.01 + 0.98 * torch.rand(count, generator=generator),
        colours=torch.randn(count, (degree + 1) ** 2, 3, generator=generator),
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip(tmp_path, degree):
    splats = some_splats(degree=degree)
    write_ply(tmp_path / "splats.ply", splats)
    again = read_splats(tmp_path / "splats.ply")
    for name in NAMES:
        assert torch.allclose(getattr(again, name), getattr(splats, name), atol=1e-5), name
    assert [path.name for path in tmp_path.iterdir()] == ["splats.ply"]


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_an_independent_reader_finds_the_usual_layout(tmp_path, degree):
    gsply = pytest.importorskip("gsply")
    splats = some_splats(degree=degree)
    write_ply(tmp_path / "splats.ply", splats)
    data = gsply.plyread(str(tmp_path / "splats.ply"))
    for found, expected in (
        (data.means, splats.means),
        (data.scales, splats.scales.log()),
        (data.quats, splats.rotations),
        (data.opacities, torch.logit(splats.opacities)),
        (data.sh0, splats.colours[:, 0]),
    ):
        assert np.allclose(found, expected.numpy(), atol=1e-4)
    if degree:
        assert np.allclose(np.reshape(data.shN, (50, -1, 3)), splats.colours[:, 1:].numpy(), atol=1e-5)


def test_header_by_hand(tmp_path):
    write_ply(tmp_path / "splats.ply", some_splats(count=2, degree=1))
    header, body = (tmp_path / "splats.ply").read_bytes().split(b"end_header\n", 1)
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property")]
    rest = [f"f_rest_{k}" for k in range(9)]
    assert names == [*"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", *names[-7:]]
    assert names[-7:] == ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert len(body) == 2 * 4 * len(names)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_filled_up_for_importers_of_one_layout_come_back_as_they_were(tmp_path, degree):
    gsply = pytest.importorskip("gsply")
    splats = some_splats(degree=degree)
    write_ply(tmp_path / "whole.ply", splats, degree=3)
    header, body = (tmp_path / "whole.ply").read_bytes().split(b"end_header\n", 1)
    assert header.count(b"property float") == 62
    assert len(body) == 50 * 248  # "PLY vertex size mismatch, expected 248" is what Unity's importer says else
    own = (degree + 1) ** 2 - 1
    found = np.reshape(gsply.plyread(str(tmp_path / "whole.ply")).shN, (50, 15, 3))
    assert np.allclose(found[:, :own], splats.colours[:, 1:].numpy(), atol=1e-5)
    assert (found[:, own:] == 0).all()
    again = read_splats(tmp_path / "whole.ply")
    assert torch.equal(again.colours, splats.colours)


def test_extreme_opacities_stay_finite_and_nan_is_refused(tmp_path):
    splats = some_splats(count=2)
    hard = Splats(splats.means, 0 * splats.scales, splats.rotations, torch.tensor([0.0, 1.0]), splats.colours)
    write_ply(tmp_path / "hard.ply", hard)
    assert torch.allclose(read_splats(tmp_path / "hard.ply").opacities, hard.opacities, atol=1e-5)
    broken = Splats(splats.means * torch.nan, splats.scales, splats.rotations, splats.opacities, splats.colours)
    with pytest.raises(SplatFileError, match="not a finite number"):
        write_ply(tmp_path / "broken.ply", broken)
    assert not (tmp_path / "broken.ply").exists()


def test_what_is_no_splat_file_is_refused_clearly(tmp_path):
    path = tmp_path / "splats.ply"
    write_ply(path, some_splats())
    whole = path.read_bytes()
    ascii_points = b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n"
    points = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n0000"
    cases = {
        "cut short": whole[:-100],
        "not a .ply": b"solid",
        "binary little-endian": ascii_points,
        "lacks y, z": points,
        "cannot be understood": whole.replace(b"property float x", b"property list x y"),
        "does not begin": whole.replace(b"element vertex", b"element face"),
    }
    for words, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(SplatFileError, match=words):
            read_splats(path)
