"""Sums over maps against NumPy, and a regrid report that reads every block once."""

from __future__ import annotations

from collections import Counter

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from weathermill.fields.grids import named_grid
from weathermill.fields.map_sums import map_sums
from weathermill.fields.regridding import apply_weights, make_weights, regrid_report


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("size", [1, 1023, 5000])
def test_sums_are_those_of_numpy(dtype, size):
    rng = np.random.default_rng(size)
    values = (300 + 100 * rng.normal(size=size)).astype(dtype)
    area, other = rng.uniform(0.1, 1, size), rng.uniform(0, 1, size)
    if dtype != np.int16 and size > 1:
        values[rng.integers(0, size, size // 7)] = np.nan
    exact = values.astype(np.float64)
    valid = ~np.isnan(exact)
    mean = np.average(exact[valid], weights=area[valid])
    sums = map_sums(values, area, other)
    assert (sums.minimum, sums.maximum) == (np.nanmin(exact), np.nanmax(exact))
    assert sums.missing == pytest.approx(area[~valid].sum() / area.sum(), rel=1e-13)
    assert sums.variance == pytest.approx(
        np.average((exact[valid] - mean) ** 2, weights=area[valid]), abs=1e-9
    )
    assert sums.integrals[0] == pytest.approx(np.nan_to_num(exact) @ other, rel=1e-13)
    assert sums.absolutes[0] == pytest.approx(np.abs(np.nan_to_num(exact)) @ other, rel=1e-13)
    assert sums.gaps[0] == (not valid.all())


def test_a_million_equal_values_are_summed_without_drift():
    area = np.full(1_000_000, 1e-6)
    assert map_sums(np.full(1_000_000, np.float32(0.1)), area, area).integrals[0] == pytest.approx(
        float(np.float32(0.1)), rel=1e-14
    )


def test_gaps_where_an_area_is_zero_do_not_count():
    values = np.array([1.0, np.nan, 3.0])
    sums = map_sums(values, np.ones(3), np.array([1.0, 0.0, 1.0]), np.ones(3))
    assert sums.gaps == (False, True) and sums.integrals == (4.0, 4.0)
    empty = map_sums(np.full(3, np.nan), np.ones(3), np.ones(3))
    assert empty.missing == 1.0 and empty.maximum < empty.minimum and empty.variance == 0.0


def test_every_block_of_the_source_is_read_once():
    source, target = named_grid("16x32"), named_grid("9x18_poles")
    read = Counter()

    def block(start):
        read[start] += 1
        return np.random.default_rng(start).normal(size=(5, 16, 32)).astype(np.float32)

    parts = [
        da.from_delayed(dask.delayed(block)(start), (5, 16, 32), np.float32) for start in range(0, 20, 5)
    ]
    fields = xr.Dataset(
        {"f": (("time", "latitude", "longitude"), da.concatenate(parts))},
        coords={"time": np.arange(20), "latitude": source.latitude, "longitude": source.longitude},
    )
    weights = make_weights(source, target, "conservative")
    report = regrid_report(fields, apply_weights(fields, weights), weights, sample_steps=8)
    assert len(report["sampled_steps"]) == 8
    assert read == {start: 1 for start in range(0, 20, 5)}
