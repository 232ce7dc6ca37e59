from __future__ import annotations

import numpy as np
import pressure_levels
import pytest

R, G = pressure_levels.GAS_CONSTANT, pressure_levels.GRAVITY
SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])


def constant_lapse(height, lapse, sea_level_temperature=288.15, sea_level_pressure=101_325.0):
    """Columns over ground at the given heights in an atmosphere of constant lapse rate."""
    height = np.asarray(height, dtype=float)
    exponent = G / (R * lapse)

    def pressure_at(z):
        return sea_level_pressure * (1 - lapse * z / sea_level_temperature) ** exponent

    surface = pressure_at(height)
    pressure = SIGMA[:, None] * surface
    temperature = sea_level_temperature * (pressure / sea_level_pressure) ** (1 / exponent)
    geopotential = G * (sea_level_temperature - temperature) / lapse
    return pressure_levels.Column(pressure, surface, G * height, temperature, geopotential)


@pytest.mark.parametrize("height", [0.0, 500.0, 1500.0])
def test_standard_atmosphere_is_recovered_above_and_below_ground(height):
    column = constant_lapse([height], 0.0065)
    for pressure in (30_000.0, 50_000.0, 85_000.0, 92_500.0, 98_000.0, 101_325.0):
        temperature = 288.15 * (pressure / 101_325.0) ** (R * 0.0065 / G)
        expected = G * (288.15 - temperature) / 0.0065
        # Below the lowest level the surface temperature is a guess from that level (0.95 of surface pressure).
        assert pressure_levels.interpolate_temperature(column, pressure)[0] == pytest.approx(
            temperature, abs=0.6
        )
        assert pressure_levels.interpolate_geopotential(column, pressure)[0] == pytest.approx(
            expected, abs=30
        )


def test_sea_level_pressure_of_the_standard_atmosphere():
    column = constant_lapse([0.0, 300.0, 1000.0, 2000.0], 0.0065)
    np.testing.assert_allclose(pressure_levels.sea_level_pressure(column), 101_325.0, atol=30)


def test_sea_level_pressure_is_surface_pressure_at_sea_level():
    column = constant_lapse([0.0], 0.004, sea_level_temperature=300.0, sea_level_pressure=100_700.0)
    assert pressure_levels.sea_level_pressure(column)[0] == pytest.approx(100_700.0, rel=1e-12)


def test_geopotential_is_far_better_than_linear_interpolation():
    column = constant_lapse([0.0], 0.0065)
    temperature = 288.15 * (27_000.0 / 101_325.0) ** (R * 0.0065 / G)
    expected = G * (288.15 - temperature) / 0.0065
    linear = pressure_levels.interpolate(column.geopotential, column, 27_000.0)[0]
    cubic = pressure_levels.interpolate_geopotential(column, 27_000.0)[0]
    assert abs(cubic - expected) < 0.05 * abs(linear - expected)


def test_warm_plateaus_stay_plausible():
    column = constant_lapse([4500.0], 0.0065, sea_level_temperature=310.0)
    extrapolated = pressure_levels.interpolate_temperature(column, 100_000.0)[0]
    assert extrapolated < 300.0


def test_wind_holds_below_the_lowest_level():
    column = constant_lapse([3000.0], 0.0065)
    wind = np.arange(8.0)[:, None]
    assert pressure_levels.interpolate(wind, column, 100_000.0)[0] == 7.0
    middle = float(np.sqrt(column.pressure[3, 0] * column.pressure[4, 0]))
    assert pressure_levels.interpolate(wind, column, middle)[0] == pytest.approx(3.5)


def test_levels_above_the_model_are_refused():
    with pytest.raises(ValueError, match="uppermost model level"):
        pressure_levels.interpolate(np.zeros((8, 1)), constant_lapse([0.0], 0.0065), 2_000.0)


def test_latitudes_across_the_poles():
    gaussian = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
    regular = 87.1875 - 5.625 * np.arange(32)
    longitude = np.deg2rad(np.arange(64) * 5.625)
    weights = pressure_levels.meridian_weights(gaussian, regular)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)

    def scalar(latitude):
        phi = np.deg2rad(latitude)[:, None]
        return np.cos(phi) * np.cos(longitude - 0.3) + np.sin(phi) ** 3

    np.testing.assert_allclose(
        pressure_levels.to_latitudes(scalar(gaussian), weights), scalar(regular), atol=1e-3
    )

    def eastward(latitude):
        # A uniform flow across the poles, in local components.
        return np.broadcast_to(-np.sin(longitude), (len(latitude), 64))

    found = pressure_levels.to_latitudes(eastward(gaussian), weights, vector=True)
    np.testing.assert_allclose(found, eastward(regular), atol=1e-12)
    with pytest.raises(ValueError, match="even"):
        pressure_levels.to_latitudes(np.zeros((32, 63)), weights)
