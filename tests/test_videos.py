import av
import pytest
import torch
from disks import smallest_disk

from photowalk.scene.videos import VideoError, read_lossless, write_lossless, write_mp4


def test_lossless_round_trip(tmp_path):
    frames = torch.randint(0, 256, (5, 3, 18, 26), dtype=torch.uint8)
    write_lossless(tmp_path / "walk.mkv", frames)
    assert torch.equal(read_lossless(tmp_path / "walk.mkv"), frames)
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mkv"]


def test_mp4_has_the_frames_and_the_rate(tmp_path):
    frames = torch.linspace(0, 1, 9)[:, None, None, None].expand(9, 3, 33, 47)
    write_mp4(tmp_path / "walk.mp4", frames, fps=16)
    with av.open(str(tmp_path / "walk.mp4")) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 16
        assert stream.codec_context.pix_fmt == "yuv420p"
    assert len(decoded) == 9
    means = torch.tensor([frame.mean() / 255 for frame in decoded])
    assert torch.allclose(means, frames[:, 0, 0, 0].double(), atol=0.03)


def test_bad_videos_leave_nothing_behind(tmp_path):
    with pytest.raises(VideoError, match="at least one frame"):
        write_mp4(tmp_path / "none.mp4", [])
    with pytest.raises(VideoError, match="one size"):
        write_mp4(tmp_path / "mixed.mp4", [torch.zeros(3, 32, 32), torch.zeros(3, 32, 34)])
    assert not list(tmp_path.iterdir())
    (tmp_path / "text.mkv").write_text("not a video")
    with pytest.raises(VideoError, match="not a readable video"):
        read_lossless(tmp_path / "text.mkv")


@pytest.mark.parametrize("write", [write_lossless, write_mp4])
@pytest.mark.parametrize("bytes_left", [0, 40, 2000])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, write, bytes_left):
    """libav itself crashes where it cannot write a header."""
    frames = torch.randint(0, 256, (20, 3, 18, 26), dtype=torch.uint8)
    with pytest.raises(OSError, match=r"walk\.mkv"), smallest_disk(bytes_left):
        write(tmp_path / "walk.mkv", frames)
    assert list(tmp_path.iterdir()) == []
