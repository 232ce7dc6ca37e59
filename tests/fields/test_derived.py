from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import MissingVariableError, ParameterError
from weathermill.fields import solar, thermodynamics
from weathermill.fields.conventions import canonicalise
from weathermill.fields.derived import DERIVATIONS, fields_of_time_and_place
from weathermill.fields.grids import grid_of
from weathermill.fields.vocabulary import CONVENTIONS


@pytest.mark.parametrize(
    ("temperature", "pascals"),
    # WMO tables (Goff-Gratch): over water at 20 and 30 degrees Celsius, over ice at -30 and -40.
    [(293.15, 2337.0), (303.15, 4243.0), (243.15, 38.0), (233.15, 12.84)],
)
def test_saturation_agrees_with_tables(temperature, pascals):
    assert thermodynamics.saturation_vapour_pressure(temperature) == pytest.approx(pascals, rel=6e-3)


def test_saturation_is_continuous_where_ice_begins():
    temperature = np.linspace(249.0, 274.0, 2001)
    steps = np.diff(np.log(thermodynamics.saturation_vapour_pressure(temperature)))
    assert np.all(steps > 0) and steps.max() < 2 * steps.min()


@settings(max_examples=50, deadline=None)
@given(st.floats(0.5, 100), st.floats(200, 310), st.floats(2e4, 1.05e5))
def test_humidities_are_inverse_to_each_other(relative, temperature, pressure):
    q = thermodynamics.specific_humidity(relative, temperature, pressure)
    assert 0.0 < q < 1.0
    assert thermodynamics.relative_humidity(q, temperature, pressure) == pytest.approx(relative, rel=1e-9)


def test_specific_humidity_of_a_textbook_state():
    # 20 degrees Celsius, 50 per cent, 1000 hPa: mixing ratio 7.3 g/kg.
    q = thermodynamics.specific_humidity(50.0, 293.15, 1.0e5)
    assert q == pytest.approx(0.00727, rel=5e-3)


def test_real_relative_humidity_becomes_specific(ecmwf_path):
    findings = []
    raw = xr.open_dataset(ecmwf_path)
    fields = canonicalise([raw], variables=["geopotential", "specific_humidity"], findings=findings)
    assert list(fields.data_vars) == ["geopotential", "specific_humidity"]
    q = fields["specific_humidity"]
    assert q.dims == ("time", "level", "latitude", "longitude") and q.dtype == np.float32 and q.chunks
    assert q.attrs["units"] == "kg kg-1" and "relative humidity" in q.attrs["comment"]
    profile = q.mean(("time", "latitude", "longitude")).values
    assert np.all(np.diff(profile) > 0), "drier with height"
    assert 1e-5 < profile[0] < 3e-4 and 4e-3 < profile[-1] < 1.5e-2
    assert float(q.min()) >= 0.0 and float(q.max()) < 0.03
    assert any(f.subject == "specific_humidity" and "derived" in f.message for f in findings)


def test_what_a_source_has_is_not_derived(make_source):
    both = make_source(names=("t", "q", "r"))
    both["q"] = (both["q"] * 0 + 0.004).assign_attrs(units="kg kg-1")
    both["r"].attrs["units"] = "%"
    fields = canonicalise([both], variables=["specific_humidity"])
    assert np.allclose(fields["specific_humidity"], 0.004)


def test_derivations_build_on_derivations(make_source):
    source = make_source(names=("t", "r"), levels=(300.0, 500.0, 700.0, 850.0, 1000.0))
    source["r"] = (source["r"] * 0 + 50.0).assign_attrs(units="%")
    fields = canonicalise(
        [source], variables=["temperature"], surface_variables=["total_column_water_vapour"]
    )
    assert list(fields.data_vars) == ["temperature", "total_column_water_vapour"]
    q = canonicalise([source], variables=["specific_humidity"])["specific_humidity"]
    expected = np.trapezoid(q.values, q.level.values * 100.0, axis=1) / 9.80665
    assert np.allclose(fields["total_column_water_vapour"], expected, rtol=1e-5)


