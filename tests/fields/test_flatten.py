from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError, MissingVariableError, ParameterError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.flatten import channel_table, from_channels, static_channels, to_channels


@pytest.fixture
def fields(make_source):
    pressure = make_source(names=("t", "z"))
    pressure["z"] = (pressure["z"] * 200.0).assign_attrs(units="m2 s-2")
    surface = make_source(levels=None, names=("t2m",))
    mask = (make_source(levels=None, names=("lsm",)).isel(time=0, drop=True) - 250.0) / 20.0
    mask["lsm"].attrs["units"] = "1"
    return canonicalise(
        [pressure, surface, mask],
        variables=["temperature", "geopotential"],
        surface_variables=["2m_temperature"],
        static_variables=["land_sea_mask"],
    )


def test_order_names_and_values(fields):
    array, table = to_channels(
        fields,
        prognostic=["geopotential", "2m_temperature"],
        forcing=["temperature"],
        static=["land_sea_mask"],
    )
    assert array.dims == ("time", "channel", "latitude", "longitude")
    assert [entry["name"] for entry in table] == [
        "geopotential_500",
        "geopotential_850",
        "2m_temperature",
        "temperature_500",
        "temperature_850",
        "land_sea_mask",
    ]
    assert table[0] == {
        "name": "geopotential_500",
        "variable": "geopotential",
        "level": 500.0,
        "role": "prognostic",
        "units": "m2 s-2",
    }
    assert [entry["role"] for entry in table] == ["prognostic"] * 3 + ["forcing"] * 2 + ["static"]
    assert array.channel.values.tolist() == [entry["name"] for entry in table[:5]]
    assert array.dtype == np.float32 and array.chunks is not None
    assert np.array_equal(array.sel(channel="temperature_850"), fields.temperature.sel(level=850))
    assert np.array_equal(array.sel(channel="2m_temperature"), fields["2m_temperature"])
    maps = static_channels(fields, static=["land_sea_mask"])
    assert maps.dims == ("channel", "latitude", "longitude")
    assert np.array_equal(maps[0], fields["land_sea_mask"])
    assert static_channels(fields, static=[]).shape == (0, 9, 16)


def test_round_trip_in_memory_and_lazy(fields):
    names = ["temperature", "geopotential", "2m_temperature"]
    for source in (fields, fields.load()):
        array, table = to_channels(source, prognostic=names)
        back = from_channels(array, table)
        xr.testing.assert_equal(back, fields[names])
        assert back.geopotential.attrs["units"] == "m2 s-2"


def test_levels_ascend_whatever_their_order_in_the_fields(fields):
    turned = fields.isel(level=slice(None, None, -1))
    array, table = to_channels(turned, prognostic=["temperature"])
    assert [entry["level"] for entry in table] == [500.0, 850.0]
    assert np.array_equal(array.sel(channel="temperature_500"), fields.temperature.sel(level=500))
    xr.testing.assert_equal(from_channels(array, table)["temperature"], fields["temperature"])


def test_round_trip_of_forecasts(fields):
    array, table = to_channels(fields, prognostic=["temperature", "2m_temperature"])
    forecasts = xr.DataArray(
        np.stack([array.values, array.values + 1]),
        dims=("init_time", "lead_time", "channel", "latitude", "longitude"),
        coords={"latitude": array.latitude, "longitude": array.longitude},
    )
    back = from_channels(forecasts, table)
    assert back.temperature.dims == ("init_time", "lead_time", "level", "latitude", "longitude")
    assert np.array_equal(back.temperature[0].sel(level=850), fields.temperature.sel(level=850))
    assert np.array_equal(back["2m_temperature"][1], fields["2m_temperature"] + 1)


def test_variables_of_unequal_levels_come_back_by_channel():
    dims = ("time", "latitude", "longitude")
    coords = {"time": [0], "latitude": [1.0, 0.0], "longitude": [0.0, 1.0]}
    names = ["geopotential_500", "temperature_500", "temperature_850"]
    fields = xr.Dataset(
        {n: (dims, np.full((1, 2, 2), i, np.float32)) for i, n in enumerate(names)}, coords=coords
    )
    array, table = to_channels(fields, prognostic=names)
    assert table[0]["variable"] == "geopotential" and table[0]["level"] == 500.0
    back = from_channels(array, table)
    assert set(map(str, back.data_vars)) == {"geopotential_500", "temperature"}
    assert back.temperature.sel(level=850).values.tolist() == [[[2.0, 2.0], [2.0, 2.0]]]


def test_what_cannot_be_flattened_is_refused(fields):
    with pytest.raises(MissingVariableError, match=r"vorticity .* 2m_temperature"):
        channel_table(fields, prognostic=["vorticity"])
    with pytest.raises(ParameterError, match="more than one role: temperature"):
        channel_table(fields, prognostic=["temperature"], forcing=["temperature"])
    with pytest.raises(ParameterError, match="no variable is prognostic"):
        channel_table(fields, prognostic=[])
    with pytest.raises(CoordinateError, match="land_sea_mask has the dimensions"):
        channel_table(fields, prognostic=["land_sea_mask"])
    with pytest.raises(CoordinateError, match="do not fit a static channel"):
        channel_table(fields, prognostic=["temperature"], static=["2m_temperature"])
    array, table = to_channels(fields, prognostic=["temperature"])
    with pytest.raises(CoordinateError, match="not in the table"):
        from_channels(array, table[:1])
