from __future__ import annotations

import math

import pytest

from weathermill.fields.units import linear_conversion
from weathermill.fields.vocabulary import (
    CONVENTIONS,
    canonical_for_alias,
    convention_for,
    flat_name,
    split_flat_name,
)


@pytest.mark.parametrize("entry", CONVENTIONS.values(), ids=lambda entry: entry.name)
def test_every_convention_is_sound(entry):
    assert linear_conversion(entry.units, entry.units) == (1.0, 0.0)
    assert linear_conversion(entry.units + " ", entry.units) == (1.0, 0.0)
    assert entry.minimum < entry.maximum
    assert math.isfinite(entry.minimum) and math.isfinite(entry.maximum)
    assert entry.aliases
    assert split_flat_name(entry.name) is None


@pytest.mark.parametrize("on_levels", [True, False])
def test_no_alias_means_two_variables(on_levels):
    for entry in CONVENTIONS.values():
        if (entry.kind == "pressure") == on_levels:
            for alias in entry.aliases:
                assert canonical_for_alias(alias, on_levels=on_levels) == [entry.name], alias


def test_flat_names_split_and_join():
    assert split_flat_name("geopotential_500") == ("geopotential", 500.0)
    assert split_flat_name("z_500") == ("geopotential", 500.0)
    assert split_flat_name("u_component_of_wind_850") == ("u_component_of_wind", 850.0)
    assert split_flat_name("total_precipitation_24hr") is None
    assert split_flat_name("something_500") is None
    assert flat_name("temperature", 850.0) == "temperature_850"
    assert flat_name("2m_temperature", None) == "2m_temperature"
    assert convention_for("temperature_850") is CONVENTIONS["temperature"]
    assert convention_for("nothing") is None


def test_level_decides_what_z_means():
    assert canonical_for_alias("z", on_levels=True) == ["geopotential"]
    assert canonical_for_alias("z", on_levels=False) == ["geopotential_at_surface"]


# Units as WeatherBench 2, ARCO-ERA5 and the Climate Data Store write them.
ERA5_UNITS = {
    "geopotential": "m**2 s**-2",
    "temperature": "K",
    "u_component_of_wind": "m s**-1",
    "specific_humidity": "kg kg**-1",
    "relative_humidity": "%",
    "vertical_velocity": "Pa s**-1",
    "vorticity": "s**-1",
    "potential_vorticity": "K m**2 kg**-1 s**-1",
    "ozone_mass_mixing_ratio": "kg kg**-1",
    "fraction_of_cloud_cover": "(0 - 1)",
    "2m_temperature": "K",
    "10m_u_component_of_wind": "m s**-1",
    "mean_sea_level_pressure": "Pa",
    "surface_pressure": "Pa",
    "sea_surface_temperature": "K",
    "sea_ice_cover": "(0 - 1)",
    "total_column_water_vapour": "kg m**-2",
    "total_cloud_cover": "(0 - 1)",
    "total_precipitation": "m",
    "total_precipitation_6hr": "m",
    "snow_depth": "m of water equivalent",
    "toa_incident_solar_radiation": "J m**-2",
    "surface_solar_radiation_downwards": "J m**-2",
    "geopotential_at_surface": "m**2 s**-2",
    "land_sea_mask": "(0 - 1)",
    "soil_type": "~",
    "standard_deviation_of_orography": "m",
    "angle_of_sub_gridscale_orography": "radians",
    "slope_of_sub_gridscale_orography": "~",
    "lake_cover": "(0 - 1)",
    "high_vegetation_cover": "(0 - 1)",
}


@pytest.mark.parametrize(("name", "units"), ERA5_UNITS.items())
def test_units_of_era5_are_the_canonical_ones(name, units):
    assert linear_conversion(units, CONVENTIONS[name].units) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "units", "expected"),
    # CMIP6 (CMOR tables Amon, 6hrPlev, fx).
    [
        ("ta", "K", "temperature"),
        ("hus", "1", "specific_humidity"),
        ("zg", "m", "geopotential_height"),
        ("ua", "m s-1", "u_component_of_wind"),
        ("wap", "Pa s-1", "vertical_velocity"),
        ("hur", "%", "relative_humidity"),
    ],
)
def test_names_and_units_of_cmip6(name, units, expected):
    assert canonical_for_alias(name, on_levels=True) == [expected]
    assert linear_conversion(units, CONVENTIONS[expected].units) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "units", "expected", "scale"),
    [
        ("tas", "K", "2m_temperature", 1.0),
        ("psl", "Pa", "mean_sea_level_pressure", 1.0),
        ("uas", "m s-1", "10m_u_component_of_wind", 1.0),
        ("clt", "%", "total_cloud_cover", 0.01),
        ("pr", "kg m-2 s-1", "precipitation_flux", 1.0),
        ("prw", "kg m-2", "total_column_water_vapour", 1.0),
        ("sftlf", "%", "land_sea_mask", 0.01),
        ("orog", "m", "orography", 1.0),
    ],
)
def test_surface_names_and_units_of_cmip6(name, units, expected, scale):
    assert canonical_for_alias(name, on_levels=False) == [expected]
    assert linear_conversion(units, CONVENTIONS[expected].units) == (pytest.approx(scale), 0.0)
