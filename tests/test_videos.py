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


@pytest.mark.parametrize("together", [1, 12])
@pytest.mark.parametrize("chosen", [[0], [29], [3, 4, 17], [11, 12, 13, 28], range(30)])
def test_some_frames_are_read_without_the_others(tmp_path, together, chosen):
    """Also of videos whose frames build on those before, as worlds had them at first."""
    frames = torch.randint(0, 256, (30, 3, 18, 26), dtype=torch.uint8)
    with av.open(str(tmp_path / "walk.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 26, 18, "bgr0", together
        for frame in frames.permute(0, 2, 3, 1).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    assert torch.equal(read_lossless(tmp_path / "walk.mkv", chosen), frames[list(chosen)])


def test_each_frame_that_is_written_stands_alone(tmp_path):
    write_lossless(tmp_path / "walk.mkv", torch.randint(0, 256, (15, 3, 18, 26), dtype=torch.uint8))
    with av.open(str(tmp_path / "walk.mkv")) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    with pytest.raises(VideoError, match="holds 1 of the 2 frames"):
        read_lossless(tmp_path / "walk.mkv", [14, 15])


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
