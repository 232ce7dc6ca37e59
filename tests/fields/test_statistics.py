from __future__ import annotations

from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import ConstantChannelError, MissingDataError, SplitError
from weathermill.fields.moments import block_moments, merge
from weathermill.fields.statistics import compute_statistics, denormalise, normalise, static_statistics

STEP = 21600


def channels(values: np.ndarray, *, times=None, chunks=None, names=None, roles=None) -> xr.DataArray:
    n_time, n_channel, n_lat, _ = values.shape
    if times is None:
        times = np.datetime64("2020-01-01", "ns") + np.arange(n_time) * np.timedelta64(6, "h")
    names = names or [f"c{i}" for i in range(n_channel)]
    coords = {"time": times, "channel": names, "latitude": np.linspace(80, -80, n_lat)}
    if roles:
        coords["role"] = ("channel", roles)
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return xr.DataArray(data, dims=("time", "channel", "latitude", "longitude"), coords=coords)


def direct(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in extended precision, by the definition."""
    values = values.astype(np.longdouble)
    full = np.broadcast_to(weights[:, None], values.shape[-2:]).astype(np.longdouble)
    total = full.sum() * values.shape[0]
    mean = (values * full).sum(axis=(0, 2, 3)) / total
    squares = ((values - mean[:, None, None]) ** 2 * full).sum(axis=(0, 2, 3)) / total
    return mean.astype(float), np.sqrt(squares).astype(float)


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((23, 3, 7, 11))
    walk = np.cumsum(noise, axis=0)
    # Geopotential far from zero, humidity at 50 hPa with a spread of 1e-7, and something plain.
    return np.stack([5.0e5 + 30.0 * walk[:, 0], 2.5e-6 + 1e-7 * noise[:, 1], noise[:, 2]], axis=1).astype(
        np.float32
    )


@pytest.mark.parametrize("chunks", [None, (1, 3, 7, 11), (5, 1, 7, 11), (23, 3, 4, 11)])
def test_agrees_with_the_definition_whatever_the_chunks(values, chunks):
    weights = np.cos(np.radians(np.linspace(80, -80, 7)))
    result = compute_statistics(channels(values, chunks=chunks), weights, [(2, 20)], STEP)
    mean, std = direct(values[2:20], weights)
    tendency_mean, tendency_std = direct(np.diff(values[2:20].astype(float), axis=0), weights)
    assert np.allclose(result["mean"], mean, rtol=1e-13)
    assert np.allclose(result["std"], std, rtol=1e-11)
    assert np.allclose(result["tendency_std"], tendency_std, rtol=1e-11)
    assert np.allclose(result["tendency_mean"], tendency_mean, rtol=1e-9, atol=1e-12)
    assert np.array_equal(result["minimum"], values[2:20].min(axis=(0, 2, 3)))
    assert np.array_equal(result["maximum"], values[2:20].max(axis=(0, 2, 3)))
    assert result.attrs["steps"] == 18 and result.attrs["pairs"] == 17
    assert result["mean"].dtype == np.float64
    assert 0.9e-7 < float(result["std"][1]) < 1.1e-7


def test_nothing_outside_the_training_period_counts(values):
    spoilt = values.copy()
    spoilt[:2], spoilt[20:] = 1e9, np.nan
    weights = np.ones(7)
    expected = compute_statistics(channels(values), weights, [(2, 20)], STEP)
    result = compute_statistics(channels(spoilt, chunks=(4, 3, 7, 11)), weights, [(2, 20)], STEP)
    for name in expected.data_vars:
        assert np.allclose(result[name], expected[name], rtol=1e-12), name


def test_tendencies_do_not_cross_gaps_or_the_ends_of_runs(values):
    weights = np.ones(7)
    times = np.datetime64("2020-01-01", "ns") + np.arange(23) * np.timedelta64(6, "h")
    times[10:] += np.timedelta64(30, "D")
    shifted = values.copy()
    shifted[10:] += np.float32(1000.0)
    result = compute_statistics(
        channels(shifted, times=times, chunks=(4, 3, 7, 11)), weights, [(0, 23)], STEP
    )
    differences = np.concatenate(
        [np.diff(shifted[:10].astype(float), axis=0), np.diff(shifted[10:].astype(float), axis=0)]
    )
    assert np.allclose(result["tendency_std"], direct(differences, weights)[1], rtol=1e-10)
    assert result.attrs["pairs"] == 21
    runs = compute_statistics(channels(shifted, chunks=(4, 3, 7, 11)), weights, [(0, 10), (10, 23)], STEP)
    assert np.allclose(runs["tendency_std"], result["tendency_std"], rtol=1e-12)


def test_a_constant_channel_is_named(values):
    values[:, 1] = 3.0
    array = channels(values, names=["z500", "q50", "t850"])
    with pytest.raises(ConstantChannelError, match=r"q50 \(always 3\)"):
        compute_statistics(array, np.ones(7), [(0, 23)], STEP)


def test_a_prognostic_channel_that_stands_still_is_named(values):
    values[:, 0] = values[0, 0]
    roles = ["prognostic", "forcing", "forcing"]
    with pytest.raises(ConstantChannelError, match="do not change in time: c0"):
        compute_statistics(channels(values, roles=roles), np.ones(7), [(0, 23)], STEP)
    result = compute_statistics(
        channels(values, roles=["forcing", "prognostic", "forcing"]), np.ones(7), [(0, 23)], STEP
    )
    assert float(result["tendency_std"][0]) == 0.0


def test_missing_values_are_named_with_number_and_time(values):
    values[7, 2, 3, 4] = values[9, 2, 0, 0] = np.nan
    array = channels(values, chunks=(4, 3, 7, 11), names=["a", "b", "sst"])
    with pytest.raises(MissingDataError, match=r"sst has 2 missing values .* 2020-01-02T18:00"):
        compute_statistics(array, np.ones(7), [(0, 23)], STEP)
    result = compute_statistics(array, np.ones(7), [(0, 23)], STEP, allow_missing=["sst"])
    valid = values[:, 2][~np.isnan(values[:, 2])].astype(float)
    assert float(result["mean"][2]) == pytest.approx(valid.mean(), rel=1e-12)
    assert float(result["std"][2]) == pytest.approx(valid.std(), rel=1e-12)
    assert result["missing"].values.tolist() == [0, 0, 2]
    with pytest.raises(MissingDataError, match="sst"):
        compute_statistics(array, np.ones(7), [(0, 23)], STEP, allow_missing=["a"])


def test_an_empty_training_period_is_refused(values):
    with pytest.raises(SplitError, match="holds no time step"):
        compute_statistics(channels(values), np.ones(7), [], STEP)
    with pytest.raises(SplitError, match="3600 s apart"):
        compute_statistics(channels(values), np.ones(7), [(0, 23)], 3600)


def test_static_channels(values):
    static = channels(values[:1], names=["oro", "lsm", "x"]).isel(time=0, drop=True)
    weights = np.cos(np.radians(np.linspace(80, -80, 7)))
    result = static_statistics(static, weights)
    mean, std = direct(values[:1], weights)
    assert np.allclose(result["mean"], mean, rtol=1e-13) and np.allclose(result["std"], std, rtol=1e-11)
    assert result["tendency_std"].values.tolist() == [0.0, 0.0, 0.0]
    both = compute_statistics(channels(values), weights, [(0, 23)], STEP, static=static)
    assert both.channel.values.tolist() == ["c0", "c1", "c2", "oro", "lsm", "x"]
    assert both["role"].values.tolist()[-1] == "static"


@pytest.mark.parametrize("chunks", [None, (5, 1, 7, 11)])
def test_normalise_and_back(values, chunks):
    array = channels(values, chunks=chunks)
    statistics = compute_statistics(array, np.ones(7), [(0, 23)], STEP)
    normalised = normalise(array, statistics)
    assert normalised.dtype == np.float32 and (normalised.chunks is None) == (chunks is None)
    assert np.allclose(normalised.mean(("time", "latitude", "longitude")), 0.0, atol=1e-6)
    assert np.allclose(normalised.std(("time", "latitude", "longitude")), 1.0, atol=1e-5)
    back = denormalise(normalised, statistics)
    assert np.allclose(back, values, rtol=1e-6, atol=1e-12)
    assert np.array_equal(normalise(array.isel(channel=[2, 0]), statistics), normalised.isel(channel=[2, 0]))
    with pytest.raises(MissingDataError, match="no statistics for c9"):
        normalise(array.assign_coords(channel=["c0", "c9", "c2"]), statistics)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 11), max_size=4, unique=True).map(sorted),
    offset=st.sampled_from([0.0, 1e3, -1e7]),
    seed=st.integers(0, 99),
)
def test_merging_parts_gives_the_whole(cuts, offset, seed):
    rng = np.random.default_rng(seed)
    data = offset + rng.standard_normal((12, 2, 3, 4))
    weights = rng.uniform(0.1, 2.0, (3, 4))
    edges = [0, *cuts, 12]
    parts = []
    for a, b in pairwise(edges):
        last = min(b + 1, 12)
        parts.append(block_moments(data[a:last], np.ones(last - a - 1, bool), weights, a, b - a))
    whole, merged = block_moments(data, np.ones(11, bool), weights, 0, 12), merge(parts)
    assert merged.pairs == whole.pairs == 11
    for name in ("weight", "mean", "squares", "tendency_weight", "tendency_squares"):
        assert np.allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9), name
    assert np.array_equal(merged.minimum, whole.minimum)


def test_pieces_never_hold_all_the_data(monkeypatch, values):
    from weathermill.fields import statistics as module

    seen = []
    original = module.block_moments
    monkeypatch.setattr(
        module, "block_moments", lambda data, *rest: seen.append(len(data)) or original(data, *rest)
    )
    monkeypatch.setattr(module, "PIECE_BYTES", 5 * values[0].nbytes)
    for array in (channels(values), channels(values, chunks=(1, 3, 7, 11))):
        seen.clear()
        module.compute_statistics(array, np.ones(7), [(0, 23)], STEP, scheduler="synchronous")
        assert max(seen) <= 6 and sum(seen) == 23 + len(seen) - 1
