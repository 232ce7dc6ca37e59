"""Values are counted as blocks pass, whatever the blocks, and judged by their share."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import ImplausibleValueError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.inspection import inspect
from weathermill.fields.inspection_counts import with_all_values
from weathermill.fields.value_counts import (
    ValueCounts,
    attach_counts,
    count_field,
    count_values,
    counts_of,
    judge_values,
    tell_values,
)


@pytest.fixture
def fields(make_source):
    """Temperature of which one value at the last of 40 steps is too high, one is missing, and one level is empty."""
    canonical = canonicalise(
        [make_source(n_time=40, levels=(300.0, 500.0, 850.0))], variables=["temperature"]
    )
    values = canonical["temperature"].values.copy()
    values[37, 2, 4, 5], values[38, 1, 0, 1], values[:, 0] = 900.0, np.nan, np.nan
    return canonical.assign(temperature=canonical["temperature"].copy(data=values))


def test_counts_are_those_of_numpy_and_do_not_depend_on_blocks(fields):
    field = fields["temperature"]
    values = field.values.astype(np.float64)
    whole = count_field(field.values, field)
    assert whole.seen == 40 * 9 * 16
    np.testing.assert_array_equal(whole.missing, np.isnan(values).sum(axis=(0, 2, 3)))
    np.testing.assert_array_equal(whole.outside, [0, 0, 1])
    np.testing.assert_array_equal(whole.maximum[1:], np.nanmax(values[:, 1:], axis=(0, 2, 3)))
    np.testing.assert_array_equal(whole.minimum[1:], np.nanmin(values[:, 1:], axis=(0, 2, 3)))
    assert whole.minimum[0] > whole.maximum[0] and whole.first == (37, 2, 4 * 16 + 5)
    total = None
    for start in range(0, 40, 7):
        part = field.isel(time=slice(start, start + 7))
        counts = ValueCounts.from_json(json.loads(json.dumps(count_field(part.values, part).to_json())))
        total = counts.moved(start) if total is None else total.add(counts.moved(start))
    assert total.to_json() == whole.to_json()


def test_infinities_are_counted_apart_and_do_not_become_extremes():
    block = np.array([[1.0, np.inf, 3.0], [np.nan, -2.0, -np.inf]], dtype=np.float32)
    counts = count_values(block, -1.0, 2.0, 0, None)
    assert (counts.infinite[0], counts.outside[0], counts.missing[0]) == (2, 2, 1)
    assert (counts.minimum[0], counts.maximum[0], counts.first) == (-2.0, 3.0, (0, 0, 1))
    # Without limits, too.
    counts = count_values(np.where(block == np.inf, 0.0, block), -np.inf, np.inf, 0, None)
    assert (counts.infinite[0], counts.outside[0], counts.minimum[0]) == (1, 0, -2.0)


def test_a_few_values_beyond_the_limits_are_warned_of_once_with_place_and_extremes(fields, caplog):
    field = fields["temperature"]
    counts = {"temperature": count_field(field.values, field)}
    tell_values(fields, counts)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert (
        "0.0174 % of the values lie beyond the physical limits 120 to 370 at 850 hPa: they run from 249.5 to 900"
        " (1 of them, the first at 2020-01-10T06:00, 850 hPa, latitude 0, longitude 112.5)" in record.message
    )
    tell_values(fields, counts, known=["temperature"])
    assert len(caplog.records) == 1


def test_more_than_one_per_cent_are_refused_and_early_only_where_it_is_certain(fields):
    field = fields["temperature"]
    values = field.values.copy()
    values[:4, 1:] += 500.0
    part = field.copy(data=values).isel(time=slice(0, 10))
    counts = count_field(part.values, part)
    with pytest.raises(ImplausibleValueError, match=r"40 % of the values .* at 500, 850 hPa"):
        tell_values(fields, {"temperature": counts})
    # 8 of the 3 x 40 maps, and then of the 3 x 4000.
    assert judge_values(field, counts, expected=field.size // 3)[0].severity == "error"
    assert judge_values(field, counts, expected=100 * field.size // 3) == []


def test_the_report_tells_what_no_sample_showed(fields):
    sampled = inspect(fields, sample_steps=2)
    assert "beyond" not in str(sampled.to_dict())
    assert with_all_values(sampled, fields) is sampled
    field = fields["temperature"]
    attach_counts(fields, {"temperature": count_field(field.values, field)})
    assert set(counts_of(fields)) == {"temperature"}
    whole = with_all_values(sampled, fields)
    assert any("they run from 249.5 to 900" in finding.message for finding in whole.warnings)
    assert whole.variables[2].maximum == 900.0 and whole.variables[2].outside_share == 1 / (40 * 9 * 16)
    assert whole.variables[0].maximum is None
    assert "from all steps" in whole.to_html() and "from a sample<" in sampled.to_html()
    # A finding of the sample gives way to that of all steps.
    assert (
        len(
            [
                f
                for f in with_all_values(inspect(fields, sample_steps=40), fields).warnings
                if "beyond" in f.message
            ]
        )
        == 1
    )


def test_static_fields_and_other_dimensions_are_counted(fields):
    grid = xr.DataArray(np.full((3, 4), 5.0, np.float32), dims=("y", "x"), name="land_sea_mask")
    counts = count_field(grid.values, grid)
    assert counts.outside.tolist() == [12]
    (finding,) = judge_values(grid, counts)
    assert finding.severity == "error" and "the first at y 0, x 0" in finding.message