def test_wind_speeds(make_source):
    source = make_source(names=("u", "v"), units="m s-1", base=0.0)
    fields = canonicalise([source], variables=["u_component_of_wind", "wind_speed"])
    expected = np.hypot(source["u"], source["v"]).sel(level=500)
    assert np.allclose(fields["wind_speed"].sel(level=500), expected, rtol=1e-6)
    assert fields["wind_speed"].attrs["units"] == "m s-1"


def test_what_cannot_be_made_is_missing_by_its_own_name(make_source):
    with pytest.raises(MissingVariableError, match="specific_humidity is in none"):
        canonicalise([make_source()], variables=["specific_humidity"])
    with pytest.raises(MissingVariableError, match="total_column_water_vapour is in none"):
        canonicalise(
            [make_source()], variables=["temperature"], surface_variables=["total_column_water_vapour"]
        )
    with pytest.raises(ParameterError, match="times of other fields"):
        canonicalise([make_source()], surface_variables=["toa_incident_solar_radiation"])


def test_every_derivation_says_its_units():
    for name, derivation in DERIVATIONS.items():
        assert name in CONVENTIONS or (derivation.units and derivation.long_name), name


def test_declination_and_distance_on_known_days():
    # Solstices, an equinox, perihelion and aphelion of 2024 (Astronomical Almanac).
    times = np.array(
        ["2024-06-20T20:51", "2024-12-21T09:20", "2024-03-20T03:06", "2024-01-03T00:39", "2024-07-05T05:06"],
        dtype="datetime64[ns]",
    )
    declination, _, distance = solar.solar_position(solar.days_since_2000(times)[0])
    assert np.allclose(np.degrees(declination[:3]), [23.436, -23.436, 0.0], atol=0.02)
    assert distance[3] == pytest.approx(0.98331, abs=3e-4) and distance[4] == pytest.approx(1.01673, abs=3e-4)


def test_equation_of_time_on_known_days():
    times = np.array(["2024-11-03T12:00", "2024-02-11T12:00"], dtype="datetime64[ns]")
    _, equation, _ = solar.solar_position(solar.days_since_2000(times)[0])
    assert np.allclose(equation * 60, [16.45, -14.25], atol=0.15)


def test_insolation_has_the_known_mean_and_no_sun_in_polar_night():
    times = np.datetime64("2023-12-22", "ns") + np.arange(24) * np.timedelta64(1, "h")
    latitude, longitude = np.arange(89.0, -90.0, -2.0), np.arange(0.0, 360.0, 30.0)
    energy = solar.toa_insolation(times, latitude, longitude)
    weights = np.cos(np.radians(latitude))
    mean = (energy.mean(axis=(0, 2)) * weights).sum() / weights.sum() / 3600.0
    distance = solar.solar_position(solar.days_since_2000(times)[0])[2].mean()
    assert mean == pytest.approx(solar.SOLAR_CONSTANT / 4 / distance**2, rel=2e-3)
    assert energy[:, latitude > 68].max() == 0.0
    south = energy[:, latitude < -68].min(axis=0)
    assert south.min() > 0.0, "no night in polar summer"


def test_insolation_of_long_sums_is_that_of_the_hours():
    times = np.array(["2024-05-01T12:00"], dtype="datetime64[ns]")
    latitude, longitude = np.array([40.0, -10.0]), np.array([0.0, 77.0])
    six = solar.toa_insolation(times, latitude, longitude, hours=6, parts=72)
    hourly = sum(solar.toa_insolation(times - np.timedelta64(h, "h"), latitude, longitude) for h in range(6))
    assert np.allclose(six, hourly, rtol=1e-12)


