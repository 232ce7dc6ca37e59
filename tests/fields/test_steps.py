from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import ParameterError, TimeAxisError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.steps import handle_missing_steps


@pytest.fixture
def holed(make_source):
    source = make_source(n_time=12)
    # Values are linear in time, so that interpolation gives them back.
    whole = canonicalise([source], variables=["temperature"])
    return whole, canonicalise([source.isel(time=[0, 1, 3, 4, 5, 9, 10, 11])], variables=["temperature"])


@pytest.mark.parametrize("lazy", [True, False])
def test_short_gaps_are_interpolated_and_flagged(holed, lazy):
    whole, fields = holed
    fields = fields.chunk(time=2) if lazy else fields.load()
    findings = []
    out = handle_missing_steps(fields, "interpolate", longest=1, findings=findings)
    assert out.sizes["time"] == 9
    assert out["interpolated"].values.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert np.array_equal(out.time, whole.time[[0, 1, 2, 3, 4, 5, 9, 10, 11]])
    assert np.allclose(out.temperature, whole.temperature.sel(time=out.time), rtol=1e-6)
    assert out.temperature.dtype == np.float32 and out.temperature.attrs == fields.temperature.attrs
    assert (out.temperature.chunks is not None) == lazy
    assert "1 missing time steps" in findings[0].message and "1 longer gaps stay" in findings[0].message
    every = handle_missing_steps(fields, "interpolate", longest=3)
    assert every["interpolated"].values.sum() == 4
    assert np.array_equal(every.time, whole.time)
    assert np.allclose(every.temperature, whole.temperature, rtol=1e-6)
    present = every["interpolated"].values == 0
    assert np.array_equal(every.temperature.values[present], fields.temperature.values)


def test_refusing_names_the_gaps(holed):
    whole, fields = holed
    with pytest.raises(
        TimeAxisError, match=r"4 time steps are missing: 1 after 2020-01-01T06:00, 3 after 2020-01-02T06"
    ):
        handle_missing_steps(fields, "refuse")
    assert handle_missing_steps(whole, "refuse") is whole
    assert handle_missing_steps(fields, "gap") is fields
    assert handle_missing_steps(fields, "interpolate", longest=0) is fields


def test_other_calendars(holed):
    _, fields = holed
    times = xr.date_range("2001-02-27", periods=12, freq="6h", calendar="noleap", use_cftime=True)
    fields = fields.assign_coords(time=np.array(times)[[0, 1, 3, 4, 5, 9, 10, 11]])
    out = handle_missing_steps(fields, "interpolate", longest=3)
    assert list(out.time.values) == list(times)


def test_times_off_the_steps_and_unknown_policies(holed):
    _, fields = holed
    times = fields.time.values.copy()
    times[3] += np.timedelta64(1, "h")
    with pytest.raises(
        TimeAxisError, match="not on steps of 6 h: 2020-01-01T18:00 is followed by 2020-01-02T01:00"
    ):
        handle_missing_steps(fields.assign_coords(time=times), "interpolate")
    with pytest.raises(ParameterError, match="'pray' for missing steps"):
        handle_missing_steps(fields, "pray")
