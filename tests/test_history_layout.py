"""How the past is packed: parsing, selection, token counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photowalk.models.history_layout import HistoryLayout, Slot

PUBLISHED = "f1k1f4s2f1s1f16k4f2k2f1k1_g20"

slots = st.builds(Slot, st.sampled_from(["time", "space"]), st.integers(1, 9), st.integers(1, 5))
layouts = st.builds(
    lambda rest, new: HistoryLayout((Slot("time", 1, 1), *rest), new), st.lists(slots, max_size=5), st.integers(1, 7)
)


def test_the_published_layout():
    layout = HistoryLayout.parse(PUBLISHED)
    assert (layout.time_frames, layout.space_frames, layout.history_frames, layout.frames) == (20, 5, 25, 45)
    segments = layout.segments(30, 52)
    assert [s.tokens.start for s in segments] == [0, 1560, 3120, 4680, 5096, 5486, 7046]
    assert layout.tokens(30, 52) == 38246
    assert layout.tokens(28, 48) == 32928
    assert [s.frames for s in segments][3:5] == [range(6, 22), range(22, 24)]
    assert [s.factors for s in segments][1:4] == [(1, 2, 2), (1, 1, 1), (4, 4, 4)]


@given(layouts)
def test_writing_and_parsing_are_inverse(layout):
    assert HistoryLayout.parse(str(layout)) == layout


@given(layouts, st.integers(1, 12), st.integers(1, 12))
def test_segments_cover_frames_and_tokens_once_and_in_order(layout, rows, columns):
    segments = layout.segments(rows, columns)
    assert [f for s in segments for f in s.frames] == list(range(layout.frames))
    assert [t for s in segments for t in s.tokens] == list(range(layout.tokens(rows, columns)))
    assert len(segments[-1].tokens) == layout.new_frames * rows * columns
    assert sum(len(s.frames) for s in segments if s.kind == "space") == layout.space_frames


@settings(max_examples=40)
@given(layouts, st.integers(0, 30))
def test_history_is_the_first_latent_and_the_latest_ones(layout, older):
    length = layout.time_frames + older
    time = torch.arange(length, dtype=torch.float32).view(1, length, 1, 1).expand(3, -1, 2, 4)
    space = -1 - torch.arange(layout.space_frames, dtype=torch.float32).view(1, -1, 1, 1).expand(3, -1, 2, 4)
    packed = layout.arrange(time=time, space=space)
    assert packed.shape == (3, layout.history_frames, 2, 4)
    values = packed[0, :, 0, 0].tolist()
    assert [v for v in values if v < 0] == space[0, :, 0, 0].tolist()
    latest = list(range(length))[length - layout.time_frames + 1 :]
    assert [v for v in values if v >= 0] == [0, *latest]
    kinds = ["time" if v >= 0 else "space" for v in values]
    assert kinds == [slot.kind for slot in layout.slots for _ in range(slot.frames)]


def test_selection_after_one_chunk_drops_the_chunks_first_latent():
    assert HistoryLayout.parse(PUBLISHED).time_indices(25 + 20) == [0, *range(26, 45)]


@pytest.mark.parametrize("text", ["", "f1k1", "f1k1_g", "f1x1_g20", "k1f1_g20", "f1k1_g20 ", "f1k1f4s2_g20f1k1"])
def test_what_cannot_be_read_is_named(text):
    with pytest.raises(ValueError, match="history layout"):
        HistoryLayout.parse(text)


@pytest.mark.parametrize("text", ["f1s1f1k1_g2", "f2k1f1s1_g2"])
def test_a_layout_begins_with_one_anchor(text):
    with pytest.raises(ValueError, match="anchor"):
        HistoryLayout.parse(text)


@pytest.mark.parametrize("text", ["f1k0_g2", "f1k1f0s1_g2"])
def test_empty_slots_are_refused(text):
    with pytest.raises(ValueError, match="slot"):
        HistoryLayout.parse(text)


def test_a_layout_generates_something():
    with pytest.raises(ValueError, match="at least one latent frame"):
        HistoryLayout.parse("f1k1_g0")


def test_a_short_timeline_and_a_wrong_number_of_memory_frames_are_refused():
    layout = HistoryLayout.parse("f1k1f2s1f3k1_g2")
    with pytest.raises(ValueError, match="at least 4"):
        layout.time_indices(3)
    with pytest.raises(ValueError, match="2 memory slots"):
        layout.arrange(time=torch.zeros(1, 9, 2, 2), space=torch.zeros(1, 3, 2, 2))
