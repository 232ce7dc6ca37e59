from __future__ import annotations

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


@pytest.mark.parametrize(("units", "target"), [("K", "m"), ("furlongs per gallon of tea", "K"), ("m", "hPa")])
def test_what_cannot_be_converted_is_refused_by_name(units, target):
    with pytest.raises(UnitsError, match=units.split()[0]):
        linear_conversion(units, target)
