"""Winds along the axes of projected grids, from GRIB messages to east and north."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from grib_writing import needs_eccodes

from weathermill.fields.conventions import canonicalise
from weathermill.fields.opening import open_sources

pytestmark = needs_eccodes

N, SHAPE, STEP = np.sin(np.radians(38.5)), (9, 11), (50.0, 100.0)
CONUS = {
    "gridType": "lambert",
    "Nx": SHAPE[1],
    "Ny": SHAPE[0],
    "shapeOfTheEarth": 6,
    "DxInMetres": 1e3 * STEP[1],
    "DyInMetres": 1e3 * STEP[0],
    "LoVInDegrees": 262.5,
    "Latin1InDegrees": 38.5,
    "Latin2InDegrees": 38.5,
    "LaDInDegrees": 38.5,
    "latitudeOfFirstGridPointInDegrees": 35.0,
    "longitudeOfFirstGridPointInDegrees": 255.0,
}


def theta(west: int, north: int) -> np.ndarray:
    """Return the angle between east and x at the points of the grid, from where they lie on the cone in km."""
    scale = 6371.229 * np.cos(np.radians(38.5)) * np.tan(np.pi / 4 + np.radians(38.5) / 2) ** N / N
    rho = scale / np.tan(np.pi / 4 + np.radians(35.0) / 2) ** N
    x = rho * np.sin(N * np.radians(-7.5)) + STEP[1] * np.arange(SHAPE[1]) * (-1 if west else 1)
    y = -rho * np.cos(N * np.radians(-7.5)) + STEP[0] * np.arange(SHAPE[0])[:, None] * (1 if north else -1)
    return np.arctan2(x, -y)


def message(values: np.ndarray, name: str, **keys) -> bytes:
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    level = {"shortName": name, "typeOfLevel": "isobaricInhPa", "level": 500, "bitsPerValue": 24}
    for key, value in ({"dataDate": 20200101} | CONUS | keys | level).items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, values.ravel())
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


@pytest.mark.parametrize(("west", "north"), itertools.product((0, 1), repeat=2))
def test_winds_of_a_lambert_grid_come_to_east_and_north_in_any_order_of_scanning(tmp_path, west, north):
    angle = theta(west, north)
    keys = {"iScansNegatively": west, "jScansPositively": north, "uvRelativeToGrid": 1}
    u, v = 20 * np.cos(angle), 20 * np.sin(angle)
    (tmp_path / "a.grib2").write_bytes(message(u, "u", **keys) + message(v, "v", **keys))
    opened = open_sources(tmp_path / "a.grib2")
    findings = []
    fields = canonicalise(
        opened.datasets, variables=["u_component_of_wind"], source_names=opened.names, findings=findings
    )
    np.testing.assert_allclose(fields.u_component_of_wind[0, 0], 20.0, atol=1e-5)
    assert any("uvRelativeToGrid = 1" in finding.message for finding in findings)
    fields = canonicalise(opened.datasets, variables=["v_component_of_wind"], source_names=opened.names)
    np.testing.assert_allclose(fields.v_component_of_wind[0, 0], 0.0, atol=1e-5)


def test_winds_to_east_and_north_on_a_lambert_grid_stay_as_they_are(tmp_path):
    values = np.arange(99.0).reshape(SHAPE)
    (tmp_path / "a.grib2").write_bytes(message(values, "u", uvRelativeToGrid=0))
    opened = open_sources(tmp_path / "a.grib2")
    fields = canonicalise(opened.datasets, variables=["u_component_of_wind"])
    np.testing.assert_allclose(fields.u_component_of_wind[0, 0], values, atol=1e-4)
