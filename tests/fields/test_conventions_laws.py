"""One law for all layouts: however a data set is written, cut up and named, the canonical fields are the same."""

from __future__ import annotations

import numpy as np
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weathermill.fields.conventions import canonicalise

LEVELS = (300.0, 500.0, 850.0)
SHAPE = (6, 3, 9, 16)


def original() -> xr.Dataset:
    rng = np.random.default_rng(7)
    dims = ("time", "level", "latitude", "longitude")
    coords = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h"),
        "level": ("level", np.array(LEVELS), {"units": "hPa"}),
        "latitude": ("latitude", np.linspace(80, -80, 9), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(16) * 22.5, {"units": "degrees_east"}),
    }
    return xr.Dataset(
        {
            "temperature": (dims, rng.uniform(200, 300, SHAPE).astype(np.float32), {"units": "K"}),
            "specific_humidity": (dims, rng.uniform(0, 0.02, SHAPE).astype(np.float32), {"units": "kg kg-1"}),
        },
        coords=coords,
    )


VARIABLES = ["temperature", "specific_humidity"]
EXPECTED = canonicalise([original()], variables=VARIABLES).load()

NAMES = {
    "temperature": ["temperature", "t", "ta", "T"],
    "specific_humidity": ["specific_humidity", "q", "hus"],
    "time": ["time", "valid_time"],
    "level": ["level", "pressure_level", "plev", "isobaricInhPa"],
    "latitude": ["latitude", "lat", "nav_lat"],
    "longitude": ["longitude", "lon", "nav_lon"],
}


@st.composite
def layouts(draw) -> list[xr.Dataset]:
    ds = original()
    for axis in ("time", "level", "latitude"):
        if draw(st.booleans()):
            ds = ds.isel({axis: slice(None, None, -1)})
    roll = draw(st.integers(0, 15))
    if roll:
        ds = ds.roll(longitude=roll, roll_coords=True)
        start = float(ds.longitude[0])
        if draw(st.booleans()):
            # Continuous from where it starts: 157.5 to 517.5, or -180 to 180.
            turned = (ds.longitude.values - start) % 360.0 + start - draw(st.sampled_from([0.0, 360.0]))
            ds = ds.assign_coords(longitude=("longitude", turned, ds.longitude.attrs))
    if draw(st.booleans()):
        again = ds.isel(longitude=[0])
        ds = xr.concat([ds, again.assign_coords(longitude=again.longitude + 360.0)], "longitude")
        ds.longitude.attrs["units"] = "degrees_east"
    if draw(st.booleans()):
        ds = ds.assign_coords(level=("level", ds.level.values * 100.0, {"units": "Pa"}))
    if draw(st.booleans()):
        for axis in ("latitude", "longitude"):
            attrs = ds[axis].attrs
            ds = ds.assign_coords({axis: (axis, ds[axis].values.astype(np.float32), attrs)})
    order = draw(st.permutations(["time", "level", "latitude", "longitude"]))
    ds = ds.transpose(*order)
    if draw(st.booleans()):
        ds = ds.astype(np.float64)
    parts = [ds]
    if draw(st.booleans()):
        parts = [part[[name]] for part in parts for name in VARIABLES]
    if draw(st.booleans()):
        cut, lap = draw(st.integers(1, 5)), draw(st.integers(0, 1))
        parts = [p.isel(time=s) for p in parts for s in (slice(0, cut + lap), slice(cut, None))]
    if draw(st.booleans()):
        parts = [p.isel(level=s) for p in parts for s in ([0, 2], [1])]
    names = {}
    for name, others in NAMES.items():
        if name == "level" and ds.level.attrs["units"] == "Pa":
            others = ["level", "plev"]
        names[name] = draw(st.sampled_from(others))
    parts = [part.rename({k: v for k, v in names.items() if k in part.variables}) for part in parts]
    if draw(st.booleans()):
        parts = [part.chunk({names["time"]: 1, names["longitude"]: 7}) for part in parts]
    return draw(st.permutations(parts))


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(layouts())
def test_every_layout_comes_to_the_same_fields(parts):
    fields = canonicalise(parts, variables=VARIABLES)
    for axis in ("time", "level", "latitude", "longitude"):
        assert np.array_equal(fields[axis], EXPECTED[axis]), axis
    for name in VARIABLES:
        assert fields[name].dims == ("time", "level", "latitude", "longitude")
        assert np.array_equal(fields[name].values, EXPECTED[name].values), name
        assert fields[name].attrs == EXPECTED[name].attrs
