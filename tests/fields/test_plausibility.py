"""Infinities, undeclared fill values and outliers are found in every block that passes; weather is let alone."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import ImplausibleValueError
from weathermill.fields.missing import refuse_infinite, refuse_missing
from weathermill.fields.plausibility import Limits, find_implausible, limits_of, with_limits

RNG = np.random.default_rng(7)
UNKNOWN = Limits()


def put(values: np.ndarray, *numbers: float) -> np.ndarray:
    """A float32 copy with some numbers scattered over it."""
    out = values.astype(np.float32)
    for number in numbers:
        out.reshape(-1)[RNG.integers(out.size, size=3)] = number
    return out


TEMPERATURE = 280 + 10 * RNG.standard_normal((20, 30, 40))
WIND = 12 * RNG.standard_normal((20, 30, 40))
# Most places are dry; where it rains amounts are log-normal, over five orders of magnitude.
RAIN = np.where(RNG.random((20, 30, 40)) < 0.03, 1e-4 * np.exp(2.5 * RNG.standard_normal((20, 30, 40))), 0.0)
# GRIB's packing leaves rounding errors in place of zeros.
PACKED_RAIN = np.where(RAIN > 0, RAIN, RNG.choice([0.0, 4.3e-19, -1.1e-19], size=RAIN.shape))
ONE_SHOWER = np.where(np.arange(24000).reshape(20, 30, 40) == 777, 0.3, np.minimum(PACKED_RAIN, 4.3e-19))
HUMIDITY = 1e-2 * np.exp(-12 * RNG.random((20, 30, 40)))
DUST = np.where(RNG.random((20, 30, 40)) < 0.001, 1e-7 * RNG.random((20, 30, 40)), 1e-25)
CAPE = np.where(RNG.random((20, 30, 40)) < 0.2, 4000 * RNG.random((20, 30, 40)) ** 4, 0.0)
SPIKE = put(WIND, 4.0e3)
DROPLETS = np.where(RNG.random((20, 30, 40)) < 0.05, 1e8 * np.exp(-8 * RNG.random((20, 30, 40))), 0.0)
MASK = (RNG.random((20, 30, 40)) > 0.7).astype(float)

FIELDS = {
    "temperature": TEMPERATURE,
    "wind": WIND,
    "rain": RAIN,
    "packed rain": PACKED_RAIN,
    "one shower": ONE_SHOWER,
    "humidity": HUMIDITY,
    "dust": DUST,
    "cape": CAPE,
    "spike": SPIKE,
    "droplets": DROPLETS,
    "mask": MASK,
    "zeros": np.zeros((3, 4)),
    "pressure": np.full((3, 4), 101325.0),
    "gaps alone": np.full((3, 4), np.nan),
    "nothing": np.zeros((0, 4)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_weather_of_unknown_variables_raises_no_alarm(name):
    field = FIELDS[name].astype(np.float32)
    assert find_implausible(field, UNKNOWN) is None
    gaps = np.where(RNG.random(field.shape) < 0.3, np.nan, field).astype(np.float32)
    assert find_implausible(gaps, UNKNOWN) is None


@pytest.mark.parametrize("name", ["temperature", "wind", "rain", "humidity", "cape", "mask"])
@pytest.mark.parametrize("fill", [1e15, -9999.0, -32767.0, 9.96e10, -3e12])
def test_fill_values_among_unknown_variables_are_found(name, fill):
    field = put(FIELDS[name], fill)
    found = find_implausible(field, UNKNOWN)
    assert found is not None
    np.testing.assert_array_equal(found.where, field == np.float32(fill))


def test_a_fill_value_over_half_of_the_map_is_found_and_gaps_do_not_hide_it():
    sea = TEMPERATURE.astype(np.float32)
    sea[:, :15] = 1e15
    sea[:, 20] = np.nan
    assert find_implausible(sea, UNKNOWN).where.sum() == 20 * 15 * 40


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("2m_temperature", 5000.0, False),  # beyond the limits: counted, and judged by its share
        ("2m_temperature", 1e15, True),
        ("2m_temperature", -9999.0, True),
        ("2m_temperature", -9999.0 + 273.15, True),  # in degrees Celsius once
        ("geopotential_500", -9999.0 * 9.80665, True),  # in gpm once, and hardly beyond the limits
        ("2m_temperature", (-999.0 - 32.0) / 1.8 + 273.15, True),  # in degrees Fahrenheit once
        ("total_precipitation", -9.999, True),  # in mm once, and within a hundred times the limits
        ("precipitation_flux", -9999.0 / 86400.0, True),  # in mm day-1
        ("total_cloud_cover", -99.99, True),  # in %
        ("total_precipitation", 0.999, False),  # an extreme of weather, whatever number it is
        ("specific_humidity", 40.0, True),
        ("a_tracer", np.inf, True),
        ("a_tracer", -np.inf, True),
    ],
)
def test_known_variables_are_held_to_their_limits(variable, value, found):
    limits = limits_of(variable)
    usual = 0.5 * (limits.low + limits.high) if limits.known else 1.0
    spread = 0.1 * (limits.high - limits.low) if limits.known else 0.5
    field = usual + spread * RNG.random((10, 20, 30))
    assert find_implausible(field.astype(np.float32), limits) is None
    assert (find_implausible(put(field, value), limits) is not None) == found


def test_limits_that_the_user_gives_are_the_last_word():
    fields = xr.Dataset({"tracer": (("time", "latitude"), put(RNG.random((4, 50)), 1e15))})
    with pytest.raises(ImplausibleValueError, match=r"ingest\.limits: \{tracer"):
        refuse_missing(fields)
    refuse_missing(with_limits(fields, {"tracer": [0.0, 2e15]}))


def make_fields(chunks=None):
    values = (280 + RNG.standard_normal((8, 2, 3, 4))).astype(np.float32)
    fields = xr.Dataset(
        {"temperature": (("time", "level", "latitude", "longitude"), values)},
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h"),
            "level": [500.0, 850.0],
            "latitude": [10.0, 0.0, -10.0],
            "longitude": [0.0, 90.0, 180.0, 270.0],
        },
    )
    return fields if chunks is None else fields.chunk(chunks)


@pytest.mark.parametrize("chunks", [None, {"time": 3}])
@pytest.mark.parametrize("allow", [[], ["temperature"]])
def test_an_infinity_is_refused_with_number_time_level_and_place(chunks, allow):
    fields = make_fields()
    fields["temperature"][5, 1, 2, 3] = -np.inf
    if allow:
        fields["temperature"][5, 0, 0, 0] = np.nan
    fields = fields if chunks is None else fields.chunk(chunks)
    place = r"1 value infinite.* 2001-01-02T06:00, 850 hPa, latitude -10, longitude 270"
    with pytest.raises(ImplausibleValueError, match=f"temperature has {place}"):
        refuse_missing(fields, allow=allow).compute()


def test_gaps_may_be_filled_but_not_with_infinities():
    fields = make_fields()
    fields["temperature"][0, 0, 0, 0] = np.nan
    refuse_infinite(fields, ["temperature"]).compute()
    fields["temperature"][1, 0, 0, 0] = np.inf
    with pytest.raises(ImplausibleValueError):
        refuse_infinite(fields, ["temperature"]).compute()
