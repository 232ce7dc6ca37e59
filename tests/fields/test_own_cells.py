"""Cells of rectilinear sources that do not meet midway between points count where areas do."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.datasets import ZarrFieldsDataset
from weathermill.fields.conventions import canonicalise
from weathermill.fields.geometry import gaussian_latitudes
from weathermill.fields.grids import grid_hash, grid_of, named_grid
from weathermill.fields.own_cells import area_weights_of, same_points
from weathermill.fields.regridding import apply_weights, make_weights
from weathermill.fields.steps import handle_missing_steps
from weathermill.fields.weights import grid_areas
from weathermill.parameters import IngestParameters, RegridParameters, SplitParameters, TensorsParameters
from weathermill.pipelines.normalise.nodes import compute_statistics, normalise_fields
from weathermill.pipelines.regrid.nodes import choose_target_grid, make_regrid_weights, regrid_fields
from weathermill.pipelines.tensors.nodes import lay_out_tensors

ROWS = np.array([90.0, 80.0, 50.0, 25.0, 5.0, -20.0, -55.0, -75.0, -90.0])
COLUMNS = np.concatenate([[-7.5], np.arange(11.25, 345.0, 22.5), [352.5]])


def with_cells(source, rows=ROWS, columns=None, units=None):
    """Give a source of 9 x 16 points, north to south and from 0 degrees east, the bounds of its cells."""
    source["latitude"].attrs["bounds"] = "lat_bnds"
    added = {"lat_bnds": (("latitude", "bnds"), np.stack([rows[1:], rows[:-1]], axis=1))}
    if columns is not None:
        source["longitude"].attrs["bounds"] = "lon_bnds"
        added["lon_bnds"] = (("longitude", "bnds"), np.stack([columns[:-1], columns[1:]], axis=1))
    return source.assign(added)


def sines(rows):
    weights = np.abs(np.diff(np.sin(np.deg2rad(rows))))
    return weights / weights.mean()


@pytest.mark.parametrize("ascending", [False, True])
def test_cells_of_a_file_stay_with_the_fields_and_make_their_area_weights(make_source, ascending):
    source = with_cells(make_source(n_lat=8), columns=COLUMNS)
    if ascending:
        source = source.isel(latitude=slice(None, None, -1))
    findings = []
    fields = canonicalise([source], variables=["temperature"], findings=findings)
    np.testing.assert_array_equal(fields["latitude_bounds"], np.stack([ROWS[:-1], ROWS[1:]], axis=1))
    np.testing.assert_array_equal(fields["longitude_bounds"][0], [-7.5, 11.25])
    weights = area_weights_of(fields)
    expected = sines(ROWS)[:, None] * np.diff(COLUMNS)
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-12)
    told = [f.message for f in findings if f.subject == "grid"]
    assert any("midway between its points" in text and "at latitude -20;" in text for text in told), told
    # Ingesting what was ingested changes nothing.
    again = canonicalise([fields], variables=["temperature"])
    assert grid_hash(grid_of(again)) == grid_hash(grid_of(fields)) != grid_hash(grid_of(make_source(n_lat=8)))


def test_cells_that_meet_midway_and_gaussian_ones_are_not_kept(make_source):
    plain = make_source(n_lat=8)
    middle = grid_of(plain)
    rows = np.append(middle["latitude_bounds"][:, 0], -90.0) + 2e-5 * np.array([0, 1, -1, 1, 0, 1, -1, 1, 0])
    fields = canonicalise([with_cells(plain, rows)], variables=["temperature"])
    assert set(fields.coords) == {"time", "level", "latitude", "longitude"}
    latitude, weights = gaussian_latitudes(8)
    gaussian = make_source(n_lat=8).assign_coords(latitude=latitude)
    corners = np.degrees(np.arcsin(1.0 - np.concatenate([[0.0], np.cumsum(weights)]).clip(0, 2)))
    exact = canonicalise([with_cells(gaussian.copy(), corners)], variables=["temperature"])
    assert "latitude_bounds" not in exact.coords
    np.testing.assert_allclose(area_weights_of(exact), weights / weights.mean(), rtol=1e-9)
    # As CDO has them: midway between Gaussian rows, the first and last up to the poles.
    between = np.concatenate([[90.0], 0.5 * (latitude[1:] + latitude[:-1]), [-90.0]])
    kept = canonicalise([with_cells(gaussian, between)], variables=["temperature"])
    np.testing.assert_allclose(area_weights_of(kept), sines(between), rtol=1e-9)


def test_bounds_that_make_no_cells_and_sources_that_differ_are_told(make_source):
    holed = ROWS.copy()
    holed[3] = holed[2]
    findings = []
    fields = canonicalise(
        [with_cells(make_source(n_lat=8), holed)], variables=["temperature"], findings=findings
    )
    assert "latitude_bounds" not in fields.coords
    (told,) = [f for f in findings if f.severity == "warning"]
    assert "cells are taken to meet midway between points" in told.message and told.remedy
    other = ROWS + np.array([0, 0, 0, 0, 1.0, 0, 0, 0, 0])
    later = with_cells(make_source(n_lat=8, start="2020-02-01"), other)
    findings = []
    fields = canonicalise(
        [with_cells(make_source(n_lat=8)), later], variables=["temperature"], findings=findings
    )
    assert any("differ from those of source 0 by up to 1 degrees of latitude" in f.message for f in findings)
    np.testing.assert_allclose(area_weights_of(fields), sines(ROWS))


def test_columns_of_unequal_width_have_weights_of_their_own(make_source):
    longitude = np.array([0.0, 10.0, 20.0, 40.0, 70.0])
    fields = make_source(n_lon=5).assign_coords(longitude=longitude)
    weights = area_weights_of(fields)
    np.testing.assert_allclose(weights[3] / weights[3, 0], [1.0, 1.0, 1.5, 2.5, 3.0])
    assert area_weights_of(make_source()).shape == (9,)


def test_the_whole_way_to_the_tensors_goes_by_the_cells_of_the_file(make_source):
    ingest = IngestParameters(variables=["temperature"], levels=[500])
    splits = SplitParameters(train=0.5, validation=0.25, test=0.25)
    source = with_cells(make_source(n_time=12, n_lat=8).isel(time=[0, 1, 2, *range(4, 12)]))
    noise = np.random.default_rng(0).normal(size=source["t"].shape)
    source["t"] = source["t"].copy(data=(source["t"] + noise).astype(np.float32))
    source["t"].attrs["units"] = "K"
    fields = handle_missing_steps(
        canonicalise([source], variables=["temperature"], levels=[500]), "interpolate"
    )
    fields = fields.drop_vars("interpolated")
    # A grid by name with the same points keeps them as they are.
    for target in (
        None,
        {"latitude": fields["latitude"].values.tolist(), "longitude": fields["longitude"].values.tolist()},
    ):
        regrid = RegridParameters(target=target)
        chosen = choose_target_grid(fields, regrid)
        weights = make_regrid_weights(fields, chosen, None, regrid)
        assert weights.method == "nearest_s2d"
        regridded = regrid_fields(fields, weights, chosen, regrid)
        xr.testing.assert_equal(regridded["temperature"], fields["temperature"])
        statistics = compute_statistics(regridded, ingest, splits)
        content = lay_out_tensors(
            normalise_fields(regridded, statistics, ingest),
            regridded,
            statistics,
            ingest,
            splits,
            TensorsParameters(),
        )
        np.testing.assert_allclose(content.area_weights, sines(ROWS))
        training = fields["temperature"].values[:6, 0].astype(np.float64)
        mean = (training * sines(ROWS)[:, None]).mean()
        assert float(statistics["mean"][0]) == pytest.approx(mean, abs=1e-5)


def test_conservative_regridding_keeps_the_integral_over_the_cells_of_the_file(make_source):
    fields = canonicalise([with_cells(make_source(n_lat=8))], variables=["temperature"])
    target = named_grid("6x12_cells")
    regridded = apply_weights(fields, make_weights(fields, target, "conservative"), target)

    def mean(of):
        # ESMF's cells have great circles for edges.
        areas = grid_areas(grid_of(of), great_circles=True).reshape(of["temperature"].shape[-2:])
        return float((of["temperature"][0, 0].values * areas).sum() / areas.sum())

    assert "latitude_bounds" not in regridded.coords
    assert mean(regridded) == pytest.approx(mean(fields), abs=1e-4)
    assert abs(mean(fields.drop_vars("latitude_bounds")) - mean(fields)) > 0.1
    back = apply_weights(regridded, make_weights(regridded, grid_of(fields), "conservative"), grid_of(fields))
    np.testing.assert_array_equal(back["latitude_bounds"], fields["latitude_bounds"])


def test_a_store_of_fields_holds_their_cells(make_source, tmp_path):
    fields = canonicalise([with_cells(make_source(n_lat=8))], variables=["temperature"])
    stored = ZarrFieldsDataset(filepath=str(tmp_path / "fields.zarr"))
    stored.save(fields)
    assert grid_hash(grid_of(stored.load())) == grid_hash(grid_of(fields))


def test_grids_of_the_same_points_are_told_from_others():
    grid = named_grid("8x16")
    assert same_points(grid, grid.drop_vars(["latitude_bounds", "longitude_bounds"]))
    assert not same_points(grid, named_grid("8x18"))
    assert not same_points(grid, named_grid("O4"))
    assert not same_points(grid, grid.assign_coords(latitude=grid["latitude"] + 1e-3))
