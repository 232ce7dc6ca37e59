from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from weathermill.fields.grids import named_grid
from weathermill.fields.regridding import apply_weights, make_weights, regrid_report


def fields_on(grid: xr.Dataset, values: np.ndarray) -> xr.Dataset:
    coords = {"latitude": grid.latitude, "longitude": grid.longitude, "time": np.arange(values.shape[0])}
    return xr.Dataset({"f": (("time", "latitude", "longitude"), values)}, coords=coords)


@pytest.fixture(scope="module")
def pair():
    return named_grid("64x32"), named_grid("31x60_poles")


def report(pair, method, values, **options):
    weights = make_weights(*pair, method)
    before = fields_on(pair[0], values)
    return regrid_report(before, apply_weights(before, weights), weights, **options)


def test_the_report_is_json_and_says_who_made_the_weights(pair):
    out = report(pair, "conservative", np.random.default_rng(0).standard_normal((20, 32, 64)))
    json.dumps(out)
    assert out["sampled_steps"][0] == 0 and out["sampled_steps"][-1] == 19 and len(out["sampled_steps"]) == 8
    assert out["provider"] and out["seconds_weights"] >= 0
    assert out["effective_resolution_ratio"] == pytest.approx(6.0 / 5.625)
    assert out["source_grid"]["shape"] == [32, 64] and len(out["target_grid"]["hash"]) == 64
    assert out["unmapped_points"] == 0


def test_conservation_is_told_from_the_geometry_of_the_cells(pair):
    out = report(pair, "conservative", np.random.default_rng(0).standard_normal((3, 32, 64)))["variables"][
        "f"
    ]
    assert out["conservation_error"] < 1e-13
    assert 1e-7 < out["area_integral_error"] < 1e-2
    other = report(pair, "bilinear", np.random.default_rng(0).standard_normal((3, 32, 64)))["variables"]["f"]
    assert other["conservation_error"] > 1e-5


def test_smoothing_and_overshoot(pair):
    noise = np.random.default_rng(0).standard_normal((2, 32, 64))
    conservative = report(pair, "conservative", noise)["variables"]["f"]
    assert 0.2 < conservative["variance_ratio"] < 0.8 and conservative["overshoot"] == 0.0
    weights = make_weights(*pair, "nearest_s2d")
    before = fields_on(pair[0], noise)
    stretched = regrid_report(before, 2.0 * apply_weights(before, weights), weights)["variables"]["f"]
    assert 0.3 < stretched["overshoot"] < 1.1


def test_missing_area_before_and_after(pair):
    values = np.random.default_rng(0).standard_normal((1, 32, 64))
    values[:, :16] = np.nan
    out = report(pair, "conservative", values)["variables"]["f"]
    assert out["missing_area"][0] == pytest.approx(0.5, abs=1e-9)
    assert out["missing_area"][1] == pytest.approx(0.5, abs=0.06)
    assert out["area_integral_error"] is None
    everything = report(pair, "conservative", np.full((1, 32, 64), np.nan))["variables"]["f"]
    assert everything["missing_area"] == [1.0, 1.0] and everything["minimum"] == [None, None]


def test_pole_rows(pair):
    latitude = np.radians(pair[0].latitude.values)
    zonal = np.broadcast_to(np.sin(latitude)[None, :, None], (1, 32, 64)).copy()
    assert report(pair, "bilinear", zonal)["variables"]["f"]["pole_row_spread"] < 1e-12
    wave = zonal + np.cos(np.radians(pair[0].longitude.values))[None, None]
    assert report(pair, "conservative", wave)["variables"]["f"]["pole_row_spread"] > 0.5
    cells = (named_grid("64x32"), named_grid("12x24_cells"))
    assert report(cells, "bilinear", zonal)["variables"]["f"]["pole_row_spread"] is None


def test_regions_are_compared_where_they_overlap():
    source, target = (
        named_grid("64x32"),
        named_grid({"latitude": [60, 20], "longitude": [10, 70], "step": 10}),
    )
    out = report((source, target), "conservative", np.random.default_rng(1).uniform(1, 2, (1, 32, 64)))
    assert out["variables"]["f"]["conservation_error"] < 1e-12
    assert out["variables"]["f"]["area_integral_error"] is None
    out = report((source, target), "bilinear", np.random.default_rng(1).uniform(1, 2, (1, 32, 64)))
    assert out["variables"]["f"]["conservation_error"] is None