def test_forcings_follow_the_times_and_chunks(make_source):
    source = make_source(n_time=8)
    names = [
        "cosine_of_solar_zenith_angle",
        "sine_of_local_solar_time",
        "cosine_of_year_progress",
        "toa_incident_solar_radiation",
    ]
    fields = canonicalise(
        [source], variables=["temperature"], surface_variables=names, block_bytes=3 * 4 * 2 * 9 * 16
    )
    for name in names:
        assert fields[name].dims == ("time", "latitude", "longitude")
        assert fields[name].chunks[0] == fields["temperature"].chunks[0] == (3, 3, 2)
    noon = fields.sel(time="2020-01-01T12:00", longitude=0.0)
    assert float(noon["sine_of_local_solar_time"][4]) == pytest.approx(0.0, abs=1e-6)
    assert float(noon["cosine_of_solar_zenith_angle"].sel(latitude=-22.5)) > 0.99
    assert float(fields["cosine_of_solar_zenith_angle"].min()) == 0.0
    assert float(fields["cosine_of_year_progress"][0, 0, 0]) == pytest.approx(1.0, abs=1e-3)
    loaded = canonicalise([source], variables=["temperature"], surface_variables=names).load()
    assert np.allclose(loaded[names[0]], fields[names[0]])


def test_the_sun_in_another_calendar(make_source):
    times = xr.date_range("2001-01-01", periods=360, freq="D", calendar="360_day", use_cftime=True)
    declination, _, _ = solar.solar_position(solar.days_since_2000(np.array(times))[0])
    assert np.degrees(declination.max()) == pytest.approx(23.44, abs=0.05)
    assert abs(int(np.argmax(declination)) - 169) <= 3, "midsummer in the tenth of a year before July"
    fields = canonicalise(
        [make_source().assign_coords(time=times[:6])],
        variables=["temperature"],
        surface_variables=["cosine_of_solar_zenith_angle"],
    )
    assert float(fields["cosine_of_solar_zenith_angle"].max()) > 0.5


def test_the_sun_is_highest_when_the_equation_of_time_says():
    times = np.datetime64("2024-11-03T11:00", "ns") + np.arange(120) * np.timedelta64(1, "m")
    cosine = solar.cosine_zenith(*solar.days_since_2000(times), np.array([0.0]), np.array([0.0]))[:, 0, 0]
    # 16.45 minutes before noon.
    assert str(times[int(np.argmax(cosine))])[11:16] in ("11:43", "11:44")


def test_fields_of_time_and_place_know_curvilinear_grids(make_source):
    latitude, longitude = np.meshgrid(np.linspace(60.0, 30.0, 5), np.linspace(10.0, 40.0, 6), indexing="ij")
    plain = xr.Dataset(
        {"t2m": (("time", "y", "x"), np.full((3, 5, 6), 280.0), {"units": "K"})},
        coords={
            "time": xr.date_range("2001-06-01", periods=3, freq="6h"),
            "lat": (("y", "x"), latitude + 0.1 * longitude, {"units": "degrees_north"}),
            "lon": (("y", "x"), longitude, {"units": "degrees_east"}),
        },
    )
    names = [name for name, derivation in DERIVATIONS.items() if derivation.of_time_and_place]
    assert len(names) == 6
    fields = canonicalise([plain], surface_variables=["2m_temperature", *names])
    for name in names:
        assert fields[name].dims == ("time", "y", "x")
        for y, x in ((0, 0), (4, 2)):
            point = make_source(names=("t",)).isel(latitude=[0], longitude=[0])
            point = point.assign_coords(
                latitude=[float(plain["lat"][y, x])], longitude=[float(plain["lon"][y, x])]
            )
            grid = xr.Dataset(coords={"latitude": point["latitude"], "longitude": point["longitude"]})
            alone = fields_of_time_and_place([name], fields["time"].values, grid)[name]
            np.testing.assert_allclose(fields[name][:, y, x], alone[:, 0, 0], rtol=1e-6, atol=1e-6)


def test_fields_of_any_time_are_those_of_ingest(make_source):
    fields = canonicalise(
        [make_source()], variables=["temperature"], surface_variables=["toa_incident_solar_radiation"]
    )
    again = fields_of_time_and_place(
        ["toa_incident_solar_radiation"], fields["time"].values[::-1], grid_of(fields)
    )["toa_incident_solar_radiation"]
    np.testing.assert_array_equal(again[::-1], fields["toa_incident_solar_radiation"])
    assert again.attrs["units"] == "J m-2"
