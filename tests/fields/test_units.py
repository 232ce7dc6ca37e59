from __future__ import annotations

import re

import pytest

from weathermill.errors import UnitsError
from weathermill.fields.units import linear_conversion


@pytest.mark.parametrize(
    ("units", "target", "value", "expected"),
    [
        ("m**2 s**-2", "m2 s-2", 5.5e4, 5.5e4),
        ("m^2/s^2", "m2 s-2", 5.5e4, 5.5e4),
        ("degC", "K", 0.0, 273.15),
        ("degF", "K", 212.0, 373.15),
        ("millibars", "hPa", 850.0, 850.0),
        ("mb", "Pa", 1.0, 100.0),
        ("hPa", "Pa", 1013.25, 101325.0),
        ("Pa", "hPa", 85000.0, 850.0),
        ("g kg-1", "kg kg-1", 5.0, 0.005),
        ("kg kg**-1", "1", 0.5, 0.5),
        ("%", "1", 50.0, 0.5),
        ("(0 - 1)", "1", 0.3, 0.3),
        ("mm", "m", 12.0, 0.012),
        ("kg m**-2", "m", 12.0, 0.012),
        ("m of water equivalent", "m", 0.2, 0.2),
        ("knots", "m s-1", 1.0, 1852.0 / 3600.0),
        ("gpm", "m", 5500.0, 5500.0),
    ],
)
def test_linear_conversion_gives_the_textbook_value(units, target, value, expected):
    scale, offset = linear_conversion(units, target)
    assert value * scale + offset == pytest.approx(expected, rel=1e-12)


def test_equal_units_convert_exactly():
    assert linear_conversion("m**2 s**-2", "m2 s-2") == (1.0, 0.0)
    assert linear_conversion("kg kg**-1", "kg kg-1") == (1.0, 0.0)
    assert linear_conversion("g kg-1", "kg kg-1") != (1.0, 0.0)


KELVINS = (
    "K",
    "k",
    "Kelvin",
    "kelvins",
    "deg K",
    "degrees K",
    "degree_K",
    "deg. K",
    "°K",
    "degK",
    "degree Kelvin",
)
CELSIUS = (
    "degC",
    "deg C",
    "deg. C",
    "degrees C",
    "degree_C",
    "degrees_celsius",
    "celsius",
    "Celsius",
    "°C",
    "C",
    "oC",
)


@pytest.mark.parametrize("units", KELVINS)
def test_kelvins_in_the_wild_are_never_angles(units):
    assert linear_conversion(units, "K") == (1.0, 0.0)


@pytest.mark.parametrize("units", CELSIUS)
def test_degrees_celsius_in_the_wild_are_never_angles(units):
    assert linear_conversion(units, "K") == (1.0, 273.15)


@pytest.mark.parametrize("units", ["degrees", "degree", "deg", "°", "degrees_north", "degree_east"])
def test_an_angle_is_no_temperature_and_no_number(units):
    for target in ("K", "1", "m s-1"):
        with pytest.raises(UnitsError, match=r"cannot be converted|not understood"):
            linear_conversion(units, target)
        with pytest.raises(UnitsError, match=r"cannot be converted|not understood"):
            linear_conversion(target, units)
    assert linear_conversion("degrees", "radian")[0] == pytest.approx(3.141592653589793 / 180.0, rel=1e-12)


@pytest.mark.parametrize(
    ("spellings", "target", "scale"),
    [
        (("hpa", "HPA", "mb", "mbar", "millibars", "hectopascals"), "Pa", 100.0),
        (("pa", "PA", "Pascals", "pascal"), "Pa", 1.0),
        (("m+2 s-2", "m**2 s**-2", "m^2/s^2", "m2/s2", "J/kg", "J kg**-1", "(m^2)/(s^2)"), "m2 s-2", 1.0),
        (("gpdam", "dam", "dagpm", "geopotential decametres"), "m", 10.0),
        (("gpm", "gp m", "geopotential metre", "Meters", "METERS", "m of water equivalent"), "m", 1.0),
        (("mm", "mm of water"), "m", 1e-3),
        (("m s^-1", "m/s", "M/S", "m.s-1", "m s**-1", "meters per second", "m/sec", "mps"), "m s-1", 1.0),
        (("mm/day", "mm day-1", "mm d**-1", "kg m-2 day-1", "mm per day"), "kg m-2 s-1", 1.0 / 86400.0),
        (("mm/hr", "mm h-1"), "kg m-2 s-1", 1.0 / 3600.0),
        (("kg/m2/s", "kg m**-2 s**-1", "kg/(m^2 s)", "mm s-1"), "kg m-2 s-1", 1.0),
        (("%", "percent", "Percent", "per cent", "pct"), "1", 0.01),
        (("~", "-", "unitless", "Fraction", "(0 - 1)", "0 to 1", "dimensionless", "proportion"), "1", 1.0),
        (("octas", "okta"), "1", 0.125),
        (("g/kg", "gm/kg", "g kg**-1", "1e-3"), "kg kg-1", 1e-3),
        (("/s", "1/s", "s**-1", "1/sec"), "s-1", 1.0),
        (("PVU",), "K m2 kg-1 s-1", 1e-6),
        (("mm", "kg m**-2"), "kg m-2", 1.0),
    ],
)
def test_units_in_the_wild(spellings, target, scale):
    for units in spellings:
        assert linear_conversion(units, target) == (pytest.approx(scale, rel=1e-12), 0.0), units


@pytest.mark.parametrize("units", ["mm/day", "kg m-2 s-1", "m s-1"])
def test_a_rate_of_precipitation_is_no_amount(units):
    with pytest.raises(UnitsError, match="cannot be converted"):
        linear_conversion(units, "m")


@pytest.mark.parametrize(("units", "target"), [("K", "m"), ("furlongs per gallon of tea", "K"), ("m", "hPa")])
def test_what_cannot_be_converted_is_refused_by_name(units, target):
    with pytest.raises(UnitsError, match=units.split()[0]):
        linear_conversion(units, target)


@pytest.mark.parametrize(
    ("units", "target", "scale"),
    [
        ("0.1 K", "K", 0.1),
        ("10 hPa", "Pa", 1000.0),
        ("1e-5 s-1", "s-1", 1e-5),
        ("10^-6 K m2 kg-1 s-1", "K m2 kg-1 s-1", 1e-6),
        ("10**-5 s**-1", "s-1", 1e-5),
        ("100*Pa", "Pa", 100.0),
        ("mb/day", "Pa s-1", 100.0 / 86400.0),
        ("[hPa]", "Pa", 100.0),
        ("K (Kelvin)", "K", 1.0),
        ("Percent (%)", "1", 0.01),
    ],
)
def test_factors_before_units_and_units_said_twice(units, target, scale):
    assert linear_conversion(units, target) == (pytest.approx(scale, rel=1e-12), 0.0)


@pytest.mark.parametrize(
    ("units", "target"),
    [
        ("mm/month", "kg m-2 s-1"),
        ("mm yr-1", "kg m-2 s-1"),
        ("% %", "1"),
        ("grad C", "K"),
        ("0/1", "1"),
        ("0.1 degC", "K"),
        ("0 K", "K"),
        ("1/8", "1"),
    ],
)
def test_units_whose_size_is_not_certain_are_refused(units, target):
    with pytest.raises(UnitsError, match=re.escape(repr(units))):
        linear_conversion(units, target)
