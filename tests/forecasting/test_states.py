"""Initial states from foreign sources: names, units, levels, order and grid as the network needs them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import (
    EmptySelectionError,
    MissingDataError,
    MissingLevelError,
    MissingVariableError,
    ModelError,
)
from weathermill.forecasting.states import StateReader, wanted_variables


def test_variables_that_differ_in_levels_are_asked_for_level_by_level(networks):
    wanted = wanted_variables(networks().channels)
    assert wanted["variables"] == ["geopotential_500", "temperature_500", "temperature_850"]
    assert wanted["surface_variables"] == ["2m_temperature"]


def test_a_state_is_in_the_channels_units_and_order_of_the_network(networks, source):
    state = StateReader([source], networks()).read([2])
    assert list(state["channel"].values) == [
        "geopotential_500",
        "temperature_500",
        "temperature_850",
        "2m_temperature",
    ]
    flipped = source.isel(time=2, latitude=slice(None, None, -1))
    np.testing.assert_allclose(state.sel(channel="temperature_850")[0], flipped["t"].sel(level=85000))
    np.testing.assert_allclose(state.sel(channel="2m_temperature")[0], flipped["t2m"] + 273.15, rtol=1e-6)


def test_a_state_on_another_grid_is_regridded_with_its_area_mean(networks, source):
    network = networks(7, 12, poles=True)
    state = StateReader([source], network).read([0])
    assert state.shape == (1, 4, 7, 12)
    assert float(state.sel(channel="temperature_500").mean()) == pytest.approx(270, abs=3)


def test_levels_nobody_needs_may_be_missing(networks, source):
    without = xr.merge([source[["t", "t2m"]], source[["z"]].sel(level=[50000.0])], join="outer")
    sources = [source[["t", "t2m"]], source[["z"]].sel(level=[50000.0])]
    assert without is not None
    assert StateReader(sources, networks()).read([0]).shape == (1, 4, 8, 16)
    with pytest.raises(MissingLevelError, match="850"):
        StateReader([source.sel(level=[50000.0])], networks())


def test_static_channels_are_the_networks_own(networks, source):
    assert StateReader([source], networks(static=True)).read([0]).sizes["channel"] == 4


def forced(source):
    hours = np.arange(source.sizes["time"], dtype=np.float32)[:, None, None]
    values = (hours + np.zeros((8, 16), np.float32)).astype(np.float32)
    return source.assign(insolation=(("time", "latitude", "longitude"), values, {"units": "J m-2"}))


def test_forcings_are_read_at_the_ends_of_the_steps(networks, source):
    reader = StateReader([forced(source)], networks(forcing=True))
    assert reader.read([1]).sizes["channel"] == 5
    forcings = reader.forcings([0, 2], 4)
    assert forcings.shape == (2, 3, 1, 8, 16)
    np.testing.assert_array_equal(forcings[:, :, 0, 0, 0], [[1, 2, 3], [3, 4, 5]])
    assert reader.forcings([5], 1) is None
    assert reader.last(1) == 5 and reader.last(4) == 2
    assert StateReader([source], networks()).last(40) == 5


def test_forcings_that_the_source_lacks_are_told(networks, source):
    with pytest.raises(MissingVariableError, match="insolation"):
        StateReader([source], networks(forcing=True))
    reader = StateReader([forced(source)], networks(forcing=True))
    with pytest.raises(
        ModelError, match=r"forcings \(insolation\) .* for 12 h from 2001-01-02T00:00; it ends at"
    ):
        reader.forcings([4], 3)
    with pytest.raises(ModelError, match="from 2001-01-01T00:00; it ends"):
        reader.last(40)


def test_times_are_found_or_told(networks, source):
    reader = StateReader([source], networks(), names=["here.nc"])
    assert reader.index("2001-01-01T12:00") == 2
    with pytest.raises(
        EmptySelectionError, match=r"no state at 1999-01-01.*2001-01-01T00:00 to 2001-01-02T06:00"
    ):
        reader.index("1999-01-01")
    with pytest.raises(EmptySelectionError, match="is not a time"):
        reader.index("yesterday")


def test_many_times_by_list_and_by_range(networks, source):
    reader = StateReader([source], networks())
    assert reader.choose(["2001-01-01T18:00", "2001-01-01"]) == [0, 3]
    assert reader.choose() == [0, 1, 2, 3, 4, 5]
    assert reader.choose(start="2001-01-01T06:00", stop="2001-01-02T06:00", every_hours=12) == [1, 3]
    with pytest.raises(EmptySelectionError, match="no state lies in"):
        reader.choose(start="2002-01-01")


def test_other_calendars(networks, sources):
    reader = StateReader([sources(calendar="noleap")], networks())
    assert reader.index("2001-01-01T12:00") == 2
    assert reader.choose(start="2001-01-01T06:00", every_hours=12) == [1, 3, 5]


def test_missing_values_name_channel_and_time(networks, source):
    source["t"][4, 1, 3, 3] = np.nan
    reader = StateReader([source], networks())
    reader.read([0])
    with pytest.raises(MissingDataError, match=r"2001-01-02T00:00 has missing values in temperature_850"):
        reader.read([3, 4])


def test_the_30th_of_february_is_an_initial_time_where_the_calendar_has_it(networks, sources):
    source = sources(calendar="360_day")
    days = xr.date_range("2001-02-28", periods=6, freq="1D", calendar="360_day", use_cftime=True)
    reader = StateReader([source.assign_coords(time=days)], networks())
    assert reader.index("2001-02-30") == 2
    assert reader.choose(start="2001-02-30", stop="2001-03-02") == [2, 3]
    with pytest.raises(EmptySelectionError, match="no date of the proleptic_gregorian calendar"):
        StateReader([sources()], networks()).index("2001-02-30")
