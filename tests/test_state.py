from dataclasses import replace

import pytest
import torch
from worlds import CHUNK_FRAMES, assert_same_world, make_chunk

from photowalk.world.state import WorldState


def test_appending_gives_what_building_from_chunks_gives():
    chunks = [make_chunk(index) for index in range(3)]
    grown = WorldState.from_chunks(chunks[:1]).append(chunks[1]).append(chunks[2])
    assert_same_world(grown, WorldState.from_chunks(chunks))
    assert grown.frames == 1 + 2 * CHUNK_FRAMES
    assert grown.cameras.shape == (grown.frames,)
    assert grown.video.shape[0] == grown.frames
    assert torch.equal(grown.latents, torch.cat([chunk.latents for chunk in chunks], dim=1))
    assert grown.prompts == ("a hall",) * 3


def test_states_are_values():
    first = WorldState.from_chunks([make_chunk(0)])
    longer = first.append(make_chunk(1))
    assert (first.frames, len(first.memory)) == (1, 1)
    assert (longer.frames, longer.latest.frame) == (1 + CHUNK_FRAMES, CHUNK_FRAMES)
    assert_same_world(WorldState.from_chunks(first.chunks), first)


def test_only_the_last_chunk_keeps_the_streams():
    state = WorldState.from_chunks([make_chunk(0), make_chunk(1)])
    assert state.chunks[0].encoder == state.chunks[0].decoder == {}
    assert state.encoder.keys() == make_chunk(1).encoder.keys()
    assert state.decoder.keys() == make_chunk(1).decoder.keys()


def test_frames_with_depth_are_remembered_sky_and_unknown_are_no_points():
    state = WorldState.from_chunks([make_chunk(0), make_chunk(1)])
    assert state.memory.frames == (0, 4, 8)
    assert [view.frame for view in state.views] == [0, 4, 8]
    sky_and_unknown = state.memory.entries[0].points.reshape(-1, WIDTH_IN_POINTS, 3)[0]
    assert not sky_and_unknown.isfinite().any()


WIDTH_IN_POINTS = 6  # 24 pixels, every fourth


def test_reference_depth_is_the_median_of_what_is_known():
    photo = make_chunk(0)
    assert WorldState.from_chunks([photo]).reference_depth == 2.5
    sky = replace(photo, clip=replace(photo.clip, depth=torch.full_like(photo.clip.depth, torch.inf)))
    assert WorldState.from_chunks([sky]).reference_depth == 1.0


def test_the_first_chunk_is_the_photo_alone():
    with pytest.raises(ValueError, match="photo alone, got 8 frames"):
        WorldState.from_chunks([make_chunk(1)])


def test_memory_layout_does_not_depend_on_how_a_chunk_was_made():
    photo = make_chunk(0)
    strided = photo.clip.video.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    state = WorldState.from_chunks([replace(photo, clip=replace(photo.clip, video=strided))])
    assert state.video.is_contiguous()
    assert state.latest.image.is_contiguous()
