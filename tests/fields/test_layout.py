from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.fields.layout import as_slice, finish_block, level_reading, steps_per_chunk, time_chunks


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 36), min_size=1, max_size=20, unique=True))
def test_any_choice_of_levels_is_read_and_found_again(positions):
    positions = np.array(positions)
    read, index = level_reading(positions)
    file = np.arange(37) * 10
    assert np.array_equal(file[read][index], file[positions])
    assert file[read].size <= max(3 * positions.size, 1) or isinstance(read, slice)
    assert np.all(np.diff(np.arange(37)[read]) > 0)


def test_far_apart_levels_are_read_by_themselves():
    read, _ = level_reading(np.array([21, 30, 2]))
    assert not isinstance(read, slice) and read.tolist() == [2, 21, 30]
    read, index = level_reading(np.array([36, 21]))
    assert np.arange(37)[read].tolist() == [21, 36] and index.tolist() == [1, 0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30, unique=True))
def test_as_slice_selects_the_same(positions):
    positions = np.array(positions)
    values = np.arange(51)
    assert np.array_equal(values[as_slice(positions)], values[positions])


def test_as_slice_keeps_even_spacing_in_both_directions():
    assert as_slice(np.array([4, 3, 2, 1, 0])) == slice(4, None, -1)
    assert as_slice(np.array([1, 4, 7])) == slice(1, 8, 3)
    assert isinstance(as_slice(np.array([1, 4, 6])), np.ndarray)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(0, 30), st.integers(1, 40), st.integers(1, 12))
def test_time_chunks_cover_all_and_keep_to_the_file(n, start, steps, native):
    chunks = time_chunks(np.arange(start, start + n), steps, native)
    assert sum(chunks) == n and min(chunks) > 0
    edges = start + np.cumsum(chunks)[:-1]
    assert np.all(edges % native == 0)


def test_steps_per_chunk():
    assert steps_per_chunk(10, 100, 1) == 10
    assert steps_per_chunk(10, 100, 4) == 8
    assert steps_per_chunk(10, 100, 30) == 30
    assert steps_per_chunk(10, 100, 1000) == 10
    assert steps_per_chunk(1000, 100, 1) == 1


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", ">f4", "u1", "f2"])
def test_blocks_are_finished_without_touching_the_input(dtype):
    block = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    before = block.copy()
    out = finish_block(
        block,
        scale=2.0,
        offset=1.0,
        level_index=None,
        rows=slice(None, None, -1),
        columns=np.array([2, 3, 0]),
    )
    assert out.dtype == np.float32 and out.flags.c_contiguous
    assert np.array_equal(out, before[:, ::-1][..., [2, 3, 0]].astype(float) * 2 + 1)
    assert np.array_equal(block, before)


def test_undeclared_fills_become_missing_and_infinity_stays():
    block = np.array([[[1.0, 1e20, 9.96921e36, -1e20, np.inf, np.nan]]])
    out = finish_block(block, scale=1.0, offset=0.0, level_index=None, rows=slice(None), columns=slice(None))
    assert np.isnan(out[0, 0, [1, 2, 3, 5]]).all() and out[0, 0, 0] == 1.0 and np.isposinf(out[0, 0, 4])
