"""Missing values are found while blocks are read, and named."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import MissingDataError
from weathermill.fields.missing import refuse_missing


def make_fields():
    shape = (8, 2, 3, 4)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), values),
            "sea_surface_temperature": (("time", "latitude", "longitude"), values[:, 0].copy()),
            "land_sea_mask": (("latitude", "longitude"), values[0, 0].copy()),
        },
        coords={"time": np.datetime64("2001-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")},
    )


@pytest.mark.parametrize("chunks", [None, {"time": 3}])
def test_whole_fields_pass_unchanged(chunks):
    fields = make_fields() if chunks is None else make_fields().chunk(chunks)
    xr.testing.assert_identical(refuse_missing(fields).compute(), make_fields())


@pytest.mark.parametrize("chunks", [None, {"time": 3}])
def test_the_variable_and_the_first_time_are_named(chunks):
    fields = make_fields()
    fields["temperature"][5, 1, 2, 3] = np.nan
    fields["temperature"][7, 0, 0, 0] = np.nan
    if chunks is not None:
        fields = fields.chunk(chunks)
    with pytest.raises(MissingDataError, match=r"temperature has .* first at 2001-01-02T(06|18)"):
        refuse_missing(fields).compute()


def test_nothing_is_read_before_it_is_computed():
    fields = make_fields()
    fields["temperature"][5] = np.nan
    refuse_missing(fields.chunk({"time": 1})).isel(time=slice(0, 5)).compute()


def test_named_variables_may_have_gaps():
    fields = make_fields()
    fields["sea_surface_temperature"][0, 0, 0] = np.nan
    with pytest.raises(MissingDataError, match="sea_surface_temperature"):
        refuse_missing(fields.chunk()).compute()
    refuse_missing(fields.chunk(), allow=["sea_surface_temperature"]).compute()


def test_static_fields_are_checked_too():
    fields = make_fields()
    fields["land_sea_mask"][1, 1] = np.nan
    with pytest.raises(MissingDataError, match="land_sea_mask"):
        refuse_missing(fields.chunk()).compute()
