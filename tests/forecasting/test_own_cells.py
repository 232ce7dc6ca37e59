"""Initial states whose cells do not meet midway between points are on the grid of a network that was trained on them."""

from __future__ import annotations

import numpy as np
import pytest

from weathermill.fields.grids import build_grid, grid_of
from weathermill.fields.regridding import make_weights
from weathermill.forecasting.forcings import Formulas
from weathermill.forecasting.states import StateReader
from weathermill.parameters import IngestParameters, RegridParameters, SplitParameters
from weathermill.pipelines.forecast import nodes

# Of the eight rows from -78.75 to 78.75 degrees, 22.5 degrees apart.
ROWS = np.array([-90.0, -65.0, -50.0, -20.0, 3.0, 20.0, 41.0, 70.0, 90.0])


@pytest.fixture
def celled(source):
    """The source with bounds of its latitudes, which ascend."""
    source["latitude"].attrs["bounds"] = "lat_bnds"
    return source.assign(lat_bnds=(("latitude", "bnds"), np.stack([ROWS[:-1], ROWS[1:]], axis=1)))


def test_states_with_cells_of_their_own_are_not_regridded_to_the_same_points(networks, source, celled):
    # No method refuses every other grid.
    reader = StateReader([celled], networks(), method=None)
    assert not reader.regrids
    assert "latitude_bounds" in reader.source_grid.coords
    plain = StateReader([source.drop_vars("lat_bnds", errors="ignore")], networks(), method=None)
    np.testing.assert_array_equal(reader.read([0]).values, plain.read([0]).values)


def test_formulas_of_forcings_take_the_same_points_as_they_are(celled):
    grid = grid_of(celled)
    target = build_grid(grid["latitude"].values, grid["longitude"].values)
    formulas = Formulas.of_weights(
        ["cosine_of_solar_zenith_angle"], make_weights(grid, grid, "nearest_s2d"), target
    )
    times = np.array(["2001-06-01T12"], dtype="datetime64[ns]")
    assert formulas.at(times).shape == (1, 1, 8, 16)


def test_forecasts_regrid_to_the_cells_of_the_grid_file_as_training_did(
    monkeypatch, networks, celled, tmp_path
):
    path = tmp_path / "grid.nc"
    grid_of(celled).to_netcdf(path)
    taken = {}
    monkeypatch.setattr(nodes, "settle_reduced_grids", lambda raw, policy: raw)
    monkeypatch.setattr(nodes, "StateReader", lambda *_, **options: taken.update(options))
    raw = type("Raw", (), {"datasets": [], "names": []})
    ingest = IngestParameters(variables=["temperature"])
    for target in ({"file": str(path)}, "8x16"):
        nodes._reader(raw, networks(), RegridParameters(target=target), ingest, SplitParameters())
        assert (taken["target"] is not None) == isinstance(target, dict)
    nodes._reader(raw, networks(), RegridParameters(target={"file": str(path)}), ingest, SplitParameters())
    np.testing.assert_array_equal(taken["target"]["latitude_bounds"], grid_of(celled)["latitude_bounds"])
